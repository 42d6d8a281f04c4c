"""Two nodes of Ray on this machine, each with one CPU, on the loopback interface; and the processes in them."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import networks
import torch

from tlnb.cluster.connection import LOOPBACK, first_on_the_path, own_settings, quick_start
from tlnb.session import Session

_NODE = {"num_cpus": 1, "node_ip_address": LOOPBACK, "object_store_memory": 200 << 20}
_HEAD = {
    "include_dashboard": False,
    "_system_config": {"health_check_period_ms": 500},
}  # a lost node shows sooner
TRIES = 4  # a machine that is busy may need longer than Ray gives a node to start


@contextmanager
def two_nodes() -> Iterator[Any]:
    """Ray's ``Cluster``: its ``address``, and :func:`lose` for a node of it."""
    with own_settings(local=True):
        from ray.cluster_utils import Cluster

        cluster: Any = None
        try:
            with (
                first_on_the_path(Path(__file__).parents[1]),
                quick_start(),
            ):  # where the networks of the tests are
                cluster = _tried(lambda: Cluster(initialize_head=True, head_node_args=_NODE | _HEAD))
                add(cluster)
            yield cluster
        finally:
            if cluster is not None:
                cluster.shutdown()


def add(cluster: Any) -> None:
    """Another node, as those before it."""
    # What ends a node with this process sets handlers of signals, and only the main thread may; two_nodes() ends all.
    cluster._shutdown_at_exit = threading.current_thread() is threading.main_thread()
    with own_settings(local=True), first_on_the_path(Path(__file__).parents[1]), quick_start():
        _tried(lambda: cluster.add_node(**_NODE))


def lose(cluster: Any, *, head: bool = False) -> None:
    """Kill every process of a node at once, as a machine that loses its power."""
    if not head:
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        return
    # Ray's own way refuses, as this process is connected to that node.
    node, cluster.head_node = cluster.head_node, None
    node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)


def small_session(*listeners: object) -> Session:
    """Four layers and 72 training images; without dropout, which draws other numbers in each process."""
    found, model = Session(list(listeners)), networks.small()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    samples = networks.blobs(90)
    found.load(model, input="1,8,8")
    found.data((samples.inputs, samples.targets))
    return found


def distance(a: Session, b: Session) -> float:
    """The largest difference of a number in the two networks."""
    other = b.model.state_dict()
    return max(float((tensor - other[name]).abs().max()) for name, tensor in a.model.state_dict().items())


def _tried(start: Any) -> Any:
    for left in reversed(range(TRIES)):
        try:
            return start()
        except Exception:
            if not left:
                raise
            time.sleep(2)
    raise AssertionError


def wait_for(count: int, patience: float = 120.0) -> None:
    """Wait until Ray knows of so many nodes: it notices after some seconds that one is lost."""
    import ray

    end = time.monotonic() + patience
    while sum(node["Alive"] for node in ray.nodes()) != count:
        assert time.monotonic() < end, "the nodes are others"
        time.sleep(0.2)


def free_cpus(patience: float = 120.0) -> int:
    """How many CPUs of the cluster nobody holds, as soon as that is all of them, or the patience is over."""
    import ray

    end = time.monotonic() + patience
    while True:
        have, free = (int(ask().get("CPU", 0)) for ask in (ray.cluster_resources, ray.available_resources))
        if have == free or time.monotonic() > end:
            return free
        time.sleep(0.1)


def processes(title: str) -> list[int]:
    """Ids of the processes of Ray below this one whose title begins so (``ray::RayTrainWorker``)."""
    titles: dict[int, bytes] = {}
    parents: dict[int, int] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError):
                titles[int(path.name)] = (path / "cmdline").read_bytes()
                parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
    return sorted(
        number
        for number, found in titles.items()
        if found.startswith(title.encode()) and os.getpid() in _above(number, parents)
    )


def all_gone(title: str, patience: float = 120.0) -> bool:
    """Whether no such process is there any more, at the latest when the patience is over."""
    end = time.monotonic() + patience
    while processes(title) and time.monotonic() < end:
        time.sleep(0.1)
    return not processes(title)


def _above(number: int, parents: dict[int, int]) -> list[int]:
    """The processes that a process descends from."""
    found = []
    while number := parents.get(number, 0):
        found.append(number)
    return found


def kill_one(title: str, patience: float = 120.0) -> int:
    """Kill a process with that title as soon as there is one; its id."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        for number in processes(title)[-1:]:
            os.kill(number, signal.SIGKILL)
            return number
        time.sleep(0.05)
    raise AssertionError(f"no process {title}")
