"""How a stage ends: with what it learned, with a blend of before and after, or with what was there before.

What that takes stands here too: copies of the weights, the best epoch, and the proof for frozen layers.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tlnb.engine.core import metrics
from tlnb.engine.core.interrupts import StopRequest, to_the_end
from tlnb.engine.core.metrics import SMALLER
from tlnb.engine.network import freeze
from tlnb.engine.network.layers import LayerMap
from tlnb.engine.training.records import EpochRecord, show_metric
from tlnb.engine.training.stage import AUTO, STRICT
from tlnb.engine.training.trainer import StageTrainer
from tlnb.errors import TrainingError


def copies_of_trainable(
    model: nn.Module, layers: LayerMap, frozen: Collection[int]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Each tensor that training may change, with a copy of it: weights and buffers of layers that train, adapters."""
    for _, tensor in freeze.moving_state(model, layers, frozen):
        yield tensor, tensor.detach().clone()


def put_back(copies: list[tuple[Tensor, Tensor]]) -> None:
    """Undo what happened since the copies were made."""
    with torch.no_grad():
        for tensor, copy in copies:
            tensor.copy_(copy)


class Best:
    """Weights and buffers of the epoch with the lowest validation loss, or the best score.

    Args:
        model: the network.
        layers: its layers.
        frozen: those that do not change.
    """

    def __init__(self, model: nn.Module, layers: LayerMap, frozen: tuple[int, ...]):
        self._tensors = dict(freeze.moving_state(model, layers, frozen))
        self.loss, self.epoch = float("inf"), 0
        self.copies: dict[str, Tensor] = {}

    def take(self, loss: float, epoch: int) -> None:
        """Keep the weights as they are now, if no epoch before had so low a loss, or what stands for it."""
        if loss < self.loss:
            self.loss, self.epoch = loss, epoch
            self.copies = {
                name: tensor.detach().to("cpu", copy=True) for name, tensor in self._tensors.items()
            }

    def put_back(self) -> bool:
        """Give the network the weights of the best epoch; False where there is none."""
        with torch.no_grad():
            for name, copy in self.copies.items():
                self._tensors[name].copy_(copy)
        return bool(self.copies)

    def load(self, epoch: int, loss: float, copies: dict[str, Tensor]) -> None:
        """Take over what was kept before a restart.

        Raises:
            KeyError: a name that the network does not have.
        """
        self.epoch, self.loss = epoch, loss
        self.copies = {name: copies[name] for name in self._tensors} if copies else {}


class FrozenDigest:
    """The digest of frozen layers, and of what adapters are added to, taken anew only where a tensor was written to.

    torch counts the in-place writes to each tensor. The count misses writes through ``.data``, so the digest
    at the end of a stage is always taken from the bytes.
    """

    def __init__(self, model: nn.Module, layers: LayerMap, frozen: tuple[int, ...]):
        self._of = (model, layers, frozen)
        self._tensors = [tensor for _, tensor in freeze.fixed_state(*self._of)]
        self.value = self.taken_anew()

    def now(self) -> str:
        """The digest, from the bytes only if a write was counted since the last time."""
        if self._counts() != self._seen:
            self.taken_anew()
        return self.value

    def taken_anew(self) -> str:
        """The digest of the bytes; empty where nothing is frozen."""
        self.value = freeze.fixed_digest(*self._of) if self._of[1].held(self._of[2]) else ""
        self._seen = self._counts()
        return self.value

    def _counts(self) -> list[tuple[int, int]]:
        return [(tensor.data_ptr(), tensor._version) for tensor in self._tensors]


def promise_kept(before: str, after: str, names: str) -> None:
    """Frozen means frozen.

    Raises:
        TrainingError: the digest of the frozen layers changed.
    """
    if before != after:
        raise TrainingError(
            f"frozen {names} changed during the stage; something outside tlnb wrote to them "
            "(a training step of your own, or a reference kept elsewhere)"
        )


SHARES = (0.25, 0.5, 0.75)
WORSE = 1.0  # standard errors of the score by which a stage may end worse before the network goes back
BETTER = 1.5  # the same by which a blend must be better than the end: few samples find a better one by luck

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Ending:
    """What a stage left, where that is not what its last epoch did.

    Attributes:
        share: how much of what the stage learned is kept: 0 where the network went back, below 1 for a blend.
        record: the score of the network as it is now.
        note: in words.
    """

    share: float
    record: EpochRecord
    note: str


def weights_of(trainer: StageTrainer) -> Weights:
    """Copies, in main memory, of all that the stage may change."""
    state = freeze.moving_state(trainer.model, trainer.layers, trainer.stage.frozen)
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state}


def wanted(trainer: StageTrainer, before: EpochRecord | None) -> bool:
    """Whether the weights before the stage may be needed at its end."""
    return trainer.stage.blend is not None or (bool(trainer.stage.guard) and before is not None)


def settle(
    trainer: StageTrainer, start: Weights, before: EpochRecord | None, last: EpochRecord, stop: StopRequest
) -> Ending | None:
    """Blend the weights before and after a stage where that is asked for, and go back where it ended worse.

    A blend takes weights and buffers between the two ends (WiSE-FT, Wortsman et al. 2022), the head among them.
    ``auto`` takes the share with the best score on the validation samples, where that is better than all of it by
    more than luck.

    Args:
        trainer: whose stage has trained.
        start: the weights before it.
        before: the score before it, on the same samples; None where that is not known.
        last: the score after it.
        stop: read between batches; the weights are those after the stage then.

    Returns:
        None where the network keeps what the stage left.

    Raises:
        Stopped: a stop was asked for.
    """
    ends, asked = _Ends(trainer, start), trainer.stage.blend
    shares = SHARES if asked == AUTO else () if asked is None else (float(asked),)
    found = {1.0: last}
    try:
        for share in shares:
            if share not in found:
                ends.put(share)
                found[share] = _measured(trainer, last, stop)
    except BaseException:
        to_the_end(lambda: ends.put(1.0))
        raise
    count = len(trainer.forward_plan.valid)
    best = max(found, key=lambda a: (_score(found[a]), a))
    if isinstance(asked, float | int):
        share = float(asked)
    else:
        share = best if _worse(last, found[best], count, BETTER) else 1.0
    guard = trainer.stage.guard
    if guard == STRICT and asked == AUTO and before is not None and not _better(found[share], before, count):
        share = best  # the end would be taken back, so what is left of it may be the best of the blends
    record = found[share]
    if guard and before is not None:
        worse = _worse(record, before, count, WORSE)
        if worse or (guard == STRICT and not _better(record, before, count)):
            to_the_end(lambda: ends.put(0.0))
            how = "was worse" if worse else _lacking(record, before, count)
            note = (
                f"{how} ({show_metric(before)} → {show_metric(record)}), so the network is that of "
                f"{_named(before)} again; guard off keeps what a stage learned"
            )
            return Ending(0.0, before, note)
    to_the_end(lambda: ends.put(share))
    if share == 1.0:
        return None
    chosen = " by validation" if asked == AUTO else ""
    return Ending(share, record, f"kept {share:g} of what it learned{chosen}")


def mixed(start: Tensor, end: Tensor, share: float) -> Tensor:
    """``start + share * (end - start)``, bit-equal at both ends; what is not floating point is that of the end."""
    if share == 1.0 or (share and not end.is_floating_point()):
        return end
    return torch.lerp(start, end, share) if share else start


class _Ends:
    """The weights before and after a stage."""

    def __init__(self, trainer: StageTrainer, start: Mapping[str, Tensor]):
        self.now = dict(freeze.moving_state(trainer.model, trainer.layers, trainer.stage.frozen))
        self.start, self.end = start, weights_of(trainer)

    @torch.no_grad()
    def put(self, share: float) -> None:
        """Write a blend into the network."""
        for name, tensor in self.now.items():
            tensor.copy_(mixed(self.start[name], self.end[name], share))


def _measured(trainer: StageTrainer, last: EpochRecord, stop: StopRequest) -> EpochRecord:
    loss, score = trainer.evaluate(stop)
    return replace(last, valid_loss=loss, accuracy=score, answers=trainer.answers)


def _score(record: EpochRecord) -> float:
    value = -record.accuracy if record.metric_name in SMALLER else record.accuracy
    return value if math.isfinite(value) else -math.inf


def _worse(one: EpochRecord, other: EpochRecord, samples: int, errors: float) -> bool:
    """Whether a score is below another one by more than so many standard errors.

    That of a share is the error with one success and one failure more (Agresti and Coull 1998), so that 30 right
    answers of 30 have one. Between 0 and 1 other scores are taken for shares; errors in units of the data have none.
    """
    share = min(max(_score(other), 0.0), 1.0)
    if other.metric_name in metrics.SHARES:
        share = (share * samples + 1) / (samples + 2)
    return _score(one) < _score(other) - errors * math.sqrt(share * (1 - share) / max(samples, 1))


def _lacking(one: EpochRecord, other: EpochRecord, samples: int) -> str:
    """What a stage lacks to be better, in words."""
    if not _worse(other, one, samples, WORSE):
        return "was not better by more than luck"
    return (
        f"was better, but surer of its mistakes: the loss on validation went from {other.valid_loss:.3g} to "
        f"{one.valid_loss:.3g}"
    )


def _better(one: EpochRecord, other: EpochRecord, samples: int) -> bool:
    """Whether a score is above another one by more than a standard error, and the loss is lower as well.

    Where neither score is defined, the loss alone decides.
    """
    undefined = not math.isfinite(_score(one)) and not math.isfinite(_score(other))
    return (undefined or _worse(other, one, samples, WORSE)) and one.valid_loss < other.valid_loss


def _named(record: EpochRecord) -> str:
    return f"stage {record.stage}"
