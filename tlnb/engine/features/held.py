"""Batches that are gone through more than once and made once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tlnb.engine.data.samples import Samples
from tlnb.engine.features.cache import room


class HeldBatches:
    """The batches of an order, each made when it is first asked for and kept while there is room.

    The range test goes through the same few batches again and again. Where samples change at random, or run
    through a frozen part whose output is not kept, making a batch costs far more than a step on it.

    Args:
        samples: what the batches are made of, as one view shows them.
        order: numbers of the samples in each batch, int64.
        budget: bytes that may be kept; None for a share of what is free where the batches lie.
    """

    def __init__(self, samples: Samples, order: Sequence[Tensor], budget: int | None = None):
        self.samples, self.order, self.budget = samples, order, budget
        self._kept: dict[int, Tensor] = {}
        self._left: dict[torch.device, int] = {}

    def stream(self) -> Iterator[Tensor]:
        """Every batch in order, prepared ahead where the samples do so."""
        for at, made in enumerate(self.samples.stream(self.order)):
            yield self._keep(at, made)

    def __getitem__(self, at: int) -> Tensor:
        """The batch at a place of the order: a fresh tensor that the caller may change."""
        kept = self._kept.get(at)
        return self._keep(at, self.samples.batch(self.order[at])) if kept is None else kept.clone()

    def _keep(self, at: int, made: Tensor) -> Tensor:
        if self.samples.at_hand:
            return made
        left = self._left.get(made.device)
        if left is None:
            left = room(made.device) if self.budget is None else self.budget
        if made.nbytes <= left:
            left -= made.nbytes
            self._kept[at] = made.clone()  # what is given away may be written to by an in-place layer
        self._left[made.device] = left
        return made
