"""The learning-rate range test: one direction of the optimizer, and the loss along it at many rates.

A sweep that trains at rising rates (Smith, arXiv 1506.01186) pays a step of training for each rate. Here a few
batches give the direction that the optimizer's step would have, and the loss is measured along it, forward only, on
other batches. Each loss is paired with the loss of the same batch before the step, so that the curve shows the rate
and not the luck of the batch. Nothing here knows a network: :mod:`tlnb.engine.training.range_test` steps it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from tlnb.engine.rates.lr_curve import LRCurve
from tlnb.engine.rates.suggest import DEFAULT_RULE, MIN_POINTS, RULES
from tlnb.errors import BadArguments, TrainingError, did_you_mean

OnPoint = Callable[[float, float], None]
LossAt = Callable[[float, int], float]

LOWEST, HIGHEST = 1e-7, 10.0
COARSE = math.sqrt(10)  # factor between two rates of the first walk
FINE = (-1, 0, 1, 2)  # quarters of a decade from the lowest of the first walk, looked at closely
WINGS = 2  # rates of the first walk to either side of the usual one
RISEN = 0.5  # of the fall that the loss has to lose again before the walk to higher rates ends
EXPLODED = 0.1  # of the first loss, that it has to rise by as well
SHRINK = 0.4  # how far, in its logarithm, the suggestion moves to the rate that such stages usually need


def range_test(
    loss_at: LossAt,
    batches: int,
    *,
    usual: float,
    budget: int,
    start: float = LOWEST,
    stop: float = HIGHEST,
    rule: str = DEFAULT_RULE,
    ratios: dict[str, float] | None = None,
    on_point: OnPoint | None = None,
) -> LRCurve:
    """Measure the loss along a direction and suggest a rate by ``rule``.

    First a walk in half decades around the usual rate, on one batch, until the loss has fallen and risen again; then
    a closer look around its lowest place, on as many batches as the budget allows.

    Args:
        loss_at: the loss of a batch, by number, after a step of a rate; 0 for no step.
        batches: how many there are.
        usual: rate that such a stage usually needs, where the walk begins.
        budget: how often ``loss_at`` is called, at most.
        start, stop: the lowest and the highest rate that are tried, per step; above 0.
        rule: name of a rule in ``suggest.RULES``; the curve holds the answers of all.
        ratios: factor of each group against the top group, by name; kept for the reader.
        on_point: called as ``on_point(rate, loss)`` for each point of the curve, as it is measured.

    Raises:
        BadArguments: an unknown rule, or rates that make no test. Nothing has run then.
        TrainingError: ``loss_at`` gave something that is not one number.
    """
    check(start=start, stop=stop, rule=rule)
    line = _Line(loss_at, batches, budget, on_point)
    reason = line.walk(min(max(usual, start), stop), start, stop)
    line.look_closely(start, stop)
    rates, losses = line.curve()
    return judge(rates, losses, rule=rule, ratios=ratios, reason=reason, broke=line.broke, usual=usual)


def judge(
    rates: Sequence[float],
    losses: Sequence[float],
    *,
    rule: str,
    ratios: dict[str, float] | None = None,
    reason: str = "",
    broke: float | None = None,
    usual: float | None = None,
) -> LRCurve:
    """The curve with what each rule says about it.

    Args:
        rates, losses: of the test; rates rise, losses are finite.
        rule, ratios: as in :func:`range_test`.
        reason: why the test ended.
        broke: the last rate before the loss exploded or was not finite; None if it went through.
        usual: what the suggestion of the default rule is drawn towards; None for nothing.
    """
    x, y = np.asarray(rates, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    suggestions: dict[str, float | None] = dict.fromkeys(RULES)
    if len(y) < MIN_POINTS:
        reason = f"{reason}; too few rates before that"
    else:
        suggestions = {name: suggest(x, y) for name, suggest in RULES.items()}
        found = suggestions[DEFAULT_RULE]
        if found is not None and usual is not None:
            suggestions[DEFAULT_RULE] = float(found ** (1 - SHRINK) * usual**SHRINK)
        suggestions["brink"] = suggestions["brink"] or (broke / 10 if broke else None)
        if suggestions[rule] is None:
            reason = "the loss never fell"
    points = tuple(map(float, rates)), tuple(map(float, losses))
    return LRCurve(*points, points[1], rule, suggestions, reason, dict(ratios or {}))


def check(*, start: float = LOWEST, stop: float = HIGHEST, rule: str = DEFAULT_RULE) -> None:
    """See whether a test can be made like that, before anything runs.

    Raises:
        BadArguments: it cannot.
    """
    if rule not in RULES:
        raise BadArguments(f"no rule {rule!r}{did_you_mean(rule, RULES) or '.'} Rules: {', '.join(RULES)}")
    for name, value in (("start", start), ("stop", stop)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise BadArguments(f"{name} must be a rate above 0, such as 1e-5, not {value!r}")
    if stop < start * COARSE**4:
        raise BadArguments(f"stop must be at least a hundred times start: {stop:g} is too near to {start:g}")


class _Line:
    """What is known of the loss along the direction."""

    def __init__(self, loss_at: LossAt, batches: int, budget: int, on_point: OnPoint | None):
        self.loss_at, self.batches, self.left, self.on_point = loss_at, batches, budget, on_point
        self.broke: float | None = None
        self._known: dict[tuple[float, int], float] = {}
        self._rises: dict[float, float] = {}  # mean over the batches that a rate was measured on

    def walk(self, guess: float, start: float, stop: float) -> str:
        """Half decades on the first batch, around the guess and on as long as the loss asks for it; how it ended."""
        rates = [guess * COARSE**k for k in range(-WINGS, WINGS + 1)]
        tried = [rate for rate in rates if start <= rate <= stop and self._point(rate, [0])]
        while tried and self._lowest() == tried[0] and tried[0] / COARSE >= start and self._affords(1):
            tried.insert(0, tried[0] / COARSE)
            self._point(tried[0], [0])
        while self.broke is None and tried and not self._risen(tried[-1]) and self._affords(1):
            if tried[-1] * COARSE > stop:
                return f"reached {tried[-1]:.1e}"
            tried.append(tried[-1] * COARSE)
            self._point(tried[-1], [0])
        return f"stopped at {(self.broke or tried[-1] if tried else guess):.1e}: the loss rose"

    def look_closely(self, start: float, stop: float) -> None:
        """Quarter decades around the lowest place, on as many batches as can be paid for."""
        if not self._rises:
            return
        lowest = self._lowest()
        rates = [lowest * COARSE ** (k / 2) for k in FINE]
        rates = [
            rate for rate in rates if start <= rate <= stop and (self.broke is None or rate <= self.broke)
        ]
        count = (self.left + len(rates)) // (len(rates) + 1) if rates else 0
        for rate in rates:
            self._point(rate, list(range(max(1, min(self.batches, count)))))

    def curve(self) -> tuple[list[float], list[float]]:
        """Rates, rising, and the loss at each."""
        rates = sorted(self._rises)
        return rates, [self._first() + self._rises[rate] for rate in rates]

    def _point(self, rate: float, batches: list[int]) -> bool:
        """Measure a rate; False where the loss is not finite, and the rate is none of the curve's."""
        usual = [self._loss(0.0, at) for at in batches]
        rises = [self._loss(rate, at) - before for at, before in zip(batches, usual, strict=True)]
        mean = sum(rises) / len(rises)
        if not math.isfinite(mean):
            self.broke = min(rate / COARSE, self.broke or rate)
            return False
        self._rises[rate] = mean
        if self.on_point is not None:
            self.on_point(rate, self._first() + mean)
        return True

    def _first(self) -> float:
        """The loss before any step, on the batches that were looked at."""
        before = [loss for (rate, _), loss in self._known.items() if rate == 0]
        return sum(before) / len(before)

    def _loss(self, rate: float, at: int) -> float:
        if (rate, at) not in self._known:
            self.left -= 1
            self._known[rate, at] = _number(self.loss_at(rate, at))
        return self._known[rate, at]

    def _lowest(self) -> float:
        return min(self._rises, key=lambda rate: self._rises[rate])

    def _risen(self, rate: float) -> bool:
        """Whether the loss at a rate has clearly left its lowest place behind."""
        low = min(self._rises.values())
        return self._rises[rate] > low + RISEN * max(-low, 0.0) + EXPLODED * abs(self._first())

    def _affords(self, calls: int) -> bool:
        """Whether there is budget for more of the walk, and a close look on one batch after it."""
        return self.left >= calls + len(FINE)


def _number(loss: float) -> float:
    try:
        return float(loss)
    except (TypeError, ValueError, RuntimeError):
        shape = getattr(loss, "shape", None)
        what = type(loss).__name__ if shape is None else f"a tensor of shape {tuple(shape)}"
        raise TrainingError(f"the training step must return its loss as one number, not {what}") from None
