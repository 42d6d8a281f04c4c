"""A choice of samples, as samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from tlnb.engine.data.samples import Samples
from tlnb.engine.hashing import tensors_digest


class ChosenSamples(Samples):
    """Some of the samples of a set, in a given order.

    Args:
        source: the whole set.
        rows: int64 of shape (n,), places in it.
    """

    def __init__(self, source: Samples, rows: Tensor):
        self.source, self.rows = source, rows
        self.targets, self.random = source.targets[rows], source.random
        self.at_hand = source.at_hand

    def batch(self, indices: Tensor) -> Tensor:
        """Network input for these places in the choice."""
        return self.source.batch(self.rows[indices])

    def stream(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """``batch`` for each, in order; prepared ahead where the source does so."""
        return self.source.stream(self.rows[indices] for indices in batches)

    def view(self, *numbers: int) -> Samples:
        """The same choice, as a certain stage and epoch see it."""
        return ChosenSamples(self.source.view(*numbers), self.rows) if self.random else self

    def fingerprint(self) -> str:
        """Of the source and the choice."""
        return tensors_digest([("rows", self.rows)], note=self.source.fingerprint())


def choose(samples: Samples, most: int, seed: int) -> Samples:
    """At most so many samples, drawn at random; of classes, as evenly as they are there.

    Args:
        samples: the whole set; it is given back itself where it is small enough.
        most: how many at most.
        seed: of the choice.
    """
    if len(samples) <= most:
        return samples
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
    if samples.targets.is_floating_point():
        return ChosenSamples(samples, order[:most].sort().values)
    # Each sample's turn within its class; the first turns of all classes come first.
    targets = samples.targets[order]
    turn = torch.empty(len(order), dtype=torch.int64)
    for c in targets.unique():
        of_class = (targets == c).nonzero().flatten()
        turn[of_class] = torch.arange(len(of_class)) * len(order) // len(of_class)
    return ChosenSamples(samples, order[turn.argsort(stable=True)[:most]].sort().values)
