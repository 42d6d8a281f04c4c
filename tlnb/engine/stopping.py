"""A request to stop, which training reads at each batch edge."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(Exception):
    """Raised inside the engine at a safe edge after a stop was asked for."""


class StopRequest:
    """Set by the stop button of Jupyter, Ctrl-C, or ``ask``.

    Attributes:
        asked: True once somebody asked.
    """

    def __init__(self) -> None:
        self.asked = False

    def ask(self) -> None:
        """Ask for a stop at the next safe edge."""
        self.asked = True

    def check(self) -> None:
        """Raise ``Stopped`` where a stop was asked for."""
        if self.asked:
            raise Stopped

    @contextmanager
    def on_interrupt(self) -> Iterator[None]:
        """While inside, the first interrupt asks for a stop and the second is a ``KeyboardInterrupt``.

        The handler that was there comes back on every way out. Outside the main thread no handler can be set,
        and none is.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGINT)

        def handle(number: int, frame: FrameType | None) -> None:
            if self.asked and callable(before):
                before(number, frame)
            self.ask()

        signal.signal(signal.SIGINT, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
