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
_LEFT_ALONE = ("training",)  # modes are put back by whoever sets them

PutBack = Callable[[], bool]
"""Puts one thing back as it was; True where it had changed."""


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
            (name, type(module).__name__, attribute, put_back)
            for name, module in model.named_modules()
            for attribute, put_back in (*_attributes(module), *(_buffers(module) if buffers else ()))
        ]

    def put_back(self) -> list[tuple[str, str]]:
        """Put all back; the qualified name of each module that had changed, and the attribute in words."""
        changed = []
        for name, kind, attribute, put_back in self._kept:
            if put_back():
                changed.append((name, f"{kind}.{attribute}" if attribute else kind))
        return changed


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """What happens inside leaves no trace in the attributes of the model's modules."""
    attributes = Attributes(model)
    try:
        yield
    finally:
        attributes.put_back()


def _attributes(module: nn.Module) -> Iterator[tuple[str, PutBack]]:
    own = vars(module)
    for name, value in list(own.items()):
        if name in ("_parameters", "_modules", "_buffers"):
            if isinstance(value, dict):  # those of a scripted module are views of what torch keeps itself
                yield from _bindings(value)
        elif name not in _LEFT_ALONE:
            yield name, _content(value, _DEPTH)
    yield from _bindings(own)


def _buffers(module: nn.Module) -> Iterator[tuple[str, PutBack]]:
    for name, buffer in module.named_buffers(recurse=False):
        yield name, _numbers(buffer)


def _bindings(own: dict[str, Any]) -> Iterator[tuple[str, PutBack]]:
    before = dict(own)

    def one(name: str) -> PutBack:
        def put_back() -> bool:
            if own.get(name) is before[name] and name in own:
                return False
            own[name] = before[name]
            return True

        return put_back

    def new_ones() -> bool:
        new = [name for name in own if name not in before]
        for name in new:
            del own[name]
        return bool(new)

    yield from ((name, one(name)) for name in before if name not in _LEFT_ALONE)
    yield "", new_ones


def _content(value: Any, depth: int) -> PutBack:
    """Puts back what stands in a value, not the value itself."""
    if isinstance(value, Tensor):
        return _numbers(value)
    if not depth or not isinstance(value, dict | list | set | deque):
        return _nothing
    inner = value.values() if isinstance(value, dict) else value
    parts = [_content(item, depth - 1) for item in inner]
    own = _shallow(value)
    return lambda: any([own(), *[part() for part in parts]])


def _shallow(value: Any) -> PutBack:
    if not isinstance(value, dict | list | set | deque):
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
