"""Training, validation and test samples: groups whole, equal samples together, the classes in proportion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tlnb.display.tables import few, printable
from tlnb.engine.core.arguments import number_between
from tlnb.engine.data.chronology import Times, in_time
from tlnb.engine.data.deal import deal
from tlnb.engine.data.groups import Groups, joined, same_content
from tlnb.errors import DataError

PARTS = ("training", "validation", "test")
TRAIN, VALID, TEST, LEFT_OUT = 0, 1, 2, -1
FINE = 10**6  # shares are rounded to this part of the whole
BINS = 10  # of measured values, so that small and large ones are in every part
FAR = 5  # points between the share that was asked for and the one that came out, from which it is said


@dataclass(frozen=True)
class Partition:
    """Which samples are for what.

    Attributes:
        train, valid, test: places of the samples in their source, rising: int64; ``test`` is empty where none
            was asked for.
        units: number of what was kept whole (a group, or equal samples) for each sample: int64 of shape (N,).
            A bootstrap draws these.
        left_out: places of samples that are in no part, since they belong to a group of a part that the source
            holds out; rising.
        notes: what the user should know, a line each.
    """

    train: Tensor
    valid: Tensor
    test: Tensor
    units: np.ndarray = field(repr=False)
    left_out: Tensor
    notes: tuple[str, ...] = ()


def partition(
    targets: Tensor,
    *,
    valid: float | None = 0.2,
    test: float | None = None,
    seed: int = 0,
    digests: Sequence[bytes | None] | None = None,
    groups: Groups | None = None,
    near: Groups | None = None,
    times: Times | None = None,
    own: np.ndarray | None = None,
    classes: Sequence[str] | None = None,
) -> Partition:
    """Split samples into parts.

    Args:
        targets: int64 of shape (N,) for classes; float32 of shape (N, labels) of 0 and 1, or (N, values).
        valid: share that validates; not looked at where ``own`` has such a part.
        test: share for the test part; None for none, unless ``own`` has one.
        seed: the same seed and samples give the same parts on every machine.
        digests: of each sample's content; samples with the same one are in one part.
        groups: samples that stay together.
        near: more of these, such as near duplicates.
        times: the newest samples validate, or are the test part with those before them as validation; the
            classes are then as time has them.
        own: the source's own parts: for each sample ``TRAIN``, ``VALID`` or ``TEST``. What is held out stays
            so; a sample to learn from that belongs to a group there is left out.
        classes: names for the words.

    Raises:
        DataError: an impossible share, fewer groups than parts, a class that is in one group only, or a part
            with no sample.
    """
    count = len(targets)
    _check_shares(valid, test)
    told = [*([groups] if groups else []), *([near] if near else [])]
    equal = [] if digests is None else [same_content(digests)]
    units = joined(count, *(g.numbers for g in told), *equal)
    part = np.full(count, TRAIN) if own is None else np.array(own)
    wanted = _wanted(part, valid, test)
    notes: list[str] = []
    if own is not None:
        part, lines = _torn(part, units)
        notes += lines
    if wanted:
        rows = np.flatnonzero(part == TRAIN)
        part[rows] = _dealt(targets[rows], units[rows], wanted, seed, told, times, rows, classes)
    places = [torch.from_numpy(np.flatnonzero(part == p)) for p in (TRAIN, VALID, TEST, LEFT_OUT)]
    if not len(places[TRAIN]) or not len(places[VALID]):
        empty = PARTS[TRAIN if not len(places[TRAIN]) else VALID]
        raise DataError(f"no sample is left for the {empty} part of {count:,} samples")
    notes += [*_of_groups(told, part), *_of_time(times, part, units)]
    notes += _of_shares(part, wanted) if wanted else []
    notes += lacking(targets, part, units, classes)
    return Partition(places[TRAIN], places[VALID], places[TEST], units, places[LEFT_OUT], tuple(notes))


def strata_of(targets: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of a sample and a stratum of it: its class, each of its labels, or the tenth that its value is in.

    Args:
        targets: int64 of shape (N,); float32 of shape (N, 1) for a value; (N, labels) of 0 and 1 for labels.

    Returns:
        Places and strata, both int64 of shape (M,); all samples are of one stratum where these are several values.
    """
    rows = np.arange(len(targets))
    if not targets.is_floating_point():
        return rows, targets.numpy()
    if targets.dim() == 2 and targets.shape[1] > 1:
        if bool(((targets == 0) | (targets == 1)).all()):
            places, labels = np.nonzero(targets.numpy())
            return places, labels
        return rows, np.zeros(len(rows), dtype=np.int64)
    values = targets.flatten().numpy()
    rank = values.argsort(kind="stable").argsort(kind="stable")
    bins = min(BINS, len(values) // 10)  # enough in each that every part gets some
    return rows, rank * bins // len(values) if bins > 1 else np.zeros(len(rows), dtype=np.int64)


def check_reach(
    targets: Tensor, units: np.ndarray, told: Sequence[Groups], parts: int, classes: Sequence[str] | None
) -> None:
    """See that there is enough to part.

    Args:
        targets: (N,) or (N, outputs).
        units: of each sample, (N,).
        told: the groups that the user asked for.
        parts: how many parts there will be.
        classes: names.

    Raises:
        DataError: fewer units than parts, or a class in one of them only.
    """
    count = len(np.unique(units))
    by = " and ".join(g.by for g in told)
    if count < parts:
        there = f"{count} group{'s' * (count != 1)} by {by}" if told else f"{count} different samples"
        raise DataError(f"{parts} parts need {parts} groups or more; there are {there}")
    if targets.is_floating_point():
        return
    pairs = np.unique(np.stack([targets.numpy(), units]), axis=1)[0]
    numbers, reach = np.unique(pairs, return_counts=True)
    if (reach > 1).all():
        return
    number = int(numbers[reach < 2][0])
    name = f"class {printable(classes[number])!r}" if classes else f"class number {number}"
    same = int((targets == number).sum())
    if told and same > 1:
        more = int((reach < 2).sum()) - 1
        others = f", as {more} other class{'es' * (more != 1)}" * bool(more)
        raise DataError(
            f"{name} is in one group only by {by}{others}; it could be learned or measured, not both: "
            "choose other groups or leave it out"
        )
    what = "one sample" if same == 1 else f"{same} samples that are all equal"
    raise DataError(f"{name} has {what}; a split needs two in each class")


def lacking(targets: Tensor, part: np.ndarray, units: np.ndarray, classes: Sequence[str] | None) -> list[str]:
    """Which classes or labels are in no sample of a part.

    Args:
        targets: int64 (N,), or labels (N, labels) of 0 and 1; of values there is nothing to say.
        part: of each sample, (N,).
        units: of each sample, (N,).
        classes: names.
    """
    rows, strata = strata_of(targets)
    if targets.is_floating_point() and (targets.dim() < 2 or targets.shape[1] < 2):
        return []
    lines = []
    known = np.unique(strata)
    for number, name in enumerate(PARTS):
        if not (part == number).any():
            continue
        absent = np.setdiff1d(known, strata[part[rows] == number])
        if not len(absent):
            continue
        names = tuple(printable(classes[i]) if classes else f"number {i}" for i in absent.tolist())
        most = max(len(np.unique(units[rows[strata == i]])) for i in absent.tolist())
        reach = f"{most} group{'s' * (most != 1)}"
        one, many = ("label", "labels") if targets.is_floating_point() else ("class", "classes")
        lines.append(
            f"{one} {names[0]} is lacking in {name}; it is in {reach}"
            if len(names) == 1
            else f"{len(names)} {many} are lacking in {name}: {few(names)}; each is in {reach} at most"
        )
    return lines


# -------------------------------------------------------------------- steps


def _check_shares(valid: float | None, test: float | None) -> None:
    for option, share in (("--valid", valid), ("--test", test)):
        if share is not None:
            number_between(share, option, 0, 1, DataError)
    if valid is not None and test is not None and valid + test >= 1:
        raise DataError(f"--valid {valid:g} and --test {test:g} leave nothing to learn from")


def _wanted(part: np.ndarray, valid: float | None, test: float | None) -> dict[int, int]:
    """Parts that are dealt from the training samples and their shares; nothing where the source has all."""
    wanted = {}
    if valid is not None and not (part == VALID).any():
        wanted[VALID] = round(valid * FINE)
    if test is not None:
        if (part == TEST).any():
            raise DataError("the source has a test part of its own; leave out --test")
        wanted[TEST] = round(test * FINE)
    return {TRAIN: FINE - sum(wanted.values()), **wanted} if wanted else {}


def _dealt(
    targets: Tensor, units: np.ndarray, wanted: dict[int, int], seed: int, told: Sequence[Groups],
    times: Times | None, rows: np.ndarray, classes: Sequence[str] | None,
) -> np.ndarray:  # fmt: skip
    """The part of each of these samples."""
    numbers = np.unique(units, return_inverse=True)[1]
    shares = [max(share, 1) for share in wanted.values()]
    if times is not None:
        found = in_time(numbers, times.values[rows], shares)
    else:
        check_reach(targets, numbers, told, len(shares), classes)
        found = deal(numbers, *strata_of(targets), shares, seed)
    return np.array(list(wanted))[found[numbers]]


def _torn(part: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Leave out what the source has in an earlier part although its group is in a later one."""
    latest = np.full(int(units.max()) + 1, TRAIN)
    np.maximum.at(latest, units, part)
    kept = np.where(part < latest[units], LEFT_OUT, part)
    lines = []
    for number in (TRAIN, VALID):
        gone = int(((part == number) & (kept == LEFT_OUT)).sum())
        if gone:
            their = "its group or an equal sample is" if gone == 1 else "their group or an equal sample is"
            lines.append(
                f"{gone:,} {PARTS[number]} sample{'s are' if gone > 1 else ' is'} left out: {their} in a part "
                "that the source holds out"
            )
    return kept, lines


# -------------------------------------------------------------------- words


def _of_groups(told: Sequence[Groups], part: np.ndarray) -> list[str]:
    lines = []
    for groups in told:
        in_parts = [
            f"{len(np.unique(groups.numbers[part == number])):,} in {name}"
            for number, name in enumerate(PARTS)
            if (part == number).any()
        ]
        lines.append(f"{len(groups):,} groups by {groups.by}, none on two sides: {', '.join(in_parts)}")
    return lines


def _of_time(times: Times | None, part: np.ndarray, units: np.ndarray) -> list[str]:
    if times is None:
        return []
    spans = []
    for number, name in enumerate(PARTS):
        rows = np.flatnonzero(part == number)
        if len(rows):
            first, last = rows[times.values[rows].argmin()], rows[times.values[rows].argmax()]
            spans.append(f"{name} {times.words[first]} to {times.words[last]}")
    lines = [f"in time by {times.by}: {', '.join(spans)}"]
    newest = times.values[part == TRAIN].max(initial=-np.inf)
    older = int(((part > TRAIN) & (times.values < newest)).sum())
    if older:
        lines.append(
            f"{older:,} held-out sample{'s are' if older > 1 else ' is'} older than the newest training sample: "
            "a group, or equal samples, count as their newest"
        )
    return lines


def _of_shares(part: np.ndarray, wanted: dict[int, int]) -> list[str]:
    among = np.isin(part, list(wanted))
    lines = []
    for number, share in wanted.items():
        got, asked = 100 * float((part[among] == number).mean()), 100 * share / FINE
        if number != TRAIN and abs(got - asked) >= FAR:
            lines.append(
                f"{PARTS[number]} has {got:.0f} % of the samples, not {asked:.0f} %: groups stay whole"
            )
    return lines
