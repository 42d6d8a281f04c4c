"""One stage from its range test to the proof that the frozen layers did not change."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from tlnb.engine import freezing
from tlnb.engine.history import EpochRecord, StageResult
from tlnb.engine.layers import LayerMap
from tlnb.engine.order import seed_for
from tlnb.engine.stopping import Stopped, StopRequest
from tlnb.engine.training import Diverged, StageTrainer, copies_of_trainable, promise_kept, put_back
from tlnb.errors import TrainingError

Emit = Callable[..., None]


def run_stage(trainer: StageTrainer, result: StageResult, stop: StopRequest, emit: Emit) -> None:
    """Find the rate where it is ``auto``, train, measure each epoch, and prove that frozen means frozen.

    What happens is written into ``result`` as it happens, so that nothing is lost on the way out. Afterwards
    the model is in test mode and the random states are the caller's own.

    Args:
        trainer: the stage.
        result: filled in.
        stop: read at each batch edge.
        emit: told ``on_curve``, ``on_batch`` and ``on_epoch``.

    Raises:
        TrainingError: the range test found no rate, or a frozen layer changed.
    """
    began = time.perf_counter()
    proof = FrozenDigest(trainer.model, trainer.layers, trainer.stage.frozen)
    result.digest_before = result.digest_after = proof.value
    try:
        with own_random_state(seed_for(trainer.seed, trainer.number)):
            trainer.take_shortcut(lambda text: emit("on_message", text), lambda *_: stop.check())
            result.rate = trainer.stage.lr or _found_rate(trainer, result, stop, emit)
            _epochs(trainer, result, proof, stop, emit)
    except Stopped:
        result.stopped, result.note = True, "stopped"
    finally:
        trainer.model.eval()
        result.shortcut, result.saved = trainer.route.note, trainer.route.saved()
        result.digest_after = proof.taken_anew()
        result.seconds = time.perf_counter() - began
    promise_kept(result.digest_before, result.digest_after, result.frozen_names)


def _found_rate(trainer: StageTrainer, result: StageResult, stop: StopRequest, emit: Emit) -> float:
    result.curve = trainer.find_rate(stop)
    emit("on_curve", result.curve)
    if result.curve.rate is None:
        raise TrainingError(
            f"stage {trainer.number}: the range test found no rate ({result.curve.reason}); "
            "give one, such as: lr 1e-3"
        )
    return result.curve.rate


def _epochs(
    trainer: StageTrainer, result: StageResult, proof: FrozenDigest, stop: StopRequest, emit: Emit
) -> None:
    patience = Patience(trainer.stage.patience)
    while trainer.epoch < trainer.stage.epochs:
        record = _epoch(trainer, result, proof, stop, emit)
        if record is None:
            return
        result.records.append(record)
        emit("on_epoch", record)
        if patience.ends(record.valid_loss):
            result.note = f"ended early: no better validation loss for {trainer.stage.patience} epochs"
            return


def _epoch(
    trainer: StageTrainer, result: StageResult, proof: FrozenDigest, stop: StopRequest, emit: Emit
) -> EpochRecord | None:
    """The record of one epoch, or None where the loss diverged and the epoch was undone."""
    began = time.perf_counter()
    good = list(copies_of_trainable(trainer.model, trainer.layers, trainer.stage.frozen))
    try:
        loss = trainer.train_epoch(result.rate, stop, lambda *at: emit("on_batch", *at))
    except Diverged as trouble:
        put_back(good)
        result.note = f"{trouble}; the weights are those before that epoch"
        return None
    return trainer.record(result.rate, loss, time.perf_counter() - began, proof.now())


class Patience:
    """Counts epochs without a better validation loss.

    Args:
        limit: how many are borne; None for any number.
    """

    def __init__(self, limit: int | None):
        self.limit, self.best, self.waited = limit, float("inf"), 0

    def ends(self, loss: float) -> bool:
        """Take in an epoch's validation loss; True when the limit is reached."""
        self.waited = 0 if loss < self.best else self.waited + 1
        self.best = min(self.best, loss)
        return self.limit is not None and self.waited >= self.limit


class FrozenDigest:
    """The digest of the frozen layers, taken anew only where a tensor was written to.

    torch counts the in-place writes to each tensor. The count misses writes through ``.data``, so the digest
    at the end of a stage is always taken from the bytes.
    """

    def __init__(self, model: nn.Module, layers: LayerMap, frozen: tuple[int, ...]):
        self._of = (model, layers, frozen)
        self._tensors = [tensor for _, tensor in freezing.state_of(*self._of)]
        self.value = self.taken_anew()

    def now(self) -> str:
        """The digest, from the bytes only if a write was counted since the last time."""
        if self._counts() != self._seen:
            self.taken_anew()
        return self.value

    def taken_anew(self) -> str:
        """The digest of the bytes; empty where nothing is frozen."""
        self.value = freezing.digest(*self._of) if self._of[2] else ""
        self._seen = self._counts()
        return self.value

    def _counts(self) -> list[tuple[int, int]]:
        return [(tensor.data_ptr(), tensor._version) for tensor in self._tensors]


@contextmanager
def own_random_state(seed: int) -> Iterator[None]:
    """Seed torch, numpy and Python inside; put the caller's random states back after."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
