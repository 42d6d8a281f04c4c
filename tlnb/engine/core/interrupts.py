"""The stop button: a request that is read at batch edges, and an ending that it cannot cut short.

Python may raise ``KeyboardInterrupt`` at the first instruction of ``__exit__``, before any line of it has
run, so a ``try`` inside it comes too late. The signal handler, however, is told where the program stands:
while that is inside our ``__exit__``, it makes a note instead of raising.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

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


class ShieldedExit:
    """Base of context managers whose ``__exit__`` runs to its end; the interrupt is raised after it.

    A subclass calls ``_shield()`` as the last line of ``__enter__``, and ``_finish(work)`` in ``__exit__``.
    Outside the main thread, and where SIGINT is ignored or left to the system, handlers stay as they are.
    """

    def __init__(self) -> None:
        self._previous: Callable[[int, FrameType | None], Any] | None = None
        self._late = False

    def _shield(self) -> None:
        self._late = False
        if threading.current_thread() is not threading.main_thread():
            return
        current = signal.getsignal(signal.SIGINT)
        if callable(current):
            self._previous = current
            signal.signal(signal.SIGINT, self._on_interrupt)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        method = _method_of(self, frame)
        if method == "__exit__":
            self._late = True
            return
        previous = self._previous
        if method == "__enter__":
            # The block will not be entered, so nobody would take the handler away.
            self._unshield()
        if previous is not None:
            previous(number, frame)

    def _finish(self, work: Callable[[], None]) -> None:
        """Do the work to its end, give SIGINT its old handler, then raise what was held back."""
        previous = self._previous
        try:
            # An interrupt raised by hand, or in another thread: the work must be done all the same.
            interrupted = to_the_end(work)
        finally:
            self._unshield()
        if self._late and previous is not None:
            self._late = False
            previous(signal.SIGINT, None)
        if interrupted is not None:
            raise interrupted

    def _unshield(self) -> None:
        if self._previous is not None:
            # Somebody else's handler, set inside the block, is not ours to take away.
            if signal.getsignal(signal.SIGINT) == self._on_interrupt:
                signal.signal(signal.SIGINT, self._previous)
            self._previous = None


def to_the_end(work: Callable[[], None]) -> KeyboardInterrupt | None:
    """Do work that can be begun anew, until nothing interrupts it; the last interrupt."""
    interrupted: KeyboardInterrupt | None = None
    while True:
        try:
            work()
            return interrupted
        except KeyboardInterrupt as error:
            interrupted = error


def _method_of(manager: ShieldedExit, frame: FrameType | None) -> str | None:
    """``"__enter__"`` or ``"__exit__"`` where the program stands inside that method of this very manager."""
    while frame is not None:
        name = frame.f_code.co_name
        if name in ("__enter__", "__exit__") and frame.f_locals.get("self") is manager:
            return name
        frame = frame.f_back
    return None
