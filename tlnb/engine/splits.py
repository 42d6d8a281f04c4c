"""Which samples train and which validate: stratified, seeded, the same next time."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from tlnb.errors import DataError


def split(targets: Tensor, valid: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indexes of training and validation samples, each in ascending order.

    Args:
        targets: int64 of shape (N,); each class is split in the same proportion.
        valid: share of the samples that validate, between 0 and 1.
        seed: the same seed and targets give the same split.

    Raises:
        DataError: a share outside (0, 1), or a class with fewer than two samples.
    """
    if not 0 < valid < 1:
        raise DataError(f"--valid takes a share between 0 and 1, not {valid}")
    counts = torch.bincount(targets)
    single = [int(c) for c in torch.nonzero(counts == 1).flatten()]
    if single:
        raise DataError(f"class number {single[0]} has one sample; a split needs two in each class")
    try:
        train, held = train_test_split(
            np.arange(len(targets)), test_size=valid, stratify=targets.numpy(), random_state=seed
        )
    except ValueError as error:
        raise DataError(f"cannot split {len(targets)} samples with --valid {valid}: {error}") from None
    return torch.from_numpy(np.sort(train)), torch.from_numpy(np.sort(held))


def first_per_class(targets: Tensor, indices: Tensor, count: int, seed: int) -> Tensor:
    """A random choice of at most ``count`` of the given samples in each class, in ascending order."""
    order = indices[torch.randperm(len(indices), generator=torch.Generator().manual_seed(seed))]
    kept = [order[targets[order] == c][:count] for c in targets[indices].unique()]
    return torch.cat(kept).sort().values
