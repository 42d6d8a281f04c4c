"""One fold of a cross-validation: a plan trained on a copy of a network, and what it answers for the fold."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from tlnb.engine.core.interrupts import Stopped, StopRequest
from tlnb.engine.core.modules import duplicate
from tlnb.engine.core.objectives import Classification, MultiLabel, Objective, Regression, scores_of
from tlnb.engine.core.tree import call
from tlnb.engine.data.augmented import AugmentedSamples, augmented
from tlnb.engine.data.balance import class_weights, label_weights
from tlnb.engine.data.samples import Samples, with_targets
from tlnb.engine.data.split import repeated_to_balance
from tlnb.engine.data.wholes import of_wholes, pieces_of
from tlnb.engine.features.cache import FeatureCache
from tlnb.engine.features.planner import FeaturePlanner, ForwardPlan, PlanMaker
from tlnb.engine.models.loaded import LoadedModel
from tlnb.engine.network import adapters, freeze
from tlnb.engine.network.layers import LayerMap, find_layers
from tlnb.engine.training.loop import run_stage
from tlnb.engine.training.optim import load_named_state, named_state
from tlnb.engine.training.records import StageResult
from tlnb.engine.training.stage import AUTO, FIT, Stage
from tlnb.engine.training.trainer import Guard, StageTrainer, Step, cache_request_of
from tlnb.errors import ModelError

BATCH = 256


@dataclass(frozen=True)
class FoldStage:
    """One stage of the plan.

    Attributes:
        stage: its settings.
        keep_best: end with the weights of its best epoch.
        moments: begin with the optimizer's moments of the stage before.
    """

    stage: Stage
    keep_best: bool = False
    moments: bool = False


@dataclass(frozen=True)
class FoldData:
    """The samples of all folds, and how each fold learns from them.

    Attributes:
        samples: all of them, as they are; places are those of wholes, where they are pieces.
        raw: their targets, in the user's unit: int64 (N,), or float32 (N, outputs).
        task: loss and figure; what depends on the training samples is found anew in each fold.
        outputs: class scores of the network.
        augment: preset or transform for the training pictures.
        balance: ``weights``, ``samples`` or None.
        batch: samples a step, for so many training samples.
        seed: of the order of samples and of dropout.
    """

    samples: Samples
    raw: Tensor
    task: Objective
    outputs: int
    augment: object
    balance: str | None
    batch: Callable[[int], int]
    seed: int

    def split(self, train: Tensor, valid: Tensor) -> tuple[Samples, Samples, Objective]:
        """What a session of its own would learn from and measure on, and its task.

        Args:
            train, valid: places of the samples, int64.
        """
        task, targets = self._task(self.raw[train]), self.raw
        if isinstance(task, Regression):
            targets = task.standardised(targets)
        if self.balance == "samples":
            train = train[repeated_to_balance(self.raw[train])]
        learned, held = (self._portion(rows, targets[rows]) for rows in (train, valid))
        return augmented(learned, self.augment, self.seed), held, task

    def _portion(self, rows: Tensor, targets: Tensor) -> Samples:
        pieces, wholes = pieces_of(self.samples.wholes, rows)
        found = with_targets(self.samples.portion(pieces), targets if wholes is None else targets[wholes])
        found.wholes = wholes
        return found

    def _task(self, targets: Tensor) -> Objective:
        task, weighted = self.task, self.balance == "weights"
        if isinstance(task, Regression):
            return replace(Regression.of(targets), metric=task.metric, score=task.score)
        if isinstance(task, MultiLabel) and weighted:
            return MultiLabel(task.metric, label_weights(targets), task.score)
        if isinstance(task, Classification) and weighted:
            return Classification(task.metric, class_weights(targets, self.outputs), task.score)
        return task


@dataclass(frozen=True)
class FoldOutcome:
    """What came of a fold.

    Attributes:
        stages: as they were trained.
        scores: of the network for the validation samples: (n, outputs), on the CPU.
        targets: of these, as the network learns them.
        task: of the fold.
        seconds: wall-clock time.
    """

    stages: tuple[StageResult, ...]
    scores: Tensor
    targets: Tensor
    task: Objective
    seconds: float


class FoldRunner:
    """Trains the plan of a cross-validation on one copy, whose weights are put back before each fold.

    Args:
        model: a network of one's own to work on, with the weights that every fold starts from.
        loaded: what is known of it.
        stages: the plan.
        device: where it runs.
        planner: keep what frozen layers make of the samples, for all folds; None to keep nothing.
        bn: what ``bn auto`` means.
        step: the user's own training step.
        guard: what a stage's ``keep`` asks for.
    """

    def __init__(
        self,
        model: nn.Module,
        loaded: LoadedModel,
        stages: Sequence[FoldStage],
        device: torch.device,
        planner: FeaturePlanner | None,
        *,
        bn: str = "train",
        step: Step | None = None,
        guard: Callable[[StageTrainer, str], Guard] | None = None,
    ):
        self.model, self.head, self.stages, self.device = model.to(device), loaded.head, tuple(stages), device
        self.planner, self.bn, self.step, self.guard = planner, bn, step, guard
        self._loaded = loaded
        assert loaded.input is not None
        example = loaded.input.example(device)
        self.layers: LayerMap = find_layers(self.model, example, loaded.head or None, loaded.fixed)
        self._adapters = adapters.attached(self.model)
        # By name: adapters that were merged in a fold are others when they are put back.
        self._start = {name: tensor.detach().clone() for name, tensor in self._tensors()}

    def job(self, data: FoldData) -> FoldJob | None:
        """The folds as workers take them; None where a guard ties them to this process."""
        if self.guard is not None:
            return None
        self._put_back()
        loaded = replace(self._loaded, model=self.model, fresh=None)
        dtype_policy = self.planner.dtype_policy if self.planner is not None else None
        return FoldJob(loaded, self.stages, data, self.bn, self.step, dtype_policy)

    def _tensors(self) -> chain[tuple[str, Tensor]]:
        return chain(self.model.named_parameters(), self.model.named_buffers())

    @torch.no_grad()
    def _put_back(self) -> None:
        adapters.match(self.model, self._adapters)
        self.layers = self.layers.with_adapters(self.model, ())
        for name, tensor in self._tensors():
            tensor.copy_(self._start[name])

    def run(self, data: FoldData, train: Tensor, valid: Tensor, stop: StopRequest) -> FoldOutcome:
        """Train the plan on these samples, and answer for those.

        Args:
            data: with all samples.
            train, valid: places in it.
            stop: read at each batch edge.

        Raises:
            Stopped: a stop was asked for.
            TrainingError: a stage found no rate, or cannot be trained.
        """
        began = time.perf_counter()
        self._put_back()
        learned, held, task = data.split(train, valid)
        results: list[StageResult] = []
        trainer: StageTrainer | None = None
        for number, step in enumerate(self.stages, start=1):
            moments = named_state(self.model, trainer.optimizer) if trainer and step.moments else {}
            trainer = self._trainer(data, self.stages[number - 1 :], (learned, held), task, number)
            load_named_state(self.model, trainer.optimizer, moments)
            result = StageResult(number, step.stage, trainer.trained, step.stage.lr or 0.0)
            result.before = results[-1].final if results else None
            run_stage(trainer, result, stop, lambda *what: None, keep_best=step.keep_best)
            if result.stopped:
                raise Stopped
            result.left = None
            results.append(result)
            if result.diverged:
                break
        assert trainer is not None
        scores, targets = _answered(trainer, held, stop), held.targets
        if held.wholes is not None:
            scores, targets = of_wholes(task, scores, targets, held.wholes)
        return FoldOutcome(tuple(results), scores, targets, task, time.perf_counter() - began)

    def _trainer(
        self, data: FoldData, coming: Sequence[FoldStage], samples: tuple[Samples, Samples], task: Objective,
        number: int
    ) -> StageTrainer:  # fmt: skip
        stage = coming[0].stage
        self.layers = freeze.set_states(
            self.model, self.layers, stage.frozen, dict(stage.adapted), merges=stage.merges
        )
        pair = stage_samples(samples, stage, data.seed)
        trainer = StageTrainer(
            self.model, self.layers, stage, ForwardPlan(*pair, self.model, self.device), number=number,
            batch=stage.batch or data.batch(len(samples[0])), seed=data.seed, task=task, step=self.step,
            bn=self.bn if stage.bn == AUTO else stage.bn, head=self.head,
            shortcut=self._shortcut([each.stage for each in coming], pair),
        )  # fmt: skip
        if stage.keep is not None and self.guard is not None:
            trainer.guard_by(self.guard(trainer, stage.keep))
        return trainer

    def _shortcut(self, coming: Sequence[Stage], samples: tuple[Samples, Samples]) -> PlanMaker | None:
        planner = self.planner
        if planner is None or self.step is not None:
            return None
        return planner.shortcut(self.model, self.layers, cache_request_of(coming), samples, self.device)


@dataclass
class FoldJob:
    """The folds of a cross-validation, as workers take them.

    Args:
        loaded: what is known of the network, with the network that every fold starts from.
        stages: the plan.
        data: the samples of all folds.
        bn, step: as for :class:`FoldRunner`.
        dtype_policy: number format of frozen parts whose features are kept; None where none are.
    """

    loaded: LoadedModel
    stages: Sequence[FoldStage]
    data: FoldData
    bn: str
    step: Step | None
    dtype_policy: str | None

    def arrive(self, device: torch.device, folder: Path | None) -> None:
        """See :class:`tlnb.engine.core.workers.Job`."""
        planner = (
            FeaturePlanner(FeatureCache(folder), self.dtype_policy) if self.dtype_policy is not None else None
        )
        self._runner = FoldRunner(
            self.loaded.model, self.loaded, self.stages, device, planner, bn=self.bn, step=self.step
        )

    def run(self, item: tuple[Tensor, Tensor]) -> FoldOutcome:
        """Train on some places and answer for others."""
        return self._runner.run(self.data, *item, StopRequest())


def stage_samples(samples: tuple[Samples, Samples], stage: Stage, seed: int) -> tuple[Samples, Samples]:
    """The samples under the stage's own augmentation, where it has one.

    Raises:
        DataError: they cannot be augmented so.
    """
    augment = stage.augment
    if stage.kind == FIT and augment is None and isinstance(samples[0], AugmentedSamples):
        augment = "none"  # one view at random would be a worse choice than the pictures as they are
    if augment is None:
        return samples
    return augmented(samples[0], augment, seed), samples[1]


@torch.no_grad()
def _answered(trainer: StageTrainer, held: Samples, stop: StopRequest) -> Tensor:
    """Scores of the network as the last stage left it."""
    trainer.set_modes(training=False)
    forward_plan, order = trainer.forward_plan, torch.arange(len(held)).split(BATCH)
    parts = []
    for x in forward_plan.valid.stream(order):
        stop.check()
        parts.append(scores_of(call(forward_plan.forward, x.to(forward_plan.device))).float().cpu())
    return torch.cat(parts)


def working_copy(model: nn.Module) -> nn.Module:
    """A copy to train on.

    Raises:
        ModelError: the network cannot be copied.
    """
    try:
        found: nn.Module = duplicate(model)
    except Exception as error:  # another's code may raise anything
        raise ModelError(f"this network cannot be copied, so there are no folds of it: {error}") from None
    return found
