"""The range test on the layers of a stage."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from tlnb.engine.features.held import HeldBatches
from tlnb.engine.network import freezing
from tlnb.engine.rates import lr_finder
from tlnb.engine.rates.lr_curve import LRCurve
from tlnb.engine.rates.snapshot import transaction
from tlnb.engine.rates.suggest import rule_for
from tlnb.engine.training.order import batches, seed_for
from tlnb.engine.training.stopping import StopRequest
from tlnb.engine.training.trainer import StageTrainer

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
    weights = freezing.digest(model, trainer.layers, range(len(trainer.layers)))
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
        settings: of :func:`tlnb.engine.rates.lr_finder.range_test`; a rule that is not named is the schedule's.

    Raises:
        Stopped: a stop was asked for.
    """
    budget = steps or budget_of(trainer)
    gradients, measured = budget // 4, budget - budget // 4
    settings.setdefault("rule", rule_for(trainer.stage.schedule))
    with transaction(trainer.model, trainer.optimizer, trainable_only=not trainer.steps_of_its_own):
        trainer.set_modes(training=True)
        line = _Line(trainer, gradients, measured, request, on_test)
        return lr_finder.range_test(
            line.loss_at,
            len(line.measured),
            usual=line.usual(),
            budget=FORWARD * measured,
            ratios=trainer.ratios if trainer.stage.decay != 1.0 else None,
            on_point=line.on_point,
            **settings,
        )


class _Line:
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
        order = batches(len(trainer.route.train), trainer.batch, trainer.seed, trainer.number, -1)
        self.order = order[: gradients + measured]
        self.held = HeldBatches(trainer.route.train.view(trainer.number, trainer.epoch), self.order)
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
        self._tick()
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
            self._tick()
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

    def _tick(self) -> None:
        if self.request:
            self.request.check()
        self.done += 1
        self.on_test(self.done, self.total, 0.0, 0.0)
