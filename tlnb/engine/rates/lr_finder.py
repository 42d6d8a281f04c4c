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
QUARTERS = 4  # rates are so many a decade apart, at the closest
COARSE = 2  # quarters of a decade between two rates of the first walk
FINE = (-1, 0, 1, 2)  # quarters of a decade from the lowest of the first walk, looked at closely
WINGS = 2  # rates of the first walk to either side of the usual one
RISEN = 0.5  # of the fall that the loss has to lose again before the walk to higher rates ends
EXPLODED = 0.1  # of the first loss, that it has to rise by as well
SHRINK = 0.4  # how far, in its logarithm, the suggestion moves to the rate that such stages usually need
FARTHEST = math.sqrt(10)  # and never by a larger factor


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
    line = _Line(loss_at, batches, budget, (start, usual, stop), on_point)
    reason = line.walk()
    line.look_closely()
    rates, losses = line.curve()
    broke = None if line.broke is None else line.rate(line.broke)
    return judge(rates, losses, rule=rule, ratios=ratios, reason=reason, broke=broke, usual=usual)


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
        broke: the first rate at which the loss was not finite; None if it went through.
        usual: what the suggestion of the default rule is drawn towards, within the rates of the test; None for
            nothing.
    """
    x, y = np.asarray(rates, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    suggestions: dict[str, float | None] = dict.fromkeys(RULES)
    if len(y) < MIN_POINTS:
        reason = f"{reason}; too few rates before that"
    else:
        suggestions = {name: suggest(x, y) for name, suggest in RULES.items()}
        found = suggestions[DEFAULT_RULE]
        if found is not None and usual is not None:
            moved = min(max((usual / found) ** SHRINK, 1 / FARTHEST), FARTHEST)
            # What was not measured may be where the loss is not finite, or where the user wants no rate.
            suggestions[DEFAULT_RULE] = min(max(found * moved, float(x[0])), float(x[-1]))
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
    if stop < 100 * start:
        raise BadArguments(f"stop must be at least a hundred times start: {stop:g} is too near to {start:g}")


class _Line:
    """What is known of the loss along the direction; a rate is a number of quarter decades from the usual one."""

    def __init__(
        self,
        loss_at: LossAt,
        batches: int,
        budget: int,
        span: tuple[float, float, float],
        on_point: OnPoint | None,
    ):
        self.loss_at, self.batches, self.left, self.on_point = loss_at, batches, budget, on_point
        start, usual, stop = span
        self.usual = min(max(usual, start), stop)
        self.least = math.ceil(QUARTERS * math.log10(start / self.usual) - 1e-9)
        self.most = math.floor(QUARTERS * math.log10(stop / self.usual) + 1e-9)
        self.broke: int | None = None  # the first rate at which the loss was not finite
        self._known: dict[tuple[int | None, int], float] = {}
        self._rises: dict[int, float] = {}  # mean over the batches that a rate was measured on

    def rate(self, place: int) -> float:
        """A place as a rate."""
        return float(self.usual * 10 ** (place / QUARTERS))

    def walk(self) -> str:
        """Half decades on the first batch, around the usual rate and on as the loss asks for it; how it ended."""
        if not math.isfinite(self._loss(None, 0)):
            return "the loss is not finite before any step"
        places = [COARSE * k for k in range(-WINGS, WINGS + 1) if self.least <= COARSE * k <= self.most]
        for place in places or [0]:
            if not self._point(place, [0]):
                break
        while self._affords() and (not self._rises or self._lowest() == min(self._rises)):
            lower = min(self._rises, default=self.broke or 0) - COARSE
            if lower < self.least:
                break
            self._point(lower, [0])
        while self.broke is None and self._rises and not self._risen(max(self._rises)) and self._affords():
            higher = max(self._rises) + COARSE
            if higher > self.most:
                return f"reached {self.rate(max(self._rises)):.1e}"
            self._point(higher, [0])
        last = self.broke if self.broke is not None else max(self._rises, default=0)
        return f"stopped at {self.rate(last):.1e}: the loss {'was not finite' if self.broke is not None else 'rose'}"

    def look_closely(self) -> None:
        """Quarter decades around the lowest place, on as many batches as can be paid for."""
        if not self._rises:
            return
        places = [self._lowest() + k for k in FINE]
        places = [
            p for p in places if self.least <= p <= self.most and (self.broke is None or p < self.broke)
        ]
        batches: list[int] = []
        while len(batches) < self.batches and self._cost(places, [*batches, len(batches)]) <= self.left:
            batches.append(len(batches))
        for place in places if batches else ():
            if not self._point(place, batches):
                break

    def _cost(self, places: list[int], batches: list[int]) -> int:
        """How many losses are not known yet."""
        return sum((place, at) not in self._known for place in [None, *places] for at in batches)

    def curve(self) -> tuple[list[float], list[float]]:
        """Rates, rising, and the loss at each."""
        places = sorted(self._rises)
        return [self.rate(place) for place in places], [
            self._first() + self._rises[place] for place in places
        ]

    def _point(self, place: int, batches: list[int]) -> bool:
        """Measure a rate; False where the loss is not finite, and the rate is none of the curve's."""
        usual = [self._loss(None, at) for at in batches]
        rises = [self._loss(place, at) - before for at, before in zip(batches, usual, strict=True)]
        mean = sum(rises) / len(rises)
        if not math.isfinite(mean):
            self.broke = min(place, self.broke if self.broke is not None else place)
            self._rises = {known: rise for known, rise in self._rises.items() if known < self.broke}
            return False
        self._rises[place] = mean
        if self.on_point is not None:
            self.on_point(self.rate(place), self._first() + mean)
        return True

    def _first(self) -> float:
        """The loss before any step, on the batches that were looked at."""
        before = [loss for (place, _), loss in self._known.items() if place is None]
        return sum(before) / len(before)

    def _loss(self, place: int | None, at: int) -> float:
        if (place, at) not in self._known:
            self.left -= 1
            self._known[place, at] = _number(self.loss_at(0.0 if place is None else self.rate(place), at))
        return self._known[place, at]

    def _lowest(self) -> int:
        return min(self._rises, key=lambda place: self._rises[place])

    def _risen(self, place: int) -> bool:
        """Whether the loss at a rate has clearly left its lowest place behind."""
        low = min(self._rises.values())
        return self._rises[place] > low + RISEN * max(-low, 0.0) + EXPLODED * abs(self._first())

    def _affords(self) -> bool:
        """Whether there is budget for one more step of the walk, and a close look on one batch after it."""
        return self.left >= 1 + len(FINE)


def _number(loss: float) -> float:
    try:
        return float(loss)
    except (TypeError, ValueError, RuntimeError):
        shape = getattr(loss, "shape", None)
        what = type(loss).__name__ if shape is None else f"a tensor of shape {tuple(shape)}"
        raise TrainingError(f"the training step must return its loss as one number, not {what}") from None
