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
from tlnb.engine.results.scores import wilson
from tlnb.errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def log_odds(scores: Tensor) -> Tensor:
    """How much likelier each class is than all others together, as a logarithm: float64 of shape (N, classes).

    It is in the order of the probabilities, but does not come to rest at 1 where the network is very sure, so
    that no two samples are alike by rounding.
    """
    exact = scores.detach().double().cpu()
    if exact.shape[1] < 2:
        raise DataError("sets of classes need two classes or more")
    top = exact.argmax(1, keepdim=True)
    others = exact.scatter(1, top, -math.inf).logsumexp(1, keepdim=True)
    chances = exact.log_softmax(1)
    # Only that of the likeliest class can be near 1, where 1 minus it would be lost to rounding.
    odds = chances - torch.log1p(-chances.exp().clamp(max=0.75))
    return odds.scatter(1, top, exact.gather(1, top) - others)


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
        """
        own = log_odds(scores).gather(1, targets.cpu()[:, None])[:, 0]
        return cls(_sorted(own))

    @classmethod
    def of_values(cls, answers: Tensor, targets: Tensor) -> Conformal:
        """From validation samples: values (n, values) and what they should be, in the user's unit."""
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
        number_between(sure, "--sure", 0, 1, DataError)
        count = len(self.margins)
        # Rounding must not turn 0.9 of 9 + 1 samples into a tenth one.
        place = math.ceil((count + 1) * sure - 1e-9)
        return float(self.margins[count - place]) if place <= count else -math.inf

    def sets(self, scores: Tensor, sure: float) -> Tensor:
        """Which classes each sample may be of: bool (N, classes).

        An empty set says that the network is less sure of every class than it usually is of the right one.

        Args:
            scores: before softmax, (N, classes).
            sure: share of the sets that hold the right class.
        """
        return log_odds(scores) >= self.bound(sure)

    def half_width(self, sure: float) -> float:
        """By how much a value may be off, on either side; inf where there are too few samples to say."""
        return -self.bound(sure)


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
        ax = figure.add_subplot()
        plain(ax)
        ax.step(100 * self.coverage, 100 * self.risk, where="pre", color=BLUE, linewidth=1.8)
        ax.set_xlim(0, 100)
        ax.set_ylim(bottom=0)
        ax.set_xlabel("answered, the surest first (%)", color=INK)
        ax.set_ylabel("wrong among these (%)", color=INK)
        return figure
