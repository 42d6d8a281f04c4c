"""How a stage ends: with what it learned, with a blend of before and after, or with what was there before."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tlnb.engine.network import freezing
from tlnb.engine.training.history import EpochRecord, show_metric
from tlnb.engine.training.interrupts import to_the_end
from tlnb.engine.training.stage import AUTO
from tlnb.engine.training.stopping import StopRequest
from tlnb.engine.training.trainer import StageTrainer

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
    trained = [layer.index for layer in trainer.layers if layer.index not in trainer.stage.frozen]
    state = freezing.state_of(trainer.model, trainer.layers, trained)
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state}


def wanted(trainer: StageTrainer, before: EpochRecord | None) -> bool:
    """Whether the weights before the stage may be needed at its end."""
    return trainer.stage.blend is not None or (trainer.stage.guard and before is not None)


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
    count = len(trainer.route.valid)
    best = max(found, key=lambda a: (_score(found[a]), a))
    if isinstance(asked, float | int):
        share = float(asked)
    else:
        share = best if _worse(last, found[best], count, BETTER) else 1.0
    record = found[share]
    if trainer.stage.guard and before is not None and _worse(record, before, count, WORSE):
        to_the_end(lambda: ends.put(0.0))
        note = (
            f"was worse ({show_metric(before)} → {show_metric(record)}), so the network is that of "
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
        trained = [layer.index for layer in trainer.layers if layer.index not in trainer.stage.frozen]
        self.now = dict(freezing.state_of(trainer.model, trainer.layers, trained))
        self.start, self.end = start, weights_of(trainer)

    @torch.no_grad()
    def put(self, share: float) -> None:
        """Write a blend into the network."""
        for name, tensor in self.now.items():
            tensor.copy_(mixed(self.start[name], self.end[name], share))


def _measured(trainer: StageTrainer, last: EpochRecord, stop: StopRequest) -> EpochRecord:
    loss, score = trainer.evaluate(stop)
    return replace(last, valid_loss=loss, accuracy=score)


def _score(record: EpochRecord) -> float:
    return record.accuracy if math.isfinite(record.accuracy) else -math.inf


def _worse(one: EpochRecord, other: EpochRecord, samples: int, errors: float) -> bool:
    """Whether a score is below another one by more than so many standard errors."""
    share = min(max(_score(other), 0.0), 1.0)
    return _score(one) < _score(other) - errors * math.sqrt(share * (1 - share) / max(samples, 1))


def _named(record: EpochRecord) -> str:
    return f"stage {record.stage}"
