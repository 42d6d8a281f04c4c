"""One stage from its range test to the proof that the frozen layers did not change, and any place in it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from tlnb.engine.core.interrupts import Stopped, StopRequest, to_the_end
from tlnb.engine.core.machine import free_bytes
from tlnb.engine.core.modules import set_training
from tlnb.engine.core.objectives import worth
from tlnb.engine.core.seeds import own_random_state, random_states, seed_for, set_random_states
from tlnb.engine.network import freeze
from tlnb.engine.training.ending import (
    Best,
    FrozenDigest,
    Weights,
    copies_of_trainable,
    promise_kept,
    put_back,
    settle,
    wanted,
    weights_of,
)
from tlnb.engine.training.lr_curve import LRCurve
from tlnb.engine.training.lr_finder import find_rate
from tlnb.engine.training.optim import load_named_state, named_state, size_of_state
from tlnb.engine.training.records import EpochRecord, ResumePoint, StageResult, show_metric
from tlnb.engine.training.stage import FIT
from tlnb.engine.training.trainer import Diverged, StageTrainer
from tlnb.errors import TrainingError

SHARE = 0.25  # of the free memory, that a copy of the optimizer's state may take


def capture(trainer: StageTrainer, rate: float, *, moments: bool = True) -> ResumePoint:
    """A copy of where a trainer stands between two steps; nothing in it changes with further training.

    Args:
        trainer: of the stage.
        rate: the stage's learning rate.
        moments: whether the optimizer's state is copied too; without it, it begins anew where the stage goes on.
    """
    return ResumePoint(
        rate,
        trainer.epoch,
        trainer.done,
        trainer.steps_done,
        None if trainer.total is None else trainer.total.detach().to("cpu", copy=True),
        trainer.unmeasured,
        trainer.micro,
        optimizer=named_state(trainer.model, trainer.optimizer) if moments else {},
        random=random_states(),
        average=_copied(trainer.average.kept) if trainer.average is not None else {},
        averaged=trainer.average.count if trainer.average is not None else 0,
        scaler=_scale_of(trainer.scaler),
    )


def _scale_of(scaler: torch.amp.GradScaler | None) -> tuple[float, int] | None:
    if scaler is None:
        return None
    state = scaler.state_dict()
    return state["scale"], state["_growth_tracker"]


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to("cpu", copy=True) for name, tensor in tensors.items()}


def affordable(trainer: StageTrainer) -> bool:
    """Whether memory has room for a copy of the optimizer's state."""
    return size_of_state(trainer.optimizer) <= SHARE * free_bytes()


def restore(trainer: StageTrainer, progress: ResumePoint) -> None:
    """Take a trainer, and the random states, to a place in its stage; weights are the caller's to put back.

    Raises:
        TrainingError: the optimizer's state, or a copy of weights, belongs to other parameters.
    """
    state = freeze.moving_state(trainer.model, trainer.layers, trainer.stage.frozen)
    shapes = {name: t.shape for name, t in state}
    fits = all(
        {n: t.shape for n, t in kept.items()} in ({}, shapes) for kept in (progress.best, progress.start)
    )
    if not fits or load_named_state(trainer.model, trainer.optimizer, progress.optimizer) != len(
        progress.optimizer
    ):
        raise TrainingError(
            "the network has other layers, or trains others, than when the stage stopped; "
            "train anew: %tl_train"
        )
    trainer.epoch, trainer.done, trainer.steps_done = progress.epoch, progress.done, progress.steps_done
    trainer.unmeasured, trainer.micro = progress.unmeasured, progress.micro
    device = trainer.forward_plan.device
    trainer.total = None if progress.total is None else progress.total.to(device, torch.float32, copy=True)
    if trainer.average is not None:
        own = trainer.average.weights
        if progress.average and {n: t.shape for n, t in progress.average.items()} != {
            n: p.shape for n, p in own.items()
        }:
            raise TrainingError(
                "the average is of other weights than the stage trains; train anew: %tl_train"
            )
        kept = {name: progress.average[name] for name in own if progress.average}
        trainer.average.kept = {name: tensor.to(own[name].device, copy=True) for name, tensor in kept.items()}
        trainer.average.count = progress.averaged
    if trainer.scaler is not None and progress.scaler is not None:
        scale, since = progress.scaler
        trainer.scaler.load_state_dict(
            trainer.scaler.state_dict() | {"scale": scale, "_growth_tracker": since}
        )
    if progress.random:
        set_random_states(progress.random)


Emit = Callable[..., None]


class Checkpointer(Protocol):
    """Told where a stage stands, so that it can be saved; asks for a copy of its state only then."""

    def on_edge(self, capture: Callable[[], ResumePoint]) -> None:
        """A batch has ended."""

    def on_measured(self, capture: Callable[[], ResumePoint]) -> None:
        """An epoch has ended and was measured; its record is in the stage's result."""


def run_stage(
    trainer: StageTrainer,
    result: StageResult,
    stop: StopRequest,
    emit: Emit,
    *,
    resume: ResumePoint | None = None,
    checkpointer: Checkpointer | None = None,
    keep_best: bool = False,
    test: Callable[[StageTrainer], LRCurve] | None = None,
) -> None:
    """Find the rate where it is ``auto``, train, measure each epoch, and prove that frozen means frozen.

    What happens is written into ``result`` as it happens, so that nothing is lost on the way out. Afterwards
    the model is in test mode and the random states are the caller's own.

    Args:
        trainer: the stage.
        result: filled in; with ``resume``, what was filled in before. ``result.left`` says where the stage
            was left, to be given to ``resume``; None where it ended, or never came to its first batch.
        stop: read at each batch edge.
        emit: told ``on_curve``, ``on_batch`` and ``on_epoch``.
        resume: where the stage was left; the network has its weights of then.
        checkpointer: told at each edge; None for nobody.
        keep_best: end with the weights of the epoch with the lowest validation loss.
        test: the range test where the rate is ``auto``; None for :func:`find_rate`, which tells nobody.

    Raises:
        TrainingError: the range test found no rate, or a frozen layer changed.
    """
    _StageRun(trainer, result, stop, emit, checkpointer, keep_best, test).whole(resume)


class _StageRun:
    """The stage that is under way."""

    def __init__(
        self, trainer: StageTrainer, result: StageResult, stop: StopRequest, emit: Emit,
        checkpointer: Checkpointer | None, keep_best: bool, test: Callable[[StageTrainer], LRCurve] | None,
    ):  # fmt: skip
        self.trainer, self.result, self.stop, self.emit = trainer, result, stop, emit
        self.checkpointer = checkpointer
        self.proof = FrozenDigest(trainer.model, trainer.layers, trainer.stage.frozen)
        self.patience = Patience(trainer.stage.patience)
        self.best = Best(trainer.model, trainer.layers, trainer.stage.frozen) if keep_best else None
        self.test = test or (lambda trainer: find_rate(trainer, stop))
        self.start: Weights = {}  # the weights before the stage, where its end may need them
        self.began, self.seconds_before = time.perf_counter(), result.seconds

    def whole(self, resume: ResumePoint | None) -> None:
        """From the range test, or from where the stage was left, to its end."""
        trainer, result = self.trainer, self.result
        result.digest_before = result.digest_after = self.proof.value
        result.fitted = "" if resume is None else result.fitted
        result.stopped, result.note, result.diverged, result.kept = False, result.fitted, False, 0
        result.share, result.ending = 1.0, None
        result.left = resume
        try:
            with own_random_state(seed_for(trainer.seed, trainer.number)):
                try:
                    self._to_the_end(resume)
                except Stopped:
                    result.stopped, result.note = True, "stopped"
                except BaseException:
                    if result.left is not None:
                        result.stopped, result.note = True, "broke off"
                    raise
        finally:
            set_training(trainer.model, False)
            result.shortcut, result.saved = trainer.forward_plan.note, trainer.forward_plan.saved()
            result.digest_after = self.proof.taken_anew()
            self._clock()
        promise_kept(result.digest_before, result.digest_after, result.frozen_names)

    def _to_the_end(self, resume: ResumePoint | None) -> None:
        trainer, result = self.trainer, self.result

        def on_progress(done: int, total: int) -> None:
            self.emit("on_walk", "running the frozen layers once", done, total)
            self.stop.check()

        trainer.take_shortcut(lambda text: self.emit("on_message", text), on_progress)
        if resume is None:
            self.start = weights_of(trainer) if wanted(trainer, result.before) else {}
            if trainer.stage.kind == FIT:
                result.fitted = trainer.fit_head(self.stop).note
                self._log(result.fitted)
            else:
                trainer.start_head(self.stop)
                result.rate = trainer.stage.lr or self._found_rate()
        else:
            result.rate = resume.rate
            restore(trainer, resume)
            self._restore(resume)
        self._epochs()
        self._finish()

    def _finish(self) -> None:
        """Leave the best epoch, a blend, or the weights of before, where that is asked for; then the stage has ended.

        Where this is broken off, the stage stands after its last epoch, with the weights of then.
        """
        trainer, result = self.trainer, self.result
        last = list(self._trainable()) if self.best is not None or self.start or trainer.average else []
        kept, ending, averaged = 0, None, None
        try:
            if self.best is not None and not result.diverged and self.best.put_back():
                kept = self.best.epoch
            final = next((r for r in result.records if r.epoch == kept), None)
            final = final or (result.records[-1] if result.records else None)
            if final is not None and not result.diverged and trainer.take_average(self.stop):
                loss, figure = trainer.evaluate(self.stop)
                averaged = final = replace(final, valid_loss=loss, accuracy=figure)
            if self.start and not result.diverged and final is not None:
                ending = settle(trainer, self.start, result.before, final, self.stop)
        except BaseException:
            to_the_end(lambda: put_back(last))
            raise
        by = "lowest validation loss" if trainer.task.score is None else f"best {trainer.task.metric}"
        notes = [f"kept epoch {kept}, of the {by}"] if kept else []
        if averaged is not None:
            notes.append(
                f"{averaged_words(trainer)} ({show_metric(result.records[-1])} → {show_metric(averaged)})"
            )
        notes += [ending.note] if ending is not None else []
        if trainer.micro != trainer.stage.micro:
            notes.append(f"memory was short: {trainer.micro} samples at a time, their gradients added up")
        found: dict[str, object] = {} if averaged is None else {"ending": averaged}
        found |= {} if ending is None else {"share": ending.share, "ending": ending.record}
        left = result.left if result.diverged else None
        # By one call: a stage has either not ended yet, or all that belongs to its end is noted.
        vars(result).update(found, kept=kept, left=left, note="; ".join(filter(None, [result.note, *notes])))

    def _trainable(self) -> Iterator[tuple[Tensor, Tensor]]:
        trainer = self.trainer
        return copies_of_trainable(trainer.model, trainer.layers, trainer.stage.frozen)

    def _found_rate(self) -> float:
        began = time.perf_counter()
        curve = self.test(self.trainer)
        self.result.curve, self.result.test_seconds = curve, time.perf_counter() - began
        self.emit("on_curve", curve)
        if curve.rate is None:
            raise TrainingError(
                f"stage {self.trainer.number}: the range test found no rate ({curve.reason}); "
                "give one, such as: lr 1e-3"
            )
        return curve.rate

    def _epochs(self) -> None:
        trainer, result = self.trainer, self.result
        if result.left is None:
            result.left = self._place()
        while trainer.epoch < trainer.stage.epochs or trainer.unmeasured is not None:
            if self.patience.over:
                what = "validation loss" if trainer.task.score is None else trainer.task.metric
                self._log(f"ended early: no better {what} for {trainer.stage.patience} epochs")
                return
            record = self._epoch()
            if record is None:
                return
            self.emit("on_epoch", record)
            another = trainer.epoch < trainer.stage.epochs and not self.patience.over
            if another and self.checkpointer is not None:
                self.checkpointer.on_measured(self._capture)

    def _epoch(self) -> EpochRecord | None:
        """Train and measure one epoch; its record, or None where the loss diverged and the epoch was undone.

        The record and the place after the epoch are set at once, at its end. Whatever breaks it off before (a third
        press on the stop button, an error in a step of the user's) undoes it: in the middle of a step the weights
        are neither those of before nor those of after. A stop keeps what it has done so far.
        """
        trainer, result = self.trainer, self.result
        good, before = list(self._trainable()), self._averaged()
        try:
            try:
                record = self._measured_epoch()
                self._clock()
                if self.best is not None:
                    self.best.take(self._worth(record), record.epoch)
                self.patience.take(self._worth(record))
                place = self._place()
                kept = self.best.epoch if self.best is not None else 0
                earlier = [r if r.epoch == kept else replace(r, answers=None) for r in result.records]
                # What breaks off later comes after the epoch.
                vars(result).update(records=[*earlier, record], left=place)
            except Stopped:
                result.left = self._capture()
                raise
        except Stopped:
            raise
        except Diverged as trouble:
            to_the_end(lambda: put_back(good))
            result.diverged = True
            self._log(f"{trouble}; the weights are those before that epoch")
            return None
        except BaseException:
            to_the_end(lambda: put_back(good))
            if trainer.average is not None:
                trainer.average.kept, trainer.average.count = before
            trainer.optimizer.zero_grad(set_to_none=True)
            raise
        return record

    def _averaged(self) -> tuple[dict[str, Tensor], int]:
        average = self.trainer.average
        return (
            ({}, 0) if average is None else ({n: t.clone() for n, t in average.kept.items()}, average.count)
        )

    def _measured_epoch(self) -> EpochRecord:
        """Train an epoch, from the batch where it was left, and measure it.

        Raises:
            Stopped: a stop was asked for.
            Diverged: a loss was not finite.
        """
        trainer, began, rate = self.trainer, time.perf_counter(), self.result.rate
        loss = trainer.unmeasured
        if loss is None:
            loss = trainer.train_epoch(rate, self.stop, self._on_batch)
        seconds = time.perf_counter() - began
        record = trainer.record(rate, loss, seconds, self.proof.now(), self.stop)
        if not math.isfinite(record.valid_loss):
            raise Diverged(
                f"the validation loss became {record.valid_loss} after epoch {record.epoch}, "
                f"at the rate {rate:.1e}"
            )
        return record

    def _on_batch(self, step: int, steps: int) -> None:
        self.emit("on_batch", step, steps)
        if self.checkpointer is not None:
            self.checkpointer.on_edge(self._capture)

    def _place(self) -> ResumePoint:
        """Where the stage stands between two epochs.

        The optimizer's state is left out where memory has no room for it, or no epoch follows that would need it.
        """
        over = self.trainer.epoch >= self.trainer.stage.epochs or self.patience.over
        return self._capture(moments=not over and affordable(self.trainer))

    def _capture(self, moments: bool = True) -> ResumePoint:
        self._clock()
        progress = capture(self.trainer, self.result.rate, moments=moments)
        progress.best_loss, progress.waited = self.patience.best, self.patience.waited
        if self.best is not None:
            progress.best_epoch, progress.best = self.best.epoch, self.best.copies
        progress.start = self.start
        return progress

    def _restore(self, progress: ResumePoint) -> None:
        self.patience.best, self.patience.waited = progress.best_loss, progress.waited
        self.start = progress.start
        if self.best is not None:
            loss = next(
                (self._worth(r) for r in self.result.records if r.epoch == progress.best_epoch), math.inf
            )
            self.best.load(progress.best_epoch, loss, progress.best)

    def _worth(self, record: EpochRecord) -> float:
        return worth(self.trainer.task, record.valid_loss, record.accuracy)

    def _clock(self) -> None:
        self.result.seconds = self.seconds_before + time.perf_counter() - self.began

    def _log(self, note: str) -> None:
        self.result.note = f"{self.result.note}; {note}" if self.result.note else note


def averaged_words(trainer: StageTrainer) -> str:
    """Which average a stage ended with, in words."""
    kind, count = str(trainer.stage.average), trainer.average.count if trainer.average is not None else 0
    how = f"over {count} steps" if kind == "ema" else f"of {count} epochs"
    return f"ended with the average {how}"


class Patience:
    """Counts epochs without a better validation loss, or score.

    Args:
        limit: how many are borne; None for any number.
    """

    def __init__(self, limit: int | None):
        self.limit, self.best, self.waited = limit, float("inf"), 0

    @property
    def over(self) -> bool:
        """Whether the limit is reached."""
        return self.limit is not None and self.waited >= self.limit

    def take(self, loss: float) -> None:
        """Take in an epoch's validation loss, or what stands for it; smaller is better."""
        self.waited = 0 if loss < self.best else self.waited + 1
        self.best = min(self.best, loss)
