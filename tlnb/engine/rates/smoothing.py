"""Smoothing of a noisy loss curve, and the question whether it falls at all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BETA = 0.8  # a step nine away counts about a seventh of one's own
CEILING = 2.0  # losses above this many times the first ones count as an explosion
CLEAR = 5.0  # a fall counts when it is this many times the noise left in the smoothed curve


def smooth(losses: Floats, beta: float = BETA) -> Floats:
    """Exponential mean over both neighbours, bias corrected: point j counts ``beta ** |i - j|`` for point i.

    The usual mean over the past alone lags by ``beta / (1 - beta)`` steps, and a suggestion read off it is as
    many rates too high. Losses are cut at twice the median of the first ones before they are averaged, so
    that an explosion does not leak into the valley before it.
    """
    if not len(losses):
        return losses
    cut = np.minimum(losses, CEILING * np.median(losses[: start_length(len(losses))]))
    weights = _weights(len(losses), beta)
    return np.asarray(weights @ cut)


def start_length(points: int) -> int:
    """How many points at the left end stand for the loss before anything is learned."""
    return max(4, points // 5)


def start_level(losses: Floats) -> float:
    """The loss before anything is learned: the median of the first points, none right of the lowest."""
    low = int(np.argmin(losses))
    return float(np.median(losses[: min(start_length(len(losses)), low + 1)]))


def _weights(points: int, beta: float) -> Floats:
    at = np.arange(points)
    weights = beta ** np.abs(at[:, None] - at[None, :])
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def noise(losses: Floats, beta: float = BETA) -> float:
    """Standard deviation of the noise that is left in the smoothed curve.

    The scatter of single losses is taken from the differences of neighbours up to the lowest point (median
    absolute deviation, which a steep piece or a spike hardly moves); averaging shrinks it by a known factor.
    """
    end = max(start_length(len(losses)), int(np.argmin(losses)) + 1)
    differences = np.diff(losses[:end])
    if len(differences) < 2:
        return 0.0
    scatter = 1.4826 * float(np.median(np.abs(differences - np.median(differences)))) / np.sqrt(2)
    middle = _weights(len(losses), beta)[len(losses) // 2]
    return scatter * float(np.sqrt(np.sum(middle**2)))


def clear_fall(losses: Floats, smoothed: Floats) -> bool:
    """Whether the smoothed loss falls below its start by more than noise, or rounding, can explain."""
    start = start_level(smoothed)
    fall = start - float(np.min(smoothed))
    return fall > CLEAR * noise(losses) and fall > 1e-4 * abs(start)
