"""What the machine offers: free memory, threads, work ahead in one, and the folder that outlives a kernel."""

from __future__ import annotations

import ctypes
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TypeVar

USUAL = 4 << 30  # where the system does not say
_CGROUP = Path("/sys/fs/cgroup")


def free_bytes() -> int:
    """Bytes that can be used without swapping; 4 GiB where the system does not say."""
    return max(0, min(_system(), _container()))


def _system() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            # Not MemFree: what the system has cached of files is given back when it is needed.
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    if sys.platform == "win32":
        return _windows()
    try:
        # macOS tells the size of the memory but not what is free; half of it is a fair guess.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, OSError, ValueError):
        return USUAL


def _container() -> int:
    """What the control group still allows; without one, more than any machine has."""
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
        return int(limit) - used if limit != "max" else sys.maxsize
    except (OSError, ValueError):
        return sys.maxsize


_SIZES = ("total", "free", "page_total", "page_free", "virtual", "virtual_free", "more")


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API."""

    _fields_ = (
        ("length", ctypes.c_ulong),
        ("load", ctypes.c_ulong),
        *((name, ctypes.c_ulonglong) for name in _SIZES),
    )


def _windows() -> int:
    status = _MemoryStatus()
    status.length = ctypes.sizeof(status)
    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined]
    return int(status.free) if kernel.GlobalMemoryStatusEx(ctypes.byref(status)) else USUAL


@cache
def pool() -> ThreadPoolExecutor:
    """One pool for the process, with a thread for each processor that it may use, and at least two.

    Work given to it must not wait for other work in it.
    """
    try:
        processors = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        processors = os.cpu_count() or 1
    return ThreadPoolExecutor(max(2, min(16, processors)), thread_name_prefix="tlnb-pictures")


Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(work: Callable[[Item], Result], items: Iterable[Item], depth: int = 2) -> Iterator[Result]:
    """``work(item)`` for each item, in order, up to ``depth`` of them before they are asked for.

    What goes wrong in ``work`` is raised where its result would have been. When the loop is left early, what
    has not begun is dropped and nothing is waited for: an interrupt ends at once.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="tlnb-ahead")
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(thread.submit(work, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        thread.shutdown(wait=False, cancel_futures=True)


def home() -> Path:
    """The folder: what ``TLNB_HOME`` says, else ``.tlnb`` beside the notebook. It may not exist yet.

    Where Jupyter does not say where the notebook is, it is taken to be in the working directory of when tlnb was
    loaded: ``%cd`` in one of its first cells does not move the folder.
    """
    return named_home() or _beside_notebook() / ".tlnb"


def user_folder() -> Path:
    """What is kept for this user, whatever the notebook: ``TLNB_HOME``, else the user's cache folder."""
    return named_home() or Path.home() / ".cache" / "tlnb"


def stay_here() -> None:
    """Take the working directory of now for the notebook's own."""
    global _loaded_in
    _loaded_in = Path.cwd()


_loaded_in: Path | None = None


def _beside_notebook() -> Path:
    told = Path(os.environ.get("JPY_SESSION_NAME", ""))
    if told.is_absolute() and told.parent.is_dir():
        return told.parent
    return _loaded_in if _loaded_in is not None and _loaded_in.is_dir() else Path.cwd()


def named_home() -> Path | None:
    """The folder that ``TLNB_HOME`` names; None where it names none.

    A relative one is meant from the working directory in which it was first asked for, and stays there when that
    changes.
    """
    named = os.environ.get("TLNB_HOME")
    return _absolute(named) if named else None


@cache
def _absolute(named: str) -> Path:
    try:
        return Path(named).expanduser().absolute()
    except RuntimeError:  # no such user
        return Path(named).absolute()
