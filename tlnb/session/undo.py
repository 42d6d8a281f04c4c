"""The way back: the network before each of the last stages."""

from __future__ import annotations

import torch

from tlnb.engine.core.machine import free_bytes
from tlnb.engine.network import freeze
from tlnb.engine.training.history import final_of
from tlnb.engine.training.loop import affordable
from tlnb.engine.training.optim import named_state
from tlnb.engine.training.records import StageResult
from tlnb.errors import NotReady
from tlnb.session.answers import Lines
from tlnb.session.change import Change
from tlnb.session.hooks import Hook, StageUnderWay
from tlnb.session.network import Network
from tlnb.session.state import UndoPoint

STEPS_BACK = 5
SHARE = 0.25  # of the free memory, that the way back may take


class Undo(Hook):
    """Keeps what a stage will change, and the optimizer's moments when it has ended.

    Args:
        network: sets what is frozen.
    """

    def __init__(self, network: Network):
        self._network = network

    def before_stage(self, change: Change, stage: StageUnderWay) -> None:
        """Keep what the stage will change."""
        if stage.goes_on:
            return
        state, trainer = change.state, stage.trainer
        layers = state.need_layers()
        trained = [i for i in range(len(layers)) if i not in trainer.stage.frozen]
        tensors = freeze.state_of(trainer.model, layers, trained)
        weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors}
        point = UndoPoint(len(state.stages), state.head, stage.frozen_before, weights, state.moments)
        kept = list(state.undo[-(STEPS_BACK - 1) :])
        room = SHARE * free_bytes()
        while kept and sum(p.bytes for p in kept) + point.bytes > room:
            del kept[0]
        change.set(undo=(*kept, point))

    def after_stage(self, change: Change, stage: StageUnderWay) -> None:
        """Keep the optimizer's moments, for a stage that goes on with them."""
        if stage.ended:
            trainer = stage.trainer
            moments = named_state(trainer.model, trainer.optimizer) if affordable(trainer) else {}
            change.set(moments=moments)

    def undo(self, change: Change) -> Lines:
        """Go one stage back; see ``Session.undo``."""
        state = change.state
        state.need_layers()
        if not state.undo:
            raise NotReady("nothing to undo: no stage was trained since the network was loaded or resumed")
        point = state.undo[-1]
        if point.head is not state.head:
            raise NotReady(
                "another head is on the network than when that stage began; put it back (%tl_head --task)"
            )
        undone = state.all_stages[point.stages :]
        self.put_back(change, point)
        self._network.set_frozen(change, point.frozen)
        left = state.stages[: point.stages]
        numbers = {stage.number for stage in left}
        old = state.old
        change.set(stages=left, undo=state.undo[:-1], moments=point.moments, plan=None)
        change.set_old(
            scores={n: score for n, score in old.scores.items() if n in numbers},
            bodies={n: body for n, body in old.bodies.items() if n in numbers},
        )
        return Lines(f"undone: {_named(undone)}; weights and history are those before it ({_stands(left)})")

    def put_back(self, change: Change, point: UndoPoint) -> None:
        """Write the weights of an undo point into the network."""
        state = change.state
        layers = state.need_layers()
        ours = dict(freeze.state_of(state.need_model().model, layers, range(len(layers))))
        change.journal.tensors(ours[name] for name in point.weights)
        with torch.no_grad():
            for name, tensor in point.weights.items():
                ours[name].copy_(tensor)


def _named(undone: list[StageResult]) -> str:
    if not undone:
        return "a stage that had no epoch"
    return f"stage {undone[-1].number} ({undone[-1].stage.text})"


def _stands(stages: tuple[StageResult, ...]) -> str:
    """The score of the network that the last of these stages left."""
    last = final_of(stages)
    return f"{last.metric_name} {last.accuracy:.4g}" if last is not None else "no stage was trained"
