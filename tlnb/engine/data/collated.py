"""Samples that another's data set makes, item by item."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tlnb.engine.data.samples import Samples
from tlnb.engine.hashing import tensors_digest
from tlnb.engine.training.order import seed_for
from tlnb.engine.training.random_streams import own_stream


@dataclass(frozen=True)
class Pipeline:
    """How another's data set makes network input.

    Attributes:
        item: gives the item (input and target) of a number.
        collate: makes inputs, or inputs and targets, of a list of items.
        random: items differ from call to call; as far as they draw from torch, they follow seed, view and
            number then.
        seed: that they follow.
    """

    item: Callable[[int], Any]
    collate: Callable[[list[Any]], Any]
    random: bool = False
    seed: int = 0


class CollatedSamples(Samples):
    """Items of a data set, collated batch by batch into network input.

    Args:
        pipeline: makes it.
        rows: number of each sample, int64 of shape (N,).
        targets: of shape (N,) or (N, outputs).
    """

    def __init__(self, pipeline: Pipeline, rows: Tensor, targets: Tensor):
        self.pipeline, self.rows, self.targets = pipeline, rows, targets
        self.random = pipeline.random
        self._numbers: tuple[int, ...] = ()

    def view(self, *numbers: int) -> Samples:
        """The items as a certain stage and epoch see them."""
        if not self.random:
            return self
        other = copy.copy(self)
        other._numbers = numbers
        return other

    def batch(self, indices: Tensor) -> Tensor:
        """Inputs as the data set's collate function gives them: (B, ...)."""
        items = []
        for row in self.rows[indices].tolist():
            with own_stream(seed_for(self.pipeline.seed, *self._numbers, row)):
                items.append(self.pipeline.item(row))
        made = self.pipeline.collate(items)
        return made[0] if isinstance(made, tuple | list) else made

    def fingerprint(self) -> str:
        """Over the items, each as a batch of its own."""
        one = (self.batch(row.reshape(1)) for row in self.rows.new_tensor(range(len(self))))
        content = tensors_digest(((str(place), batch) for place, batch in enumerate(one)), str(self._numbers))
        return tensors_digest([("targets", self.targets)], note=content)
