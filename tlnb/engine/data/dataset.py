"""A data set with its split, and what a user should know about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
import torch

from tlnb.display.tables import Table, few, printable
from tlnb.engine.core.objectives import Classification, MultiLabel, Objective
from tlnb.engine.data.augment import describe
from tlnb.engine.data.augmented import augmented
from tlnb.engine.data.chronology import Times
from tlnb.engine.data.groups import Groups
from tlnb.engine.data.image_cache import DecodedSamples
from tlnb.engine.data.images.check import Problem
from tlnb.engine.data.images.scale import PLAIN, PixelScale
from tlnb.engine.data.places import Places
from tlnb.engine.data.raw import RawDataset
from tlnb.engine.data.samples import Samples
from tlnb.engine.data.sealed import Sealed
from tlnb.engine.data.sound.front_end import LogMel, RawFrames
from tlnb.engine.data.split import repeated_to_balance
from tlnb.engine.data.tokens import AnyPreprocess

SHOWN = 12  # problems in the text; the page has them all
UNEVEN = 3.0  # from this ratio of the largest class to the smallest on, it is said


@dataclass
class Data:
    """A data set with its split.

    Attributes:
        name: what the user called it.
        classes: names of the network's outputs, in order: classes, labels or values.
        train: samples to learn from.
        valid: samples to measure on.
        batch: samples a step, unless a stage says otherwise.
        seed: of the split, and of the training that follows.
        size: side of the training images in pixels; None for the network's own.
        notes: what the user should know about how it was read.
        task: loss, figure, and what scores mean.
        augment: preset or transform for the training pictures.
        balance: ``weights``, ``samples`` or None.
        asked: the arguments by which it can be read again; None where an object was among them.
        problems: files that are not used, with the reason; files that turn out broken later join it.
        scale: what is black and white in its pictures, and which bands are used.
        test: samples under seal, which ``Session.test`` alone reads; None for none.
        split: places of the samples of each part in the source; None where it has parts of its own that are apart.
        units: number of the group of each sample in the source, (N,); None where each stands alone.
        sound: how its sounds are drawn; None where it holds none.
        length: tokens of the longest text; None for what most of the training texts have.
        groups: of the samples of the source that stay together, for folds; None for none.
        times: of the samples of the source, for folds; None where they are in no order.
        mending: a ``Mending`` (:mod:`tlnb.engine.data.mending`) where samples were relabelled or dropped by marks.
    """

    name: str
    classes: tuple[str, ...]
    train: RawDataset
    valid: RawDataset
    batch: int = 64
    seed: int = 0
    size: int | None = None
    notes: list[str] = field(default_factory=list)
    task: Objective = field(default_factory=Classification)
    augment: Any = "none"
    balance: str | None = None
    problems: list[Problem] = field(default_factory=list)
    asked: dict[str, Any] | None = None
    scale: PixelScale = PLAIN
    test: Sealed | None = None
    split: Places | None = None
    units: np.ndarray | None = field(default=None, repr=False)
    sound: LogMel | None = None
    length: int | None = None
    groups: Groups | None = field(default=None, repr=False)
    times: Times | None = field(default=None, repr=False)
    mending: Any = field(default=None, repr=False)

    def samples(
        self, preprocess: AnyPreprocess | RawFrames, log: Callable[[str], None] = lambda text: None
    ) -> tuple[Samples, Samples]:
        """Training samples, balanced and augmented, and validation samples, fitted to a network.

        Args:
            preprocess: of the network.
            log: told about a file that turns out broken when it is decoded; from a thread.

        Raises:
            DataError: augmentation is asked for and these are no pictures.
        """

        def on_broken(name: str, reason: str) -> None:
            self.problems.append(Problem(printable(name), reason))
            log(f"{printable(name)} is left out: {reason}")

        if self.mending is not None:
            return self.mending.samples(self, self.mending.original.samples(preprocess, log))
        train = self.train
        if self.balance == "samples":
            train = train.subset(repeated_to_balance(train.targets))
        # Raw frames are asked for where the data is clips, and nowhere else.
        plain, held = (part.prepare(preprocess, on_broken) for part in (train, self.valid))
        decoded, other = (getattr(part, "plain", part) for part in (plain, held))
        if isinstance(decoded, DecodedSamples) and isinstance(other, DecodedSamples):
            other.share(decoded)
        return augmented(plain, self.augment, self.seed), held

    def counts(self) -> Table:
        """Training and validation samples of each class or label, or the range of each value."""
        if isinstance(self.task, (Classification, MultiLabel)):
            rows = [
                (name, int(t), int(v))
                for name, t, v in zip(
                    self.classes, *map(self._per_class, (self.train, self.valid)), strict=True
                )
            ]
            return Table(("class", "train", "valid"), rows)
        answers = self.task.answers(self.train.targets)
        spans = zip(self.classes, answers.amin(0).tolist(), answers.amax(0).tolist(), strict=True)
        return Table(("value", "from", "to"), [(name, f"{low:g}", f"{high:g}") for name, low, high in spans])

    def _per_class(self, part: RawDataset) -> torch.Tensor:
        if part.targets.is_floating_point():
            return part.targets.sum(0)
        return torch.bincount(part.targets, minlength=len(self.classes))

    def __repr__(self) -> str:
        return "\n".join([*self._lines(), *self._problem_lines()])

    def _lines(self) -> list[str]:
        what = "samples" if self.sound is None else "clips"
        head = f"{self.name}: {len(self.train):,} training and {len(self.valid):,} validation {what}"
        if isinstance(self.task, Classification):
            per_class = self._per_class(self.train)
            low, high = int(per_class.min()), int(per_class.max())
            lines = [
                f"{head} in {len(self.classes)} classes ({few(self.classes)}), "
                f"{low if low == high else f'{low} to {high}'} a class to train on"
            ]
            if high >= UNEVEN * max(low, 1) and self.balance is None:
                names = [self.classes[int(i)] for i in (per_class.argmin(), per_class.argmax())]
                lines.append(
                    f"uneven classes: {low} of {names[0]}, {high} of {names[1]}; "
                    "--balance weights evens them out"
                )
        elif isinstance(self.task, MultiLabel):
            lines = [f"{head}, {len(self.classes)} labels ({few(self.classes)}), any number of them a sample"]
        else:
            rows = "; ".join(f"{name} from {low} to {high}" for name, low, high in self.counts().rows)
            lines = [f"{head}, regression: {rows}"]
        if self.balance:
            lines.append(f"balanced by {self.balance}")
        if describe(self.augment) != "none":
            lines.append(f"augmentation {describe(self.augment)}")
        if self.test is not None:
            lines.append(f"{self.test!r}; %tl_test measures them, once")
        return [*lines, *self.notes]

    def _problem_lines(self) -> list[str]:
        if not self.problems:
            return []
        count = len(self.problems)
        lines = [f"{count} file{'s are' if count > 1 else ' is'} left out:"]
        lines += [f"  {path}: {reason}" for path, reason in self.problems[:SHOWN]]
        if count > SHOWN:
            lines.append(f"  … and {count - SHOWN} more; .problem_table() lists them all")
        return lines

    def problem_table(self) -> Table:
        """Every file that is left out, with the reason."""
        return Table(("file", "reason"), self.problems, align="<<")

    def _repr_html_(self) -> str:
        text = "<br>".join(escape(line) for line in self._lines())
        parts = [text, _folded("classes", self.counts())]
        if self.problems:
            parts.append(_folded(f"{len(self.problems)} left out", self.problem_table()))
        return f"<div>{''.join(parts)}</div>"


def _folded(title: str, table: Table) -> str:
    return f"<details><summary>{title}</summary>{table._repr_html_()}</details>"
