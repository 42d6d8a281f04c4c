"""Work done ahead of the one who needs it, by one thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

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
