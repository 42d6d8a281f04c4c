"""The curve of a learning-rate range test, the rules that read a rate off it, and its picture.

Each rule takes the rates (ascending) and the losses as numpy arrays of one length and gives a rate, or ``None``
where the curve does not answer. ``None`` is an answer: a flat curve says nothing about a rate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tlnb.display.figures import BLUE, FAINT, INK, VERMILION, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Floats = NDArray[np.float64]
Rule = Callable[[Floats, Floats], "float | None"]

MIN_POINTS = 3  # fewer points than this are no curve
SAFE = 0.7  # of the rate with the lowest loss
BUMP = 3.0  # a rise counts as one when it is this many times the range of the first third of the curve
FLAT = 1e-4  # a fall smaller than this part of the loss is none


def basin(rates: Floats, losses: Floats) -> float | None:
    """``SAFE`` times the rate with the lowest loss, its place refined by the parabola through its neighbours.

    The default. The lowest place of the loss along one direction lies beyond the best peak of a one-cycle schedule:
    a run takes many steps, and each in a direction of its own. How it was chosen, and what it costs against the best
    fixed rate, stands in ``tests/benchmarks/rates/RESULTS.md``.

    At a constant rate, without the warm-up of one-cycle, ``minimum`` is the better rule (see ``rule_for``).
    """
    log, losses = _finite(rates, losses)
    if not _falls(losses):
        return None
    return SAFE * float(np.exp(_parabola(log, losses, int(np.argmin(losses)))))


def valley(rates: Floats, losses: Floats) -> float | None:
    """The middle of the longest descent, in the logarithm of the rate.

    fastai's documentation describes its rule of this name so: find the longest valley of the curve and take a
    point well inside it. Here a descent is a stretch on which the loss falls and never climbs back by more
    than a tenth of what it has fallen. It begins where the first tenth of the fall is done, since the flat
    start of the curve is no descent, and ends where the last tenth begins, since the floor is none either.
    The longest is the one that falls farthest.
    """
    log, losses = _finite(rates, losses)
    return float(np.exp(_middle_of_descent(log, losses))) if _falls(losses) else None


def steepest(rates: Floats, losses: Floats) -> float | None:
    """The rate at which the loss falls fastest against the logarithm of the rate (Smith, arXiv 1506.01186).

    The place is refined by the parabola through the three lowest slopes, so that it does not jump from one
    sampled rate to the next.
    """
    log, losses = _finite(rates, losses)
    if not _falls(losses):
        return None
    slope = np.gradient(losses, log)[: int(np.argmin(losses)) + 1]
    return float(np.exp(_parabola(log, slope, int(np.argmin(slope)))))


def minimum(rates: Floats, losses: Floats) -> float | None:
    """A tenth of the rate at which the loss is lowest: the cautious rule of fastai's courses."""
    log, losses = _finite(rates, losses)
    return float(np.exp(log[int(np.argmin(losses))]) / 10) if _falls(losses) else None


def brink(rates: Floats, losses: Floats) -> float | None:
    """A tenth of the last rate before the loss rises above its lowest by a tenth of its start.

    It asks where training breaks, not where it gains, and so has an answer for a network that is trained
    already, whose loss has nowhere to fall. The rise must stand out from the ups and downs of the first
    third. ``None`` where no such rise is seen.
    """
    log, losses = _finite(rates, losses)
    if len(losses) < MIN_POINTS:
        return None
    usual = float(np.ptp(losses[: len(losses) // 3]))
    last = _last_before_rise(losses, max(0.1 * abs(float(losses[0])), BUMP * usual))
    return float(np.exp(log[last]) / 10) if last < len(losses) - 1 else None


RULES: dict[str, Rule] = {
    "basin": basin,
    "valley": valley,
    "steepest": steepest,
    "minimum": minimum,
    "brink": brink,
}
DEFAULT_RULE = "basin"


def rule_for(schedule: str) -> str:
    """The rule for a stage that names none.

    ``basin`` finds the highest rate of a schedule that rises to it and falls again. A rate that is held from
    the first step to the last must be more cautious: that of ``minimum``.
    """
    return "minimum" if schedule == "constant" else DEFAULT_RULE


def _finite(rates: Floats, losses: Floats) -> tuple[Floats, Floats]:
    """Logarithms of the rates, and the losses, up to the first loss that is not finite."""
    bad = np.flatnonzero(~np.isfinite(losses))
    end = int(bad[0]) if len(bad) else len(losses)
    return np.log(np.asarray(rates[:end], dtype=np.float64)), np.asarray(losses[:end], dtype=np.float64)


def _falls(losses: Floats) -> bool:
    if len(losses) < MIN_POINTS:
        return False
    start = float(losses[0])
    return start - float(np.min(losses)) > FLAT * abs(start)


def _last_before_rise(losses: Floats, rise: float) -> int:
    """Index of the last point, right of the lowest, before the loss is ``rise`` above the lowest."""
    low = int(np.argmin(losses))
    risen = np.flatnonzero(losses[low:] > losses[low] + rise)
    return low + int(risen[0]) - 1 if len(risen) else len(losses) - 1


def _middle_of_descent(log: Floats, losses: Floats) -> float:
    """Logarithm of the rate in the middle of the deepest descent, the tenths at both ends left out."""
    top, low = _deepest_descent(losses)
    fall = losses[top] - losses[low]
    stretch = losses[top : low + 1]
    first = top + int(np.argmax(stretch <= losses[top] - 0.1 * fall))
    last = top + int(np.argmax(stretch <= losses[low] + 0.1 * fall))
    return float((log[first] + log[last]) / 2)


def _deepest_descent(losses: Floats) -> tuple[int, int]:
    """(top, low) of the descent that falls farthest without climbing back by a tenth of its fall."""
    best, top, low = (0, 0), 0, 0
    for i in range(1, len(losses)):
        if losses[i] <= losses[low]:
            low = i
        elif losses[i] - losses[low] > 0.1 * (losses[top] - losses[low]):
            top = low = i
        if losses[top] - losses[low] > losses[best[0]] - losses[best[1]]:
            best = (top, low)
    return best


def _parabola(x: Floats, y: Floats, at: int) -> float:
    """Where the parabola through the points at-1, at, at+1 is lowest; ``x[at]`` at an end."""
    if not 0 < at < len(y) - 1:
        return float(x[at])
    square, linear, _ = np.polyfit(x[at - 1 : at + 2] - x[at], y[at - 1 : at + 2], 2)
    return float(x[at] - linear / (2 * square)) if square > 0 else float(x[at])


LOOKS = {  # colour and shape of each rule, the same in every picture
    "basin": (INK, "v"),
    "valley": ("#009E73", "o"),
    "steepest": ("#CC79A7", "s"),
    "minimum": ("#E69F00", "D"),
    "brink": ("#56B4E9", "^"),
}

FEW = 30  # rates, up to which each is shown as a point


def draw(curve: LRCurve, ax: Axes | None = None) -> Figure:
    """Draw ``curve`` into ``ax``, or into a figure of its own without pyplot's global state."""
    if ax is None:
        ax = new_figure(7.0, 3.8).add_subplot(facecolor="none")
    _axes(ax)
    if curve.smoothed and min(curve.smoothed) < 0:
        ax.set_ylabel("change of the loss", color=INK)  # against that of the same samples before the step
    if curve.rates:
        ax.plot(curve.rates, curve.losses, color=BLUE, alpha=0.3, linewidth=1, zorder=2)
        dots = "o" if len(curve.rates) <= FEW else ""
        ax.plot(curve.rates, curve.smoothed, color=BLUE, linewidth=2.2, marker=dots, markersize=4, zorder=3)
        ax.margins(x=0.01)
        ax.set_ylim(*_limits(curve))
        _mark_suggestion(curve, ax)
        _mark_others(curve, ax)
    ax.set_title(_title(curve), loc="left", fontsize=11, color=INK, pad=10)
    return ax.figure.figure  # of a figure in a figure, the outer one


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


@dataclass(frozen=True)
class LRCurve:
    """Loss against learning rate, and the suggested rates.

    Shows itself as one or two lines of text and as a picture. Equal when every number is.

    Args:
        rates: the rates that were tried, ascending; those of the top group.
        losses: the training loss after a step of each rate; finite.
        smoothed: the losses again; curves of files of version 0.1 were noisy, and this is them without their noise.
        rule: the rule whose answer is ``suggestion``.
        suggestions: the answer of every rule, ``None`` where it has none.
        reason: why there is no suggestion, or else why the sweep ended.
        ratios: factor of each group against the top group, by name; empty where all learn at one rate.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    rule: str
    suggestions: dict[str, float | None]
    reason: str
    ratios: dict[str, float]

    @property
    def suggestion(self) -> float | None:
        """The rate that the chosen rule suggests for the top group, or ``None``."""
        return self.suggestions.get(self.rule)

    @property
    def rate(self) -> float | None:
        """The rate to train at: the suggestion, else that of the rule ``brink``, else ``None``.

        The loss of a network that is trained already has nowhere to fall, so no other rule answers; where
        it breaks can be seen all the same.
        """
        return self.suggestion if self.suggestion is not None else self.suggestions.get("brink")

    @property
    def note(self) -> str:
        """The outcome in words, one line."""
        others = {n: r for n, r in self.suggestions.items() if r is not None and n != self.rule}
        if self.suggestion is not None:
            listed = ", ".join(f"{name} {rate:.1e}" for name, rate in others.items())
            return f"{self.rule} suggests {self.suggestion:.1e}" + (f" ({listed})" if listed else "")
        instead = ", ".join(f"{name} gives {rate:.1e}" for name, rate in others.items())
        return f"no suggestion: {self.reason}" + (f"; {instead}" if instead else "")

    def plot(self, ax: Axes | None = None) -> Figure:
        """Draw the curve with every rule's rate marked, into ``ax`` where one is given.

        Returns the matplotlib figure; pyplot and its global state are not touched.
        """
        return draw(self, ax)

    def _repr_png_(self) -> bytes:
        return self._png

    @cached_property
    def _png(self) -> bytes:
        # Kept: a notebook shows the picture several times while its stage trains.
        target = BytesIO()
        self.plot().savefig(target, format="png", dpi=110)
        return target.getvalue()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/plain": repr(self), "image/png": self._repr_png_()}

    def __repr__(self) -> str:
        span = f" from {self.rates[0]:.1e} to {self.rates[-1]:.1e}" if self.rates else ""
        return f"learning-rate range test: {len(self.rates)} rates{span}; {self.note}"
