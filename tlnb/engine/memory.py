"""How much memory is free, on the system and in the container that the process runs in."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

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
