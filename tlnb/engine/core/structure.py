"""Dataclasses as plain values (JSON), and back: reader and writer are both derived from the fields and their types.

A field's type says what may stand there. ``int`` is a whole number from 0 up, ``float`` any number, ``str`` is made
printable; ``Annotated[..., read]`` is read by a function of its own, such as those below. A field with a default may be
missing. Fields marked :data:`ASIDE` stand elsewhere. What a file says is trusted to be JSON and nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import MISSING, fields, is_dataclass
from functools import cache, partial
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from tlnb.display.tables import printable
from tlnb.engine.core.arguments import shown
from tlnb.errors import TlnbError, did_you_mean

if TYPE_CHECKING:  # the keys of a stage are described before anything needs torch
    import torch

T = TypeVar("T")
Reader = Callable[[Any], Any]
Plain = dict[str, Any]
ASIDE = {"aside": True}
"""Metadata of a field that is no part of the plain values: a tensor, or what is known in memory alone."""
_LARGEST = (1 << 63) - 1
_DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8")


class Unfit(ValueError):
    """A plain value that is not what it must be: one line, with the path to it.

    Args:
        problem: what is wrong, behind the name of the place.
        path: from the outermost value, such as ``history[0].rate``.
    """

    def __init__(self, problem: str, path: str = ""):
        super().__init__(problem)
        self.problem, self.path = problem, path

    def below(self, step: str) -> Unfit:
        """The same, seen from one value farther out."""
        return Unfit(self.problem, step + self.path)

    def __str__(self) -> str:
        return f"{self.path.removeprefix('.')} {self.problem}".strip()


def structure(kind: type[T], value: object) -> T:
    """A dataclass, or another type, from plain values.

    Args:
        kind: dataclasses are checked further by a method ``check`` of theirs, where they have one.
        value: from a file, so anything may stand in it.

    Raises:
        Unfit: something is missing, unknown, of another type or out of range.
    """
    wanted: Any = kind
    made: T = reader_of(wanted)(value)
    return made


def plain(value: Any) -> Any:
    """Plain values from dataclasses, mappings and sequences; ``structure`` is the way back."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if is_dataclass(value):
        kind: Any = type(value)
        return {name: plain(getattr(value, name)) for name in _table(kind)}
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    import torch

    return str(value) if isinstance(value, torch.dtype) else value


# ---------------------------------------------------------------- readers of one value


def whole(least: int = 0, most: int = _LARGEST) -> Reader:
    """Reads a whole number from ``least`` to ``most``."""
    span = f"from {least} up" if most == _LARGEST else f"from {least} to {most:,}"

    def read(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise Unfit(f"is {shown(value)}, not a whole number {span}")
        return value

    return read


def number(least: float, below: float) -> Reader:
    """Reads a number from ``least`` to below ``below``."""

    def read(value: Any) -> float:
        found = _number(value)
        if not least <= found < below:
            raise Unfit(f"is {shown(value)}, not a number from {least:g} to below {below:g}")
        return found

    return read


def one_of(*words: str) -> Reader:
    """Reads one of these words."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            raise Unfit(f"is {shown(value)}, not one of {', '.join(map(repr, words))}")
        return value

    return read


def _number(value: Any) -> float:
    if type(value) is not float and type(value) is not int:
        raise Unfit(f"is {shown(value)}, not a number")
    try:
        return float(value)
    except OverflowError:
        raise Unfit(f"is {shown(value)}, which is too large") from None


def _exact(value: Any) -> str:
    if not isinstance(value, str):
        raise Unfit(f"is {shown(value)}, not a text")
    return value


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise Unfit(f"is {shown(value)}, not true or false")
    return value


def _dtype(value: Any) -> torch.dtype:
    import torch

    name = one_of(*(f"torch.{name}" for name in _DTYPES))(value)
    found: torch.dtype = getattr(torch, name.removeprefix("torch."))
    return found


Exact = Annotated[str, _exact]
"""A text to the letter: by which something is found, or which is shown elsewhere."""
Positive = Annotated[int, whole(1)]
"""A whole number from 1 up."""


# ---------------------------------------------------------------- readers by type


@cache
def reader_of(kind: Any) -> Reader:
    """What reads a value of this type."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        read: Reader = args[1]
        return read
    if origin in (Union, UnionType):
        return _either(args)
    if origin in (tuple, list):
        same = origin is list or args[1:] == (...,)
        return partial(_sequence, origin, reader_of(args[0]) if same else tuple(map(reader_of, args)))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return partial(_mapping, args[0] is int, reader_of(args[1]))
    if is_dataclass(kind):
        return partial(_dataclass, kind)
    simple: dict[Any, Reader] = {
        int: whole(), float: _number, bool: _flag, Any: lambda value: value,
        str: lambda value: printable(_exact(value)),
    }  # fmt: skip
    if kind in simple:
        return simple[kind]
    import torch

    return {torch.dtype: _dtype}[kind]


def _either(kinds: tuple[Any, ...]) -> Reader:
    """One of several types: the first that fits; of dataclasses, the one with the most names in common."""
    tables: list[Any] = [kind for kind in kinds if is_dataclass(kind)]
    readers = [reader_of(kind) for kind in kinds if kind is not NoneType]

    def read(value: Any) -> Any:
        if value is None and NoneType in kinds:
            return None
        if len(tables) > 1 and isinstance(value, Mapping):
            return _dataclass(max(tables, key=lambda kind: len(_table(kind).keys() & value.keys())), value)
        for one in readers[:-1]:
            with suppress(Unfit):
                return one(value)
        return readers[-1](value)

    return read


def _sequence(kind: Callable[[Any], Any], read: Reader | tuple[Reader, ...], value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise Unfit(f"is {shown(value)}, not a list")
    if isinstance(read, tuple) and len(read) != len(value):
        raise Unfit(f"has {len(value)} values, not {len(read)}")
    found: list[Any] = []
    try:
        for place, part in enumerate(value):
            found.append((read[place] if isinstance(read, tuple) else read)(part))
    except Unfit as error:
        raise error.below(f"[{len(found)}]") from None
    return kind(found)


def _mapping(numbered: bool, read: Reader, value: Any) -> Plain:
    if not isinstance(value, Mapping):
        raise Unfit(f"is {shown(value)}, not a table")
    found: dict[Any, Any] = {}
    for name, part in value.items():
        if numbered and not (name.isdecimal() and len(name) < 10):
            raise Unfit(f"has {shown(name)} where a whole number names a value")
        try:
            found[int(name) if numbered else printable(name)] = read(part)
        except Unfit as error:
            raise error.below(f"[{shown(name)}]") from None
    return found


@cache
def _table(kind: Any) -> dict[str, tuple[Reader, bool]]:
    """For each field that stands in plain values: what reads it, and whether it must be there."""
    hints = get_type_hints(kind, include_extras=True)
    return {
        f.name: (reader_of(hints[f.name]), f.default is MISSING and f.default_factory is MISSING)
        for f in fields(kind) if not f.metadata.get("aside")
    }  # fmt: skip


def _dataclass(kind: Any, value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise Unfit(f"is {shown(value)}, not a table")
    table, found = _table(kind), {}
    for name in value:
        if name not in table:
            raise Unfit(
                f"is not known to this version{did_you_mean(name, table)}", f".{printable(name)[:60]}"
            )
    for name, (read, needed) in table.items():
        if name in value:
            try:
                found[name] = read(value[name])
            except Unfit as error:
                raise error.below(f".{name}") from None
        elif needed:
            raise Unfit("is missing", f".{name}")
    try:
        made = kind(**found)
        check: Callable[[], None] = getattr(made, "check", lambda: None)
        check()
    except Unfit:
        raise
    except (ValueError, TlnbError) as error:
        raise Unfit(f"does not hold together: {error}") from None
    return made
