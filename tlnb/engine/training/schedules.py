"""How the rate moves during a stage. Apart from the optimizer, because scripts carry the source of these functions."""

from __future__ import annotations

import math
from collections.abc import Callable

WARM_UP = 0.3
START_FACTOR = 1 / 25
END_FACTOR = START_FACTOR * 1e-4


def one_cycle(step: int, steps: int) -> float:
    """What the rate is multiplied by: up for 30 % of the steps, then down (Smith and Topin 2018).

    The shape of ``torch.optim.lr_scheduler.OneCycleLR`` with its usual settings: half a cosine wave from 1/25 to 1,
    then one down to 1/250,000.
    """
    peak, last = WARM_UP * steps - 1, max(steps - 1, 1)
    if step <= peak:
        return between(START_FACTOR, 1.0, step / peak)
    return between(1.0, END_FACTOR, min((step - peak) / (last - peak), 1.0))


def cosine_decay(step: int, steps: int) -> float:
    """What the rate is multiplied by: from 1 down to 0 (Loshchilov and Hutter 2017)."""
    return between(1.0, 0.0, step / max(steps, 1))


def constant(step: int, steps: int) -> float:
    """What the rate is multiplied by: it stays."""
    return 1.0


def between(start: float, end: float, progress: float) -> float:
    """From start to end along half a cosine wave; progress goes from 0 to 1."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * progress))


SHAPES: dict[str, Callable[[int, int], float]] = {
    "one-cycle": one_cycle,
    "cosine": cosine_decay,
    "constant": constant,
}
"""The function of each schedule: of the steps done so far in the stage, from 0, and the steps of the whole stage."""
