"""All that is suspicious about the samples of a data set, the most suspicious first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tlnb.display.tables import printable
from tlnb.engine.cleaning.copies import TINY, Copies, picture_copies, same_content, text_copies
from tlnb.engine.cleaning.labels import LabelDoubts, chance_wrong, doubts
from tlnb.engine.cleaning.looks import Looks, odd, oddness
from tlnb.engine.cleaning.out_of_fold import out_of_fold, standard_axes
from tlnb.engine.core.objectives import Classification, Regression
from tlnb.engine.data.dataset import Data
from tlnb.engine.data.folds import make_folds
from tlnb.engine.data.groups import Groups, components, joined
from tlnb.engine.data.marks import Numbers
from tlnb.errors import DataError

LABEL, COPY, ODD, DARK, BLURRED, EMPTY = "label", "copy", "odd", "dark", "blurred", "empty"
KINDS = (LABEL, COPY, ODD, DARK, BLURRED, EMPTY)
FOLDS = 5
TRUSTED = 0.5  # share of the labels that may be left out of the second look
TWICE = 200_000  # scores up to which the folds of the second look are dealt twice
# How suspicious is what is no doubt about a label; those are from 0.5 to 1, by the chance that it is wrong.
_TWO_LABELS, _EMPTY, _BOTH_SIDES, _ODD, _DARK, _BLURRED, _INSIDE = 0.98, 0.95, 0.7, 0.5, 0.45, 0.4, 0.3
PARTS = ("train", "valid")


@dataclass(frozen=True)
class Suspect:
    """A sample that something is suspicious about.

    Attributes:
        sample: its number in the source.
        part: ``train`` or ``valid``.
        name: of its file, the beginning of a text, or its number.
        given: the class that it is labelled; empty for several labels and for values.
        likely: the class that it is likely of, where that is another one; else empty.
        sure: probability of that class by a classifier that had not seen the sample; else 0.
        kinds: ``label``, ``copy``, ``odd``, ``dark``, ``blurred`` and ``empty``, those of them that hold.
        suspicion: from 0 to 1, by which suspects stand in order.
        why: in words.
        copy_of: number of the sample that it shows again; None for none.
    """

    sample: int
    part: str
    name: str
    given: str
    likely: str
    sure: float
    kinds: tuple[str, ...]
    suspicion: float
    why: str
    copy_of: int | None = None


@dataclass(frozen=True)
class Findings:
    """What was found.

    Attributes:
        rows: the most suspicious first.
        samples: how many were looked at.
        rate: share of labels that are likely wrong; None where samples have not one class each.
        notes: how it was told, a line each.
    """

    rows: tuple[Suspect, ...] = field(repr=False)
    samples: int
    rate: float | None
    notes: tuple[str, ...] = ()

    def count(self, kind: str) -> int:
        """How many suspects are of a kind."""
        return sum(kind in row.kinds for row in self.rows)


@dataclass(frozen=True)
class Evidence:
    """What suspicions are built on, an entry a sample, training samples first.

    Attributes:
        features: of a network, (N, D).
        looks: of pictures, and of sounds as they are drawn; None for other samples.
        texts: without regard to case, space and signs; None for other samples.
        digests: of the contents, where there is nothing else to tell copies by; else None.
        source: whose features they are, in words.
    """

    features: Tensor
    looks: Looks | None = None
    texts: Sequence[str] | None = None
    digests: Sequence[str] | None = None
    source: str = ""


def find(data: Data, evidence: Evidence, on_progress: Callable[[str], None] = lambda step: None) -> Findings:
    """Look for suspects among training and validation samples; the test part is never read.

    Samples that marks have decided about are no suspects again.

    Args:
        data: as it is now, mended by marks or not.
        evidence: for its samples.
        on_progress: told in words what is done, now and then; what it raises ends the work.
    """
    samples = _Samples(data)
    on_progress("looking for copies")
    copies = _copies(evidence, lambda: on_progress("looking for copies"))
    book = _Book(samples)
    rate = None
    if isinstance(data.task, Classification):
        doubt = _doubts(
            data, samples.targets, evidence.features, copies, lambda: on_progress("looking for wrong labels")
        )
        rate = doubt.rate
        book.labels(doubt)
    book.copies(copies, evidence.digests is None)
    on_progress("looking for odd samples")
    book.plain(odd(far := oddness(evidence.features)), ODD, _ODD, "like no other sample", far)
    if evidence.looks is not None:
        looks = evidence.looks
        book.plain(looks.dark, DARK, _DARK, "almost black", 1 - looks.bright)
        book.plain(looks.blurred, BLURRED, _BLURRED, "much less sharp than the others", 1 - looks.sharp)
        book.plain(looks.empty, EMPTY, _EMPTY, "shows nothing", 1 - looks.spread / 255)
    elif evidence.texts is not None:
        blank = torch.tensor(
            [not any(c.isalnum() for c in text) for text in evidence.texts], dtype=torch.bool
        )
        book.plain(blank, EMPTY, _EMPTY, "holds no word", blank.float())
    notes = [evidence.source] if evidence.source else []
    if rate is None:
        what = "values" if isinstance(data.task, Regression) else "several labels"
        notes.append(
            f"samples have {what}, not one class each, so no label is doubted; what else is suspicious is told"
        )
    return Findings(book.rows(), len(samples), rate, tuple(notes))


class _Samples:
    """The samples of a data set in one row, training samples first."""

    def __init__(self, data: Data):
        mending = data.mending
        self.data, self.numbers = data, mending.numbers if mending is not None else Numbers(data)
        kept = (
            mending.rows
            if mending is not None
            else tuple(torch.arange(len(part)) for part in self.numbers.parts)
        )
        self.places = torch.cat(
            [own[rows] for own, rows in zip(self.numbers.numbers, kept, strict=True)]
        ).tolist()
        self.targets = torch.cat([data.train.targets, data.valid.targets])
        self.train = len(data.train)
        self.decided = set(mending.marks) if mending is not None else set()

    def __len__(self) -> int:
        return len(self.places)

    def part(self, at: int) -> str:
        return PARTS[at >= self.train]

    def label(self, at: int) -> str:
        if not isinstance(self.data.task, Classification):
            return ""
        return printable(self.data.classes[int(self.targets[at])])


class _Book:
    """What is held against each sample."""

    def __init__(self, samples: _Samples):
        self._samples = samples
        self._held: dict[int, list[tuple[str, float, str]]] = {}
        self._likely: dict[int, tuple[str, float]] = {}
        self._copies: dict[int, int] = {}

    def _add(self, at: int, kind: str, suspicion: float, why: str) -> None:
        self._held.setdefault(at, []).append((kind, suspicion, why))

    def labels(self, doubt: LabelDoubts) -> None:
        """Labels that another class is likelier than."""
        classes = self._samples.data.classes
        for at in (doubt.wrong | (doubt.sure > doubt.given)).nonzero().flatten().tolist():
            likely, sure = printable(classes[int(doubt.likely[at])]), float(doubt.sure[at])
            self._likely[at] = likely, sure
            words = "likely" if doubt.wrong[at] else "perhaps"
            given = f"{100 * float(doubt.given[at]):.0f} % for {self._samples.label(at)}"
            self._add(
                at,
                LABEL,
                0.5 + 0.5 * float(doubt.chance[at]),
                f"{words} {likely}: {100 * sure:.0f} %, {given}",
            )

    def copies(self, copies: Copies, near: bool) -> None:
        """All but one of samples that show the same; all of them where their labels differ."""
        if not len(copies.pairs):
            return
        samples = self._samples
        turned = {tuple(pair) for pair in copies.pairs[copies.mirrored].tolist()}
        groups = _tied(len(samples), copies.pairs)
        for members in groups:
            # A validation sample stays: what is like it must not teach.
            first = min(members, key=lambda at: (samples.part(at) != PARTS[1], at))
            labels = {samples.label(at) for at in members}
            parts = {samples.part(at) for at in members}
            for at in members:
                if at == first and len(labels) == 1:
                    continue
                twin = (
                    first
                    if at != first
                    else next(m for m in members if samples.label(m) != samples.label(at))
                )
                mirrored = (min(at, twin), max(at, twin)) in turned
                what = "mirror image" if mirrored else "copy"
                words = f"{what} of {printable(samples.numbers.name(samples.places[twin]))}"
                level = _INSIDE
                if len(labels) > 1 and samples.label(twin) != samples.label(at):
                    words, level = f"{words}, which is labelled {samples.label(twin)}", _TWO_LABELS
                elif len(parts) > 1 and samples.part(at) != samples.part(twin):
                    words, level = f"{words}, which is on the other side of the split", _BOTH_SIDES
                self._copies[at] = samples.places[twin]
                self._add(at, COPY, level, words)

    def plain(self, there: Tensor, kind: str, level: float, why: str, order: Tensor) -> None:
        """Samples of one more kind; among them the first are those with the largest ``order``."""
        places = there.nonzero().flatten()
        for rank, at in enumerate(places[order[places].argsort(descending=True)].tolist()):
            self._add(at, kind, level - 0.04 * rank / max(len(places), 1), why)

    def rows(self) -> tuple[Suspect, ...]:
        """The suspects in order."""
        samples, found = self._samples, []
        for at, held in self._held.items():
            number = samples.places[at]
            if number in samples.decided:
                continue
            likely, sure = self._likely.get(at, ("", 0.0))
            kinds = tuple(kind for kind in KINDS if any(kind == each[0] for each in held))
            held.sort(key=lambda each: -each[1])
            found.append(
                Suspect(
                    number, samples.part(at), printable(samples.numbers.name(number)), samples.label(at), likely, sure,
                    kinds, held[0][1], "; ".join(each[2] for each in held), self._copies.get(at),
                )
            )  # fmt: skip
        return tuple(sorted(found, key=lambda row: (-row.suspicion, row.sample)))


def _copies(evidence: Evidence, on_progress: Callable[[], None]) -> Copies:
    if evidence.texts is not None:
        return text_copies(evidence.texts, evidence.features)
    if evidence.looks is not None:
        return picture_copies(
            evidence.looks.thumbs, evidence.features, evidence.looks.side < TINY, on_progress
        )
    return same_content(evidence.digests or ())


def _tied(count: int, pairs: Tensor) -> list[list[int]]:
    """Samples that copies tie together, in order."""
    numbers = components(count, *pairs.numpy().T)
    sizes = Counter(numbers.tolist())
    members: dict[int, list[int]] = {}
    for at, number in enumerate(numbers.tolist()):
        if sizes[number] > 1:
            members.setdefault(number, []).append(at)
    return list(members.values())


def _doubts(
    data: Data, labels: Tensor, features: Tensor, copies: Copies, on_progress: Callable[[], None]
) -> LabelDoubts:
    """Doubts by two looks: what the first one doubts does not teach in the second one."""
    classes, axes = len(data.classes), standard_axes(features)
    deals = 2 if len(labels) * classes <= TWICE else 1
    tables = _folds(data, labels, copies, deals)
    first = out_of_fold(axes, labels, classes, tables[0], None, on_progress)
    agrees = first.argmax(1) == labels
    teach = agrees if float(agrees.float().mean()) >= TRUSTED else chance_wrong(first, labels) <= 0.5
    again = torch.stack(
        [out_of_fold(axes, labels, classes, table, teach, on_progress) for table in tables]
    ).mean(0)
    first, again = (_where_learned(told, labels, tables, teach) for told in (first, again))
    return doubts(first, again, labels)


def _where_learned(probabilities: Tensor, labels: Tensor, tables: Sequence[Tensor], teach: Tensor) -> Tensor:
    """Probabilities that doubt no label whose class nothing taught in its fold: such a class could not be learned."""
    found = probabilities.clone()
    for table in tables:
        for fold in range(int(table.max()) + 1):
            held = table == fold
            lacks = torch.bincount(labels[~held & teach], minlength=found.shape[1]) == 0
            found[held & lacks[labels]] = 0.0
    rows = found.sum(1) == 0
    found[rows, labels[rows]] = 1.0
    return found


def _folds(data: Data, labels: Tensor, copies: Copies, deals: int) -> list[Tensor]:
    """The folds, dealt anew each time; copies and groups stay together where that can be."""
    near = None
    if len(copies.pairs):
        units = np.arange(len(labels))
        for number, members in enumerate(_tied(len(labels), copies.pairs)):
            units[members] = len(labels) + number
        near = Groups(joined(len(labels), units), (), "copies")
    groups = None
    if data.groups is not None and data.split is not None:
        groups = data.groups.among(torch.cat([data.split.train, data.split.valid]).numpy())
    for told in ((groups, near), (None, None)):
        try:
            made = make_folds(labels, FOLDS, repeats=deals, seed=data.seed, groups=told[0], near=told[1])
        except DataError:
            continue
        return [torch.from_numpy(table).long() for table in made.repeats]
    generator = torch.Generator().manual_seed(data.seed)
    return [torch.randperm(len(labels), generator=generator) % min(FOLDS, len(labels)) for _ in range(deals)]
