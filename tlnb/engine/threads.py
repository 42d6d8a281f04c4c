"""The threads that look at and decode pictures; never processes, which hang in notebooks."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache


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
