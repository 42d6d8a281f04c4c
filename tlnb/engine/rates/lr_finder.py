"""The learning-rate range test: train a few steps at rising rates, watch the loss (Smith, arXiv 1506.01186).

The sweep trains for real, so it stands inside ``snapshot.transaction``, which the caller opens: the sweep
knows a step and a rate, and no model.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from torch import Tensor

from tlnb.engine.rates.lr_curve import LRCurve
from tlnb.engine.rates.smoothing import clear_fall, smooth
from tlnb.engine.rates.suggest import DEFAULT_RULE, MIN_POINTS, RULES, brink
from tlnb.errors import BadArguments, TrainingError, did_you_mean

OnStep = Callable[[int, int, float, float], None]

EXPLODED = 4.0  # the sweep ends when the running loss is this many times the best
QUICK, SLOW = 0.7, 0.9  # weights of the past in the two running means
LAST, BEFORE = 3, 20  # so many losses in a row above so many before them
STEPS = 100  # rates in a sweep
BLOCK = 10  # steps between two readings on an accelerator, where each reading waits for the device


def range_test(
    step: Callable[[], float | Tensor],
    set_rate: Callable[[float], None],
    *,
    start: float = 1e-7,
    stop: float = 10.0,
    steps: int = STEPS,
    rule: str = DEFAULT_RULE,
    ratios: dict[str, float] | None = None,
    on_step: OnStep | None = None,
) -> LRCurve:
    """Sweep the rate exponentially from ``start`` to ``stop`` and suggest one by ``rule``.

    Args:
        step: does one optimizer step on the next batch and returns the training loss before it (a number, or
            a tensor of one element).
        set_rate: sets the rate. Where groups learn at different rates it is given the rate of the top group
            and multiplies it by each group's ratio, so that the ratios stay.
        start, stop: the first and last rate, per step; both above 0.
        steps: how many rates, at least 10.
        rule: the name of a rule in ``suggest.RULES``; the curve holds the answers of all.
        ratios: factor of each group or layer against the top group, by name; kept for the reader.
        on_step: called as ``on_step(i, steps, rate, loss)`` after each step, i from 0. With losses on an
            accelerator it is called for ten steps at a time, since reading a loss makes the device wait.

    The sweep ends at the first loss that is not finite, or when the running loss is four times its best.
    Nothing is put back here: call it inside ``snapshot.transaction``. Exceptions, interrupts too, pass
    through.

    Raises:
        BadArguments: an unknown rule, or rates or steps that make no sweep. Nothing has run then.
        TrainingError: ``step`` returned something that is not one number.
    """
    rates = _rates(start, stop, steps, rule)
    losses, reason, whole = _sweep(step, set_rate, rates, on_step)
    broke = None if whole or not losses else rates[len(losses) - 1]
    return judge(rates[: len(losses)], losses, rule=rule, ratios=ratios, reason=reason, broke=broke)


def judge(
    rates: list[float],
    losses: list[float],
    *,
    rule: str,
    ratios: dict[str, float] | None = None,
    reason: str = "",
    broke: float | None = None,
) -> LRCurve:
    """The curve with what each rule says about it.

    Args:
        rates, losses: the sweep; losses are finite.
        rule, ratios: as in :func:`range_test`.
        reason: why the sweep ended.
        broke: the last rate before the loss exploded or was not finite; ``None`` if the sweep went through.
    """
    x, y = np.asarray(rates, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    smoothed = smooth(y)
    suggestions: dict[str, float | None] = dict.fromkeys(RULES)
    if len(y) < MIN_POINTS:
        reason = f"{reason}; too few rates before that"
    else:
        falls = clear_fall(y, smoothed)
        if falls:
            suggestions = {name: suggest(x, smoothed) for name, suggest in RULES.items()}
        # This rule asks nothing about a fall. It may miss a rise that is small beside the noise; the end of
        # the sweep is then all that is known, and it comes a few steps later than the brink.
        suggestions["brink"] = brink(x, smoothed) or (broke / 20 if broke else None)
        if not falls and suggestions[rule] is None:
            reason = "the loss never fell by more than its noise"
    return LRCurve(
        tuple(rates), tuple(losses), tuple(smoothed.tolist()), rule, suggestions, reason, dict(ratios or {})
    )


def check(*, start: float, stop: float, steps: int, rule: str = "basin") -> None:
    """See whether a sweep can be made like that, before anything runs.

    Raises:
        BadArguments: it cannot.
    """
    _rates(start, stop, steps, rule)


def _rates(start: float, stop: float, steps: int, rule: str) -> list[float]:
    if rule not in RULES:
        raise BadArguments(f"no rule {rule!r}{did_you_mean(rule, RULES) or '.'} Rules: {', '.join(RULES)}")
    for name, value in (("start", start), ("stop", stop)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise BadArguments(f"{name} must be a rate above 0, such as 1e-5, not {value!r}")
    if stop <= start:
        raise BadArguments(f"stop must be above start: {stop:g} is not above {start:g}")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < MIN_POINTS:
        raise BadArguments(f"steps must be a whole number of at least {MIN_POINTS}, not {steps!r}")
    return [float(rate) for rate in np.geomspace(start, stop, steps)]


def _sweep(
    step: Callable[[], float | Tensor],
    set_rate: Callable[[float], None],
    rates: list[float],
    on_step: OnStep | None,
) -> tuple[list[float], str, bool]:
    """The finite losses, one a rate from the first; why there are no more; whether the sweep went through."""
    losses: list[float] = []
    waiting: list[float | Tensor] = []
    watch = Watch()
    for i, rate in enumerate(rates):
        set_rate(rate)
        loss = step()
        waiting.append(loss.detach() if isinstance(loss, Tensor) else loss)
        on_device = isinstance(loss, Tensor) and loss.device.type != "cpu"
        if on_device and len(waiting) < BLOCK and i + 1 < len(rates):
            continue
        for value in map(_number, waiting):
            k = len(losses)
            if not math.isfinite(value):
                return losses, f"stopped at {rates[k]:.1e}: the loss was {value}", False
            losses.append(value)
            if on_step is not None:
                on_step(k, len(rates), rates[k], value)
            if watch.exploded(value):
                return losses, f"stopped at {rates[k]:.1e}: the loss exploded", False
        waiting.clear()
    return losses, f"reached {rates[-1]:.1e}", True


class Watch:
    """Follows the loss through a sweep and says when it has exploded.

    The quick running mean must be four times the best of the slow one (both exponential and bias corrected).
    The loss of a network that is trained already jumps by more than that from batch to batch, nearly nothing
    here and a bad one there; so the last three losses must also lie above all of the twenty before them.
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.quick, self.slow = 0.0, 0.0
        self.best = math.inf

    def exploded(self, loss: float) -> bool:
        """Take in one finite loss; True when the loss has left its best behind (not in the first 13)."""
        self.losses.append(loss)
        self.quick = QUICK * self.quick + (1 - QUICK) * loss
        self.slow = SLOW * self.slow + (1 - SLOW) * loss
        count = len(self.losses)
        if count < MIN_POINTS + LAST:
            return False
        self.best = min(self.best, self.slow / (1 - SLOW**count))
        above = min(self.losses[-LAST:]) > max(self.losses[-LAST - BEFORE : -LAST])
        # Losses of zero and below, from a training step of the user's own, are no base for a factor.
        return above and self.quick / (1 - QUICK**count) > EXPLODED * self.best > 0


def _number(loss: float | Tensor) -> float:
    try:
        return float(loss)
    except (TypeError, ValueError, RuntimeError):
        shape = getattr(loss, "shape", None)
        what = type(loss).__name__ if shape is None else f"a tensor of shape {tuple(shape)}"
        raise TrainingError(f"the training step must return its loss as one number, not {what}") from None
