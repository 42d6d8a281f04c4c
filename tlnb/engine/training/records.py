"""What is noted of training: epochs, stages, and the place where a stage was left."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import torch
from torch import Tensor

from tlnb.engine.core.metrics import SHARES
from tlnb.engine.core.structure import ASIDE, Plain, Positive, number, plain
from tlnb.engine.training.lr_curve import LRCurve
from tlnb.engine.training.optim import ByName
from tlnb.engine.training.recipe import StageRecipe
from tlnb.engine.training.stage import Stage


@dataclass(frozen=True)
class EpochRecord:
    """One epoch.

    Attributes:
        stage: number of the stage in the session, from 1.
        epoch: number of the epoch in its stage, from 1.
        epochs: epochs that the stage asked for.
        trained: indexes of the layers that trained.
        rate: the stage's learning rate, of its last layer.
        train_loss: mean over the training samples, while the weights moved.
        valid_loss: mean over the validation samples, after the epoch.
        accuracy: the figure of the task on the validation samples; larger is better, 1 is best.
        seconds: wall-clock time with validation.
        digest: SHA-256 of the frozen layers after the epoch; empty where none is frozen.
        metric_name: what ``accuracy`` holds.
        answers: what the network answered for each validation sample, see ``passes.Answers``; None where that is
            not kept.
    """

    stage: Positive
    epoch: Positive
    epochs: Positive
    trained: tuple[int, ...]
    rate: float
    train_loss: float
    valid_loss: float
    accuracy: float
    seconds: float
    digest: str
    metric_name: str = "accuracy"
    answers: Tensor | None = field(default=None, repr=False, compare=False, metadata=ASIDE)

    def to_dict(self) -> Plain:
        """Plain values, without the answers."""
        values: Plain = plain(self)
        return values


@dataclass
class ResumePoint:
    """A place in a stage.

    The order of the samples needs no place here: it is a function of seed, stage and epoch.

    Attributes:
        rate: the stage's learning rate.
        epoch: epochs that were trained.
        done: batches of the epoch under way.
        steps_done: optimizer steps of the stage; the schedule's position.
        total: sum of the training losses of the epoch under way, float32; None before its first batch.
        unmeasured: mean training loss of an epoch that was trained and not measured yet.
        micro: samples that pass the network at a time; None for the whole batch.
        best_loss, waited: of the stage's patience.
        best_epoch: the epoch that ``--keep-best`` would keep now; 0 for none.
        best: what training had changed at that epoch, by name; empty where it is not asked for.
        average: what is averaged so far, by name; empty where nothing is.
        averaged: how many weights went into that.
        start: the weights before the stage by name, where its end may need them; empty elsewhere.
        optimizer: its state by the names of the parameters.
        random: the random states inside the stage.
        scaler: the scale of the loss and the steps since it changed, where the stage computes in fp16.
    """

    rate: Annotated[float, number(0, math.inf)]  # 0 where a head was fitted
    epoch: int = 0
    done: int = 0
    steps_done: int = 0
    total: Tensor | None = field(default=None, metadata=ASIDE)
    unmeasured: float | None = None
    micro: Positive | None = None
    best_loss: float = float("inf")
    waited: int = 0
    best_epoch: int = 0
    best: dict[str, Tensor] = field(default_factory=dict, metadata=ASIDE)
    start: dict[str, Tensor] = field(default_factory=dict, metadata=ASIDE)
    average: dict[str, Tensor] = field(default_factory=dict, metadata=ASIDE)
    averaged: int = 0
    optimizer: ByName = field(default_factory=dict, metadata=ASIDE)
    random: dict[str, Tensor] = field(default_factory=dict, metadata=ASIDE)
    scaler: tuple[Annotated[float, number(sys.float_info.min, math.inf)], int] | None = None

    def at_epoch_start(self, steps_per_epoch: int) -> ResumePoint:
        """The start of the epoch, where other samples have come; the schedule keeps its share."""
        return replace(self, done=0, total=None, steps_done=self.epoch * steps_per_epoch)


@dataclass(frozen=True, eq=False)
class Measured:
    """The validation samples of a stage, by which the answers of two runs can be paired.

    Attributes:
        of: a digest of which samples they are, whatever network they are fitted to.
        kind: ``classes``, ``labels`` or ``values``.
        targets: class numbers (N,), labels (N, labels) or values (N, values) in the user's unit; empty where a file
            does not hold them.
        units: number of the group of each sample, (N,); None where each stands alone.
    """

    of: str
    kind: str
    targets: Tensor = field(default_factory=lambda: torch.zeros(0), metadata=ASIDE)
    units: Tensor | None = field(default=None, metadata=ASIDE)


@dataclass
class StageResult:
    """One stage of training.

    Attributes:
        number: of the stage in the session, from 1.
        stage: its settings.
        trained: indexes of the layers that trained.
        rate: learning rate of the last layer.
        curve: the range test that chose it, or None.
        digest_before: SHA-256 of the frozen layers when the stage began; empty where none is frozen.
        digest_after: the same when it ended.
        frozen_names: the frozen layers in words.
        seconds: wall-clock time, the range test included.
        note: how it ended, where that was not the usual way.
        stopped: the user stopped it.
        diverged: a loss was not finite, and the last good epoch was put back.
        shortcut: how the frozen first part was left out, in one line; empty where the whole network ran.
        saved: seconds that this saved, what it cost taken off.
        records: its epochs.
        left: where it was left, to go on from; None where it ended.
        recipe: how it was set up; None while it is under way, or where a file does not say.
        untold: what a script could not tell of it, in words; empty where it can tell all.
        kept: epoch whose weights were put back, where that was not the last one; 0 for none.
        share: how much of what it learned the network keeps: 1 for all, 0 where it went back to the stage before.
        ending: the score of the network that the stage left, where that is none of its epochs'.
        fitted: how its head was fitted, in one line; empty where it was trained.
        test_seconds: that finding the rate took; 0 where it was given, or known already.
        before: the score of the network before the stage on the same samples; None where it is not known.
        measured: the samples that it was measured on; None where they are not known.
    """

    number: Positive
    stage: Stage
    trained: tuple[int, ...]
    rate: float
    curve: LRCurve | None = None
    digest_before: str = ""
    digest_after: str = ""
    frozen_names: str = ""
    seconds: float = 0.0
    note: str = ""
    stopped: bool = False
    diverged: bool = False
    shortcut: str = ""
    saved: float = 0.0
    records: list[EpochRecord] = field(default_factory=list)
    left: ResumePoint | None = field(default=None, repr=False, compare=False)
    recipe: StageRecipe | None = field(default=None, repr=False, compare=False)
    untold: str = field(default="", repr=False, compare=False)
    kept: int = 0
    share: float = 1.0
    ending: EpochRecord | None = None
    before: EpochRecord | None = None
    test_seconds: float = 0.0
    fitted: str = ""
    measured: Measured | None = field(default=None, repr=False, compare=False)

    @property
    def final(self) -> EpochRecord | None:
        """The score of the network that the stage left: of the last epoch, the best one, a blend, or one before."""
        if self.ending is not None:
            return self.ending
        kept = next((record for record in self.records if record.epoch == self.kept), None)
        return kept or (self.records[-1] if self.records else None)

    def with_answers(self, answers: Tensor, measured: Measured) -> None:
        """Take over what the network that the stage left answered, as it stands in a file."""
        last, self.measured = self.final, measured
        if last is None:
            return
        if self.ending is not None:
            self.ending = replace(last, answers=answers)
        else:
            self.records = [replace(r, answers=answers) if r is last else r for r in self.records]

    @property
    def taken_back(self) -> bool:
        """Whether it ended worse than what was there before, so that the network is that of before."""
        return self.ending is not None and self.ending.stage != self.number

    @property
    def accuracy(self) -> float | None:
        """With the weights that the stage left; None where no epoch ended."""
        return self.final.accuracy if self.final is not None else None

    @property
    def proof(self) -> str:
        """What the digests say about the frozen layers."""
        if not self.frozen_names:
            return "none frozen"
        verdict = "unchanged" if self.digest_before == self.digest_after else "CHANGED"
        return f"{self.frozen_names} {verdict}, sha256 {self.digest_after[:8]}…"

    def row(self) -> tuple[str, ...]:
        """The stage as a line of a table."""
        last = self.final
        return (
            str(self.number),
            self.stage.text,
            spans(self.trained),
            show_rate(self.rate),
            f"{len(self.records)}/{self.stage.epochs}",
            f"{last.valid_loss:.4f}" if last else "-",
            show_metric(last) if last else "-",
            f"{self.seconds:.1f}",
            self.proof + (f"; {self.note}" if self.note else ""),
        )


@dataclass(frozen=True)
class PlanProgress:
    """What is left of a plan that is carried out, stage by stage: one stage at least.

    Attributes:
        stages: those that have not ended; the first may be under way.
        first: its place in the plan, from 1.
        count: stages of the plan.
        cache, keep_best: see ``Session.train``.
        result: of the stage under way, ``result.left`` where it stands; None where it has not begun.
        data: fingerprint of the training samples that it was left on; empty where that is not known.
        own_step: whether a step of the user's own trains.
        with_moments: whether its first stage begins with the optimizer's moments of the stage before.
    """

    stages: tuple[Stage, ...]
    first: Positive
    count: Positive
    cache: bool = True
    keep_best: bool = False
    result: StageResult | None = None
    data: str = ""
    own_step: bool = False
    with_moments: bool = False

    def check(self) -> None:
        """See that something is left.

        Raises:
            ValueError: no stage is.
        """
        if not self.stages:
            raise ValueError("a plan under way has a stage at least")

    @classmethod
    def of(cls, stages: Sequence[Stage], cache: bool, keep_best: bool) -> PlanProgress:
        """A plan that begins."""
        return cls(tuple(stages), 1, len(stages), cache, keep_best)

    def after(self) -> PlanProgress | None:
        """What is left when its first stage has ended; None for nothing."""
        if len(self.stages) == 1:
            return None
        return replace(self, stages=self.stages[1:], first=self.first + 1, result=None, with_moments=False)


def show_metric(record: EpochRecord) -> str:
    """The figure of an epoch for people: a percentage for accuracy."""
    return show_score(record.accuracy, record.metric_name)


def show_score(score: float, metric: str) -> str:
    """A score for people: a percentage for accuracy."""
    return f"{100 * score:.1f} %" if metric in SHARES else f"{score:.4f}"


def show_rate(rate: float) -> str:
    """A learning rate for people; a head that was fitted has none."""
    return f"{rate:.1e}" if rate else "-"


def spans(indexes: Sequence[int]) -> str:
    """Layer numbers with runs drawn together: ``0–4, 7``."""
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in runs) or "-"
