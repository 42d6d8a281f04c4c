"""The way back: the network before each of the last stages, and before adapters were merged into its weights."""

from __future__ import annotations

from dataclasses import replace

import torch

from tlnb.engine.core.machine import free_bytes
from tlnb.engine.network import adapters, freeze
from tlnb.engine.network.layers import LayerMap
from tlnb.engine.training.history import final_of
from tlnb.engine.training.loop import affordable
from tlnb.engine.training.optim import named_state
from tlnb.engine.training.records import StageResult
from tlnb.errors import NotReady
from tlnb.session.answers import Lines
from tlnb.session.change import Change
from tlnb.session.hooks import Hook, StageUnderWay
from tlnb.session.network import MERGED, Network
from tlnb.session.recorder import checksums
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
        tensors = freeze.moving_state(trainer.model, layers, trainer.stage.frozen)
        weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors}
        before, unmerged = stage.layers_before, stage.unmerged
        point = UndoPoint(
            len(state.stages), state.head, stage.frozen_before, weights, state.moments, _spec(before),
            tuple(sorted(before.adapted)),
        )  # fmt: skip
        if unmerged is not None:  # what the merge has written to is kept as it was before
            weights = {**weights, **unmerged.weights}
            point = replace(
                point, weights=weights, moments=unmerged.moments, last=unmerged.last, notes=unmerged.notes
            )
        self._keep(change, point)

    def _keep(self, change: Change, point: UndoPoint) -> None:
        state = change.state
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

    def merge(self, change: Change) -> Lines:
        """Write the adapters into the weights; see ``Session.merge``."""
        state = change.state
        layers, model = state.need_layers(), state.need_model().model
        spec = adapters.attached(model)
        if not spec:
            raise NotReady("nothing is adapted, so there is nothing to merge; such as: %tl_adapt 3: --rank 8")
        if state.plan is not None and state.plan.result is not None:
            raise NotReady(
                "a stage is under way; go on with it (%tl_train --continue) or undo it, then merge"
            )
        self._keep(change, replace(self.merge_for_stage(change), merges=True))
        names = layers.describe(layers.adapters)
        return Lines(
            f"merged the adapters of {names} into {len(spec)} weights, which are frozen now; the network answers as "
            "before, and %tl_undo takes it back"
        )

    def merge_for_stage(self, change: Change) -> UndoPoint:
        """Write the adapters into the weights; the network before that.

        The stage before is then one after which they were merged.
        """
        state = change.state
        layers, model = state.need_layers(), state.need_model().model
        spec = adapters.attached(model)
        own, tensors = adapters.tensor_names(spec), dict(model.named_parameters())
        weights = {n: tensors[n].detach().to("cpu", copy=True) for n in (*spec, *sorted(own))}
        last = state.stages[-1] if state.stages else None
        point = UndoPoint(
            len(state.stages), state.head, state.frozen, weights, state.moments, spec,
            tuple(sorted(layers.adapted)), last=last, notes=state.need_model().notes,
        )  # fmt: skip
        change.journal.tensors(tensors[name] for name in spec)
        change.journal.adapters(model)
        adapters.merge(model)
        held = [fixed or i in layers.adapted for i, fixed in enumerate(state.frozen)]
        self._network.set_frozen(change, held, ())
        change.set(moments={name: kept for name, kept in state.moments.items() if name not in own})
        if last is not None and last.recipe is not None:
            sums = last.recipe.checksums
            sums = replace(sums, body=(sums.body[0], checksums(change.state)[0]))
            merged = replace(last, recipe=replace(last.recipe, checksums=sums, merged=True))
            change.set(stages=(*state.stages[:-1], merged))
        elif last is None:
            change.set_loaded(notes=(*change.state.need_model().notes, MERGED))
        return point

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
        self._network.set_frozen(change, point.frozen, point.adapted)
        left = state.stages[: point.stages]
        if point.last is not None:
            left = (*left[:-1], point.last)
        numbers = {stage.number for stage in left}
        old = state.old
        change.set(stages=left, undo=state.undo[:-1], moments=point.moments, plan=None)
        change.set_old(
            scores={n: score for n, score in old.scores.items() if n in numbers},
            bodies={n: body for n, body in old.bodies.items() if n in numbers},
        )
        if point.notes is not None and MERGED not in point.notes:
            change.set_loaded(notes=tuple(note for note in state.need_model().notes if note != MERGED))
        if point.merges:
            return Lines(
                "undone: the merge; the weights are those of before, and the adapters are beside them again"
            )
        return Lines(f"undone: {_named(undone)}; weights and history are those before it ({_stands(left)})")

    def put_back(self, change: Change, point: UndoPoint) -> None:
        """Write the weights of an undo point into the network, which gets the adapters of then."""
        self._network.match(change, point.adapters)
        state = change.state
        layers = state.need_layers()
        ours = dict(freeze.state_of(state.need_model().model, layers, range(len(layers))))
        weights = {name: tensor for name, tensor in point.weights.items() if name in ours}
        change.journal.tensors(ours[name] for name in weights)
        with torch.no_grad():
            for name, tensor in weights.items():
                ours[name].copy_(tensor)


def _spec(layers: LayerMap) -> dict[str, str]:
    """For the name of each weight that has an adapter, its words."""
    return {name: adapter.words for adapter in layers.adapters.values() for name in adapter.on}


def _named(undone: list[StageResult]) -> str:
    if not undone:
        return "a stage that had no epoch"
    return f"stage {undone[-1].number} ({undone[-1].stage.text})"


def _stands(stages: tuple[StageResult, ...]) -> str:
    """The score of the network that the last of these stages left."""
    last = final_of(stages)
    return f"{last.metric_name} {last.accuracy:.4g}" if last is not None else "no stage was trained"
