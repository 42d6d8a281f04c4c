"""A test part that cannot be read by accident, and that remembers how often it was read on purpose."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tlnb.errors import NotReady

_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


@dataclass(frozen=True)
class Look:
    """One time that the test part was measured.

    Attributes:
        score: name of the number that was seen.
        value: the number.
        network: a digest of the weights that were measured.
    """

    score: str
    value: float
    network: str


class Sealed:
    """Test samples under seal: everything but their number raises, except inside ``opened``.

    Whatever the samples are, they are reached by no other way: training, advice, results and exports that walk
    over a session's data meet an error here, not a leak.

    Args:
        part: the samples; a collection of any kind.
        digest: of their places or names, taken when they were set aside, by which a checkpoint knows them again
            without reading them.
        looks: earlier ones, such as those that a checkpoint holds.
    """

    __slots__ = ("_count", "_looks", "_open", "_part", "digest")

    def __init__(self, part: Any, digest: str = "", looks: tuple[Look, ...] = ()):
        self._part, self.digest, self._looks = part, digest, looks
        self._count, self._open = len(part), False

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        looked = f"looked at {times(len(self._looks))}" if self._looks else "never looked at"
        return f"{self._count:,} test samples under seal, {looked}"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # a protocol that Python or a notebook asks for, not a row
            raise AttributeError(name)
        raise _refused(name)

    def __iter__(self) -> Iterator[Any]:
        raise _refused("its rows")

    def __getitem__(self, index: object) -> Any:
        raise _refused("a row")

    def __copy__(self) -> Sealed:
        return self  # a copy would count its looks apart

    def __deepcopy__(self, memo: object) -> Sealed:
        return self

    def __reduce__(self) -> Any:
        raise _refused("a pickle of it")

    @property
    def looks(self) -> tuple[Look, ...]:
        """Each time that it was measured, in order; there is no way to take one back."""
        return self._looks

    @contextmanager
    def opened(self) -> Iterator[Opened]:
        """The samples, for one measurement; what is noted there is a look, whatever becomes of it afterwards.

        Raises:
            NotReady: it is open already.
        """
        if self._open:
            raise NotReady("the test part is being measured already")
        self._open = True
        opened = Opened(self)
        try:
            yield opened
        finally:
            self._open = False
            opened.close()

    def continued(self, looks: tuple[Look, ...]) -> None:
        """Take over looks that were counted elsewhere, such as in a checkpoint of the same test part.

        Those counted here stay: the longer list begins with the shorter one, or both are kept.
        """
        mine = self._looks
        if looks[: len(mine)] == mine:
            self._looks = looks
        elif mine[: len(looks)] != looks:
            self._looks = (*looks, *mine)


def _refused(what: str) -> NotReady:
    return NotReady(
        f"the test part is under seal ({what} was asked for): %tl_test is the one command that reads it"
    )


class Opened:
    """The test part while it is measured."""

    def __init__(self, sealed: Sealed):
        self._sealed: Sealed | None = sealed

    @property
    def samples(self) -> Any:
        """The collection itself.

        Raises:
            NotReady: the seal is closed again.
        """
        if self._sealed is None:
            raise NotReady("the test part is under seal again")
        return object.__getattribute__(self._sealed, "_part")

    def note(self, look: Look) -> int:
        """Count a look, before its number is shown to anybody; which one it is, from 1."""
        if self._sealed is None:
            raise NotReady("the test part is under seal again")
        self._sealed._looks = (*self._sealed._looks, look)
        return len(self._sealed._looks)

    def close(self) -> None:
        """No more from here."""
        self._sealed = None


# -------------------------------------------------------------------- words and files


def times(count: int) -> str:
    """``once``, ``twice`` or ``N times``."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def warning(looks: tuple[Look, ...]) -> str | None:
    """What to say with the newest look: None with the first, which is the one that counts.

    A number that was chosen after looks at the test part is too good: by how much, nobody knows.
    """
    if len(looks) < 2:
        return None
    place = len(looks) - 1
    word = _ORDINALS[place] if place < len(_ORDINALS) else f"{len(looks)}th"
    first = looks[0]
    same = all(look.network == first.network for look in looks)
    what = "of the same weights" if same else "and what was changed in between may have been chosen by it"
    return (
        f"this is the {word} look at the test part, {what}; the first gave "
        f"{first.score} {first.value:.4g}, and that is the number to report"
    )


def seen(looks: tuple[Look, ...] | None) -> list[str]:
    """What a card or a script says of the test part; nothing where there is none."""
    if looks is None:
        return []
    if not looks:
        return ["The test part was never looked at."]
    first = looks[0]
    lines = [
        f"The test part was looked at {times(len(looks))}; the first gave {first.score} {first.value:.4g}."
    ]
    told = warning(looks)
    return lines if told is None else [*lines, f"Of the last look: {told}."]
