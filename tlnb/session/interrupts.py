"""What the stop button does during a call: it asks first, so that no line of bookkeeping is cut off."""

from __future__ import annotations

import _thread
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any, TypeVar

from tlnb.engine.core.interrupts import StopRequest
from tlnb.errors import Interrupted

PATIENCE = 10.0  # seconds after the second press, in which an edge has to come
AT_ONCE = 3  # the press that raises where there are edges; one fewer where there are none


_BOOKKEEPING: set[CodeType] = set()
Code = TypeVar("Code", bound=Callable[..., Any])


def bookkeeping(function: Code) -> Code:
    """Mark the code of a context manager that begins and ends calls: no press on the button raises inside it."""
    _BOOKKEEPING.add(function.__code__)
    return function


def _in_bookkeeping(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code not in _BOOKKEEPING:
        frame = frame.f_back
    return frame is not None


class Interrupts:
    """Takes the stop button (SIGINT) during a call.

    The first press asks for a stop at the next edge: of a batch, of a tick, of a change of state. The second asks
    the same again, more urgently. Only the third, or ten seconds after the second, raises ``KeyboardInterrupt``
    where the program stands. A call without batches has few edges, so there the second press raises.

    Attributes:
        stop: what is read at the edges of the call under way.
        pressed: how often the button was pressed in it.
    """

    def __init__(self) -> None:
        self.stop = StopRequest()
        self.pressed = 0
        self._edges = True
        self._settled = False
        self._held = 0
        self._late = False
        self._before: Any = None
        self._second = 0.0
        self._timer: threading.Timer | None = None

    @contextmanager
    @bookkeeping
    def taken(self, stop: StopRequest, *, edges: bool) -> Iterator[None]:
        """Inside, a press of the button sets ``stop``; the handler of before comes back on every way out.

        Args:
            stop: what is read at the edges.
            edges: whether the call trains in batches, and so ends by itself soon after it was asked.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGINT)
        self.stop, self.pressed, self._edges, self._late, self._before = stop, 0, edges, False, before
        self._settled = False
        try:
            try:
                signal.signal(signal.SIGINT, self._press)
                yield
            finally:
                signal.signal(signal.SIGINT, before)
        finally:  # also where another thread's exception arrives at that very line
            signal.signal(signal.SIGINT, before)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._late:
                self._late = False
                self._raise(None)

    @contextmanager
    @bookkeeping
    def held(self) -> Iterator[None]:
        """Inside, not even the third press raises; it does so at the end."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if self._late and not self._held:
            self._late = False
            self._raise(None)

    def check(self) -> None:
        """End a call without batches where the button was pressed.

        Raises:
            Interrupted: it was.
        """
        asked = self.pressed and not self._edges and not self._settled
        if asked and threading.current_thread() is threading.main_thread():
            raise Interrupted("stopped; nothing has changed")

    def settle(self) -> None:
        """The last edge of a call without batches: what it is for happens now, and a later press is too late.

        Raises:
            Interrupted: the button was pressed before.
        """
        self.check()
        self._settled = True

    def _press(self, number: int, frame: FrameType | None) -> None:
        self.pressed += 1
        self.stop.ask()
        if self.pressed == 2:
            self._second = time.monotonic()
        last = AT_ONCE if self._edges else AT_ONCE - 1
        waited = self.pressed > 2 and time.monotonic() - self._second >= PATIENCE
        if self.pressed >= last or waited:
            self._raise(frame)
        elif self.pressed == 2:
            self._timer = threading.Timer(PATIENCE, _thread.interrupt_main)
            self._timer.daemon = True
            self._timer.start()

    def _raise(self, frame: FrameType | None) -> None:
        if self._held or _in_bookkeeping(frame):
            self._late = True
        elif callable(self._before):
            self._before(signal.SIGINT, frame)
        else:
            raise KeyboardInterrupt
