"""Rules that read a learning rate off the curve of a range test.

Each rule takes the rates (ascending) and the losses as numpy arrays of one length and gives a rate, or ``None``
where the curve does not answer. ``None`` is an answer: a flat curve says nothing about a rate.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

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
