"""Where a stage stands: all that is needed, beside the weights, to go on as if nothing had happened."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from tlnb.engine.memory import free_bytes
from tlnb.engine.network import freezing
from tlnb.engine.training.optimizer_state import ByName, load_named_state, named_state, size_of_state
from tlnb.engine.training.random_states import random_states, set_random_states
from tlnb.engine.training.trainer import StageTrainer
from tlnb.errors import TrainingError

SHARE = 0.25  # of the free memory, that a copy of the optimizer's state may take


@dataclass
class Progress:
    """A place in a stage.

    The order of the samples needs no place here: it is a function of seed, stage and epoch.

    Attributes:
        rate: the stage's learning rate.
        epoch: epochs that were trained.
        done: batches of the epoch under way.
        steps_done: optimizer steps of the stage; the schedule's position.
        total: sum of the training losses of the epoch under way, float32; None before its first batch.
        unmeasured: mean training loss of an epoch that was trained and not measured yet.
        micro: samples that pass the network at a time; None for the whole batch.
        best_loss, waited: of the stage's patience.
        best_epoch: the epoch that ``--keep-best`` would keep now; 0 for none.
        best: what training had changed at that epoch, by name; empty where it is not asked for.
        start: the weights before the stage by name, where its end may need them; empty elsewhere.
        optimizer: its state by the names of the parameters.
        random: the random states inside the stage.
    """

    rate: float
    epoch: int = 0
    done: int = 0
    steps_done: int = 0
    total: Tensor | None = None
    unmeasured: float | None = None
    micro: int | None = None
    best_loss: float = float("inf")
    waited: int = 0
    best_epoch: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    start: dict[str, Tensor] = field(default_factory=dict)
    optimizer: ByName = field(default_factory=dict)
    random: dict[str, Tensor] = field(default_factory=dict)

    def at_epoch_start(self, steps_per_epoch: int) -> Progress:
        """The start of the epoch, where other samples have come; the schedule keeps its share."""
        return replace(self, done=0, total=None, steps_done=self.epoch * steps_per_epoch)


def capture(trainer: StageTrainer, rate: float, *, moments: bool = True) -> Progress:
    """A copy of where a trainer stands between two steps; nothing in it changes with further training.

    Args:
        trainer: of the stage.
        rate: the stage's learning rate.
        moments: whether the optimizer's state is copied too; without it, it begins anew where the stage goes on.
    """
    return Progress(
        rate,
        trainer.epoch,
        trainer.done,
        trainer.steps_done,
        None if trainer.total is None else trainer.total.detach().to("cpu", copy=True),
        trainer.unmeasured,
        trainer.micro,
        optimizer=named_state(trainer.model, trainer.optimizer) if moments else {},
        random=random_states(),
    )


def affordable(trainer: StageTrainer) -> bool:
    """Whether memory has room for a copy of the optimizer's state."""
    return size_of_state(trainer.optimizer) <= SHARE * free_bytes()


def restore(trainer: StageTrainer, progress: Progress) -> None:
    """Take a trainer, and the random states, to a place in its stage; weights are the caller's to put back.

    Raises:
        TrainingError: the optimizer's state, or a copy of weights, belongs to other parameters.
    """
    trained = [layer.index for layer in trainer.layers if layer.index not in trainer.stage.frozen]
    shapes = {name: t.shape for name, t in freezing.state_of(trainer.model, trainer.layers, trained)}
    fits = all(
        {n: t.shape for n, t in kept.items()} in ({}, shapes) for kept in (progress.best, progress.start)
    )
    if not fits or load_named_state(trainer.model, trainer.optimizer, progress.optimizer) != len(
        progress.optimizer
    ):
        raise TrainingError(
            "the network has other layers, or trains others, than when the stage stopped; "
            "train anew: %tl_train"
        )
    trainer.epoch, trainer.done, trainer.steps_done = progress.epoch, progress.done, progress.steps_done
    trainer.unmeasured, trainer.micro = progress.unmeasured, progress.micro
    device = trainer.route.device
    trainer.total = None if progress.total is None else progress.total.to(device, torch.float32, copy=True)
    if progress.random:
        set_random_states(progress.random)
