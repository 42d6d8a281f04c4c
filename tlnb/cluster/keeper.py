"""Keeping the processes of a stage together, by Ray Train. It runs in the process of the board.

A call of Ray that waits while its connection is closed ends its process, and Ray Train waits for as long as a stage
lasts. In the notebook that would be the kernel, and the network with it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tlnb.cluster.worker import work

DEATHS = 10  # that a stage outlives


@dataclass(frozen=True)
class Group:
    """Processes that train a stage.

    Attributes:
        count: how many.
        cpus, gpus: of each.
        folder: on this machine, for what Ray Train notes.
        settings: of Ray Train, as variables of the environment.
    """

    count: int
    cpus: int
    gpus: float
    folder: str
    settings: dict[str, str]


def keep_up(group: Group, config: dict[str, Any], over: Callable[[], bool]) -> None:
    """Have processes at work until the board says that nothing follows.

    Ray Train replaces one that dies in training. Where one dies while they are coming together, it may give up, or try
    again beside the room that it still holds and wait for more; so it is told to give up, the room is freed, and all
    begin anew from what the board holds, as they do after the other deaths.

    Args:
        group: how many processes, and with what.
        config: what each is told, see :func:`tlnb.cluster.worker.work`.
        over: whether nobody waits for them any more.

    Raises:
        TrainingFailedError: of Ray Train, where more died than a stage outlives.
    """
    os.environ.update(group.settings)
    from ray.train import ControllerError, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    gpu = group.gpus > 0
    deaths = FailureConfig(max_failures=DEATHS)
    deaths.controller_failure_limit = 0  # type: ignore[attr-defined,unused-ignore]
    for left in reversed(range(DEATHS)):
        fit = TorchTrainer(
            work,
            train_loop_config=config | {"gpu": gpu},
            scaling_config=ScalingConfig(
                num_workers=group.count, use_gpu=gpu, placement_strategy="SPREAD",
                resources_per_worker={"CPU": group.cpus} | ({"GPU": group.gpus} if gpu else {}),
            ),
            torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
            run_config=RunConfig(name=f"stage-{left}", storage_path=group.folder, failure_config=deaths),
        )  # fmt: skip
        before = rooms()
        try:
            fit.fit()
            return
        except ControllerError:
            if not left or over():
                raise
        finally:
            with contextlib.suppress(Exception):  # the cluster may be gone
                free(rooms() - before)


def rooms() -> set[str]:
    """Ids of the room that this notebook holds for processes, on machines of the cluster (placement groups)."""
    import ray

    job = str(ray.get_runtime_context().get_job_id())  # with which an id ends
    states: dict[str, dict[str, Any]] = ray.util.placement_group_table()
    return {name for name, found in states.items() if name.endswith(job) and found["state"] != "REMOVED"}


def free(names: set[str]) -> None:
    """Let go of room that nobody uses any more; Ray keeps it for as long as the notebook is connected."""
    import ray
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    for name in names:
        remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(name))))
