"""A state dict inside the file that somebody saved: wrappers are taken off, prefixes too."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

StateDict = dict[str, Tensor]

WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params",
    "ema_state_dict", "state_dict_ema", "model_ema", "ema", "student", "teacher", "backbone", "encoder",
)  # fmt: skip
"""Keys under which training scripts keep the weights, the trained ones before their running average."""

AVERAGES = re.compile(r"teacher|ema|average|target|momentum|encoder_k|(^|[._])key", re.IGNORECASE)
"""Words in the names of networks that follow another one, which was trained itself."""

_WRAPS = frozenset(
    ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
)
_COMPILED = "_orig_mod."
_DEPTH = 4
_TRIED = 8  # prefixes, those that occur most often first


def state_dicts(content: object) -> list[tuple[StateDict, str]]:
    """Every state dict in what a file holds, the one that is meant most likely first.

    Args:
        content: what the file holds.

    Returns:
        Names and tensors of each, other entries left out, and ``""`` or the keys that led to it (``"model"``,
        ``"checkpoint/state_dict"``).
    """
    first = unwrap(content)
    found = [] if first is None else [first]
    others = sorted(_all(content, "", _DEPTH), key=lambda part: bool(AVERAGES.search(part[1])))
    return found + [part for part in others if first is None or part[1] != first[1]]


def _all(content: object, path: str, depth: int) -> Iterator[tuple[StateDict, str]]:
    if not isinstance(content, Mapping) or not depth:
        return
    tensors = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if tensors:
        yield tensors, path
    for key, inner in content.items():
        if isinstance(key, str):
            yield from _all(inner, f"{path}/{key}".strip("/"), depth - 1)


def unwrap(content: object) -> tuple[StateDict, str] | None:
    """The state dict in what a file holds, and the path to it in words.

    Args:
        content: what the file holds.

    Returns:
        Names and tensors, other entries left out, and ``""`` or the keys that led to it (``"model"``,
        ``"checkpoint/state_dict"``); None where there is no state dict.
    """
    return _unwrap(content, "", _DEPTH)


def _unwrap(content: object, path: str, depth: int) -> tuple[StateDict, str] | None:
    if not isinstance(content, Mapping) or not depth:
        return None
    entries: Mapping[Any, Any] = content
    others = sorted((k for k in entries if k not in WRAPPERS), key=lambda k: bool(AVERAGES.search(str(k))))
    for key in (*WRAPPERS, *others):
        inner = entries.get(key)
        if isinstance(inner, Mapping) and _holds_tensors(inner, depth - 1) and _looks_wrapped(entries):
            return _unwrap(inner, f"{path}/{key}".strip("/"), depth - 1)
    tensors = {k: v for k, v in entries.items() if isinstance(k, str) and isinstance(v, Tensor)}
    return (tensors, path) if tensors else None


def _looks_wrapped(entries: Mapping[Any, Any]) -> bool:
    # A state dict has tensors at its top; one stray tensor (a step counter, a loss) does not make one.
    return sum(isinstance(value, Tensor) for value in entries.values()) <= 2


def _holds_tensors(content: Mapping[Any, Any], depth: int) -> bool:
    # An optimizer's state is a mapping too, but its keys are numbers.
    return any(
        isinstance(k, str)
        and (isinstance(v, Tensor) or (depth > 0 and isinstance(v, Mapping) and _holds_tensors(v, depth - 1)))
        for k, v in content.items()
    )


def without_compiled(state: StateDict) -> StateDict:
    """The names as they were before ``torch.compile`` put its own module in between."""
    if not any(_COMPILED in name for name in state):
        return state
    return {name.replace(_COMPILED, ""): tensor for name, tensor in state.items()}


def prefixes(names: Iterable[str], known: Collection[str]) -> tuple[str, ...]:
    """What may stand before the names of an architecture in a file, told by the names that end like one of them.

    Args:
        names: in the file.
        known: names of the architecture.

    Returns:
        The empty prefix and those that occur most often, that of a network which was trained before that of one
        which follows it.
    """
    names = set(names)
    if names.issuperset(known):
        return ("",)
    counts: Counter[str] = Counter()
    for name in names:
        places = [0, *(i + 1 for i, letter in enumerate(name) if letter == ".")]
        counts.update(name[:place] for place in places if name[place:] in known)
    often = [prefix for prefix, _ in counts.most_common(_TRIED)]
    return tuple(
        sorted({"", *often}, key=lambda p: (bool(AVERAGES.search(p)), p != "", -counts[p], len(p), p))
    )


def without_wrappers(state: StateDict, known: Collection[str]) -> StateDict:
    """The names without the modules that wrap a part of a network; the very same state where there are none."""
    bare = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if name not in known and not _WRAPS.isdisjoint(parts):
            name = ".".join(part for part in parts if part not in _WRAPS)
        bare[name] = tensor
    return state if bare.keys() == state.keys() else bare


def under(state: StateDict, prefix: str) -> StateDict:
    """The part of a state dict below a prefix, by its names there."""
    if not prefix:
        return state
    return {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
