"""Calibration: whether 90 % sure means right nine times in ten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tlnb.engine.figures import BLUE, INK, VERMILION, new_figure, plain
from tlnb.engine.results.intervals import wilson

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
        ax, below = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
        there = self.counts > 0
        ax.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle="--", zorder=1)
        ax.annotate("as sure as right", (0.62, 0.54), rotation=38, color="#777777", fontsize=8,
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
        return figure
