"""Two nodes of Ray on this machine, each with one CPU, on the loopback interface; and the processes in them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tlnb.cluster.connection import LOOPBACK, own_settings, quick_start

TRIES = 4  # a machine that is busy may need longer than Ray gives a node to start


@contextmanager
def two_nodes() -> Iterator[str]:
    """The address of the head."""
    with own_settings(local=True):
        from ray.cluster_utils import Cluster

        cluster: Any = None
        node = {"num_cpus": 1, "node_ip_address": LOOPBACK, "object_store_memory": 200 << 20}
        try:
            with helpers_on_the_path(), quick_start():
                cluster = _tried(
                    lambda: Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
                )
                _tried(lambda: cluster.add_node(**node))
            yield cluster.address
        finally:
            if cluster is not None:
                cluster.shutdown()


@contextmanager
def helpers_on_the_path() -> Iterator[None]:
    """Let the processes of the nodes find the networks of the tests, as a cluster finds modules that are installed."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), before]))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _tried(start: Any) -> Any:
    for left in reversed(range(TRIES)):
        try:
            return start()
        except Exception:
            if not left:
                raise
            time.sleep(2)
    raise AssertionError


def processes(title: str) -> list[int]:
    """Ids of the processes of Ray whose title begins so (``ray::RayTrainWorker``)."""
    found = []
    for path in Path("/proc").iterdir():
        try:
            if path.name.isdigit() and (path / "cmdline").read_bytes().startswith(title.encode()):
                found.append(int(path.name))
        except OSError:
            continue
    return sorted(found)


def kill_one(title: str, patience: float = 120.0) -> int:
    """Kill a process with that title as soon as there is one; its id."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        for number in processes(title)[-1:]:
            os.kill(number, signal.SIGKILL)
            return number
        time.sleep(0.05)
    raise AssertionError(f"no process {title}")
