"""Which samples train and which validate: stratified, seeded, the same next time; equal ones on one side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tlnb.errors import DataError

BINS = 10  # of measured values, so that small and large ones are on both sides


def split(
    targets: Tensor,
    valid: float,
    seed: int,
    *,
    digests: Sequence[bytes | None] | None = None,
    classes: Sequence[str] | None = None,
) -> tuple[Tensor, Tensor]:
    """Indexes of training and validation samples, each in ascending order.

    Args:
        targets: int64 of shape (N,): each class is split in the same proportion; float32 of shape (N, 1): so
            is each tenth of the values; other shapes are split as they come.
        valid: share of the samples that validate, between 0 and 1.
        seed: the same seed and targets give the same split.
        digests: of each sample's content; samples with the same one stay on one side.
        classes: names for the errors.

    Raises:
        DataError: a share outside (0, 1), or a class with fewer than two different samples.
    """
    if not 0 < valid < 1:
        raise DataError(f"--valid takes a share between 0 and 1, not {valid}")
    from sklearn.model_selection import train_test_split  # a second to import, for those who need it

    group = _groups(len(targets), digests)
    first = np.unique(group, return_index=True)[1]
    strata = _strata(targets)
    if strata is not None:
        strata = strata[first]
        _check_two(targets, strata, classes)
        # A small share of few samples still takes one of each class.
        least = len(np.unique(strata))
        size: float = least if valid * len(first) < least else valid
    else:
        size = valid
    try:
        train, _ = train_test_split(np.arange(len(first)), test_size=size, stratify=strata, random_state=seed)
    except ValueError as error:
        raise DataError(f"cannot split {len(targets)} samples with --valid {valid}: {error}") from None
    trains = np.isin(group, train)
    return torch.from_numpy(np.flatnonzero(trains)), torch.from_numpy(np.flatnonzero(~trains))


def _groups(count: int, digests: Sequence[bytes | None] | None) -> np.ndarray:
    """A number for each sample, from 0 in order of appearance; equal samples share theirs."""
    if digests is None:
        return np.arange(count)
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(d or index, len(numbers)) for index, d in enumerate(digests)])


def _strata(targets: Tensor) -> np.ndarray | None:
    if not targets.is_floating_point():
        return targets.numpy()
    if targets.dim() == 2 and targets.shape[1] > 1:
        return None
    values = targets.flatten().numpy()
    rank = values.argsort(kind="stable").argsort(kind="stable")
    bins = min(BINS, len(values) // 10)  # enough in each that both sides get some
    return rank * bins // len(values) if bins > 1 else None


def _check_two(targets: Tensor, strata: np.ndarray, classes: Sequence[str] | None) -> None:
    numbers, counts = np.unique(strata, return_counts=True)
    if (counts < 2).any() and not targets.is_floating_point():
        number = int(numbers[counts < 2][0])
        name = f"class {classes[number]!r}" if classes else f"class number {number}"
        same = int((targets == number).sum())
        what = "one sample" if same == 1 else f"{same} samples that are all equal"
        measured = classes is not None and len(classes) > 2 and all(_is_whole(name) for name in classes)
        hint = "; if these are measured values: --target regression" if measured else ""
        raise DataError(f"{name} has {what}; a split needs two in each class{hint}")


def _is_whole(name: str) -> bool:
    try:
        return float(name).is_integer()
    except ValueError:
        return False


def first_per_class(targets: Tensor, indices: Tensor, count: int, seed: int) -> Tensor:
    """A random choice of at most ``count`` of the given samples in each class, in ascending order."""
    order = indices[torch.randperm(len(indices), generator=torch.Generator().manual_seed(seed))]
    kept = [order[targets[order] == c][:count] for c in targets[indices].unique()]
    return torch.cat(kept).sort().values


def repeated_to_balance(targets: Tensor) -> Tensor:
    """Indexes in which every class is as frequent as the largest: samples of the others are repeated.

    Args:
        targets: int64 of shape (N,).

    Returns:
        int64; the samples of a class are repeated evenly, in ascending order.
    """
    largest = int(torch.bincount(targets).max())
    rows = [torch.nonzero(targets == c).flatten() for c in targets.unique()]
    return torch.cat([r[torch.arange(largest) % len(r)] for r in rows]).sort().values
