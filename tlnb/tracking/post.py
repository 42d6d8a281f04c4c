"""Takes notes to a tracker on a thread of its own, so that a tracker never holds up who writes them."""

from __future__ import annotations

import atexit
import queue
import threading
import time
from collections.abc import Callable

from tlnb.tracking.tracker import Tracker

Note = Callable[[Tracker], None]
"""One thing to tell a tracker; all that it holds is final."""

ROOM = 1000
"""Notes that wait at most. An epoch is one note, so only a tracker that has stood still for long is that far behind."""

AT_EXIT = 5.0
"""Seconds that the end of the process waits for notes on their way."""


class Post:
    """Opens a tracker and takes notes to it, in order.

    The thread ends with the process, whatever the tracker does.

    Args:
        name: of the tracker, for people.
        open_it: opens a run; called on the thread.

    Attributes:
        opened: set when the tracker is open, or could not be opened.
        where: of the tracker; empty before it is open.
        dead: whether it could not be opened.
        trouble: the first thing that went wrong, in one line; empty where nothing did.
        arrived, failed, refused: notes that the tracker took, that it raised at, and that found no room.
    """

    def __init__(self, name: str, open_it: Callable[[], Tracker]):
        self.name = name
        self.opened = threading.Event()
        self.where, self.trouble, self.dead = "", "", False
        self.arrived = self.failed = self.refused = 0
        self._queue: queue.Queue[Note | None] = queue.Queue(ROOM)
        self._thread = threading.Thread(target=self._work, args=(open_it,), name=f"tlnb-{name}", daemon=True)
        self._thread.start()
        atexit.register(self.close, AT_EXIT)

    def put(self, note: Note) -> None:
        """Send a note; where there is no room it is left out, and counted."""
        try:
            self._queue.put_nowait(note)
        except queue.Full:
            self.refused += 1
            self.trouble = self.trouble or f"{self.name} is too slow, so some figures do not reach it"

    @property
    def waiting(self) -> int:
        """Notes that are on their way."""
        return self._queue.qsize()

    @property
    def lost(self) -> int:
        """Notes that did not reach the tracker, and will not."""
        return self.failed + self.refused

    def close(self, seconds: float, on_progress: Callable[[], None] = lambda: None) -> bool:
        """Send no more, and wait for what is on its way.

        Args:
            seconds: to wait at most.
            on_progress: is called several times a second, and may raise.

        Returns:
            Whether the tracker has taken everything and is closed.
        """
        atexit.unregister(self.close)
        end, asked = time.monotonic() + seconds, False
        while self._thread.is_alive() and time.monotonic() < end:
            if not asked:
                try:
                    self._queue.put_nowait(None)
                    asked = True
                except queue.Full:
                    pass
            self._thread.join(0.05)
            on_progress()
        return not self._thread.is_alive()

    def _work(self, open_it: Callable[[], Tracker]) -> None:
        try:
            tracker = open_it()
            self.where = tracker.where
        except BaseException as error:  # a library may call sys.exit; it is its thread that ends, and no more
            self.dead = True
            self._went_wrong(error)
            return
        finally:
            self.opened.set()
        while (note := self._queue.get()) is not None:
            self._try(lambda note=note: note(tracker))  # type: ignore[misc]
        self._try(tracker.close)

    def _try(self, work: Callable[[], None]) -> None:
        try:
            work()
            self.arrived += 1
        except BaseException as error:
            self.failed += 1
            self._went_wrong(error)

    def _went_wrong(self, error: BaseException) -> None:
        first = (str(error).strip() or "no reason given").splitlines()[0]
        self.trouble = self.trouble or f"{self.name}: {type(error).__name__}: {first[:200]}"
