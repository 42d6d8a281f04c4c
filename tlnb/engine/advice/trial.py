"""Plans tried out on copies of a network, which itself stays as it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import nan

import torch
from torch import nn

from tlnb.engine.core.interrupts import Stopped, StopRequest
from tlnb.engine.core.modules import duplicate
from tlnb.engine.core.objectives import Objective
from tlnb.engine.core.seeds import seed_for
from tlnb.engine.data.samples import Samples
from tlnb.engine.features.cache import FeatureCache
from tlnb.engine.features.planner import FeaturePlanner, ForwardPlan
from tlnb.engine.network import freeze
from tlnb.engine.network.head import new_head, replace
from tlnb.engine.network.layers import LayerMap, find_layers
from tlnb.engine.network.renewal import reinitialize
from tlnb.engine.training import plan
from tlnb.engine.training.loop import run_stage
from tlnb.engine.training.records import StageResult
from tlnb.engine.training.stage import Stage
from tlnb.engine.training.trainer import StageTrainer, cache_request_of

Emit = Callable[..., None]


@dataclass
class TrialGround:
    """What trials start from; nothing of it is changed.

    Attributes:
        model: the network.
        head: qualified name of its head.
        samples: to learn from, and to measure on.
        outputs: class scores that a new head gives.
        task: loss and figure.
        batch: samples a step.
        device: where trials run.
        planner: keeps features of frozen layers; None to keep none.
        fixed: weights that are never trained.
    """

    model: nn.Module
    head: str
    samples: tuple[Samples, Samples]
    outputs: int
    task: Objective
    batch: int = 64
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    planner: FeaturePlanner | None = field(default_factory=lambda: FeaturePlanner(FeatureCache(None)))
    fixed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended.

    Attributes:
        accuracy: the task's figure on the validation samples after the last epoch.
        loss: validation loss then.
        seconds: wall-clock time.
        model: the network that it left.
    """

    accuracy: float
    loss: float
    seconds: float
    model: nn.Module


def copy_of(ground: TrialGround, kept: int | None, seed: int) -> tuple[nn.Module, LayerMap]:
    """A copy with a new linear head for the task and, behind the first ``kept`` layers, new weights.

    Args:
        ground: what to copy.
        kept: layers that keep their weights; None for the whole body.
        seed: of all new weights.
    """
    model: nn.Module = duplicate(ground.model)
    generator = torch.Generator().manual_seed(seed_for(seed, 0))
    old = model.get_submodule(ground.head)
    with torch.random.fork_rng():  # a layer draws from the global stream before its weights are made anew
        fresh = new_head(old, "linear", ground.outputs, generator)
    replace(model, ground.head, fresh)
    example = ground.samples[0].batch(torch.arange(1)).to(ground.device)
    layers = find_layers(model, example, ground.head, ground.fixed)
    if kept is not None and kept < len(layers.body):
        reinitialize(model, layers, range(kept), generator=generator)
    return model, layers


def try_plan(
    ground: TrialGround,
    text: str,
    *,
    kept: int | None = None,
    seed: int = 0,
    stop: StopRequest | None = None,
) -> TrialResult:
    """Train a copy by a plan and measure it after the last epoch.

    Stages before the last one are not measured, so no guard takes a stage back, and what each leaves stays.

    Args:
        ground: what to start from.
        text: the plan, a stage a line.
        kept: see :func:`copy_of`.
        seed: of new weights, order and dropout.
        stop: read at each batch edge.

    Raises:
        PlanError: the plan cannot be understood.
        Stopped: a stop was asked for.
    """
    began, stop = time.perf_counter(), stop or StopRequest()
    model, layers = copy_of(ground, kept, seed)
    stages = plan.parse_plan(text, layers, ())
    loss = accuracy = nan
    for position in range(len(stages)):
        loss, accuracy = _stage(ground, model, layers, stages[position:], position + 1, seed, stop)
    return TrialResult(accuracy, loss, time.perf_counter() - began, model)


def _stage(
    ground: TrialGround, model: nn.Module, layers: LayerMap, stages: tuple[Stage, ...], number: int,
    seed: int, stop: StopRequest,
) -> tuple[float, float]:  # fmt: skip
    """Train the first of these stages; loss and figure, which are NaN where other stages follow."""
    stage = stages[0]
    layers = freeze.set_states(model, layers, stage.frozen, dict(stage.adapted), merges=stage.merges)
    trainer = _SeldomMeasured(
        model, layers, stage, ForwardPlan(*ground.samples, model, ground.device), number=number,
        batch=stage.batch or ground.batch, seed=seed, task=ground.task,
        shortcut=ground.planner.shortcut(model, layers, cache_request_of(stages), ground.samples, ground.device)
        if ground.planner is not None
        else None,
    )  # fmt: skip
    trainer.asked = len(stages) == 1
    result = StageResult(number, stage, trainer.trained, stage.lr or 0.0)
    run_stage(trainer, result, stop, lambda *what: None)
    if result.stopped:
        raise Stopped
    return trainer.ending(result)


class _SeldomMeasured(StageTrainer):
    """Measures no epoch but the last one of the last stage, since nobody asks for the others: a fifth less work.

    Attributes:
        asked: whether this is the last stage.
    """

    asked = True

    def evaluate(self, stop: StopRequest | None = None) -> tuple[float, float]:
        """Loss and figure on the validation samples; the training loss and no figure for earlier epochs."""
        if self.stage.patience is None and not (self.asked and self.epoch == self.stage.epochs):
            return self.unmeasured or 0.0, nan
        return super().evaluate(stop)

    def ending(self, result: StageResult) -> tuple[float, float]:
        """Loss and figure of the weights that the stage left; NaN where it is not the last one."""
        if self.asked and result.diverged:  # those of before the epoch whose loss was not finite
            return super().evaluate()
        return (result.records[-1].valid_loss, result.records[-1].accuracy) if self.asked else (nan, nan)
