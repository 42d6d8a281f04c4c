"""The range test on the layers of a stage."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import cycle
from typing import Any

import torch
from torch import Tensor

from tlnb.engine.features.held import HeldBatches
from tlnb.engine.rates import lr_finder
from tlnb.engine.rates.lr_curve import LRCurve
from tlnb.engine.rates.snapshot import transaction
from tlnb.engine.rates.suggest import rule_for
from tlnb.engine.training import optim
from tlnb.engine.training.order import batches, seed_for
from tlnb.engine.training.stopping import StopRequest
from tlnb.engine.training.trainer import StageTrainer


def find_rate(
    trainer: StageTrainer,
    request: StopRequest | None = None,
    on_step: Callable[[int, int], None] = lambda done, steps: None,
    **settings: Any,
) -> LRCurve:
    """The range test on this stage's layers; leaves no trace.

    Single losses say more about which samples a batch happens to hold than about the rate. So each loss is
    paired with the loss of the same batch, under the same dropout, before the sweep: the curve shows
    ``loss(w, batch) - loss(w0, batch)`` plus the mean of ``loss(w0, .)``, a control variate that costs one
    forward pass a batch. Random changes are those of one view, and each batch is made once.

    Args:
        trainer: the stage.
        request: read at each step.
        on_step: told after each rate how many were tried, of how many.
        settings: of the sweep, see ``lr_finder.range_test``; a rule that is not named is the schedule's.

    Raises:
        Stopped: a stop was asked for.
    """
    order = batches(len(trainer.route.train), trainer.batch, trainer.seed, trainer.number, -1)
    order = order[: settings.get("steps", lr_finder.STEPS)]
    settings.setdefault("rule", rule_for(trainer.stage.schedule))
    with transaction(trainer.model, trainer.optimizer, trainable_only=not trainer.steps_of_its_own):
        trainer.set_modes(training=True)
        held = HeldBatches(trainer.route.train.view(trainer.number, trainer.epoch), order)
        before = _losses(trainer, held, request)
        usual, turn = sum(before) / len(before), cycle(range(len(order)))

        def step() -> Tensor:
            at = next(turn)
            torch.manual_seed(seed_for(trainer.seed, trainer.number, at))
            return trainer.train_step(order[at], held[at]) - before[at] + usual

        def between(i: int, steps: int, *_: float) -> None:
            on_step(i + 1, steps)
            if request:
                request.check()

        return lr_finder.range_test(
            step,
            partial(optim.set_rate, trainer.optimizer),
            ratios=trainer.ratios if trainer.stage.decay != 1.0 else None,
            on_step=between,
            **settings,
        )


def _losses(trainer: StageTrainer, held: HeldBatches, request: StopRequest | None) -> list[Tensor]:
    """The training loss of each batch with the weights as they are."""
    losses = []
    for at, (indices, inputs) in enumerate(zip(held.order, held.stream(), strict=True)):
        if request:
            request.check()
        torch.manual_seed(seed_for(trainer.seed, trainer.number, at))
        losses.append(trainer.loss_of(indices, inputs))
    return losses
