"""Everything that a module computes with, besides its weights, as a text: settings, containers, code, globals.

Two texts that are equal stand for the same computation. What cannot be written as a text (an object of somebody
else's, a generator of random numbers) is named, and the description says that it is not whole.
"""

from __future__ import annotations

import enum
import hashlib
import types
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tlnb.engine.core.fingerprint import tensors_digest

_PLAIN = (
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    type(None),
    enum.Enum,
    torch.dtype,
    torch.device,
    range,
    slice,
)
_OF_TORCH = frozenset(
    (
        "training",
        "_parameters",
        "_buffers",
        "_modules",
        "_non_persistent_buffers_set",
        "_is_full_backward_hook",
    )
)
_KNOWN = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "math",
    "builtins",
    "functools",
    "typing",
    "collections",
    "operator",
)
_SILENT = (
    "lock",
    "RLock",
    "Logger",
    "Condition",
    "Event",
    "Semaphore",
    "module",
)  # types that compute nothing
_ENTRIES = ("forward", "__call__", "__getattr__")
_DEPTH = 8


@dataclass
class Description:
    """A text, and the types of what counts but cannot be written down."""

    parts: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """SHA-256 of all parts, in hex."""
        return hashlib.sha256("\n".join(self.parts).encode("utf-8", "surrogatepass")).hexdigest()


def described(module: nn.Module, read: frozenset[str] | None = None) -> Description:
    """What one module computes with: its attributes and its code; its weights, buffers and parts are left out.

    Args:
        module: any.
        read: names of the attributes that somebody's code reads, see :func:`names_read`; None for all.
    """
    writer = _Writer(read)
    writer.module(module)
    return writer.found


def names_read(model: nn.Module) -> frozenset[str] | None:
    """Every name that the forward of a module of this model leads to; None where code may read any attribute."""
    names: set[str] = set()
    for cls in {type(module) for module in model.modules()}:
        for function in (f for _, f in _reached(cls, _ENTRIES) if isinstance(f, types.FunctionType)):
            names.update(n for code in _codes(function.__code__) for n in code.co_names)
    return None if names & {"getattr", "vars", "__dict__", "eval", "exec"} else frozenset(names)


class _Writer:
    def __init__(self, read: frozenset[str] | None) -> None:
        self.found, self._read = Description(), read
        self._seen: set[int] = set()

    def log(self, text: str) -> None:
        self.found.parts.append(text)

    def module(self, module: nn.Module) -> None:
        cls = type(module)
        self.log(f"module {cls.__module__}.{cls.__qualname__}")
        self._seen.add(id(module))
        for name, value in sorted(vars(module).items()):
            wanted = self._read is None or name in self._read or name.startswith("_") or _is_known(cls)
            if name not in _OF_TORCH and wanted:
                self.log(name)
                self.value(value, _DEPTH)
        self.code_of(cls, _ENTRIES, _DEPTH)

    def code_of(self, cls: type, entries: tuple[str, ...], depth: int) -> None:
        """The methods of a class that these lead to, and what stands in the class itself."""
        for name, value in _reached(cls, entries):
            self.log(f"{cls.__qualname__}.{name}")
            if isinstance(value, types.FunctionType):
                self.function(value, depth - 1)
            else:
                self.value(value, depth - 1)

    def function(self, function: types.FunctionType, depth: int) -> None:
        if id(function) in self._seen:
            return
        self._seen.add(id(function))
        if _is_known(function):
            self.log(f"{function.__module__}.{function.__qualname__}")
            return
        names: set[str] = set()
        for code in _codes(function.__code__):
            plain = sorted(repr(c) for c in code.co_consts if isinstance(c, bool | int | float | str | tuple))
            self.log(f"{code.co_code.hex()}{code.co_names}{plain}")
            names.update(code.co_names)
        self.value(function.__defaults__, depth - 1)
        self.value(function.__kwdefaults__, depth - 1)
        for cell in function.__closure__ or ():
            try:
                self.value(cell.cell_contents, depth - 1)
            except ValueError:  # not set yet
                self.log("empty")
        for name in sorted(names & function.__globals__.keys()):
            self.log(name)
            self.value(function.__globals__[name], depth - 1)

    def value(self, value: Any, depth: int) -> None:
        if isinstance(value, _PLAIN):
            self.log(f"{type(value).__name__} {value!r}")
        elif isinstance(value, Tensor):
            self.tensor(value)
        elif isinstance(value, np.ndarray):
            self.log(f"{value.dtype}{value.shape}{hashlib.sha256(value.tobytes()).hexdigest()}")
        elif isinstance(value, types.ModuleType) or type(value).__name__ in _SILENT:
            self.log(f"{type(value).__name__} {getattr(value, '__name__', '')}")
        elif id(value) in self._seen:
            self.log("seen")
        elif depth <= 0:
            self.unknown(value)
        else:
            self.compound(value, depth)

    def compound(self, value: Any, depth: int) -> None:
        if isinstance(value, types.FunctionType):
            self.function(value, depth)
        elif isinstance(value, types.MethodType):
            self.value(value.__func__, depth - 1)
            self.value(value.__self__, depth - 1)
        elif isinstance(value, partial):
            for part in (value.func, value.args, value.keywords):
                self.value(part, depth - 1)
        elif isinstance(value, type):
            self.log(f"{value.__module__}.{value.__qualname__}")
            self.code_of(value, ("forward", "apply", "__call__", "__init__"), depth)
        elif isinstance(value, Mapping):
            self._seen.add(id(value))
            for key, item in value.items():
                self.value(key, depth - 1)
                self.value(item, depth - 1)
        elif isinstance(value, list | tuple | deque):
            self._seen.add(id(value))
            self.log(f"{type(value).__name__} {len(value)}")
            for item in value:
                self.value(item, depth - 1)
        elif isinstance(value, set | frozenset):
            self.log(repr(sorted(map(repr, value))))
        elif isinstance(value, nn.Module):
            self.log(tensors_digest([*value.named_parameters(), *value.named_buffers()]))
            for part in value.modules():
                self.module(part)
        elif isinstance(value, weakref.ref):  # as recurrent layers hold their weights once more
            self.log("reference")
            self.value(value(), depth - 1)
        elif callable(value) and hasattr(value, "__module__") and _is_known(value):
            self.log(f"{value.__module__}.{getattr(value, '__qualname__', repr(value))}")
        else:
            self.object(value, depth)

    def object(self, value: Any, depth: int) -> None:
        cls = type(value)
        if _is_known(cls) or not hasattr(value, "__dict__") or hasattr(cls, "__slots__"):
            self.unknown(value)
            return
        self._seen.add(id(value))
        self.log(f"object {cls.__module__}.{cls.__qualname__}")
        self.value(vars(value), depth - 1)
        self.code_of(cls, tuple(_attributes(cls)), depth)

    def tensor(self, value: Tensor) -> None:
        if value.is_meta or value.is_nested or value.layout != torch.strided:
            self.unknown(value)
        else:
            self.log(tensors_digest([("", value)]))

    def unknown(self, value: Any) -> None:
        """Something that a text cannot stand for."""
        self.found.unknown.append(type(value).__qualname__)
        self.log(f"unknown {type(value).__module__}.{type(value).__qualname__}")


def _is_known(thing: Any) -> bool:
    author = (getattr(thing, "__module__", None) or "builtins").partition(".")[0]
    return author.lstrip("_") in _KNOWN


def _attributes(cls: type) -> dict[str, Any]:
    """What stands in a class and in those of its ancestors that are not known, the nearest last."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if not _is_known(base):
            found |= {
                n: v
                for n, v in vars(base).items()
                if n not in ("__dict__", "__weakref__", "__doc__", "__module__")
            }
    return found


def _reached(cls: type, entries: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """The functions of a class that these lead to by name, and what else stands in the class under such a name."""
    own = {} if _is_known(cls) else _attributes(cls)
    ahead, done = [name for name in entries if name in own], set(entries)
    while ahead:
        name = ahead.pop()
        functions = list(_functions_in(own[name]))
        if not functions:
            yield name, own[name]
        for function in functions:
            yield name, function
            called = {n for code in _codes(function.__code__) for n in code.co_names}
            new = sorted((called & own.keys()) - done)
            done.update(new)
            ahead += new


def _functions_in(value: Any) -> Iterator[types.FunctionType]:
    if isinstance(value, types.FunctionType):
        yield value
    elif isinstance(value, staticmethod | classmethod):
        yield from _functions_in(value.__func__)
    elif isinstance(value, property):
        for function in (value.fget, value.fset):
            yield from _functions_in(function)
    elif hasattr(value, "__wrapped__"):
        yield from _functions_in(value.__wrapped__)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)
