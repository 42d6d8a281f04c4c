"""Data as marks mend it: relabelled samples have another target, dropped ones are in no part; files stay."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from tlnb.engine.core.objectives import Classification
from tlnb.engine.data.augmented import AugmentedSamples, augmented
from tlnb.engine.data.balance import class_weights
from tlnb.engine.data.dataset import Data
from tlnb.engine.data.marks import DROP, KEEP, RELABEL, Log, Mark, Numbers
from tlnb.engine.data.raw import RawDataset
from tlnb.engine.data.samples import Samples
from tlnb.engine.data.split import repeated_to_balance
from tlnb.engine.data.wholes import pieces_of
from tlnb.errors import DataError, did_you_mean


@dataclass(frozen=True)
class Mending:
    """What was done to a data set.

    Attributes:
        original: as it was read.
        log: the decisions, in order.
        numbers: of the original's samples.
        marks: the decision that holds for each marked sample, by its number.
        rows: of the original's training and validation samples, those that stay: int64, rising.
    """

    original: Data = field(repr=False)
    log: Log
    numbers: Numbers = field(repr=False)
    marks: dict[int, Mark]
    rows: tuple[Tensor, Tensor] = field(repr=False)

    def samples(self, data: Data, base: tuple[Samples, Samples]) -> tuple[Samples, Samples]:
        """The mended samples, out of those of the original: nothing is read, decoded or kept anew.

        Args:
            data: the mended data.
            base: the original's, fitted to the network.
        """
        train = plain_of(base[0])
        rows, targets = self.rows[0], data.train.targets
        if data.balance == "samples":
            before, again = (
                repeated_to_balance(each) for each in (self.original.train.targets, data.train.targets)
            )
            first = torch.full((len(self.original.train),), -1)
            first[before.flip(0)] = torch.arange(len(before)).flip(0)
            rows, targets = first[rows[again]], targets[again]
        made = chosen(train, rows, targets)
        return augmented(made, data.augment, data.seed), chosen(base[1], self.rows[1], data.valid.targets)


def numbers_of(data: Data, places: Iterable[tuple[int, int]]) -> list[int]:
    """The numbers of samples, under which they are marked.

    Args:
        data: as it is now, mended or not.
        places: of each, its part (0 trains, 1 validates) and its index there.
    """
    if data.mending is None:
        numbers = Numbers(data).numbers
    else:
        train, valid = data.mending.numbers.numbers
        numbers = train[data.mending.rows[0]], valid[data.mending.rows[1]]
    return [int(numbers[part][index]) for part, index in places]


def plain_of(samples: Samples) -> Samples:
    """The samples without their random changes."""
    return samples.plain if isinstance(samples, AugmentedSamples) else samples


def base_of(data: Data, samples: tuple[Samples, Samples]) -> tuple[Samples, Samples]:
    """The samples of the data as it was read, out of those of the data as it is now."""
    if data.mending is None:
        return samples
    train, valid = map(plain_of, samples)
    assert train.origin is not None
    assert valid.origin is not None
    return train.origin[0], valid.origin[0]


def chosen(base: Samples, rows: Tensor, targets: Tensor) -> Samples:
    """Some samples of a set under targets of their own; what is computed once for the set serves them.

    Args:
        base: the whole set.
        rows: int64 of shape (n,), places in it; of wholes, where its samples are pieces.
        targets: of the chosen ones, (n,) or (n, outputs).
    """
    wholes = None
    if base.wholes is not None:
        rows, wholes = pieces_of(base.wholes, rows)
        assert wholes is not None
        targets = targets[wholes]
    if len(rows) == len(base) and bool((rows == torch.arange(len(base))).all()):
        made = base.under(targets)
    else:
        made = base.some(rows).under(targets)
    made.wholes, made.origin = wholes, (base, rows)
    return made


def mended(data: Data, log: Log) -> Data:
    """The data with these decisions carried out, in place of those that it has.

    Args:
        data: read, or mended before.
        log: all decisions; none gives the data back as it was read.

    Raises:
        DataError: a class that is not there, labels for data that has not one class a sample, or too little left.
    """
    original = data.mending.original if data.mending is not None else data
    if not log:
        return original
    numbers = data.mending.numbers if data.mending is not None else Numbers(original)
    marks = numbers.find(log)
    targets = [original.train.targets.clone(), original.valid.targets.clone()]
    stays = [torch.ones(len(part), dtype=torch.bool) for part in targets]
    for sample, mark in marks.items():
        part, index = numbers.place(sample)
        if mark.act == DROP:
            stays[part][index] = False
        elif mark.act == RELABEL:
            targets[part][index] = class_number(original, mark.label)
    rows = tuple(keep.nonzero().flatten() for keep in stays)
    _check(original, rows, targets)
    train, valid = (
        _part(collection, row, target)
        for collection, row, target in zip(numbers.parts, rows, targets, strict=True)
    )
    task, places = original.task, original.split
    if isinstance(task, Classification) and original.balance == "weights":
        task = replace(task, weights=class_weights(train.targets, len(original.classes)))
    if places is not None:
        dropped = [numbers.numbers[part][~keep] for part, keep in enumerate(stays)]
        places = replace(
            places, train=places.train[rows[0]], valid=places.valid[rows[1]],
            left_out=torch.cat([places.left_out, *dropped]).sort().values,
        )  # fmt: skip
    made = Mending(original, log, numbers, marks, (rows[0], rows[1]))
    return replace(
        original, train=train, valid=valid, task=task, split=places, mending=made,
        notes=[*original.notes, *_notes(marks, numbers, log)],
    )  # fmt: skip


def class_number(data: Data, label: str) -> int:
    """The number of a class.

    Raises:
        DataError: there is none of that name, or samples have not one class each.
    """
    if not isinstance(data.task, Classification):
        raise DataError(
            "only samples with one class each can be relabelled; drop this one, or mend its table"
        )
    if label not in data.classes:
        classes = ", ".join(data.classes[:8]) + (" …" if len(data.classes) > 8 else "")
        raise DataError(f"there is no class {label!r}{did_you_mean(label, data.classes)}; classes: {classes}")
    return data.classes.index(label)


def _part(collection: RawDataset, rows: Tensor, targets: Tensor) -> RawDataset:
    made = collection.subset(rows)
    made.targets = targets[rows]
    return made


def _check(data: Data, rows: tuple[Tensor, ...], targets: list[Tensor]) -> None:
    train, valid = (target[row] for target, row in zip(targets, rows, strict=True))
    if len(train) < 2 or not len(valid):
        raise DataError(
            f"the marks would leave {len(train)} training and {len(valid)} validation samples: too few"
        )
    if isinstance(data.task, Classification):
        there, left = (set(t.unique().tolist()) for t in (data.train.targets, train))
        gone = sorted(there - left)
        if gone:
            raise DataError(
                f"the marks would leave no training sample of the class {data.classes[gone[0]]!r}"
            )


def _notes(marks: dict[int, Mark], numbers: Numbers, log: Log) -> list[str]:
    words = counted(marks)
    made = {(mark.content, mark.name, mark.sample) for mark in log}
    held = {(mark.content, mark.name, mark.sample) for mark in numbers.find(log).values()}
    lost = len(made) - len(held)
    notes = [f"mended by marks: {words}; %tl_clean shows them, the source stays as it is"] if words else []
    if lost > 0:
        few = f"{lost} mark{'s' * (lost != 1)}"
        notes.append(f"{few} fit no training or validation sample (the test part is not read)")
    return notes


def counted(marks: dict[int, Mark]) -> str:
    """How many samples were relabelled, dropped and kept, in words; empty for none."""
    names = {RELABEL: "relabelled", DROP: "dropped", KEEP: "kept as they are"}
    counts = {act: sum(mark.act == act for mark in marks.values()) for act in names}
    return ", ".join(f"{counts[act]} {name}" for act, name in names.items() if counts[act])
