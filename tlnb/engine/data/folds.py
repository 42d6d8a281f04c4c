"""Folds for cross-validation, by the rules of a split, and predictions put back into the order of the samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tlnb.display.tables import few, printable
from tlnb.engine.core.arguments import whole_number
from tlnb.engine.data.chronology import Times, in_time
from tlnb.engine.data.deal import deal
from tlnb.engine.data.groups import Groups, joined, same_content
from tlnb.engine.data.partition import check_reach, strata_of
from tlnb.errors import DataError


@dataclass(frozen=True)
class Fold:
    """One fold.

    Attributes:
        repeat, number: which of the repeats, and which fold of it, from 0.
        train, valid: places of the samples in their source, rising: int64.
    """

    repeat: int
    number: int
    train: Tensor
    valid: Tensor


@dataclass(frozen=True)
class Folds:
    """A set of samples in folds, once or several times.

    Attributes:
        count: of samples, N.
        repeats: the fold in which each sample validates, for each repeat: int64 of shape (R, N); -1 for a sample
            that is only learned from, which is so of the oldest where the folds go in time.
        folds: how many there are in each repeat.
        ordered: whether the folds go in time: each is trained on what is older.
        units: number of what was kept whole for each sample, (N,).
        notes: what the user should know, a line each.
    """

    count: int
    repeats: np.ndarray = field(repr=False)
    folds: int
    ordered: bool
    units: np.ndarray = field(repr=False)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.repeats) * self.folds

    def __iter__(self) -> Iterator[Fold]:
        for repeat, fold_of in enumerate(self.repeats):
            for number in range(self.folds):
                train = fold_of < number if self.ordered else fold_of != number
                yield Fold(repeat, number, *map(_places, (train, fold_of == number)))

    def out_of_fold(self, answers: Sequence[np.ndarray]) -> np.ndarray:
        """What each sample was answered by the network that had not seen it, in the order of the source.

        Args:
            answers: for each fold in the order of iteration, those of its ``valid`` samples, (n, outputs).

        Returns:
            float64 of shape (N, outputs): the mean over the repeats; NaN for samples that never validate.
        """
        found = np.zeros((self.count, *answers[0].shape[1:]))
        times = np.zeros(self.count)
        for fold, part in zip(self, answers, strict=True):
            found[fold.valid.numpy()] += part
            times[fold.valid.numpy()] += 1
        with np.errstate(invalid="ignore"):
            return found / times.reshape(-1, *[1] * (found.ndim - 1))


def _places(mask: np.ndarray) -> Tensor:
    return torch.from_numpy(np.flatnonzero(mask))


def make_folds(
    targets: Tensor,
    folds: int = 5,
    *,
    repeats: int = 1,
    seed: int = 0,
    digests: Sequence[bytes | None] | None = None,
    groups: Groups | None = None,
    near: Groups | None = None,
    times: Times | None = None,
    classes: Sequence[str] | None = None,
) -> Folds:
    """Deal samples into folds; each sample validates once a repeat.

    Args:
        targets: int64 of shape (N,) for classes; float32 of shape (N, outputs) otherwise.
        folds: how many, two or more.
        repeats: how often all samples are dealt anew.
        seed: of the first repeat; the others have the next ones.
        digests: of each sample's content; samples with the same one are in one fold.
        groups, near: samples that stay together.
        times: each fold is newer than the one before, and trained on all that is older; the oldest samples only
            train.
        classes: names for the words.

    Raises:
        DataError: more folds than groups, a class in one group only, or repeats of folds that go in time.
    """
    whole_number(folds, "the number of folds", 2, DataError)
    whole_number(repeats, "--repeats", 1, DataError)
    told = [*([groups] if groups else []), *([near] if near else [])]
    equal = [] if digests is None else [same_content(digests)]
    units = joined(len(targets), *(g.numbers for g in told), *equal)
    if times is not None:
        if repeats > 1:
            raise DataError("--repeats needs folds that can be dealt anew; in time there is one order only")
        dealt = [in_time(units, times.values, [1] * (folds + 1)) - 1]
    else:
        _check(targets, units, told, folds, classes)
        dealt = [
            deal(units, *strata_of(targets), [1] * folds, seed + repeat, ranked=False)
            for repeat in range(repeats)
        ]
    table = np.stack([part[units] for part in dealt])
    notes = [f"{len(g):,} groups by {g.by}, none in two folds" for g in told]
    if times is not None:
        notes.append(f"in time by {times.by}: each fold is newer than all that it is trained on")
    notes += _scarce(targets, units, folds, classes)
    return Folds(len(targets), table, folds, times is not None, units, tuple(notes))


def _check(
    targets: Tensor, units: np.ndarray, told: Sequence[Groups], folds: int, classes: Sequence[str] | None
) -> None:
    count = len(np.unique(units))
    if count < folds:
        there = f"{count} group{'s' * (count != 1)} by {told[0].by}" if told else f"{count} different samples"
        raise DataError(f"{folds} folds need {folds} groups or more; there are {there}")
    check_reach(targets, units, told, 2, classes)


def _scarce(targets: Tensor, units: np.ndarray, folds: int, classes: Sequence[str] | None) -> list[str]:
    """Which classes cannot be in every fold."""
    if targets.is_floating_point():
        return []
    pairs = np.unique(np.stack([targets.numpy(), units]), axis=1)[0]
    numbers, reach = np.unique(pairs, return_counts=True)
    short = numbers[reach < folds].tolist()
    if not short:
        return []
    names = tuple(printable(classes[i]) if classes else f"number {i}" for i in short)
    return [f"too few groups to be in each of {folds} folds: {few(names)}"]
