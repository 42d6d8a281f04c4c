"""Averages of the weights that a stage passes through, and the BatchNorm statistics that belong to them.

Plain torch and nothing of tlnb, so that a script of a session can hold the very same code.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn

DECAY = 0.99  # of the exponential average, once it has seen enough steps


class Average:
    """An average of weights as they train.

    ``ema`` moves after each step t by ``w' = d w' + (1 - d) w`` with ``d = min(DECAY, (1 + t) / (10 + t))``, as
    Polyak and Juditsky 1992 average and TensorFlow warms it up; ``last:N`` is the mean after each of the last N epochs
    (stochastic weight averaging, Izmailov et al. 2018).

    Args:
        kind: ``ema`` or ``last:N``.
        weights: by name; those that train.
        epochs: of the stage, as planned.
    """

    def __init__(self, kind: str, weights: dict[str, nn.Parameter], epochs: int):
        self.weights = weights
        self.first = (
            0 if kind == "ema" else epochs - int(kind.partition(":")[2]) + 1
        )  # epoch that counts; 0 for steps
        self.kept: dict[str, Tensor] = {}
        self.count = 0

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Take a step of the optimizer in, counted from 1 in the stage."""
        if self.first == 0:
            decay = min(DECAY, (1 + step) / (10 + step))
            self._take(get_ema_multi_avg_fn(decay))

    @torch.no_grad()
    def after_epoch(self, epoch: int) -> None:
        """Take the end of an epoch in, counted from 1."""
        if self.first != 0 and epoch >= self.first:
            self._take(get_swa_multi_avg_fn())

    def _take(self, move: Any) -> None:
        if not self.kept:
            self.kept = {name: weight.detach().clone() for name, weight in self.weights.items()}
        else:
            now = [weight.detach() for weight in self.weights.values()]
            move(list(self.kept.values()), now, self.count)
        self.count += 1

    @torch.no_grad()
    def put(self) -> bool:
        """Give the weights their averages; False where nothing was averaged."""
        for name, kept in self.kept.items():
            self.weights[name].copy_(kept)
        return bool(self.kept)


@torch.no_grad()
def renew_statistics(norms: list[_BatchNorm], forward: Any, batches: Iterable[Any]) -> None:
    """Give BatchNorm layers the means and variances of what reaches them now, over all of these batches.

    Args:
        norms: of a network in test mode; they alone are in train mode meanwhile.
        forward: is called with each batch.
        batches: of the training samples.
    """
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.training, norm.momentum = True, None  # None is the plain mean over the batches
    try:
        for batch in batches:
            call(forward, batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.training, norm.momentum = False, momentum
