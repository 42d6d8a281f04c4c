"""What a run of a model writes into its modules, found and taken back.

A forward may assign to ``self`` (a running mean, a counter, the attention map of the last batch). While a model is
traced such a value is a stand-in for a tensor, which must not stay; while it is only tried, it is one of a trial.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_DEPTH = 4  # containers inside containers that are looked into
_CONTAINERS = (dict, list, set, deque)
_LEFT_ALONE = ("training",)  # modes are put back by whoever sets them

PutBack = Callable[[], bool]
"""Puts one thing back as it was; True where it had changed."""
PutAllBack = Callable[[], list[str]]
"""Puts things of a module back as they were; the attributes that had changed, "" for one that was not there."""


class Attributes:
    """The attributes of every module of a model as they are now.

    Containers are put back item by item, and tensors that are neither weights nor buffers with their numbers, each
    in the very object that it is. Weights and ``training`` flags keep their content.

    Args:
        model: any module.
        buffers: put the numbers in buffers back too.
    """

    def __init__(self, model: nn.Module, *, buffers: bool = False):
        self._kept = [
            (name, type(module).__name__, put_back)
            for name, module in model.named_modules()
            for put_back in (*_attributes(module), *(_buffers(module) if buffers else ()))
        ]

    def put_back(self) -> list[tuple[str, str]]:
        """Put all back; the qualified name of each module that had changed, and the attribute in words."""
        return [
            (name, f"{kind}.{attribute}" if attribute else kind)
            for name, kind, put_back in self._kept
            for attribute in put_back()
        ]


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """What happens inside leaves no trace in the attributes of the model's modules."""
    attributes = Attributes(model)
    try:
        yield
    finally:
        attributes.put_back()


def _attributes(module: nn.Module) -> Iterator[PutAllBack]:
    own, contents, empty = vars(module), [], {}
    for name, value in own.items():
        if name in ("_parameters", "_modules", "_buffers"):
            if isinstance(value, dict):  # those of a scripted module are views of what torch keeps itself
                yield _bindings(value)
        elif (
            isinstance(value, _CONTAINERS) and not value
        ):  # as the dozen dicts of hooks of each module mostly are
            empty[name] = value
        elif name not in _LEFT_ALONE and isinstance(value, (Tensor, *_CONTAINERS)):
            contents.append((name, _content(value, _DEPTH)))

    def put_back() -> list[str]:
        filled = [name for name, container in empty.items() if container]
        for name in filled:
            empty[name].clear()
        return filled + [name for name, content in contents if content()]

    yield put_back
    yield _bindings(own)


def _buffers(module: nn.Module) -> Iterator[PutAllBack]:
    contents = [(name, _numbers(buffer)) for name, buffer in module.named_buffers(recurse=False)]
    yield lambda: [name for name, content in contents if content()]


def _bindings(own: dict[str, Any]) -> PutAllBack:
    before = dict(own)

    def put_back() -> list[str]:
        changed = [
            name
            for name, value in before.items()
            if (own.get(name) is not value or name not in own) and name not in _LEFT_ALONE
        ]
        for name in changed:
            own[name] = before[name]
        new = [name for name in own if name not in before]
        for name in new:
            del own[name]
        return changed + [""] * bool(new)

    return put_back


def _content(value: Any, depth: int) -> PutBack:
    """Puts back what stands in a value, not the value itself."""
    if isinstance(value, Tensor):
        return _numbers(value)
    if not depth or not isinstance(value, _CONTAINERS):
        return _nothing
    inner = value.values() if isinstance(value, dict) else value
    parts = [_content(item, depth - 1) for item in inner]
    own = _shallow(value)
    return lambda: any([own(), *[part() for part in parts]])


def _shallow(value: Any) -> PutBack:
    if not isinstance(value, _CONTAINERS):
        return _nothing
    before = list(value.items()) if isinstance(value, dict) else list(value)

    def put_back() -> bool:
        now = list(value.items()) if isinstance(value, dict) else list(value)
        if _same_objects(now, before):
            return False
        value.clear()
        (value.extend if isinstance(value, list | deque) else value.update)(before)
        return True

    return put_back


def _same_objects(now: list[Any], before: list[Any]) -> bool:
    if len(now) != len(before):
        return False
    pairs = zip(now, before, strict=True)
    return all(
        a is b or (type(a) is tuple and type(b) is tuple and len(a) == len(b) == 2 and a[0] == b[0] and a[1] is b[1])
        for a, b in pairs
    )  # fmt: skip


def _numbers(tensor: Tensor) -> PutBack:
    if (
        isinstance(tensor, nn.Parameter)
        or tensor.is_meta
        or tensor.is_inference()
        or tensor.layout != torch.strided
    ):
        return _nothing
    saved, version = tensor.detach().clone(), tensor._version

    def put_back() -> bool:
        if tensor._version == version:
            return False
        with torch.no_grad():
            tensor.copy_(saved)
        return True

    return put_back


def _nothing() -> bool:
    return False
