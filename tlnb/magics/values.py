"""What an argument or option takes: how it is read, and how that is said in words."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tlnb.engine.core.arguments import shown
from tlnb.engine.training.stage import Key, read_key
from tlnb.errors import BadArguments, PlanError, did_you_mean


@dataclass(frozen=True)
class Kind:
    """A kind of value.

    Args:
        takes: what a user may write, in words: ``"a whole number from 1 up"``.
        read: makes the value from the user's text or variable; TypeError or ValueError where it cannot.
        sign: how the value is written in a usage line: ``"N"``.
        choices: the words that are taken, where there are only a few.
        source: name of the list that completes it, see ``completion.SOURCES``.
        files: whether a file can be named.
    """

    takes: str
    read: Callable[[Any], object]
    sign: str = "VALUE"
    choices: tuple[str, ...] = ()
    source: str = ""
    files: bool = False


def text(takes: str, sign: str = "VALUE", source: str = "", *, files: bool = False) -> Kind:
    """Any word, or a variable that holds one."""

    def read(value: Any) -> str:
        if files and isinstance(value, os.PathLike):
            value = os.fspath(value)
        if not isinstance(value, str):
            raise TypeError
        return value

    return Kind(takes, read, sign, source=source, files=files)


def whole(least: int = 0) -> Kind:
    """A whole number from ``least`` up."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or int(value) < least or (isinstance(value, float) and value % 1):
            raise ValueError
        return int(value)

    return Kind(f"a whole number from {least} up", read, "N")


def number(above: float = 0.0, below: float = math.inf) -> Kind:
    """A finite number above ``above`` and below ``below``, both excluded."""
    words = f"above {above:g}" if below == math.inf else f"between {above:g} and {below:g}"

    def read(value: Any) -> float:
        if isinstance(value, bool) or not above < float(value) < below:
            raise ValueError
        return float(value)

    return Kind(f"a number {words}", read, "X")


def percentage() -> Kind:
    """A percentage, read as a share: ``90`` is 0.9."""

    def read(value: Any) -> float:
        if isinstance(value, bool) or not 1 <= float(value) < 100:
            raise ValueError
        return float(value) / 100

    return Kind("a percentage from 1 to below 100, such as 90", read, "PERCENT")


def share() -> Kind:
    """A number from 0 to 1, both included."""

    def read(value: Any) -> float:
        if isinstance(value, bool) or not 0 <= float(value) <= 1:
            raise ValueError
        return float(value)

    return Kind("a number from 0 to 1", read, "A")


def choice(*words: str) -> Kind:
    """One of a few words, in any case."""

    def read(value: Any) -> str:
        if str(value).lower() not in words:
            raise ValueError
        return str(value).lower()

    takes = "one of " + ", ".join(words) if words[1:] else f"the word {words[0]}"
    return Kind(takes, read, "|".join(words), choices=words)


def word_or_object(takes: str, sign: str, *choices: str, source: str = "", files: bool = False) -> Kind:
    """A word, or a variable that holds any object; what it may be is the session's to say."""

    def read(value: Any) -> object:
        if value is None:
            raise TypeError
        return value

    return Kind(takes, read, sign, choices=choices, source=source, files=files)


_WORDS = {  # that a key may take
    "rate": ("auto",), "way back": ("on", "off", "strict"), "share": ("none", "auto"), "temperature": ("none",),
}  # fmt: skip


def stage_key(name: str, key: Key) -> Kind:
    """A setting of a stage; it is read by the engine, so a plan and a magic line take the same."""

    def read(value: Any) -> object:
        try:
            setting = read_key(name, value)
        except PlanError:
            raise ValueError from None
        return nothing if setting is None else setting

    nothing = "auto" if key.kind == "rate" else "none"  # the word for None
    return Kind(key.takes, read, choices=key.choices or _WORDS.get(key.kind, ()))


def read_value(kind: Kind, label: str, value: object) -> object:
    """The value in its own type.

    Raises:
        BadArguments: ``label`` takes something else; the line names what.
    """
    try:
        return kind.read(value)
    except Exception:  # a number that is none; or an object of the user's, which may raise anything
        # An object's own text may be many lines (a network's is); its kind says enough.
        hint = did_you_mean(value, kind.choices) if kind.choices else ""
        raise BadArguments(f"{label} takes {kind.takes}, not {shown(value)}{hint}") from None
