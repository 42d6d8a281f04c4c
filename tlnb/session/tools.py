"""What the parts of a session share beside its state: listeners, device, kept features, and the stop button."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch

from tlnb.engine.core.interrupts import StopRequest
from tlnb.engine.features.planner import Routes
from tlnb.session.interrupts import Interrupts


class Tools:
    """What every part may use.

    Args:
        listeners: are told what happens; display alone.
        routes: plan what is kept of frozen first parts.
        interrupts: hold the stop request of the call under way.
        working: a context in which the session says what it is doing.

    Attributes:
        device: where training runs.
    """

    def __init__(
        self,
        listeners: Iterable[object],
        routes: Routes,
        interrupts: Interrupts,
        working: Callable[[str], AbstractContextManager[None]],
    ):
        self.listeners: list[object] = list(listeners)
        self.routes, self.interrupts, self.working = routes, interrupts, working
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.stop = StopRequest()

    def emit(self, event: str, *what: Any) -> None:
        """Tell the listeners; a method that one lacks is left out."""
        for listener in self.listeners:
            method = getattr(listener, event, None)
            if method is not None:
                method(*what)

    def say(self, text: str) -> None:
        """Tell a line that the user should know."""
        self.emit("on_message", text)

    def on_check(self, done: int, total: int) -> None:
        """Files of the data were looked at.

        Raises:
            Interrupted: the stop button was pressed.
        """
        self.interrupts.check()
        self.emit("on_check", done, total)
