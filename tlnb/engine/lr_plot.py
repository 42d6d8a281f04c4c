"""The picture of a range test: loss against rate on a log axis, suggestions marked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tlnb.engine.lr_curve import LRCurve

# Okabe and Ito's palette, told apart with any colour vision.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"


def draw(curve: LRCurve, ax: Axes | None = None) -> Figure:
    """Draw ``curve`` into ``ax``, or into a figure of its own without pyplot's global state."""
    if ax is None:
        figure = Figure(figsize=(6.4, 3.6), facecolor="white", layout="constrained")
        ax = figure.add_subplot()
    ax.set_xscale("log")
    ax.plot(curve.rates, curve.losses, color=BLUE, alpha=0.3, linewidth=1)
    ax.plot(curve.rates, curve.smoothed, color=BLUE, linewidth=2)
    for rate in curve.suggestions.values():
        if rate is not None:
            ax.axvline(rate, color=GREY, linewidth=1, linestyle=":")
    if curve.suggestion is not None:
        ax.axvline(curve.suggestion, color=ORANGE, linewidth=2)
    if curve.smoothed:
        low = float(np.min(curve.smoothed))
        start = float(np.max(curve.smoothed[: len(curve.smoothed) // 2 + 1]))
        margin = max(start - low, 1e-3 * abs(start), 1e-9)
        ax.set_ylim(low - 0.2 * margin, start + 0.5 * margin)
    ax.set_xlabel("learning rate")
    ax.set_ylabel("training loss")
    ax.set_title(curve.note, fontsize=10, loc="left")
    return ax.figure  # type: ignore[return-value]
