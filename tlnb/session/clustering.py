"""Where a session's work runs: in this process, or on a cluster that was named."""

from __future__ import annotations

from tlnb.cluster.connection import OFF, Connection, connect
from tlnb.cluster.tasks import TaskWorkers
from tlnb.errors import BadArguments
from tlnb.session.answers import Lines
from tlnb.session.tools import Tools

NONE = "no cluster: everything runs in this notebook; %tl_cluster local starts one on this machine"


def cluster(tools: Tools, address: str | None, workers: int | None, gpus_per_worker: float) -> Lines:
    """Connect to a cluster, leave it, or say where things run; see ``Session.cluster``."""
    if address is None:
        if workers is not None or gpus_per_worker:
            raise BadArguments("a cluster needs an address: local, auto, or HOST:PORT of its head")
        return Lines(str(tools.cluster) if tools.cluster is not None else NONE)
    if isinstance(address, str) and address == OFF:
        left = leave(tools)
        return Lines("back in this notebook; its workers are free again" if left else NONE)
    if tools.cluster is not None:
        raise BadArguments(f"connected already to {tools.cluster.address}; %tl_cluster off comes first")
    with tools.working("connecting to a cluster"):
        tools.emit("on_walk", "connecting to a cluster", 0, 0)
        found = connect(address, workers, gpus_per_worker, tools.interrupts.check)
    folder = tools.planner.cache.folder
    tools.cluster, tools.workers = found, TaskWorkers(found, folder.folder if folder is not None else None)
    tools.planner.workers = tools.workers
    return Lines(str(found), _RUNS, *_differs(found))


def leave(tools: Tools) -> bool:
    """Come back to this process; whether there was a cluster."""
    found, tools.cluster, tools.workers, tools.planner.workers = tools.cluster, None, None, None
    if found is not None:
        found.close()
    return found is not None


_RUNS = (
    "training, sweeps, folds and long passes of frozen layers run there, %tl_lr and %tl_choose in this notebook; "
    "%tl_cluster off comes back"
)


def _differs(found: Connection) -> list[str]:
    import torch

    here = torch.get_num_threads()
    if found.gpus or here == found.threads:
        return []
    return [f"this notebook computes with {here} threads, so the last digits may differ from a run in it"]
