"""Plain values of a file: each is read as the type that it must have.

What comes out of a file is only trusted to be JSON; anything else is an error before something of the session has
changed.
"""

from __future__ import annotations

from typing import Any

from tlnb.engine.printable import printable

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


def optional(read: Any, value: object) -> Any:
    """None, or what ``read`` makes of it."""
    return None if value is None else read(value)
