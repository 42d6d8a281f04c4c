"""The confusion matrix: which class was taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tlnb.engine.figures import INK, new_figure, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NUMBERS = 25  # up to so many classes, each cell has its number
NAMES = 60  # up to so many, each row has its name
LONGEST = 24  # letters of a name


def count(targets: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """How often class i was taken for class j: int64 of shape (classes, classes).

    Args:
        targets, predicted: class numbers of shape (N,).
        classes: how many there are.
    """
    return np.bincount(targets * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def draw(matrix: np.ndarray, classes: Sequence[str]) -> Figure:
    """The matrix as shares of each row, so that rare classes are seen too; mistakes have their own colour."""
    number = len(classes)
    longest = max(len(short(name, LONGEST)) for name in classes) if number <= NAMES else 4
    side = min(max(0.38 * number, 2.6), 9.0)
    figure = new_figure(side + 0.09 * longest + 0.9, side + 0.09 * longest + 0.9)
    ax = figure.add_subplot(facecolor="white")
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
    """RGB of shape (n, n, 3): right answers white to blue, mistakes white to vermilion."""
    right, wrong = np.array([0.0, 0.447, 0.698]), np.array([0.835, 0.369, 0.0])
    # Mistakes are few; the root makes one in a hundred visible.
    strength = np.where(np.eye(len(shares), dtype=bool), shares, np.sqrt(shares))[..., None]
    colour = np.where(np.eye(len(shares), dtype=bool)[..., None], right, wrong)
    return 1 - strength * (1 - colour)


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
