"""Pieces of a job as tasks of Ray: a few more than there are workers at a time, and again where a worker dies."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from tlnb.cluster.connection import Connection
from tlnb.cluster.parcel import pack, unpack
from tlnb.engine.core.switches import usual_switches
from tlnb.engine.core.workers import Job
from tlnb.errors import NotReady, TlnbError

AHEAD = 2  # pieces under way for each worker: none waits for the next, and results that nobody took do not pile up
POLL = 0.1  # seconds
RETRIES = 5  # deaths of workers that a piece outlives


class TaskWorkers:
    """Workers of a cluster.

    Args:
        connection: to it.
        folder: of the session's kept features, which processes on machines that see it may read.

    Attributes:
        count: how many pieces run at once.
    """

    def __init__(self, connection: Connection, folder: Path | None = None):
        self.connection, self.folder, self.count = connection, folder, connection.count

    def each(
        self, job: Job, items: Sequence[Any], check: Callable[[], None]
    ) -> Generator[tuple[int, Any], None, None]:
        """See :class:`tlnb.engine.core.workers.Workers`."""
        self.connection.check()
        import ray

        parcel = pack(job)
        with self.connection.asking():
            held = [ray.put(parcel)]  # in a list, so that a process takes it once and not for each piece
        key, folder = uuid4().hex, str(self.folder) if self.folder is not None else ""
        how = {"num_cpus": self.connection.cpus, "num_gpus": self.connection.gpus, "max_retries": RETRIES}
        task = ray.remote(_piece).options(**how)
        left = deque(enumerate(items))
        under_way: dict[Any, int] = {}
        try:
            while left or under_way:
                check()
                with self.connection.asking():
                    while left and len(under_way) < AHEAD * self.count:
                        number, item = left.popleft()
                        ref = task.remote(
                            key, held, pack(item), self.connection.threads, bool(how["num_gpus"]), folder
                        )
                        under_way[ref] = number
                    ready, _ = ray.wait(list(under_way), timeout=POLL)
                for ref in ready:
                    yield under_way.pop(ref), self._taken(ref)
        finally:
            for ref in under_way:
                # It may have ended, or the cluster may be gone.
                with contextlib.suppress(Exception), self.connection.asking():
                    ray.cancel(ref, force=True)

    def _taken(self, ref: Any) -> Any:
        import ray

        try:
            with self.connection.asking():
                made = ray.get(ref)
            return unpack(made)
        except ray.exceptions.RayTaskError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, TlnbError):
                raise cause from None
            raise NotReady(f"a worker failed: {_last_line(error)}") from None
        except ray.exceptions.RayError as error:
            self.connection.check()
            first = next(iter(str(error).splitlines()), type(error).__name__)
            raise NotReady(f"the workers died {RETRIES + 1} times in a row: {first[:200]}") from None


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__


_held: dict[str, Job] = {}  # of this process: the job that it takes pieces of


def _piece(key: str, parcel: list[Any], item: bytes, threads: int, gpu: bool, folder: str) -> bytes:
    """One piece, in a process of the cluster."""
    import ray

    torch.set_num_threads(threads)
    with usual_switches():
        if key not in _held:
            _held.clear()
            job = unpack(ray.get(parcel[0]))
            device = torch.device("cuda" if gpu and torch.cuda.is_available() else "cpu")
            job.arrive(device, Path(folder) if folder and Path(folder).parent.is_dir() else None)
            _held[key] = job
        return pack(_held[key].run(unpack(item)))
