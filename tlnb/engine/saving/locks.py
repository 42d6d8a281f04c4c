"""A lock on a file, which the system lets go of when its process ends, however it ends."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

fcntl: Any = None
msvcrt: Any = None
try:
    import fcntl
except ImportError:
    with contextlib.suppress(ImportError):
        import msvcrt  # Windows


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
        with contextlib.suppress(OSError):  # a network disk without locks
            _lock(self._handle)

    def release(self) -> None:
        """Let go; the file is deleted by the process that made it."""
        handle, self._handle = self._handle, None
        if handle is None:
            return
        if fcntl is None:  # Windows deletes no file that is open
            with contextlib.suppress(OSError):
                os.close(handle)
        with contextlib.suppress(OSError):
            if self._pid == os.getpid():
                self.path.unlink()
        if fcntl is not None:
            with contextlib.suppress(OSError):
                os.close(handle)


def is_held(path: Path) -> bool:
    """Whether a process that runs holds the lock; always False where the system has no locks on files."""
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        _lock(handle)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _lock(handle: int) -> None:
    """Lock a file that is open, or raise ``OSError`` at once where somebody else has."""
    if fcntl is not None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    elif msvcrt is not None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
