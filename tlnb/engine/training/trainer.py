"""Training one stage: the part of the network that moves, its optimizer, and its batches in order."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tlnb.engine.core.interrupts import StopRequest
from tlnb.engine.core.objectives import Objective, scores_of
from tlnb.engine.core.seeds import batches_of, count_batches, drawn_since, random_states
from tlnb.engine.core.tree import call
from tlnb.engine.data.samples import Samples
from tlnb.engine.features import precision
from tlnb.engine.features.planner import CacheRequest, ForwardPlan, PlanMaker
from tlnb.engine.network import freeze
from tlnb.engine.network.freeze import FrozenEvalMode
from tlnb.engine.network.head import AUXILIARY_WEIGHT, auxiliary_scores
from tlnb.engine.network.layers import LayerMap
from tlnb.engine.network.neighbours import Neighbours
from tlnb.engine.training import optim, passes
from tlnb.engine.training.averages import Average, renew_statistics
from tlnb.engine.training.contrast import check as check_contrast
from tlnb.engine.training.contrast import loss_before_head
from tlnb.engine.training.crew import Crew, inputs_of
from tlnb.engine.training.fit_head import SOFT, HeadFit, clear, fit_head, last_layer
from tlnb.engine.training.passes import loss_and_figure
from tlnb.engine.training.records import EpochRecord
from tlnb.engine.training.schedules import SHAPES
from tlnb.engine.training.stage import Stage

Step = Callable[[nn.Module, Tensor, Tensor], Tensor]
Epoch = Callable[["StageTrainer", float, StopRequest, Callable[[int, int], None]], float]
"""Trains an epoch of a trainer's stage: ``StageTrainer.train_epoch``, or what stands in for it."""


def cache_request_of(stages: Sequence[Stage]) -> CacheRequest:
    """What the first of these stages would like to have, so that it serves those after it too."""
    return CacheRequest(stages[0].frozen, [stage.frozen for stage in stages[1:]], stages[0].views)


EVALUATION_BATCH = 32  # more is no faster on a CPU, and would need more memory than a step of training


GROWTH = (
    2000  # steps without overflow, after which the loss is scaled twice as much (Micikevicius et al. 2018)
)
PROBES = 30  # steps in which a layer that a forward leaves out half the time is as good as sure to be reached
LEAST_SCALE = 2.0**-10  # far below any that a network that learns settles at


class Diverged(Exception):
    """A loss that is not finite; the message says where."""


class Guard:
    """What all guards share: a pull that is added to the loss of each batch.

    Args:
        strength: what the pull is multiplied by.
    """

    def __init__(self, strength: float):
        self.strength = strength

    def begin(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Prepare for a stage, whose trainable weights are those that take gradients now."""

    def penalty(self, indices: Tensor, forward: nn.Module, inputs: Tensor) -> Tensor:
        """The term for a batch, as a tensor of no dimension.

        Args:
            indices: of its samples in the training set, (B,).
            forward: from inputs to class scores.
            inputs: what enters ``forward``.
        """
        raise NotImplementedError


class StageTrainer:
    """One stage of training on one model.

    Args:
        model: the whole network.
        layers: its layers.
        stage: the settings; ``stage.frozen`` has been applied to the model.
        forward_plan: samples and the part of the network that they pass.
        number: of the stage in the session, from 1.
        batch: samples a step.
        seed: of the order of samples and of dropout.
        task: loss and figure.
        step: the user's own training step, in place of the task's loss on the network's scores.
        bn: ``frozen`` leaves the statistics of every BatchNorm layer alone.
        head: qualified name of the head; empty where the network has none.
        shortcut: makes a shorter forward plan with the same answers, see :meth:`take_shortcut`.

    Raises:
        TrainingError: trainable parameters and the optimizer's are not the same set.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: LayerMap,
        stage: Stage,
        forward_plan: ForwardPlan,
        *,
        number: int,
        batch: int,
        seed: int,
        task: Objective,
        step: Step | None = None,
        bn: str = "train",
        head: str = "",
        shortcut: PlanMaker | None = None,
    ):
        self.model, self.layers, self.stage, self.forward_plan = model, layers, stage, forward_plan
        self.number, self.batch, self.seed, self.task = number, batch, seed, task
        self.bn, self.head, self._shortcut = bn, head, shortcut
        if stage.contrast is not None:
            check_contrast(task, head, own_step=step is not None)
        self._step = step or self._usual_step
        self._modes: dict[bool, list[tuple[nn.Module, bool]]] = {}
        self.optimizer = optim.make_optimizer(model, layers, stage)
        self._format = precision.training_format(stage.precision, forward_plan.device)
        self.scaler: torch.amp.GradScaler | None = None
        if self._format == torch.float16 and step is None:
            self.scaler = torch.amp.GradScaler(forward_plan.device.type, growth_interval=GROWTH)
        freeze.check_same_parameters(model, self.optimizer)
        self.guard: Guard | None = None
        self.trained = tuple(optim.trainable_layers(layers, stage.frozen))
        self.epoch = 0
        self.done = 0  # batches of the epoch under way
        self.total: Tensor | None = None  # sum of their losses
        self.unmeasured: float | None = None  # training loss of an epoch that ended but was not measured
        self.steps_done = 0
        self._reached: set[int] = set()  # layers that had gradients, as far as that is asked
        self._waiting = False  # for the gradients of layers that the forward skipped at random
        self.micro = stage.micro  # samples that pass the network at a time; None for the whole batch
        self._evaluation_batch = EVALUATION_BATCH * (1 if forward_plan.device.type == "cpu" else 8)
        self.targets = forward_plan.train.targets.to(forward_plan.device)
        self._held: AbstractContextManager[None] | None = None
        self.average = Average(stage.average, self._learning(), stage.epochs) if stage.average else None
        self.answers: Tensor | None = None  # of the validation samples, when they were measured last
        self.elsewhere: Epoch | None = None  # trains the epochs in place of this process
        self.crew: Crew | None = None  # processes that share each batch, of which this one is one

    def guard_by(self, guard: Guard) -> None:
        """Add a guard against forgetting to the loss, before the stage starts."""
        guard.begin(self.model, self.optimizer)
        self.guard = guard

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return count_batches(len(self.forward_plan.train), self.batch)

    @property
    def steps_of_its_own(self) -> bool:
        """Whether a step of the user's stands in for the usual one."""
        return self._step != self._usual_step

    @property
    def ratios(self) -> dict[str, float]:
        """Each trained layer's share of the rate, by name."""
        return {self.layers[i].name: r for i, r in optim.ratios(self.layers, self.stage).items()}

    def take_shortcut(self, log: Callable[[str], None], on_progress: Callable[[int, int], None]) -> None:
        """Go over to the shorter forward plan, if there is one; what it needs is computed now.

        Args:
            log: told in one line what is computed.
            on_progress: called as ``on_progress(done, total)`` meanwhile; what it raises passes through.
        """
        if self._shortcut is not None:
            self.forward_plan = self._shortcut(log, on_progress)
            self._shortcut = None
            self._modes.clear()

    def _learning(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def take_average(self, stop: StopRequest) -> bool:
        """End with the averaged weights, and BatchNorm statistics of their own; False where nothing was averaged.

        Raises:
            Stopped: a stop was asked for; the weights are in between then, and the caller's to put back.
        """
        if self.average is None or not self.average.put():
            return False
        self.set_modes(training=True)
        norms = [m for m in self.model.modules() if isinstance(m, _BatchNorm) and m.training]
        norms = [norm for norm in norms if norm.running_mean is not None]
        self.set_modes(training=False)
        if norms:
            train = self.forward_plan.train.view(self.number, 0)
            with self._still(), self._precision():
                renew_statistics(norms, partial(call, self.forward_plan.forward), self._checked(train, stop))
        return True

    def _checked(self, samples: Samples, stop: StopRequest) -> Iterator[Any]:
        for x in samples.stream(torch.arange(len(samples)).split(EVALUATION_BATCH)):
            stop.check()
            yield x.to(self.forward_plan.device)

    # ---------------------------------------------------------------- fitting

    def start_head(self, stop: StopRequest) -> None:
        """Give the head's last layer the weights that the stage's ``init`` asks for, before its first batch.

        A head that was fitted tells the training samples apart as well as it can, so that hardly any gradient
        reaches the body: what features to learn is decided by the samples that are still told wrongly. A soft head
        points in the same directions with small scores.

        Raises:
            Stopped, TrainingError: see :meth:`fit_head`.
        """
        if self.stage.init == "soft" and not isinstance(self._scoring(), Neighbours):
            self._fit(stop, SOFT)
        elif self.stage.init == "zero":
            clear(self.model.get_submodule(self.head))

    def _scoring(self) -> nn.Module:
        layer: nn.Module = last_layer(self.model.get_submodule(self.head) if self.head else self.model)
        return layer

    def fit_head(self, stop: StopRequest) -> HeadFit:
        """Fit the head's last layer to convergence; the epoch is then to be measured.

        Raises:
            Stopped: a stop was asked for; nothing has changed then.
            TrainingError: the head is not one that can be fitted.
        """
        fit = self._fit(stop, None, self.stage.by)
        self.epoch, self.unmeasured = 1, fit.loss
        return fit

    def _fit(self, stop: StopRequest, strength: float | None, by: str = "") -> HeadFit:
        train = self.forward_plan.train
        views = {
            id(view): view for view in (train.view(self.number, k) for k in range(max(self.stage.views, 1)))
        }
        with self._still():
            head = self.model.get_submodule(self.head) if self.head else self.model
            return fit_head(
                self.model, head, self.forward_plan.forward, list(views.values()),
                self.task, self.forward_plan.device, stop.check, strength=strength, by=by,
            )  # fmt: skip

    # ---------------------------------------------------------------- an epoch

    def batches(self, epoch: int) -> tuple[Tensor, ...]:
        """The samples of each batch of an epoch; -1 is one that never trains."""
        mixed = self.stage.contrast is not None  # what is compared is to differ by more than its length
        return batches_of(self.forward_plan.train, self.batch, self.seed, self.number, epoch, mixed=mixed)

    def train_epoch(self, rate: float, stop: StopRequest, on_batch: Callable[[int, int], None]) -> float:
        """Train one epoch, from the batch where it was left; the mean training loss.

        Raises:
            Stopped: at the edge of a batch, after a stop was asked for.
            Diverged: a loss was not finite.
        """
        if self.elsewhere is not None:
            return self.elsewhere(self, rate, stop, on_batch)
        self.set_modes(training=True)
        order = self.batches(self.epoch)
        total = torch.zeros((), device=self.forward_plan.device) if self.total is None else self.total
        train = self.forward_plan.train.view(self.number, self.epoch)
        rest = order[self.done :]
        crew = self.crew
        stream = train.stream(rest) if crew is None else inputs_of(train, [crew.own(i) for i in rest])
        for indices, inputs in zip(rest, stream, strict=True):
            stop.check()
            now = rate * SHAPES[self.stage.schedule](self.steps_done, len(order) * self.stage.epochs)
            optim.set_rate(self.optimizer, now)
            loss = self.train_step(indices, inputs, probe=self.steps_done == 0 or self._waiting)
            # Reading the loss makes an accelerator wait, so there it is read once an epoch.
            if loss.device.type == "cpu" and not math.isfinite(loss.item()):
                raise Diverged(self._where(loss, now, self.done + 1))
            self.total = total = total + loss * len(indices)
            self.steps_done += 1
            self.done += 1
            if self.average is not None:
                self.average.after_step(self.steps_done)
            on_batch(self.done, len(order))
        mean = (total / len(self.forward_plan.train)).item()
        if not math.isfinite(mean):
            raise Diverged(self._where(total, rate, len(order)))
        if self.scaler is not None and self.scaler.get_scale() < LEAST_SCALE:
            raise Diverged(
                f"gradients overflow fp16 at any scale of the loss, in epoch {self.epoch + 1}; precision fp32 has room"
            )
        self.epoch, self.done, self.total, self.unmeasured = self.epoch + 1, 0, None, mean
        if self.average is not None:
            self.average.after_epoch(self.epoch)
        return mean

    def loss_of(self, indices: Tensor, inputs: Tensor) -> Tensor:
        """The training loss of these samples with the weights as they are.

        A step of the user's may need gradients to make its loss.
        """
        with torch.set_grad_enabled(self.steps_of_its_own):
            return self._loss_of(indices, inputs)

    def _loss_of(self, indices: Tensor, inputs: Tensor) -> Tensor:
        return passes.within_memory(
            lambda: self._in_pieces(indices, inputs, lambda loss: None), lambda: self._halve(len(indices))
        )

    def gradient_of(self, indices: Tensor, inputs: Tensor | None) -> Tensor:
        """The loss of these samples, detached, with its gradient added to the weights'.

        Where training scales the loss, this is computed in float32: a gradient alone has no scale to be sure of.
        """
        form = self._format
        try:
            self._format = None if self.scaler is not None else form
            return self._batch_gradient(indices, inputs)
        finally:
            self._format = form

    def _batch_gradient(self, indices: Tensor, inputs: Tensor | None) -> Tensor:
        """The same as training takes it: where the loss is scaled, so is the gradient."""
        if self.crew is None:
            return self._gradient_of(indices, inputs)
        pieces, rank = self.crew.pieces(indices), self.crew.rank
        even = passes.shares(None, self.targets, pieces)[rank]
        weight = even if self.steps_of_its_own else passes.shares(self.task, self.targets, pieces)[rank]
        loss = torch.zeros((), device=self.forward_plan.device)
        if len(pieces[rank]):
            loss = self._gradient_of(pieces[rank], inputs, weight, even)
        return self.crew.join([p for group in self.optimizer.param_groups for p in group["params"]], loss)

    def _gradient_of(
        self, indices: Tensor, inputs: Tensor | None, weight: float = 1.0, share: float = 1.0
    ) -> Tensor:
        return passes.within_memory(
            lambda: self._in_pieces(indices, inputs, self._backward, weight, share),
            lambda: self._halve(len(indices)),
        )

    def _backward(self, loss: Tensor) -> None:
        if self.scaler is not None and self._format is not None:
            loss = self.scaler.scale(loss)
        loss.backward()

    def train_step(self, indices: Tensor, inputs: Tensor | None = None, probe: bool = False) -> Tensor:
        """One optimizer step on these samples; the loss before it, detached.

        Where memory runs out, the samples pass the network in pieces, half as large each time, and their
        gradients are added up. The step is that of the whole batch, but for BatchNorm, which sees a piece at
        a time, and dropout, which draws other numbers.

        Args:
            indices: int64 of shape (B,).
            inputs: the samples, where they are at hand already.
            probe: check that each trainable parameter got a gradient, and no other.
        """
        states = random_states() if probe else {}
        loss = self._batch_gradient(indices, inputs)
        if probe:
            # A forward that draws may skip layers at random (LayerDrop, Fan et al. 2020): later steps reach them.
            wait = self.steps_done < PROBES and drawn_since(states)
            self._reached = freeze.check_gradients(self.model, self.layers, self._reached, wait=wait)
            self._waiting = wait and len(self._reached) < len(self.layers)
        if self.scaler is None:
            self.optimizer.step()
        else:  # a step whose gradients overflow is left out, and the scale is halved
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return loss

    def _in_pieces(
        self, indices: Tensor, inputs: Tensor | None, use: Callable[[Tensor], None], whole: float = 1.0,
        even_whole: float = 1.0,
    ) -> Tensor:  # fmt: skip
        """The mean loss of a batch times ``whole``, detached; ``use`` is given each piece's share of it.

        The plain mean, of a guard, is taken times ``even_whole``.
        """
        if self.micro is None or len(indices) <= self.micro:
            loss = self._loss(indices, inputs, whole, even_whole)
            use(loss)
            return loss.detach()
        count = passes.count_pieces(len(indices), self.micro)
        pieces = list(indices.tensor_split(count))
        parts = inputs.tensor_split(count) if inputs is not None else [None] * count
        total = torch.zeros((), device=self.forward_plan.device)
        # A guard, and a step of the user's, take the plain mean over the samples.
        even = passes.shares(None, self.targets, pieces)
        weights = even if self.steps_of_its_own else passes.shares(self.task, self.targets, pieces)
        for piece, part, weight, share in zip(pieces, parts, weights, even, strict=True):
            loss = self._loss(piece, part, weight * whole, share * even_whole)
            use(loss)
            total = total + loss.detach()
        return total

    def _halve(self, batch: int) -> bool:
        """Go over to pieces of half the size; False where they are single samples, or are compared with each other."""
        if self.stage.contrast is not None:
            return False
        self.optimizer.zero_grad(set_to_none=True)
        size = min(self.micro or batch, batch)
        self.micro = max(size // 2, 1)
        return size > 1

    def _loss(
        self, indices: Tensor, inputs: Tensor | None, weight: float = 1.0, share: float = 1.0
    ) -> Tensor:
        """The loss of these samples times ``weight``, with the guard's part times ``share``."""
        if inputs is None:
            inputs = self.forward_plan.train.view(self.number, self.epoch).batch(indices)
        inputs = inputs.to(self.forward_plan.device, non_blocking=True)
        targets = self.targets[indices.to(self.targets.device)]
        with self._still():
            loss = self._step(self.forward_plan.forward, inputs, targets)
        loss = loss if weight == 1 else loss * weight
        if self.guard is None:
            return loss
        penalty = self.guard.penalty(indices, self.forward_plan.forward, inputs)
        return loss + (penalty if share == 1 else penalty * share)

    def _still(self) -> AbstractContextManager[None]:
        """What keeps frozen layers in test mode where a step calls the whole model."""
        if self.forward_plan.forward is not self.model:
            return nullcontext()
        if self._held is None:
            self._held = FrozenEvalMode(self.model, self.layers, self.stage.frozen)
        return self._held

    def _usual_step(self, forward: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        with self._precision():
            if self.stage.contrast is not None:
                head = self.model.get_submodule(self.head)
                return loss_before_head(forward, inputs, targets, head, self.stage.contrast)
            output = call(forward, inputs)
            loss = self.task.loss(scores_of(output), targets, self.stage.smoothing)
            for scores in auxiliary_scores(output, self.model):
                loss = loss + AUXILIARY_WEIGHT * self.task.loss(scores, targets, self.stage.smoothing)
            return loss

    def _precision(self) -> AbstractContextManager[object]:
        if self._format is None:
            return nullcontext()
        return torch.autocast(self.forward_plan.device.type, dtype=self._format)

    def _where(self, loss: Tensor, rate: float, step: int) -> str:
        return (
            f"the loss became {loss.item()} at step {step} of epoch {self.epoch + 1}, at the rate {rate:.1e}"
        )

    # ---------------------------------------------------------------- measuring

    def evaluate(self, stop: StopRequest | None = None) -> tuple[float, float]:
        """Mean loss and figure on the validation samples, in test mode.

        Raises:
            Stopped: a stop was asked for meanwhile.
        """
        self.set_modes(training=False)
        return passes.within_memory(lambda: self._evaluate(stop), self._halve_evaluation)

    def _evaluate(self, stop: StopRequest | None) -> tuple[float, float]:
        forward_plan = self.forward_plan
        answers = passes.Answers(self.task, len(forward_plan.valid))
        with self._still():
            found = loss_and_figure(
                forward_plan.forward, forward_plan.valid, self.task, forward_plan.device, self._evaluation_batch,
                precision=self._precision, on_batch=stop.check if stop else lambda: None, keep=answers.take,
            )  # fmt: skip
        self.answers = answers.value()
        return found

    def _halve_evaluation(self) -> bool:
        size = min(self._evaluation_batch, len(self.forward_plan.valid))
        self._evaluation_batch = max(size // 2, 1)
        return size > 1

    def record(
        self, rate: float, train_loss: float, seconds: float, digest: str, stop: StopRequest | None = None
    ) -> EpochRecord:
        """The epoch that has just ended, measured.

        Raises:
            Stopped: a stop was asked for meanwhile; the epoch is still to be measured then.
        """
        began = time.perf_counter()
        valid_loss, accuracy = self.evaluate(stop)
        self.unmeasured = None
        seconds += time.perf_counter() - began
        return EpochRecord(
            self.number, self.epoch, self.stage.epochs, self.trained, rate, train_loss, valid_loss, accuracy,
            seconds, digest, self.task.metric, self.answers,
        )  # fmt: skip

    def set_modes(self, *, training: bool) -> None:
        """Train or test mode for the whole model; frozen layers in test mode always."""
        if training in self._modes:
            for module, flag in self._modes[training]:
                module.training = flag
        else:
            frozen = self.stage.frozen
            freeze.set_modes(self.model, self.layers, frozen, training=training, bn=self.bn)
            # The flags are the same in every epoch; there is no need to walk through all names again.
            self._modes[training] = [(module, module.training) for module in self.model.modules()]
        if self.forward_plan.forward is not self.model:
            self.forward_plan.forward.train(training)
