"""What can go wrong, as one tree.

TlnbError                 base: one line in a notebook, a full traceback in plain Python
├── ModelError            no such model, or a model that cannot be used as asked
├── WeightsError          weights that are missing, unsafe or do not fit
├── CheckpointError       a checkpoint that cannot be written, read or used
├── DataError             data that cannot be found, read or split
├── AddressError          a layer address that hits nothing
├── PlanError             a stage line that cannot be understood
├── ExportError           results that cannot be written in the form asked for
├── BadArguments          a magic line that cannot be understood
├── NotReady              a step that needs an earlier one (``%tl_train`` before ``%tl_data``)
└── TrainingError         training that cannot start, or that broke a promise
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST = 900  # characters of a message; of a longer one the middle is left out


class TlnbError(Exception):
    """Base of all errors that tlnb raises on purpose.

    The message is one line, and nothing in it moves a terminal: names from files may stand in it.
    """

    def __str__(self) -> str:
        text = super().__str__()
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST * 2 // 3]} … {text[-_LONGEST // 3 :]}"

    def _render_traceback_(self) -> list[str]:
        # IPython asks an exception for its own rendering; one line is enough for a wrong word.
        return [f"{type(self).__name__}: {self}"]


class Interrupted(KeyboardInterrupt):
    """A command that was interrupted: one line in a notebook, not the way through tlnb and torch."""

    def _render_traceback_(self) -> list[str]:
        return [f"KeyboardInterrupt: {self}"]


class ModelError(TlnbError):
    """No such model, or a model that cannot be used as asked."""


class WeightsError(TlnbError):
    """Weights that are missing, unsafe to load or of another shape."""


class CheckpointError(TlnbError):
    """A checkpoint that cannot be written, read or used."""


class DataError(TlnbError):
    """Data that cannot be found, read or split."""


class AddressError(TlnbError):
    """A layer address that hits nothing."""


class ExportError(TlnbError):
    """Results that cannot be written in the form asked for."""


class PlanError(TlnbError):
    """A stage line that cannot be understood."""


class BadArguments(TlnbError):
    """A magic line that cannot be understood."""


class NotReady(TlnbError):
    """A step that needs an earlier one first."""


class TrainingError(TlnbError):
    """Training that cannot start, or that broke a promise."""


def nearest(word: object, options: Iterable[str]) -> str | None:
    """The option most like ``word``, or None where nothing is near, or it is no word."""
    options = list(options)
    if not isinstance(word, str) or len(word) > _LONGEST:
        return None
    lowered = {option.lower(): option for option in options}
    match = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    return lowered[match[0]] if match else None


def did_you_mean(word: object, options: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the nearest option, or an empty string."""
    near = nearest(word, options)
    return f"; did you mean {near!r}?" if near else ""


def first_line(error: BaseException) -> str:
    """The first line of what another's error says; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
