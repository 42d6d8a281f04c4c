"""Answers that hold as often as they say: sets of classes, spans of values, and what waiting for surer ones brings.

Split conformal prediction (Vovk et al. 2005; for the smallest sets Sadinle et al. 2019): the bound is chosen so
that it holds for the wanted share of samples that the network did not learn from. It then holds for that share of
new samples of the same kind, whatever the network; not of each class or of other data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tlnb.display.figures import BLUE, INK, new_figure, plain
from tlnb.engine.core.arguments import number_between
from tlnb.engine.results.judging import bound_of, log_odds, sets_of
from tlnb.engine.results.scores import wilson
from tlnb.errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure, FigureBase


@dataclass(frozen=True)
class Conformal:
    """What is needed for an answer of any certainty; plain tensors, for a checkpoint or an export.

    Attributes:
        margins: rising, float64 of shape (n,): for classes the log odds of each validation sample's own class;
            for values the negative error of each, the largest of its values.
    """

    margins: Tensor = field(repr=False)

    @classmethod
    def of_classes(cls, scores: Tensor, targets: Tensor) -> Conformal:
        """From validation samples, or answers out of fold.

        Args:
            scores: before softmax, (n, classes).
            targets: int64 of shape (n,).

        Raises:
            DataError: there is one class, there are no samples, or a score is not finite.
        """
        if scores.shape[1] < 2:
            raise DataError("sets of classes need two classes or more")
        own = log_odds(scores).gather(1, targets.cpu()[:, None])[:, 0]
        return cls(_sorted(own))

    @classmethod
    def of_values(cls, answers: Tensor, targets: Tensor) -> Conformal:
        """From validation samples: values (n, values) and what they should be, all on one scale.

        Raises:
            DataError: there are no samples, or a value is not finite.
        """
        return cls(_sorted(-(answers.double() - targets.double()).abs().amax(1).cpu()))

    @property
    def surest(self) -> float:
        """The largest share that so many validation samples can vouch for."""
        return len(self.margins) / (len(self.margins) + 1)

    def bound(self, sure: float) -> float:
        """The margin that this share of samples has at least; -inf where there are too few samples to say.

        Args:
            sure: the share, between 0 and 1.

        Raises:
            DataError: it is not between 0 and 1.
        """
        number_between(sure, "sure", 0, 1, DataError)
        return bound_of(self.margins, sure)

    def check(self, sure: float) -> None:
        """See that there are enough samples.

        Raises:
            DataError: so many cannot vouch for so large a share, or it is none.
        """
        if self.bound(sure) == -math.inf:
            raise DataError(too_few(sure, len(self.margins)))

    def sets(self, scores: Tensor, sure: float) -> Tensor:
        """Which classes each sample may be of: bool (N, classes).

        An empty set says that the network is less sure of every class than it usually is of the right one.

        Args:
            scores: before softmax, (N, classes).
            sure: share of the sets that hold the right class.
        """
        self.bound(sure)
        return sets_of(scores, self.margins, sure)

    def half_width(self, sure: float) -> float:
        """By how much a value may be off, on either side; inf where there are too few samples to say."""
        return -self.bound(sure)


def needed(sure: float) -> int:
    """How many validation samples can vouch for a share."""
    return math.ceil(round(sure / (1 - sure), 6))


def too_few(sure: float, count: int) -> str:
    """What to say where there are not enough."""
    most = math.floor(100 * count / (count + 1) + 1e-9)
    return (
        f"answers that are {100 * sure:g} % sure need {needed(sure):,} validation samples or more, and there are "
        f"{count:,}; --sure {most} is the most"
    )


def crossed(scores: Tensor, targets: Tensor, sure: float, *, folds: int = 5, seed: int = 0) -> Tensor | None:
    """Sets of classes of samples, each fifth of them under the bound of the others: bool (N, classes).

    So no set knows its own answer, and how often they hold can be counted. None where there are too few samples.

    Args:
        scores: before softmax, (N, classes).
        targets: int64 of shape (N,).
        sure: share of the sets that hold the right class.
        folds: how many parts there are.
        seed: of the parts.
    """
    count = len(scores)
    if count < folds or count - -(-count // folds) < needed(sure):
        return None
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    sets = torch.zeros(scores.shape, dtype=torch.bool)
    for number in range(folds):
        own = torch.zeros(count, dtype=torch.bool)
        own[order[number::folds]] = True
        sets[own] = Conformal.of_classes(scores[~own], targets[~own]).sets(scores[own], sure)
    return sets


def _sorted(margins: Tensor) -> Tensor:
    if not len(margins):
        raise DataError("how sure an answer is needs validation samples")
    if not margins.isfinite().all():
        raise DataError("how sure an answer is needs finite scores; the network gives some that are not")
    return margins.sort().values


@dataclass(frozen=True)
class Coverage:
    """How sets of classes did on samples whose class is known.

    Attributes:
        sure: the share that was asked for.
        share: the share of sets that hold the right class.
        interval: where that share lies with 95 % confidence (Wilson).
        sizes: how many sets have 0, 1, 2 … classes.
    """

    sure: float
    share: float
    interval: tuple[float, float]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, sets: Tensor, targets: Tensor, sure: float) -> Coverage:
        """From sets (N, classes) and class numbers (N,)."""
        hold = int(sets.gather(1, targets[:, None]).sum())
        counts = torch.bincount(sets.sum(1))
        return cls(sure, hold / len(sets), wilson(hold, len(sets)), tuple(counts.tolist()))

    @property
    def mean_size(self) -> float:
        """Classes in a set."""
        return sum(size * count for size, count in enumerate(self.sizes)) / sum(self.sizes)

    def __repr__(self) -> str:
        low, high = self.interval
        empty = f", {self.sizes[0]:,} of them empty" if self.sizes[0] else ""
        return (
            f"sets at {100 * self.sure:g} %: {100 * self.share:.1f} % hold the right class (95 % sure: "
            f"{100 * low:.1f} to {100 * high:.1f} %), {self.mean_size:.2f} classes a set{empty}"
        )


@dataclass(frozen=True)
class RiskCoverage:
    """What is wrong among the surest samples, for each share of them (El-Yaniv and Wiener 2010).

    Attributes:
        coverage: shares of the samples that are answered, rising, (k,).
        risk: share of wrong answers among these, (k,).
        area: mean risk over all shares; less is better.
    """

    coverage: np.ndarray
    risk: np.ndarray
    area: float

    @classmethod
    def of(cls, confidence: np.ndarray, right: np.ndarray) -> RiskCoverage:
        """From how sure each sample is and whether it is right, (N,) both; equally sure ones are one step."""
        order = np.argsort(-confidence, kind="stable")
        ranked = confidence[order]
        ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) + 1
        wrong = (~right[order]).cumsum()
        risk = wrong[ends - 1] / ends
        steps = np.diff(ends, prepend=0)
        return cls(ends / len(order), risk, float((risk * steps).sum() / len(order)))

    def answered(self, risk: float) -> float:
        """The largest share that can be answered with at most this share wrong; 0 where there is none."""
        fit = self.coverage[self.risk <= risk]
        return float(fit[-1]) if len(fit) else 0.0

    @property
    def figure(self) -> Figure:
        """Share of wrong answers against the share of samples that are answered."""
        figure = new_figure(4.4, 3.2)
        self.draw(figure)
        return figure

    def draw(self, figure: FigureBase) -> None:
        """The same into a figure, or a part of one."""
        ax = figure.add_subplot()
        plain(ax)
        ax.step(100 * self.coverage, 100 * self.risk, where="pre", color=BLUE, linewidth=1.8)
        ax.set_xlim(0, 100)
        ax.set_ylim(0, max(1.0, 104 * float(self.risk.max())))
        ax.set_xlabel("answered, the surest first (%)", color=INK)
        ax.set_ylabel("wrong among these (%)", color=INK)
        ax.set_title("Risk and coverage", loc="left", fontsize=11, color=INK)
