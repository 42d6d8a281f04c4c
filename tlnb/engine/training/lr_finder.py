"""The learning-rate range test: one direction of the optimizer, and the loss along it at many rates.

A sweep that trains at rising rates (Smith, arXiv 1506.01186) pays a step of training for each rate. Here a few
batches give the direction that the optimizer's step would have, and the loss is measured along it, forward only, on
other batches. Each loss is paired with the loss of the same batch before the step, so that the curve shows the rate
and not the luck of the batch. :func:`find_rate` does this on the layers of a stage.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tlnb.engine.core.interrupts import StopRequest
from tlnb.engine.core.seeds import seed_for
from tlnb.engine.core.snapshot import transaction
from tlnb.engine.features.cache import BatchCache
from tlnb.engine.network import freeze
from tlnb.engine.training.lr_curve import DEFAULT_RULE, MIN_POINTS, RULES, LRCurve, rule_for
from tlnb.engine.training.trainer import StageTrainer
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
        rule: name of a rule in ``lr_curve.RULES``; the curve holds the answers of all.
        ratios: factor of each group against the top group, by name; kept for the reader.
        on_point: called as ``on_point(rate, loss)`` for each point of the curve, as it is measured.

    Raises:
        BadArguments: an unknown rule, or rates that make no test. Nothing has run then.
        TrainingError: ``loss_at`` gave something that is not one number.
    """
    check(start=start, stop=stop, rule=rule)
    line = _Line(loss_at, batches, budget, (start, usual, stop), on_point)
    reason = line.walk()
    reason += line.look_closely()
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

    def look_closely(self) -> str:
        """Quarter decades around the lowest place, on as many batches as can be paid for; what went wrong, if any."""
        if not self._rises:
            return ""
        places = [self._lowest() + k for k in FINE]
        places = [
            p for p in places if self.least <= p <= self.most and (self.broke is None or p < self.broke)
        ]
        batches: list[int] = []
        while len(batches) < self.batches and self._cost(places, [*batches, len(batches)]) <= self.left:
            batches.append(len(batches))
        for place in places if batches else ():
            if not all(math.isfinite(self._loss(None, at)) for at in batches):
                return "; the loss of a batch is not finite before any step"
            if not self._point(place, batches):
                return f"; the loss was not finite at {self.rate(place):.1e}"
        return ""

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
        before = [loss for (place, _), loss in self._known.items() if place is None and math.isfinite(loss)]
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


LEAST = 12  # steps that a test may cost, however short an epoch is
SHARE = 0.5  # of an epoch, that it may cost where that is more
FORWARD = (
    2  # forward passes that cost no more than a step: it makes one, and a backward pass, and moves weights
)
USUAL_HEAD, USUAL = 3e-3, 3e-4  # what a head alone, and more than a head, usually needs under AdamW
SGD = 100.0  # times that, where steps are not scaled by the gradients' own size
EPSILON = 1e-8
_NO_MATTER = ("text", "epochs", "lr", "schedule", "patience", "asked", "guard", "blend", "kind")

OnTest = Callable[[int, int, float, float], None]


def budget_of(trainer: StageTrainer) -> int:
    """Steps of training that a range test before this stage may cost."""
    return max(LEAST, int(SHARE * trainer.steps_per_epoch))


def passes_of(trainer: StageTrainer, steps: int | None = None) -> int:
    """How many passes a test makes at most: those with gradients, and those without."""
    budget = steps or budget_of(trainer)
    return budget // 4 + FORWARD * (budget - budget // 4)


def key_of(
    trainer: StageTrainer, steps: int | None, settings: Mapping[str, object], data: str, step: object
) -> object:
    """What a curve follows from; where it is the same, so is the curve.

    Args:
        trainer: the stage.
        steps, settings: of :func:`find_rate`.
        data: fingerprint of the samples, and of their random changes.
        step: the user's own, or None.
    """
    model = trainer.model
    stage = {
        f.name: getattr(trainer.stage, f.name) for f in fields(trainer.stage) if f.name not in _NO_MATTER
    }
    weights = freeze.digest(model, trainer.layers, range(len(trainer.layers)))
    own = trainer.number, trainer.batch, trainer.seed, trainer.bn, trainer.micro, trainer.task
    # The network itself tells apart what computes otherwise with equal weights, and is not kept alive for it; what
    # guards against forgetting is made anew for each stage.
    network = weakref.ref(model), repr(model), trainer.guard and weakref.ref(trainer.guard)
    return weights, network, data, own, str(stage), steps, tuple(sorted(settings.items())), step


def find_rate(
    trainer: StageTrainer,
    request: StopRequest | None = None,
    on_test: OnTest = lambda done, total, rate, loss: None,
    *,
    steps: int | None = None,
    **settings: Any,
) -> LRCurve:
    """The range test on this stage's layers; leaves no trace.

    A quarter of the budget goes into gradients: their mean over some batches, for AdamW divided by the root of their
    mean square, is the direction of a step. The rest measures the loss along it on other batches, without gradients,
    under the same dropout. Random changes are those of one view, and each batch is made once.

    Args:
        trainer: the stage.
        request: read at each pass.
        on_test: told after each pass how many of how many, at most, were made, and the point of the curve that came
            of it (rate 0 for none).
        steps: of training that it may cost; None for ``budget_of``.
        settings: of :func:`tlnb.engine.training.lr_finder.range_test`; a rule that is not named is the schedule's.

    Raises:
        Stopped: a stop was asked for.
    """
    budget = steps or budget_of(trainer)
    gradients, measured = budget // 4, budget - budget // 4
    settings.setdefault("rule", rule_for(trainer.stage.schedule))
    with transaction(trainer.model, trainer.optimizer, trainable_only=not trainer.steps_of_its_own):
        trainer.set_modes(training=True)
        line = _StageLine(trainer, gradients, measured, request, on_test)
        return range_test(
            line.loss_at,
            len(line.measured),
            usual=line.usual(),
            budget=FORWARD * measured,
            ratios=trainer.ratios if trainer.stage.decay != 1.0 else None,
            on_point=line.on_point,
            **settings,
        )


class _StageLine:
    """The weights along the direction of a step."""

    def __init__(
        self,
        trainer: StageTrainer,
        gradients: int,
        measured: int,
        request: StopRequest | None,
        on_test: OnTest,
    ):
        self.trainer, self.request, self.on_test = trainer, request, on_test
        # Batches of an epoch that never trains; those of few samples serve both ends.
        order = trainer.batches(-1)
        self.order = order[: gradients + measured]
        self.held = BatchCache(trainer.forward_plan.train.view(trainer.number, trainer.epoch), self.order)
        places = range(len(self.order))
        enough = len(self.order) > gradients
        self.measured = list(places[gradients:] if enough else reversed(places))
        self.done, self.total = 0, gradients + FORWARD * measured
        groups = trainer.optimizer.param_groups
        self.weights = [(p, group["ratio"]) for group in groups for p in group["params"]]
        self.before = [p.detach().clone() for p, _ in self.weights]
        self.direction = self._direction(list(places[:gradients]))

    def usual(self) -> float:
        """The rate where the walk begins."""
        trained, heads = set(self.trainer.trained), set(self.trainer.layers.head)
        rate = USUAL_HEAD if trained <= heads else USUAL
        return rate if self.trainer.stage.optimizer == "adamw" else rate * SGD

    def on_point(self, rate: float, loss: float) -> None:
        """Tell a point of the curve."""
        self.on_test(self.done, self.total, rate, loss)

    @torch.no_grad()
    def loss_at(self, rate: float, number: int) -> float:
        """The loss of a batch after a step of this rate."""
        self._on_progress()
        for (weight, ratio), before, along in zip(self.weights, self.before, self.direction, strict=True):
            torch.add(before, along, alpha=-rate * ratio, out=weight.data)
        at = self.measured[number]
        self._seed(at)
        return float(self.trainer.loss_of(self.order[at], self.held[at]))

    def _direction(self, places: list[int]) -> list[Tensor]:
        """What the optimizer would move the weights along, at a rate of 1, without momentum and decay."""
        trainer = self.trainer
        sums = [torch.zeros_like(p) for p, _ in self.weights]
        squares = [torch.zeros_like(p) for p, _ in self.weights]
        for at in places:
            self._on_progress()
            self._seed(at)
            trainer.gradient_of(self.order[at], self.held[at])
            for (weight, _), first, second in zip(self.weights, sums, squares, strict=True):
                if weight.grad is not None:
                    first += weight.grad
                    second += weight.grad.square()
            trainer.optimizer.zero_grad(set_to_none=True)
        means = [first / len(places) for first in sums]
        if trainer.stage.optimizer != "adamw":
            return means
        roots = [(second / len(places)).sqrt_() for second in squares]
        return [mean / (root + EPSILON) for mean, root in zip(means, roots, strict=True)]

    def _seed(self, at: int) -> None:
        torch.manual_seed(seed_for(self.trainer.seed, self.trainer.number, at))

    def _on_progress(self) -> None:
        if self.request:
            self.request.check()
        self.done += 1
        self.on_test(self.done, self.total, 0.0, 0.0)
