"""Smoothing of a noisy loss curve, and the question whether it falls at all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BETA = 0.8
CLEAR = 4.0  # a fall counts when it is this many times the noise left in the smoothed curve


def smooth(losses: Floats, beta: float = BETA) -> Floats:
    """Exponential mean with bias correction, once from each side, averaged.

    From one side alone the mean lags by ``beta / (1 - beta)`` steps, and a suggestion read off it is as many
    rates too high; the mean from the other side lags by as many steps the other way.
    """
    return (_running(losses, beta) + _running(losses[::-1], beta)[::-1]) / 2


def _running(losses: Floats, beta: float) -> Floats:
    means, total, weight = np.empty(len(losses)), 0.0, 0.0
    for i, loss in enumerate(losses):
        total, weight = beta * total + (1 - beta) * loss, beta * weight + (1 - beta)
        means[i] = total / weight
    return means


def noise(losses: Floats, smoothed: Floats, beta: float = BETA) -> float:
    """Standard deviation of the noise that is left in the smoothed curve.

    The scatter of single losses is taken from the differences of neighbours (median absolute deviation, so that
    an explosion at the end does not count); the two-sided mean shrinks it by a known factor.
    """
    if len(losses) < 3:
        return 0.0
    differences = np.diff(losses)
    scatter = 1.4826 * float(np.median(np.abs(differences - np.median(differences)))) / np.sqrt(2)
    lags = np.arange(-200, 201)
    weights = (1 - beta) / 2 * beta ** np.abs(lags)
    weights[200] *= 2
    return scatter * float(np.sqrt(np.sum(weights**2)))


def clear_fall(losses: Floats, smoothed: Floats) -> bool:
    """Whether the smoothed loss falls, somewhere, by more than its noise can explain."""
    fall = float(np.max(np.maximum.accumulate(smoothed) - smoothed))
    return fall > CLEAR * noise(losses, smoothed) and fall > 1e-6 * float(np.max(np.abs(smoothed)))
