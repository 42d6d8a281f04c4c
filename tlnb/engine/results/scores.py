"""Scores of a network over samples, figures of each class or value, calibration, and the confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tlnb.display.figures import BLUE, INK, VERMILION, new_figure, plain, short
from tlnb.engine.core.objectives import Classification, MultiLabel, Objective, scores_of
from tlnb.engine.core.tree import call
from tlnb.engine.data.samples import Samples
from tlnb.engine.network.trace import flags

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase


Z95 = 1.959963984540054
"""The 97.5 % point of the normal distribution."""


def wilson(hits: int, count: int, z: float = Z95) -> tuple[float, float]:
    """The score interval for a share (Wilson 1927); it is right for small samples and shares near 0 or 1 too.

    Args:
        hits: how many of the samples have it.
        count: how many samples there are.
        z: point of the normal distribution; the usual one gives 95 %.

    Returns:
        Lower and upper bound in 0..1; (0, 1) where there are no samples.
    """
    if not count:
        return 0.0, 1.0
    share, square = hits / count, z * z
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = z / (1 + square / count) * math.sqrt(share * (1 - share) / count + square / (4 * count * count))
    # At the ends the bounds are exact; rounding must not move them.
    return max(0.0, middle - half) if hits else 0.0, min(1.0, middle + half) if hits < count else 1.0


BATCH = 64  # so that a slow machine comes to an edge every few seconds


def scores_over(
    model: nn.Module,
    samples: Samples,
    device: torch.device,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """Scores (N, outputs) of all samples, float32 on the CPU, in test mode; modes are put back.

    Args:
        model: gives scores (B, outputs).
        samples: what it judges.
        device: where it is.
        on_progress: called as ``on_progress(done, total)`` in samples, after each batch; what it raises ends the work.
    """
    # Texts of like length together: hardly any padding is computed.
    turn = torch.arange(len(samples)) if samples.lengths is None else samples.lengths.argsort(stable=True)
    parts, done = [], 0
    with flags(model, training=False), torch.no_grad():
        for x in samples.stream(turn.split(BATCH)):
            parts.append(scores_of(call(model, x.to(device))).float().cpu())
            done += len(parts[-1])
            on_progress(done, len(samples))
    found = torch.cat(parts)
    return found if samples.lengths is None else found[turn.argsort()]


def per_sample_loss(task: Objective, scores: Tensor, targets: Tensor) -> Tensor:
    """The loss of each sample, (N,), without weights of classes."""
    if isinstance(task, Classification):
        return F.cross_entropy(scores, targets, reduction="none")
    if isinstance(task, MultiLabel):
        return F.binary_cross_entropy_with_logits(scores, targets, reduction="none").mean(1)
    return (scores - targets).square().mean(1)


def per_class_rows(classes: Sequence[str], targets: Tensor, predicted: Tensor) -> tuple[tuple[Any, ...], ...]:
    """Name, precision, recall, F1 and samples of each class or label; 0 where a figure has nothing to count.

    Args:
        classes: names.
        targets, predicted: class numbers (N,), or labels (N, labels) of 0 and 1.
    """
    from sklearn.metrics import precision_recall_fscore_support

    figures = precision_recall_fscore_support(
        targets.numpy(), predicted.numpy(), labels=range(len(classes)), average=None, zero_division=0
    )
    columns = zip(*(figure.tolist() for figure in figures), strict=True)
    return tuple((name, *row) for name, row in zip(classes, columns, strict=True))


def value_rows(names: Sequence[str], targets: Tensor, answers: Tensor) -> tuple[tuple[Any, ...], ...]:
    """Name, R², mean absolute error and root mean square error of each value, in the user's unit.

    Args:
        names: of the values.
        targets, answers: (N, values).
    """
    error = answers.double() - targets.double()
    spread = (targets.double() - targets.double().mean(0)).square().sum(0)
    explained = torch.where(spread > 0, 1 - error.square().sum(0) / spread, torch.nan)
    columns = explained, error.abs().mean(0), error.square().mean(0).sqrt()
    return tuple((name, *(float(c[i]) for c in columns)) for i, name in enumerate(names))


BINS = 10


@dataclass(frozen=True)
class Calibration:
    """How sure the network was against how often it was right.

    Attributes:
        edges: of the bins, (bins + 1,).
        counts: samples in each bin.
        confidence: mean probability of the predicted class in each bin; NaN where it is empty.
        accuracy: share that is right in each bin; NaN where it is empty.
        error: expected calibration error (Naeini et al. 2015): the mean of |accuracy - confidence|, weighted
            by the samples of the bins.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    error: float

    @classmethod
    def of(cls, confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> Calibration:
        """From each sample's probability of the predicted class, and whether that was right; both (N,)."""
        edges = np.linspace(0, 1, bins + 1)
        place = np.clip((confidence * bins).astype(int), 0, bins - 1)
        counts = np.bincount(place, minlength=bins)
        with np.errstate(invalid="ignore"):
            mean = np.bincount(place, confidence, bins) / counts
            share = np.bincount(place, right.astype(float), bins) / counts
        there = counts > 0
        error = float((np.abs(share - mean)[there] * counts[there]).sum() / max(len(confidence), 1))
        return cls(edges, counts, mean, share, error)

    @property
    def figure(self) -> Figure:
        """Accuracy against confidence with 95 % intervals, and how many samples there are of each."""
        figure = new_figure(4.4, 4.6)
        self.draw(figure)
        return figure

    def draw(self, figure: FigureBase) -> None:
        """The same into a figure, or a part of one."""
        ax, below = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
        there = self.counts > 0
        ax.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle="--", zorder=1)
        ax.annotate("as sure as right", (0.62, 0.54), rotation=38, color=INK, fontsize=8,
                    rotation_mode="anchor", transform_rotates_text=True)  # fmt: skip
        spans = [
            wilson(round(a * n), n) for a, n in zip(self.accuracy[there], self.counts[there], strict=True)
        ]
        low, high = np.array(spans).T if spans else (np.empty(0), np.empty(0))
        x, y = self.confidence[there], self.accuracy[there]
        ax.errorbar(x, y, yerr=[np.maximum(y - low, 0), np.maximum(high - y, 0)], fmt="o-", color=BLUE,
                    markersize=6, capsize=3, linewidth=1.6, elinewidth=1, zorder=3)  # fmt: skip
        ax.set_ylabel("share that is right", color=INK)
        ax.set_ylim(-0.02, 1.04)
        ax.set_xlim(-0.02, 1.02)
        ax.set_title(
            f"Calibration: expected error {100 * self.error:.1f} %", loc="left", fontsize=11, color=INK
        )
        below.bar((self.edges[:-1] + self.edges[1:]) / 2, self.counts, width=0.09, color=VERMILION, alpha=0.7)
        below.set_ylabel("samples", color=INK)
        below.set_xlabel("how sure: probability of the predicted class", color=INK)
        for axes in (ax, below):
            plain(axes)


NUMBERS = 25  # up to so many classes, each cell has its number
NAMES = 60  # up to so many, each row has its name
LONGEST = 24  # letters of a name


def confusion_matrix(targets: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """How often class i was taken for class j: int64 of shape (classes, classes).

    Args:
        targets, predicted: class numbers of shape (N,).
        classes: how many there are.
    """
    return np.bincount(targets * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def draw_confusion(matrix: np.ndarray, classes: Sequence[str]) -> Figure:
    """The matrix as shares of each row, so that rare classes are seen too; mistakes have their own colour."""
    number = len(classes)
    longest = max(len(short(name, LONGEST)) for name in classes) if number <= NAMES else 4
    side = min(max(0.38 * number, 2.6), 9.0)
    figure = new_figure(side + 0.09 * longest + 0.9, side + 0.09 * longest + 0.9)
    ax = figure.add_subplot(facecolor="none")
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    ax.imshow(_colours(shares), interpolation="nearest")
    _names(ax, classes)
    ax.set_xlabel("predicted", color=INK)
    ax.set_ylabel("true", color=INK)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, colors=INK)
    if number <= NUMBERS:
        _numbers(ax, matrix, shares)
    else:
        ax.set_title("share of each row", fontsize=9, color=INK, loc="left")
    return figure


def _colours(shares: np.ndarray) -> np.ndarray:
    """RGBA of shape (n, n, 4): right answers from the page's paper to blue, mistakes to vermilion."""
    right, wrong = np.array([0.0, 0.447, 0.698]), np.array([0.835, 0.369, 0.0])
    # Mistakes are few; the root makes one in a hundred visible.
    strength = np.where(np.eye(len(shares), dtype=bool), shares, np.sqrt(shares))[..., None]
    colour = np.where(np.eye(len(shares), dtype=bool)[..., None], right, wrong)
    return np.concatenate([colour, strength], axis=2)


def _names(ax: Axes, classes: Sequence[str]) -> None:
    if len(classes) > NAMES:
        return
    size = 9 if len(classes) <= 15 else max(5.0, 185 / len(classes))
    upright = max(map(len, classes)) > 3
    for axis, turn in ((ax.xaxis, 90 if upright else 0), (ax.yaxis, 0)):
        axis.set_ticks(range(len(classes)))
        labels = axis.set_ticklabels([short(name, LONGEST) for name in classes], rotation=turn, fontsize=size)
        for label in labels:
            label.set_parse_math(False)


def _numbers(ax: Axes, matrix: np.ndarray, shares: np.ndarray) -> None:
    size = 9 if len(matrix) <= 15 else 7
    for row, column in np.argwhere(matrix > 0):
        dark = shares[row, column] > (0.5 if row == column else 0.25)
        ax.text(column, row, str(matrix[row, column]), ha="center", va="center", fontsize=size,
                color="white" if dark else INK)  # fmt: skip
