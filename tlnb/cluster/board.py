"""Where the notebook and the processes that train leave word for each other: what to train, how far it is, and where.

An actor on the machine of the notebook. It keeps the last state that the first process reported, so that a new set of
processes goes on from there; and it has them kept together, so that all of them end with it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

GO, PAUSE, STOP = "go", "pause", "stop"


@dataclass(frozen=True)
class News:
    """What happened since the notebook asked last.

    Attributes:
        groups: how often processes have come together.
        done: batches of the epoch under way.
        reports: how many states were reported for this order.
        state: the last of them, where it is new; else None.
        ended: what the first process told at the end of the epoch; None while it runs.
        failed: an error in a process, as bytes; None for none.
        left: why no process is there any more, and none will come, in words; None while they are kept together.
    """

    groups: int
    done: int
    reports: int
    state: bytes | None
    ended: bytes | None
    failed: bytes | None
    left: str | None


class Board:
    """Holds one order at a time, of one stage at a time."""

    def __init__(self) -> None:
        self._new()

    def _new(self) -> None:
        self.number, self.groups, self.over = 0, 0, False
        self.start: bytes = b""
        self.left: str | None = None
        self._clear()

    def _clear(self) -> None:
        self.done, self.reports, self.wish = 0, 0, GO
        self.ended: bytes | None = None
        self.failed: bytes | None = None

    # ---------------------------------------------------------------- the notebook

    def keep(self, keep_up: Callable[..., None], group: Any, config: dict[str, Any]) -> None:
        """Start the processes of a stage, and keep them together; see :func:`tlnb.cluster.keeper.keep_up`.

        Those of an earlier stage are gone.
        """
        self._new()

        def run() -> None:
            try:
                keep_up(group, config, lambda: self.over)
                self.left = "they ended"
            except BaseException as error:
                lines = [line.strip() for line in str(error).splitlines() if line.strip()]
                self.left = (lines[-1] if lines else type(error).__name__)[:300]

        # In a thread, as the notebook and the processes ask meanwhile.
        threading.Thread(target=run, name="tlnb-keeper", daemon=True).start()

    def order(self, number: int, start: bytes) -> None:
        """Train an epoch from this state."""
        self._clear()
        self.number, self.start = number, start

    def end(self) -> None:
        """No epoch follows."""
        self.over = True

    def gone(self) -> str | None:
        """Why no process is there any more, in words; None while they are kept together."""
        return self.left

    def news(self, reports: int, wish: str) -> News:
        """What happened, for one who knows so many reports and wishes so."""
        self.wish = wish
        state = self.start if self.reports > reports else None
        return News(self.groups, self.done, self.reports, state, self.ended, self.failed, self.left)

    # ---------------------------------------------------------------- the processes

    def joined(self) -> None:
        """Processes have come together."""
        self.groups, self.done = self.groups + 1, 0

    def next(self, seen: int) -> tuple[int, bytes | None] | None:
        """The order after that one and the state to begin from; no state where nothing follows; None to wait."""
        if self.over:
            return seen, None
        return (self.number, self.start) if self.number > seen else None

    def beat(self, number: int, done: int) -> str:
        """So many batches are done; what the notebook wishes."""
        if number == self.number and self.ended is None:
            self.done = done
        return self.wish

    def report(self, number: int, state: bytes) -> None:
        """Where the epoch stands: whoever begins anew, begins here."""
        if number == self.number and self.ended is None:
            self.start, self.reports = state, self.reports + 1

    def finish(self, number: int, told: bytes) -> None:
        """The epoch has ended."""
        if number == self.number:
            self.ended = told

    def fail(self, number: int, error: bytes) -> None:
        """An error that would come again."""
        if number == self.number:
            self.failed = error
