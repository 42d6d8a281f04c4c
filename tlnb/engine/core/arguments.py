"""Arguments that users give from Python or by a magic: a wrong one is one line that says what is taken."""

from __future__ import annotations

import os
from pathlib import Path

from tlnb.display.tables import printable
from tlnb.errors import BadArguments, TlnbError


MOST = (1 << 31) - 1
"""The largest whole number that counts anything."""
LONG = 60  # characters of a value that an error shows


def path_of(value: object, error: type[TlnbError] = BadArguments) -> Path:
    """A path as a user writes it, with ``~`` for a home folder.

    Raises:
        TlnbError: of the class ``error``: it is no path, or none that this system can have.
    """
    if not isinstance(value, str | os.PathLike):
        raise error(f"a path is text, such as runs/birds, not {type(value).__name__}")
    text = os.fspath(value)
    if "\0" in text:
        raise error("a path cannot hold a zero byte")
    try:
        path = Path(text).expanduser()
        path.exists()
    except (OSError, RuntimeError) as trouble:  # a name that is too long; a user who is not there
        short = text if len(text) < LONG else f"{text[:LONG]}…"
        raise error(f"{printable(short)!r} is no path here: {_reason(trouble)}") from None
    return path


def _reason(trouble: OSError | RuntimeError) -> str:
    return (trouble.strerror if isinstance(trouble, OSError) else None) or str(trouble)


def shown(value: object) -> str:
    """A value as a line about it names it: short, and only its kind where it is no word and no number."""
    if not isinstance(value, str | int | float | complex | type(None)):
        return f"a {type(value).__name__}"
    try:
        text = repr(value)
    except ValueError:  # more digits than Python writes
        return "a number of thousands of digits"
    return text if len(text) <= LONG else f"{text[:LONG]}… ({len(text):,} characters)"


def whole_number(value: object, name: str, least: int = 1, error: type[TlnbError] = BadArguments) -> None:
    """See that an argument is a whole number.

    Raises:
        TlnbError: of the class ``error``: it is not, or it is below ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MOST:
        raise error(f"{name} takes a whole number from {least} up, not {shown(value)}")


def number_between(
    value: object, name: str, low: float, high: float, error: type[TlnbError] = BadArguments
) -> None:
    """See that an argument is a number strictly between two others.

    Raises:
        TlnbError: of the class ``error``: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value < high:
        raise error(f"{name} takes a number between {low:g} and {high:g}, not {shown(value)}")
