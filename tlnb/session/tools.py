"""What the parts of a session share beside its state: listeners, device, kept features, and the stop button."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from tlnb.cluster.connection import Connection
from tlnb.engine.core.interrupts import Stopped, StopRequest
from tlnb.engine.core.workers import Workers
from tlnb.engine.features.planner import FeaturePlanner
from tlnb.errors import Interrupted, NotReady
from tlnb.session.interrupts import Interrupts

OnProgress = Callable[[int, int], None]
"""Called with how much is done of how much, at each edge at which the work could be stopped."""


class Tools:
    """What every part may use.

    Args:
        listeners: are told what happens; display alone.
        planner: plan what is kept of frozen first parts.
        interrupts: hold the stop request of the call under way.
        working: a context in which the session says what it is doing.

    Attributes:
        device: where training runs.
        cluster: to which the session is connected; None for none.
        workers: of the cluster, for work in pieces; None to do it here.
    """

    def __init__(
        self,
        listeners: Iterable[object],
        planner: FeaturePlanner,
        interrupts: Interrupts,
        working: Callable[[str], AbstractContextManager[None]],
    ):
        self.listeners: list[object] = list(listeners)
        self.planner, self.interrupts, self.working = planner, interrupts, working
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.stop = StopRequest()
        self.cluster: Connection | None = None
        self.workers: Workers | None = None

    def emit(self, event: str, *what: Any) -> None:
        """Tell the listeners; a method that one lacks is left out."""
        for listener in self.listeners:
            method = getattr(listener, event, None)
            if method is not None:
                method(*what)

    def log(self, text: str) -> None:
        """Tell a line that the user should know."""
        self.emit("on_message", text)

    def say_here(self, what: str, why: str) -> None:
        """Tell that something runs in this process, where a cluster was named.

        Args:
            what: runs, in words.
            why: not there.
        """
        if self.cluster is not None:
            self.log(f"{what} runs in this notebook, not on the cluster: {why}")

    def ticks(self, what: str) -> OnProgress:
        """Tells the listeners how far something has come, and reads the stop button.

        Args:
            what: is done, in words.
        """

        def on_progress(done: int, total: int) -> None:
            self.emit("on_walk", what, done, total)
            self.stop.check()

        return on_progress

    def steps(self, names: Sequence[str]) -> Callable[[], None]:
        """Tells, each time that it is called, that the next of these steps begins.

        Args:
            names: of the steps, in words.
        """
        left = iter(enumerate(names))

        def begin() -> None:
            number, name = next(left)
            self.ticks(name)(number, len(names))

        return begin

    @contextmanager
    def walk(self, what: str) -> Iterator[OnProgress]:
        """Around work that walks over samples and changes nothing: it is shown with the time that is left, and a Stop.

        Args:
            what: is done, in words.

        Raises:
            NotReady, Interrupted: it was stopped, by a click or by Jupyter's stop button.
        """
        with self.working(what):
            try:
                self.emit("on_walk", what, 0, 0)
                yield self.ticks(what)
            except Stopped:
                said = f"stopped while {what}; nothing has changed"
                raise (Interrupted(said) if self.interrupts.pressed else NotReady(said)) from None

    def on_check(self, done: int, total: int) -> None:
        """Files of the data were looked at.

        Raises:
            Interrupted: the stop button was pressed.
        """
        self.interrupts.check()
        self.emit("on_check", done, total)
