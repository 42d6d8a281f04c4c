"""The picture of a range test: loss against rate on a log axis, every rule's rate marked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tlnb.engine.figures import BLUE, FAINT, INK, VERMILION, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tlnb.engine.rates.lr_curve import LRCurve

LOOKS = {  # colour and shape of each rule, the same in every picture
    "basin": ("#000000", "v"),
    "valley": ("#009E73", "o"),
    "steepest": ("#CC79A7", "s"),
    "minimum": ("#E69F00", "D"),
    "brink": ("#56B4E9", "^"),
}

FEW = 30  # rates, up to which each is shown as a point


def draw(curve: LRCurve, ax: Axes | None = None) -> Figure:
    """Draw ``curve`` into ``ax``, or into a figure of its own without pyplot's global state."""
    if ax is None:
        ax = new_figure(7.0, 3.8).add_subplot(facecolor="white")
    _axes(ax)
    if curve.rates:
        ax.plot(curve.rates, curve.losses, color=BLUE, alpha=0.3, linewidth=1, zorder=2)
        dots = "o" if len(curve.rates) <= FEW else ""
        ax.plot(curve.rates, curve.smoothed, color=BLUE, linewidth=2.2, marker=dots, markersize=4, zorder=3)
        ax.margins(x=0.01)
        ax.set_ylim(*_limits(curve))
        _mark_suggestion(curve, ax)
        _mark_others(curve, ax)
    ax.set_title(_title(curve), loc="left", fontsize=11, color=INK, pad=10)
    return ax.get_figure(root=True)  # type: ignore[return-value]


def _axes(ax: Axes) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    ax.set_xscale("log")
    ax.set_xlabel("learning rate", color=INK)
    ax.set_ylabel("training loss", color=INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#999999")
    ax.grid(True, color=FAINT, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(colors=INK, labelsize=9)
    ax.xaxis.set_major_locator(LogLocator(numticks=12))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _limits(curve: LRCurve) -> tuple[float, float]:
    """The y range: nearly all losses of the start and the valley, so that an explosion flattens nothing."""
    smoothed, losses = np.asarray(curve.smoothed), np.asarray(curve.losses)
    start = max(4, len(smoothed) // 5)
    low = min(float(smoothed.min()), float(np.quantile(losses, 0.05)))
    high = max(float(smoothed[:start].max()), float(np.quantile(losses[:start], 0.95)))
    margin = max(high - low, 0.01 * abs(high), 1e-9)
    return low - 0.1 * margin, high + 0.2 * margin


def _mark_suggestion(curve: LRCurve, ax: Axes) -> None:
    rate = curve.suggestion
    if rate is None:
        return
    ax.axvline(rate, color=VERMILION, linewidth=1.4, zorder=1)
    ax.plot([rate], [_loss_at(curve, rate)], "o", color=VERMILION, markersize=10, zorder=6,
            markeredgecolor="white", markeredgewidth=1.5)  # fmt: skip
    left = np.log(rate) < np.mean(np.log(ax.get_xlim()))
    ax.annotate(
        f"{curve.rule} {rate:.1e}", (rate, 0.97), xycoords=("data", "axes fraction"),
        xytext=(6 if left else -6, 0), textcoords="offset points", ha="left" if left else "right", va="top",
        color=VERMILION, fontweight="bold", zorder=7,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5},
    )  # fmt: skip


def _mark_others(curve: LRCurve, ax: Axes) -> None:
    others = {n: r for n, r in curve.suggestions.items() if r is not None and n != curve.rule}
    for name, rate in others.items():
        colour, marker = LOOKS.get(name, (INK, "P"))
        ax.plot([rate], [_loss_at(curve, rate)], marker, color=colour, markersize=7, zorder=5,
                markeredgecolor="white", markeredgewidth=1, linestyle="none",
                label=f"{name} {rate:.1e}")  # fmt: skip
    if others:
        ax.legend(loc="lower left", frameon=False, fontsize=9, labelcolor=INK, handletextpad=0.3)


def _loss_at(curve: LRCurve, rate: float) -> float:
    return float(np.interp(np.log(rate), np.log(curve.rates), curve.smoothed))


def _title(curve: LRCurve) -> str:
    return "Learning-rate range test" if curve.suggestion is not None else f"No suggestion: {curve.reason}"
