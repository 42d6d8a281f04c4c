"""Small things that the tests of the widgets share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tlnb.display.progress import Listener
from tlnb.session import Session


class Waiting(Listener):
    """Holds the training at a batch until it is let go; copies the weights after each batch before.

    Args:
        at: number of the batch.
        model: whose weights are copied.
        copies: the copies go here.
    """

    def __init__(self, at: int, model: Any = None, copies: list[Any] | None = None) -> None:
        self.at, self.model, self.copies = at, model, copies
        self.reached, self.go = threading.Event(), threading.Event()
        self.count = 0

    def on_batch(self, step: int, steps: int) -> None:
        self.count += 1
        if self.copies is not None:
            self.copies.append({k: v.clone() for k, v in self.model.state_dict().items()})
        if self.count == self.at:
            self.reached.set()
            assert self.go.wait(20)


def in_thread(call: Callable[[], Any]) -> Any:
    """The answer of a call in another thread; its exception is raised here."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result(30)


def trained_in_thread(session: Session, **settings: Any) -> Callable[[], Any]:
    """Start training in another thread; what is given back waits for its answer."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(lambda: session.train(**settings))
    pool.shutdown(wait=False)
    return lambda: future.result(60)
