"""A state dict inside the file that somebody saved: wrappers are taken off, prefixes too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

StateDict = dict[str, Tensor]

WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params",
    "ema_state_dict", "state_dict_ema", "model_ema", "ema", "student", "teacher", "backbone", "encoder",
)  # fmt: skip
"""Keys under which training scripts keep the weights, the trained ones before their running average."""

PREFIXES = ("module", "model", "backbone", "_orig_mod", "net", "network", "encoder", "base_model", "student",
            "teacher", "ema", "0")  # fmt: skip
"""Names of the modules in which training scripts wrap a network."""

_COMPILED = "_orig_mod."
_DEPTH = 4


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
    for key in (*WRAPPERS, *(k for k in entries if k not in WRAPPERS)):
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


def prefixes(names: Iterable[str]) -> tuple[str, ...]:
    """The usual prefixes that occur in these names, also several in a row; the empty one first."""
    names = list(names)
    found = [""]
    for prefix in found:
        for word in PREFIXES:
            longer = f"{prefix}{word}."
            if longer not in found and any(name.startswith(longer) for name in names):
                found.append(longer)
    return tuple(found)


def under(state: StateDict, prefix: str) -> StateDict:
    """The part of a state dict below a prefix, by its names there."""
    if not prefix:
        return state
    return {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
