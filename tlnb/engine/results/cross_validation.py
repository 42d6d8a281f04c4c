"""A plan over folds: how good it is on samples that it never saw, how far that varies, and each answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from tlnb.display.figures import BLUE, INK, as_html, new_figure, plain
from tlnb.display.tables import Table
from tlnb.engine.advice.fold_run import FoldData, FoldOutcome, FoldRunner
from tlnb.engine.core.interrupts import Stopped, StopRequest
from tlnb.engine.core.metrics import Score
from tlnb.engine.core.workers import Workers
from tlnb.engine.data.folds import Fold, Folds
from tlnb.engine.results.bootstrap import Interval, fold_interval
from tlnb.engine.results.scores import confusion_matrix, draw_confusion
from tlnb.engine.training.records import StageResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class FoldResult:
    """One fold that ended.

    Attributes:
        repeat, number: which of the repeats, and which fold of it, from 0.
        train, valid: how many samples taught and measured it.
        value: its score; NaN where that is not defined, such as the area under a curve of one class.
        loss: mean loss on its validation samples.
        seconds: wall-clock time.
        answers: probabilities (n, classes) or values (n, values) for its validation samples, rising by place.
        stages: as they were trained.
    """

    repeat: int
    number: int
    train: int
    valid: int
    value: float
    loss: float
    seconds: float
    answers: np.ndarray = field(repr=False)
    stages: tuple[StageResult, ...] = field(repr=False, default=())


@dataclass
class CrossValidation:
    """A plan on each fold, and every sample's answer by a network that had not seen it.

    Attributes:
        name: of the data.
        classes: names of the outputs.
        kind: ``classes``, ``labels`` or ``values``.
        score: by which it is judged.
        plan: that was trained, a stage a line.
        folds: which samples are in which.
        positions: of the samples in the source, rising: int64 of shape (N,).
        targets: class numbers (N,), labels (N, labels) or values (N, values), in the user's unit.
        units: number of the group of each sample, (N,); None where each stands alone.
        notes: what the user should know, a line each.
        key: what it holds for; the same call goes on where that is the same.
        done: each fold that ended, by repeat and number.
        stopped: it was stopped before its end.
    """

    name: str
    classes: tuple[str, ...]
    kind: str
    score: Score
    plan: str
    folds: Folds = field(repr=False)
    positions: np.ndarray = field(repr=False)
    targets: np.ndarray = field(repr=False)
    units: np.ndarray | None = field(repr=False, default=None)
    notes: tuple[str, ...] = ()
    key: object = field(repr=False, default=None)
    done: dict[tuple[int, int], FoldResult] = field(default_factory=dict, repr=False)
    stopped: bool = False

    def go_on(
        self,
        runner: FoldRunner,
        data: FoldData,
        stop: StopRequest,
        log: Callable[[str], None] = lambda text: None,
        workers: Workers | None = None,
    ) -> None:
        """Train the folds that are not done yet, on copies.

        Args:
            runner: trains a fold.
            data: the samples of all folds.
            stop: read at each batch edge; the fold under way is dropped then.
            log: told after each fold how it went, and the time that is left.
            workers: take the folds, several at once; None to train them here, one by one.

        Raises:
            TrainingError: a stage found no rate, or cannot be trained; the folds that ended stay.
        """
        self.stopped = False
        left = [fold for fold in self.folds if (fold.repeat, fold.number) not in self.done]
        began, at_once = time.perf_counter(), workers.count if workers is not None else 1
        with closing(_outcomes(left, runner, data, stop, workers)) as outcomes:
            try:
                for place, (fold, outcome) in enumerate(outcomes, start=1):
                    found = self._taken(fold, outcome)
                    self.done[fold.repeat, fold.number] = found
                    # The first one runs the frozen part for all, so the pace is that of those after it.
                    later = [each.seconds for each in self.results[-max(place - 1, 1) :]]
                    rest = sum(later) / len(later) * (len(left) - place) / at_once
                    after = f"; about {rest:.0f} s left" if place < len(left) else ""
                    took = time.perf_counter() - began
                    log(
                        f"fold {len(self.done)}/{len(self.folds)}: {self.score.name} "
                        f"{self.score.show(found.value)}, {took:.1f} s so far{after}"
                    )
            except Stopped:
                self.stopped = True

    def _taken(self, fold: Fold, outcome: FoldOutcome) -> FoldResult:
        answers = outcome.task.answers(outcome.scores).numpy()
        value = self.score(self.targets[fold.valid.numpy()], answers)
        loss = float(outcome.task.loss(outcome.scores, outcome.targets))
        return FoldResult(
            fold.repeat, fold.number, len(fold.train), len(fold.valid), value, loss, outcome.seconds, answers,
            outcome.stages,
        )  # fmt: skip

    # ---------------------------------------------------------------- figures

    @property
    def complete(self) -> bool:
        """Whether every fold has ended."""
        return len(self.done) == len(self.folds)

    @property
    def results(self) -> list[FoldResult]:
        """The folds that ended, in order."""
        return [self.done[key] for key in sorted(self.done)]

    @property
    def values(self) -> np.ndarray:
        """The score of each fold that ended."""
        return np.array([found.value for found in self.results])

    @property
    def mean(self) -> float:
        """Over the folds whose score is defined; NaN where there is none."""
        known = self.values[~np.isnan(self.values)]
        return float(known.mean()) if len(known) else float("nan")

    @property
    def spread(self) -> float:
        """Standard deviation over the folds; NaN for fewer than two."""
        known = self.values[~np.isnan(self.values)]
        return float(known.std(ddof=1)) if len(known) > 1 else float("nan")

    @property
    def interval(self) -> Interval:
        """Where the mean lies with 95 % confidence (Nadeau and Bengio 2003)."""
        known = [found for found in self.results if found.value == found.value]
        held_out = [found.valid / found.train for found in known]
        found = fold_interval([each.value for each in known], float(np.mean(held_out)) if held_out else 0.0)
        if not self.score.larger or self.kind == "values":
            return found
        return replace(found, high=min(found.high, 1.0))  # no score of classes or labels is above 1

    @property
    def seconds(self) -> float:
        """That all folds took."""
        return sum(found.seconds for found in self.results)

    # ---------------------------------------------------------------- out-of-fold answers

    @property
    def answers(self) -> np.ndarray:
        """Probabilities (N, classes) or values (N, values) by networks that had not seen the sample.

        The mean over the repeats; NaN for samples that no fold has answered for.
        """
        width = len(self.classes)
        total, times = np.zeros((len(self.positions), width)), np.zeros((len(self.positions), 1))
        for fold in self.folds:
            found = self.done.get((fold.repeat, fold.number))
            if found is not None:
                total[fold.valid.numpy()] += found.answers
                times[fold.valid.numpy()] += 1
        with np.errstate(invalid="ignore"):
            return np.asarray(total / times)

    @property
    def probabilities(self) -> np.ndarray:
        """The same as ``answers``."""
        return self.answers

    @property
    def answered(self) -> np.ndarray:
        """Which samples have an answer: bool of shape (N,)."""
        return ~np.isnan(self.answers).any(1)

    @property
    def predicted(self) -> np.ndarray:
        """Class numbers (N,), -1 where there is no answer; labels (N, labels) of 0 and 1; or values (N, values)."""
        answers = self.answers
        if self.kind == "classes":
            return np.where(self.answered, np.nan_to_num(answers).argmax(1), -1)
        return (answers >= 0.5).astype(np.int64) if self.kind == "labels" else answers

    @property
    def predictions(self) -> np.ndarray:
        """Names of the predicted classes, empty where there is no answer; else as ``predicted``."""
        return np.array([*self.classes, ""])[self.predicted] if self.kind == "classes" else self.predicted

    @property
    def labels(self) -> np.ndarray:
        """Names of the true classes; else as ``targets``."""
        return np.array(self.classes)[self.targets] if self.kind == "classes" else self.targets

    @property
    def fold(self) -> np.ndarray:
        """The fold that each sample validates, from 0, -1 for none: (N,), or (N, repeats) for several repeats."""
        table = self.folds.repeats.T
        return table[:, 0] if table.shape[1] == 1 else table

    @property
    def pooled(self) -> float:
        """The score over all out-of-fold answers at once; NaN where there is none."""
        there = self.answered
        return self.score(self.targets[there], self.answers[there]) if there.any() else float("nan")

    @property
    def accuracy(self) -> float:
        """Share of the samples whose out-of-fold answer is right; the score over all where there are no classes."""
        there = self.answered
        if self.kind != "classes" or not there.any():
            return self.pooled
        return float((self.predicted[there] == self.targets[there]).mean())

    @property
    def confusion(self) -> np.ndarray:
        """How often class i was taken for class j, out of fold; (0, 0) where a sample has not one class."""
        if self.kind != "classes":
            return np.zeros((0, 0), dtype=np.int64)
        there = self.answered
        return confusion_matrix(self.targets[there], self.predicted[there], len(self.classes))

    def frame(self) -> Any:
        """A row a sample with its position, fold, label and out-of-fold answer, as a pandas DataFrame.

        A dict of columns where pandas is not installed.
        """
        columns: dict[str, Any] = {"position": self.positions}
        several = len(self.folds.repeats) > 1
        columns |= {
            f"fold {repeat + 1}" if several else "fold": fold
            for repeat, fold in enumerate(self.folds.repeats)
        }
        if self.kind == "classes":
            columns |= {"true": self.labels, "predicted": self.predictions}
        else:
            columns |= {f"true {name}": self.targets[:, i] for i, name in enumerate(self.classes)}
        answers = self.answers
        columns |= {f"answer {name}": answers[:, i] for i, name in enumerate(self.classes)}
        try:
            import pandas
        except ImportError:
            return columns
        return pandas.DataFrame(columns)

    # ---------------------------------------------------------------- shown

    @property
    def table(self) -> Table:
        """A line a fold."""
        several = len(self.folds.repeats) > 1
        rows = [
            (
                *([str(f.repeat + 1)] if several else []), str(f.number + 1), f"{f.train:,}", f"{f.valid:,}",
                self.score.show(f.value), f"{f.loss:.4f}", f"{f.seconds:.1f}",
            )
            for f in self.results
        ]  # fmt: skip
        headers = ("fold", "train", "valid", self.score.name, "loss", "seconds")
        return Table((*(["repeat"] if several else []), *headers), rows)

    @property
    def summary(self) -> str:
        """One line: the mean, its spread, and where it lies."""
        ended = f"{len(self.done)} of {len(self.folds)} folds"
        if not self.done:
            return f"{self.name}, {ended}: nothing has been measured yet"
        times = f" in {len(self.folds.repeats)} repeats" if len(self.folds.repeats) > 1 else ""
        what = f"{self.folds.folds} folds{times}" if self.complete else ended
        show, sure = self.score.show, self.interval
        spread = f" ± {show(self.spread)}" if self.spread == self.spread else ""
        found = f"{self.name}, {what}: {self.score.name} {show(self.mean)}{spread}"
        if sure.low == sure.low:
            found += f" (95 % sure: {show(sure.low)} to {show(sure.high)}, {sure.how})"
        found += f"; all out-of-fold answers at once: {show(self.pooled)}; {self.seconds:.1f} s"
        return f"{found}; stopped, %tl_cv --continue goes on" if self.stopped else found

    def plot(self, what: str = "folds") -> Figure | None:
        """A picture: ``folds``, or ``confusion`` of the out-of-fold answers; None where there is none."""
        if what == "confusion":
            there = self.kind == "classes" and self.done
            return draw_confusion(self.confusion, self.classes) if there else None
        if what == "folds":
            return self._folds_figure() if self.done else None
        raise ValueError(f"plot takes folds or confusion, not {what!r}")

    def _folds_figure(self) -> Figure:
        """Each fold as a dot, and the mean with its interval."""
        figure = new_figure(5.5, 1.9)
        ax = figure.subplots()
        plain(ax)
        scale = 100 if self.score.show(1).endswith("%") else 1
        ax.plot(scale * self.values, np.zeros(len(self.values)), "o", color=BLUE, alpha=0.6, markersize=7)
        sure = self.interval
        if sure.low == sure.low:
            ax.plot([scale * sure.low, scale * sure.high], [1, 1], color=INK, linewidth=2)
        ax.plot([scale * self.mean], [1], "D", color=INK, markersize=7)
        ax.set_yticks([0, 1], ["folds", "mean"])
        ax.set_ylim(-0.6, 1.6)
        ax.grid(False, axis="y")
        ax.set_xlabel(f"{self.score.name}{', %' if scale == 100 else ''}", color=INK)
        return figure

    def __repr__(self) -> str:
        return "\n".join([self.summary, *self.notes, repr(self.table)])

    def _repr_html_(self) -> str:
        notes = "".join(f"<br>{escape(note)}" for note in self.notes)
        parts = [f"<p>{escape(self.summary)}{notes}</p>"]
        figure = self.plot()
        if figure is not None:
            parts.append(as_html(figure, self.summary, 85))
        parts.append(self.table._repr_html_())
        confusion = self.plot("confusion")
        if confusion is not None:
            image = as_html(confusion, f"confusion of the out-of-fold answers of {self.name}", 85)
            parts.append(f"<details><summary>confusion, out of fold</summary>{image}</details>")
        parts.append(f"<details><summary>the plan</summary><pre>{escape(self.plan)}</pre></details>")
        return f"<div>{''.join(parts)}</div>"


def _outcomes(
    folds: Sequence[Fold], runner: FoldRunner, data: FoldData, stop: StopRequest, workers: Workers | None
) -> Generator[tuple[Fold, FoldOutcome], None, None]:
    """Each fold with what came of it, as they end."""
    job = runner.job(data) if workers is not None else None
    if workers is not None and job is not None:
        places = [(fold.train, fold.valid) for fold in folds]
        with closing(workers.each(job, places, stop.check)) as found:
            for number, outcome in found:
                yield folds[number], outcome
        return
    for fold in folds:
        yield fold, runner.run(data, fold.train, fold.valid, stop)


def selected(stages: Sequence[tuple[object, bool]]) -> tuple[str, ...]:
    """What in a plan looks at the validation samples of its fold.

    Args:
        stages: pairs of a stage and whether it keeps its best epoch.
    """
    found = {
        "keep-best": any(best for _, best in stages),
        "patience": any(getattr(stage, "patience", None) is not None for stage, _ in stages),
        "blend auto": any(getattr(stage, "blend", None) == "auto" for stage, _ in stages),
        "guard": len(stages) > 1 and any(getattr(stage, "guard", False) for stage, _ in stages[1:]),
    }
    return tuple(name for name, there in found.items() if there)
