"""Autosave: where, when and how often a session is saved by itself, and which file is the last good one.

A lock on a file, which the system lets go of when its process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tlnb.engine.checkpoint import file as checkpoint
from tlnb.engine.checkpoint.file import SUFFIX, TEMPORARY, Checkpoint
from tlnb.errors import CheckpointError

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


WITHIN = 60.0  # seconds inside an epoch, after which it is saved all the same
BETWEEN = 1.0  # seconds at least between two saves after epochs
SHARE = 0.05  # of the time, at most, that saving after epochs may take
KEEP = 2  # files of one session
SESSIONS = 20  # sessions in a folder, those of kernels that run aside
LIMIT = 4 << 30  # bytes of all sessions in a folder
STALE = 3600.0  # seconds after which a half-written file of a dead kernel is deleted
_HALF = re.compile(r"\.tmp\w{6}")  # what safetensors writes before it renames it
LOCK = ".lock"


class Autosave:
    """Saves one session into a folder of its own kind of files.

    Args:
        folder: where; made at the first save.
        within: seconds between saves inside an epoch.
        between: seconds between saves after epochs; longer where a save takes long.
    """

    def __init__(self, folder: Path, *, within: float = WITHIN, between: float = BETWEEN):
        self.folder, self.within, self.between = folder, within, between
        self.name = _new_name()
        self.last: Path | None = None
        self.failure = ""
        self.took = 0.0
        self._count = 0
        self._when = time.monotonic()
        self._owner = os.getpid()
        self._lock: Lock | None = None

    @property
    def age(self) -> float:
        """Seconds since the last save, or since the start."""
        return time.monotonic() - self._when

    def due(self, *, epoch: bool) -> bool:
        """Whether to save now.

        Args:
            epoch: whether an epoch has ended. Saving takes no more than 5 % of the time then; inside an
                epoch it is done once in ``within`` seconds.
        """
        return self.age >= (min(self.within, max(self.between, self.took / SHARE)) if epoch else self.within)

    def save(self, make: Callable[[], Checkpoint]) -> None:
        """Save now.

        Raises:
            CheckpointError: it could not be written; the file before still stands.
        """
        began = time.monotonic()
        try:
            self._claim()
            self._count += 1
            path = self.folder / f"{self.name}-{self._count:06d}{SUFFIX}"
            checkpoint.write(path, make())
            self.last, self.failure = path, ""
            self._prune()
        except CheckpointError as error:
            self.failure = str(error)
            raise
        finally:
            # A failing disk is tried again, as seldom as a working one.
            self._when = time.monotonic()
            self.took = self._when - began

    def _claim(self) -> None:
        """Take the lock that tells other kernels that this session lives."""
        if self._lock is not None and self._owner == os.getpid():
            return
        if self._owner != os.getpid():  # a fork is another session
            self._owner, self.name = os.getpid(), _new_name()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(self.folder / f"{self.name}{LOCK}")
        except OSError as error:
            raise CheckpointError(f"{self.folder} cannot be written: {checkpoint.reason_of(error)}") from None
        weakref.finalize(self, self._lock.release)

    def _prune(self) -> None:
        """Delete all but the newest two of this session, and the oldest beyond the folder's limits."""
        own = [path for path in files(self.folder) if session_of(path) == self.name]  # by their numbers
        for path in own[KEEP:]:
            delete(path)
        total, sessions = 0, set[str]()
        for path in files(self.folder):
            total += size_of(path)
            sessions.add(session_of(path))
            spare = total > LIMIT or len(sessions) > SESSIONS
            if spare and session_of(path) != self.name and not lives(path):
                delete(path)
        sweep(self.folder)


def _new_name() -> str:
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{secrets.token_hex(3)}"


def files(folder: Path) -> list[Path]:
    """The autosaves in a folder, the newest first; those of one session by their numbers, whatever the clock said."""
    try:
        found = [
            path for path in folder.iterdir() if path.name.endswith(SUFFIX) and not path.name.startswith(".")
        ]
    except OSError:
        return []
    last: dict[str, float] = {}
    for path in found:
        last[session_of(path)] = max(modified(path), last.get(session_of(path), 0.0))
    return sorted(found, key=lambda path: (last[session_of(path)], path.name), reverse=True)


def candidates(folder: Path, *, mine: str = "", notebook: str = "") -> Iterator[Path]:
    """The autosaves that may be resumed, the likeliest first.

    Those of kernels that still run are left out, but for this session's own. Those of the same notebook come
    before others, then the newest first.

    Args:
        folder: where they are.
        mine: name of this session.
        notebook: what the kernel knows of its notebook; empty where it knows nothing.
    """
    found = [path for path in files(folder) if session_of(path) == mine or not lives(path)]
    first: list[Path] = []
    if notebook:
        first = [path for path in found if _notebook(path) == notebook]
    yield from first
    yield from (path for path in found if path not in first)


def last_good(
    folder: Path, *, mine: str = "", notebook: str = "", log: Callable[[str], None] = lambda text: None
) -> tuple[Path, Checkpoint]:
    """The last autosave that is sound.

    Raises:
        CheckpointError: there is none.
    """
    damaged = 0
    for path in candidates(folder, mine=mine, notebook=notebook):
        try:
            return path, checkpoint.read(path)
        except CheckpointError as error:
            damaged += 1
            log(f"passed over: {error}")
    found = f"; {damaged} could not be read" if damaged else ""
    raise CheckpointError(
        f"no autosave to go back to in {folder}{found}; %tl_resume FILE reads what %tl_save wrote"
    )


def session_of(path: Path) -> str:
    """The name of the session that an autosave belongs to."""
    return path.name.removesuffix(SUFFIX).rpartition("-")[0]


def lives(path: Path) -> bool:
    """Whether the kernel that wrote an autosave still runs."""
    return is_held(path.with_name(f"{session_of(path)}{LOCK}"))


def sweep(folder: Path) -> None:
    """Delete locks without a session, and half-written files that nobody writes any more."""
    sessions = {session_of(path) for path in files(folder)}
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            old = time.time() - modified(path) > STALE
            half = (path.name.endswith(TEMPORARY) or _HALF.fullmatch(path.name) is not None) and old
            lock = path.name.endswith(LOCK) and path.name.removesuffix(LOCK) not in sessions and old
            if half or (lock and not is_held(path)):
                delete(path)


def delete(path: Path) -> None:
    """Delete a file, if that can be done."""
    with contextlib.suppress(OSError):
        path.unlink()


def size_of(path: Path) -> int:
    """Bytes of a file; 0 where it has gone."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def modified(path: Path) -> float:
    """When a file was written; 0 where it has gone."""
    try:
        return path.stat().st_mtime_ns / 1e9
    except OSError:
        return 0.0


def _notebook(path: Path) -> Any:
    try:
        return checkpoint.read_about(path).get("notebook")
    except CheckpointError:
        return None
