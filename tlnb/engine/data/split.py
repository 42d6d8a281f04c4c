"""Which samples train and which validate: stratified, seeded, the same next time; equal ones on one side.

Equal samples: what to say where they stand on both sides of a split, or have different targets.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from tlnb.display.tables import few, printable
from tlnb.engine.data.raw import RawDataset
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


MOST = 2000  # items of another's data set that are read to be compared, on each side of a split
SECONDS = 0.5  # that this may take a side

Digests = Sequence[bytes | None]


def repeats(samples: RawDataset, digests: Digests) -> list[str]:
    """What to say about equal samples before they are split.

    Args:
        samples: all of them.
        digests: of each; equal ones are kept on one side of the split by these.

    Returns:
        Lines: how many there are, and where their targets differ.
    """
    group = _groups(len(digests), digests)
    firsts = np.unique(group, return_index=True)[1]
    first = torch.from_numpy(firsts[group])  # in order of appearance: group g is that of the g-th of them
    again = (first != torch.arange(len(first))).nonzero().flatten()
    if not len(again):
        return []
    notes = [
        f"{_counted(len(again), 'sample')} {samples.equal} to others; equal ones stay on one side of the split"
    ]
    differ = samples.targets[first[again]] != samples.targets[again]
    torn = again[differ.reshape(len(again), -1).any(1)]
    if len(torn):
        b = int(torn[0])
        a = int(first[b])
        names = f"{printable(samples.name(a))} and {printable(samples.name(b))}"
        pairs_of = "pair of equal samples has" if len(torn) == 1 else "pairs of equal samples have"
        notes.append(f"{len(torn)} {pairs_of} different targets, such as {names}")
    return notes


def leaks(train: RawDataset, valid: RawDataset) -> list[str]:
    """What to say about validation samples that are equal to training samples.

    Where the digests of all samples are not known, which is so for another's data set, the first items of
    each side are read and compared, as far as that goes in a second.

    Returns:
        Lines: how many there are, and what was not looked at.
    """
    ours, theirs = (part.digests() or list(_read(part)) for part in (train, valid))
    lines = _found(train, valid, ours, theirs)
    seen = [(len(digests), len(part)) for digests, part in ((ours, train), (theirs, valid))]
    if not (train.same_twice and valid.same_twice):
        return ["its items are random, so equal samples in training and validation are not looked for"]
    if any(some < every for some, every in seen):
        (a, of_a), (b, of_b) = seen
        sides = f"{a:,} of {of_a:,} training and {b:,} of {of_b:,} validation samples"
        lines.append(f"equal samples were looked for among the first {sides} only")
    return lines


def _read(part: RawDataset) -> Iterator[bytes | None]:
    """Digests of the first samples."""
    if not part.same_twice:
        return
    end = time.monotonic() + SECONDS
    for index in range(min(len(part), MOST)):
        yield part.digest_of(index)
        if time.monotonic() > end:
            return


def _found(train: RawDataset, valid: RawDataset, ours: Digests, theirs: Digests) -> list[str]:
    known = {digest: index for index, digest in enumerate(ours) if digest}
    pairs = [(index, known[digest]) for index, digest in enumerate(theirs) if digest in known]
    if not pairs:
        return []
    shown = tuple(
        f"{printable(valid.name(v))} = {printable(train.name(t))} in training" for v, t in pairs[:3]
    )
    more = ", …" if len(pairs) > 3 else ""
    return [
        f"{_counted(len(pairs), 'validation sample')} {train.equal} to training samples, so the figure is too good: "
        f"{few(shown)}{more}"
    ]


def _counted(count: int, what: str) -> str:
    return f"{count} {what} is" if count == 1 else f"{count} {what}s are"
