"""Arguments that users give from Python or by a magic: a wrong one is one line that says what is taken."""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

from tlnb.display.tables import printable
from tlnb.errors import BadArguments, TlnbError

MOST = (1 << 31) - 1
"""The largest whole number that counts anything."""
LONG = 60  # characters of a value that an error shows


Method = TypeVar("Method", bound=Callable[..., Any])
_KINDS: dict[type, tuple[type, str]] = {
    bool: (bool, "True or False"), str: (str, "a word"), int: (Integral, "a whole number"), float: (Real, "a number"),
}  # fmt: skip


def takes(**kinds: type) -> Callable[[Method], Method]:
    """A method whose arguments of these names are words (``str``), whole numbers (``int``), numbers or flags.

    What is None by default may be None. Any other value is refused before the method begins.
    """

    def checked(method: Method) -> Method:
        signature = inspect.signature(method)

        @functools.wraps(method)
        def call(*args: Any, **keys: Any) -> Any:
            for name, value in signature.bind(*args, **keys).arguments.items():
                if name not in kinds or (value is None and signature.parameters[name].default is None):
                    continue
                kind, words = _KINDS[kinds[name]]
                whole = kind is not Integral or (isinstance(value, Integral) and abs(int(value)) <= MOST)
                if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool) or not whole:
                    raise BadArguments(f"{name} takes {words}, not {shown(value)}")
            return method(*args, **keys)

        return call  # type: ignore[return-value]

    return checked


@contextmanager
def others_code(value: object, error: type[TlnbError]) -> Iterator[None]:
    """Inside, an object of the user's own is looked at: what it raises is one line.

    Raises:
        TlnbError: of the class ``error``: the object raised something.
    """
    try:
        yield
    except TlnbError:
        raise
    except Exception as trouble:
        raise error(f"{one_line(trouble)}, raised by the {type(value).__name__} itself") from trouble


def one_line(trouble: BaseException) -> str:
    """An exception as one line: its kind, and the first line of what it says."""
    try:
        said = str(trouble).strip().splitlines()
    except Exception:
        said = []
    return f"{type(trouble).__name__}: {printable(said[0])[:160]}" if said else type(trouble).__name__


def path_of(value: object, error: type[TlnbError] = BadArguments) -> Path:
    """A path as a user writes it, with ``~`` for a home folder.

    Raises:
        TlnbError: of the class ``error``: it is no path, or none that this system can have.
    """
    if not isinstance(value, str | os.PathLike):
        raise error(f"a path is text, such as runs/birds, not {type(value).__name__}")
    text = os.fspath(value)
    if not text.strip():
        raise error("a path is needed, such as runs/birds; this one is empty")
    if "\0" in text:
        raise error("a path cannot hold a zero byte")
    try:
        path = Path(text).expanduser()
        path.exists()
    except (OSError, RuntimeError) as trouble:  # a name that is too long; a user who is not there
        short = text if len(text) < LONG else f"{text[:LONG]}…"
        raise error(f"{printable(short)!r} is no path here: {_reason(trouble)}") from None
    return path


def file_to_write(value: object, example: str, error: type[TlnbError] = BadArguments) -> Path:
    """The path of a file that will be written; what names a folder, such as ``..`` or ``~``, is refused.

    Args:
        value: as the user writes it.
        example: a command that is right.
        error: class of what is raised.

    Raises:
        TlnbError: of the class ``error``: no path, or one without a name.
    """
    path, text = path_of(value, error), str(os.fspath(value))  # type: ignore[call-overload]
    last = re.split(r"[/\\]" if os.name == "nt" else "/", text)[-1]
    if not path.name or last in ("", ".", "..") or (last == text and text.startswith("~")):
        raise error(f"{printable(text)!r} names a folder; a file needs a name, such as: {example}")
    return in_letters(path, error)


def in_letters(path: Path, error: type[TlnbError] = BadArguments) -> Path:
    """A path whose last part can stand in a text, as it will in what is written beside a file.

    Raises:
        TlnbError: of the class ``error``: it has half a letter (a lone surrogate), or bytes that are none.
    """
    try:
        path.name.encode()
        os.fsencode(path)
    except UnicodeEncodeError:
        raise error(f"the name {path.name!a} has what is no letter; take another one") from None
    return path


def _reason(trouble: OSError | RuntimeError) -> str:
    return (trouble.strerror if isinstance(trouble, OSError) else None) or str(trouble)


def shown(value: object) -> str:
    """A value as a line about it names it: short, and only its kind where it is no word and no number."""
    if not isinstance(value, str | int | float | complex | type(None)):
        return f"a {type(value).__name__}"
    try:
        text = repr(value)
    except Exception:  # more digits than Python writes, or a class of its own with a fault
        return f"a {type(value).__name__} that cannot be written"
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
