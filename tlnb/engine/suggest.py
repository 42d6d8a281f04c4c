"""Rules that read a learning rate off the curve of a range test.

Each rule takes the rates (ascending) and the smoothed losses as numpy arrays of one length and gives a rate, or
``None`` where the curve does not answer. ``None`` is an answer: a flat curve says nothing about a rate.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rule = Callable[[Floats, Floats], "float | None"]

MIN_POINTS = 8  # fewer points than this are no curve


def steepest(rates: Floats, losses: Floats) -> float | None:
    """The rate at which the loss falls fastest against the logarithm of the rate (Smith, arXiv 1506.01186).

    The slope is taken between neighbours; the place of its minimum is refined by the parabola through three
    slopes, so that it does not jump from one sampled rate to the next.
    """
    log, losses = _until_lowest(rates, losses)
    if len(log) < MIN_POINTS:
        return None
    slope = np.gradient(losses, log)
    at = int(np.argmin(slope))
    return float(np.exp(_parabola(log, slope, at))) if slope[at] < 0 else None


def valley(rates: Floats, losses: Floats) -> float | None:
    """The middle of the longest descent.

    fastai's documentation describes its rule of this name as: find the longest valley of the curve and take a
    point well inside it. Here a descent is a stretch on which the loss falls and never climbs back by more than
    a tenth of what it has fallen; it begins where the first tenth of the fall is done, so that the flat start of
    the curve does not count, and ends at its lowest point. The middle is meant in the logarithm of the rate.
    """
    log, losses = _finite(rates, losses)
    if len(log) < MIN_POINTS:
        return None
    first, last = _longest_descent(log, losses)
    return None if last <= first else float(np.exp((log[first] + log[last]) / 2))


def minimum(rates: Floats, losses: Floats) -> float | None:
    """A tenth of the rate at which the loss is lowest (the older rule of fastai's courses)."""
    log, losses = _until_lowest(rates, losses)
    return float(np.exp(log[-1]) / 10) if len(log) >= MIN_POINTS else None


RULES: dict[str, Rule] = {"valley": valley, "steepest": steepest, "minimum": minimum}
DEFAULT_RULE = "valley"


def _finite(rates: Floats, losses: Floats) -> tuple[Floats, Floats]:
    """Logarithms of the rates, and the losses, up to the first loss that is not finite."""
    bad = np.flatnonzero(~np.isfinite(losses))
    end = int(bad[0]) if len(bad) else len(losses)
    return np.log(rates[:end]), np.asarray(losses[:end], dtype=np.float64)


def _until_lowest(rates: Floats, losses: Floats) -> tuple[Floats, Floats]:
    log, losses = _finite(rates, losses)
    end = int(np.argmin(losses)) + 1 if len(losses) else 0
    return log[:end], losses[:end]


def _longest_descent(log: Floats, losses: Floats) -> tuple[int, int]:
    best, start = (0, 0), 0
    while start < len(losses) - 1:
        top, low = start, start
        for i in range(start + 1, len(losses)):
            if losses[i] >= losses[top] and low == top:
                top = low = i
            elif losses[i] < losses[low]:
                low = i
            elif losses[i] - losses[low] > 0.1 * (losses[top] - losses[low]):
                break
        begun = losses[top] - 0.1 * (losses[top] - losses[low])
        first = top + int(np.argmax(losses[top : low + 1] <= begun))
        if low > top and losses[top] - losses[low] > losses[best[0]] - losses[best[1]]:
            best = (first, low)
        start = max(low, start + 1)
    return best


def _parabola(x: Floats, y: Floats, at: int) -> float:
    """Where the parabola through the points at-1, at, at+1 (evenly spaced) is lowest; ``x[at]`` at an end."""
    if not 0 < at < len(x) - 1:
        return float(x[at])
    left, middle, right = y[at - 1 : at + 2]
    bend = left - 2 * middle + right
    shift = 0.5 * (left - right) / bend if bend > 0 else 0.0
    return float(x[at] + shift * (x[at + 1] - x[at]))
