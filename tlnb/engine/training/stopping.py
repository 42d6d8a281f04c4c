"""A request to stop, which training reads at each batch edge."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_PAUSE_STEP = 0.1  # seconds


class Stopped(Exception):
    """Raised inside the engine at a safe edge after a stop was asked for."""


class StopRequest:
    """Set by the stop button of Jupyter, Ctrl-C, or ``ask``; any thread may ask.

    Attributes:
        asked: True once somebody asked.
    """

    def __init__(self) -> None:
        self.asked = False
        self._going = threading.Event()
        self._going.set()

    @property
    def paused(self) -> bool:
        """Whether work waits at the next safe edge."""
        return not self._going.is_set()

    def ask(self) -> None:
        """Ask for a stop at the next safe edge; a pause ends by it."""
        self.asked = True

    def pause(self) -> None:
        """Let work wait at the next safe edge, until ``go_on`` or ``ask``."""
        self._going.clear()

    def go_on(self) -> None:
        """End a pause."""
        self._going.set()

    def check(self) -> None:
        """Wait while there is a pause; raise ``Stopped`` where a stop was asked for."""
        # Not one long wait: a signal handler sets ``asked`` but must not touch the lock inside an Event.
        while not self.asked and not self._going.wait(_PAUSE_STEP):
            pass
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
