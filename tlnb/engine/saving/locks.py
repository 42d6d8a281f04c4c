"""A lock on a file, which the system lets go of when its process ends, however it ends."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class Lock:
    """Holds a file until ``release`` or the end of the process.

    Args:
        path: the file; made here.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, path: Path):
        self.path = path
        self._pid = os.getpid()
        self._handle: int | None = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a network disk without locks
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        """Let go; the file is deleted by the process that made it."""
        handle, self._handle = self._handle, None
        if handle is None:
            return
        with contextlib.suppress(OSError):
            if self._pid == os.getpid():
                self.path.unlink()
        with contextlib.suppress(OSError):
            os.close(handle)


def is_held(path: Path) -> bool:
    """Whether a process that runs holds the lock; always False where the system has no such locks."""
    if fcntl is None:
        return False
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False
