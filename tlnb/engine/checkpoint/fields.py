"""The values of a checkpoint: each is read as the type that it must have, or the checkpoint is refused.

What comes out of a file is only trusted to be JSON; anything else is an error before something of the session has
changed.

A script is written from these values, so nothing of a file may get there that is not a number, a name from a list
or a word that is quoted. Code of the user's (a step) is marked as having come with a file.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from torch import nn

from tlnb.display.tables import printable
from tlnb.engine.data.request import HIDDEN, SourceRequest
from tlnb.engine.network.adapters import rank_of

Plain = dict[str, Any]
BROKEN = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError)
"""What the readers here raise where a value is not what it must be."""


def text(value: object) -> str:
    """A string, safe to show."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return printable(value)


def texts(value: object) -> tuple[str, ...]:
    """Several strings."""
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    return tuple(map(text, value))


def whole(value: object, least: int = 0, most: int | None = None) -> int:
    """A whole number from ``least`` up, and at most ``most``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{value!r} is no whole number from {least} up")
    if most is not None and value > most:
        raise ValueError(f"{value!r} is more than any session of tlnb has ({most:,})")
    return value


def wholes(value: object) -> tuple[int, ...]:
    """Several whole numbers from 0 up."""
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    return tuple(map(whole, value))


def number(value: object) -> float:
    """A number, also one that is not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return float(value)


def flag(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def adapter(value: object) -> str:
    """The words of an adapter: ``rank 8``, ``bias`` or ``norm``."""
    words = text(value)
    rank_of(words)
    return words


def adapters(value: object) -> dict[str, str]:
    """For the names of weights, the words of their adapters."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{value!r} is no table")
    return {text(name): adapter(words) for name, words in value.items()}


def optional(read: Any, value: object) -> Any:
    """None, or what ``read`` makes of it."""
    return None if value is None else read(value)


DATA_KEYS = frozenset(("source", "name", *(f.name for f in fields(SourceRequest)))) - set(HIDDEN)
LATER = frozenset(
    ("cache", "keep_best", "from_file", "kind", "adapters", "merged")
)  # that a file need not hold
_DEVICE = re.compile(r"[a-z]+(:\d{1,3})?")


def setup_from(plain: Plain) -> Plain:
    """The way back from ``StageResult.setup``, empty where a file holds none.

    Raises:
        ValueError, TypeError, KeyError: a value of another kind.
    """
    if not plain:
        return {}
    known = {name: READERS[name](value) for name, value in plain.items() if name in READERS}
    if "marks" in known and not set(READERS) - LATER <= set(known):
        raise ValueError("a stage whose setup is told in part")
    return known | {"from_file": True}


def layer_from(code: object) -> str:
    """Code that makes layers of torch from plain values, and does nothing else.

    Raises:
        ValueError: other code.
    """
    if not isinstance(code, str):
        raise TypeError(f"{code!r} is no text")
    try:
        _check_layer(ast.parse(code, mode="eval").body)
    except (SyntaxError, MemoryError, RecursionError):
        raise ValueError("what should make a head is no code") from None
    return code


def _check_layer(call: ast.expr) -> None:
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Neighbours":
        if call.keywords or not all(
            isinstance(part, ast.Constant) and type(part.value) is int for part in call.args
        ):
            raise ValueError("neighbours are made of numbers")
        return
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "AllLayers":
        if call.keywords:
            raise ValueError("a head of all layers is made of plain values")
        for part in call.args:
            ast.literal_eval(part)
        return
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
        raise ValueError("a head is made by a call of a layer")
    owner, kind = call.func.value, getattr(nn, call.func.attr, None)
    if not (isinstance(owner, ast.Name) and owner.id == "nn" and isinstance(kind, type)):
        raise ValueError("a head is made of layers of torch")
    if not issubclass(kind, nn.Module):
        raise ValueError("a head is made of layers of torch")
    for part in call.args:
        if kind is nn.Sequential:
            _check_layer(part)
        else:
            ast.literal_eval(part)
    for named in call.keywords:
        ast.literal_eval(named.value)


def _one_of(*words: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if value not in words:
            raise ValueError(f"{value!r} is none of {', '.join(words)}")
        return str(value)

    return read


def _device(value: object) -> str:
    if not isinstance(value, str) or not _DEVICE.fullmatch(value):
        raise ValueError(f"{value!r} is no device")
    return value


def _fields(value: object, **readers: Callable[[Any], Any]) -> Plain:
    if not isinstance(value, Mapping):
        raise TypeError(f"{value!r} is no table")
    return {name: read(value[name]) for name, read in readers.items()}


def _marks(value: object) -> Plain:
    pair: Callable[[Any], list[float | None]] = lambda v: [optional(number, v[0]), optional(number, v[1])]  # noqa: E731
    return _fields(value, body=pair, head=pair)


def _network(value: object) -> Plain:
    return _fields(value, name=text, weights=text, outputs=lambda v: optional(whole, v), layers_from=flag)


def _head(value: Any) -> Plain | None:
    if value is None:
        return None
    code = lambda v: [optional(layer_from, part) for part in v]  # noqa: E731
    known = _fields(value, task=text, seed=whole, drawn=flag, outputs=whole, code=code)
    return known | {"init": _one_of("zero", "he")(value.get("init", "he"))}


def _asked(value: Any) -> list[Any]:
    epochs, rate, patience = value
    return [whole(epochs, 1), optional(number, rate), optional(whole, patience)]


def _data(value: Any) -> list[Plain]:
    return [
        _fields(part, asked=_asked_data, print=text, seed=whole, until=lambda v: list(wholes(v)))
        for part in value
    ]


def _asked_data(value: Mapping[str, Any]) -> Plain:
    if set(value) - DATA_KEYS:
        raise ValueError("data is not named like that")
    for word in value.values():
        if not (word is None or isinstance(word, bool | int | float | str)):
            raise TypeError(f"{word!r} is no plain value")
    return dict(value)


def _step(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


READERS: dict[str, Callable[[Any], Any]] = {
    "marks": _marks,
    "blend": lambda v: optional(number, v),
    "whole": flag,
    "asked": _asked,
    "network": _network,
    "layers": lambda v: [list(texts(row)) for row in v],
    "head": _head,
    "batch": lambda v: whole(v, 1),
    "bn": _one_of("train", "frozen"),
    "kind": _one_of("train", "fit"),
    "adapters": adapters,
    "merged": flag,
    "cache": flag,
    "keep_best": flag,
    "micro": lambda v: optional(lambda n: whole(n, 1), v),
    "step": _step,
    "moments": flag,
    "unknown": lambda v: printable(str(v)),
    "bfloat16": flag,
    "augment": text,
    "epochs": whole,
    "cut": whole,
    "dtype": _one_of("float32", "float64", "float16", "bfloat16"),
    "channels_last": flag,
    "device": _device,
    "threads": lambda v: whole(v, 1),
    "data": _data,
    "from_file": flag,
}
