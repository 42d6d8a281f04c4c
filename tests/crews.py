"""Processes that train a stage together, without a cluster: what each of them does, and how they are started."""

from __future__ import annotations

from pathlib import Path

import networks
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tlnb.engine.core.interrupts import StopRequest
from tlnb.engine.core.objectives import Classification
from tlnb.engine.features.planner import ForwardPlan
from tlnb.engine.network import freeze
from tlnb.engine.network.layers import find_layers
from tlnb.engine.training.crew import Crew
from tlnb.engine.training.stage import Stage
from tlnb.engine.training.trainer import StageTrainer

CPU = torch.device("cpu")


def stage_trainer(batch: int = 7, micro: int | None = None, weights: tuple[float, ...] = ()) -> StageTrainer:
    """Two frozen layers and two that train, without dropout, on 45 images: seven batches, the last of three."""
    model, samples = networks.small(), networks.blobs(45)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    layers = find_layers(model, samples.batch(torch.arange(3)))
    layers = freeze.set_states(model, layers, (0, 1), {})
    stage = Stage("train", (0, 1), epochs=2, lr=1e-2, micro=micro)
    forward_plan = ForwardPlan(samples, samples, model, CPU)
    task = Classification(weights=weights) if weights else Classification()
    return StageTrainer(
        model, layers, stage, forward_plan, number=1, batch=batch, seed=0, task=task, bn="frozen"
    )  # fmt: skip


def train(trainer: StageTrainer, stop: StopRequest, epochs: int = 2) -> list[float]:
    """The training loss of each epoch."""
    return [trainer.train_epoch(1e-2, stop, lambda done, total: None) for _ in range(epochs)]


def _process(rank: int, count: int, folder: str, settings: dict[str, object]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=count)
    trainer = stage_trainer(**settings)  # type: ignore[arg-type]
    trainer.crew = Crew(rank, count)
    losses = train(trainer, trainer.crew.stop)
    state = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    torch.save({"losses": losses, "state": state}, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def together(count: int, folder: Path, **settings: object) -> list[dict[str, object]]:
    """What each of so many processes has after two epochs: losses, and the state of its network."""
    mp.spawn(_process, args=(count, str(folder), settings), nprocs=count, join=True)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(count)]
