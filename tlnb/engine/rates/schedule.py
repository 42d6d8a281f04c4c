"""How the rate moves during a stage: pure functions of progress, so that any step can be gone back to."""

from __future__ import annotations

import math

WARM_UP = 0.3
START_FACTOR = 1 / 25
END_FACTOR = START_FACTOR * 1e-4


def factor(schedule: str, step: int, steps: int) -> float:
    """What the stage's rate is multiplied by at a step.

    Args:
        schedule: ``one-cycle`` (Smith and Topin 2018; the shape of ``torch.optim.lr_scheduler.OneCycleLR``
            with its default settings: cosine from 1/25 to 1 over the first 30 % of the steps, then down to
            1/250,000), ``cosine`` (from 1 to 0, Loshchilov and Hutter 2017) or ``constant``.
        step: steps done so far in the stage, from 0.
        steps: steps of the whole stage.
    """
    if schedule == "constant":
        return 1.0
    last = max(steps - 1, 1)
    if schedule == "cosine":
        return _cosine(1.0, 0.0, step / max(steps, 1))
    peak = WARM_UP * steps - 1
    if step <= peak:
        return _cosine(START_FACTOR, 1.0, step / peak)
    return _cosine(1.0, END_FACTOR, min((step - peak) / (last - peak), 1.0))


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * progress))
