"""Which samples of a source are in which part."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tlnb.engine.data.partition import LEFT_OUT, TEST, TRAIN, VALID


def _none() -> Tensor:
    return torch.zeros(0, dtype=torch.int64)


@dataclass(frozen=True)
class Places:
    """Places of the samples of each part in their source, int64.

    Attributes:
        train: to learn from.
        valid: to measure on.
        test: under seal; empty for none.
        left_out: in no part, since they belong to a group that is held out.
    """

    train: Tensor
    valid: Tensor
    test: Tensor = field(default_factory=_none)
    left_out: Tensor = field(default_factory=_none)

    @classmethod
    def of(cls, own: np.ndarray) -> Places:
        """From the number of the part of each sample, (N,)."""
        return cls(
            *(torch.from_numpy(np.flatnonzero(own == part)) for part in (TRAIN, VALID, TEST, LEFT_OUT))
        )

    def __repr__(self) -> str:
        return (
            f"{len(self.train):,} training, {len(self.valid):,} validation, {len(self.test):,} test samples"
        )
