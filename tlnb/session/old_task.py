"""The network of before training and its task: what is remembered of it, and what guards it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from tlnb.engine.core.arguments import path_of
from tlnb.engine.forgetting.guards import Anchor, Distillation, fisher
from tlnb.engine.forgetting.measure import old_data
from tlnb.engine.forgetting.old_network import OldNetwork, body_state, figure_with_head
from tlnb.engine.network.head import outputs_of
from tlnb.engine.training.stage import Stage
from tlnb.engine.training.trainer import Guard, StageTrainer
from tlnb.errors import CheckpointError, ModelError, NotReady, TlnbError, TrainingError
from tlnb.session.change import Change
from tlnb.session.hooks import Hook, StageUnderWay
from tlnb.session.state import Importance, SessionState
from tlnb.session.tools import Tools

SNAPSHOTS = 256 << 20  # bytes of bodies after stages that are kept, so that old data may be named later
OLD = "old: "
SHIPPED = {"convnet5": "glyphs"}  # old tasks that can be drawn again


class OldTask(Hook):
    """Remembers the network of before training, measures its task after each stage, and guards it.

    Args:
        tools: of the session.
    """

    def __init__(self, tools: Tools):
        self._tools = tools

    # ---------------------------------------------------------------- at each stage

    def check_stage(self, state: SessionState, stage: Stage) -> None:
        """Refuse a guard that there is nothing to guard for."""
        if stage.keep is None:
            return
        name = stage.keep.partition(":")[0]
        check_old(state)
        if stage.adapted and name in ("l2sp", "ewc"):
            raise TrainingError(
                f"keep {name} holds weights near to what they were, and under adapters they do not move; keep lwf:1 "
                "holds what the network answers"
            )
        if name in ("lwf", "ewc") and _old_outputs(state) < 2:
            raise TrainingError(
                f"keep {name} needs an old head that tells classes apart, and this one gives a single value; "
                "keep l2sp:0.05 needs none"
            )

    def prepare(self, change: Change, trainer: StageTrainer) -> None:
        """Remember the network before anything trains it, and guard the stage where it asks for that.

        Raises:
            ModelError, NotReady: it asks for a guard, and there is nothing old.
        """
        state, keep = change.state, trainer.stage.keep
        if state.need_model().trained and not any(stage.records for stage in state.all_stages):
            try:
                self.network(change)
            except (ModelError, NotReady):
                if keep is not None:
                    raise
        if keep is not None:
            trainer.guard_by(self.guard(change, trainer, keep))

    def after_stage(self, change: Change, stage: StageUnderWay) -> None:
        """Measure the old task where its data is known; keep the body where that takes little memory."""
        if change.state.old.network is None:
            return
        self._read_again(change)
        old, number = change.state.old, stage.result.number
        if old.data is not None:
            score = self.score(change.state, change.state.need_model().model)
            change.set_old(scores={**old.scores, number: score})
            return
        loaded = change.state.need_model()
        body = cloned(body_state(loaded.model, loaded.head))
        size = sum(t.numel() * t.element_size() for t in body.values())
        if size * (len(old.bodies) + 1) <= SNAPSHOTS:
            change.set_old(bodies={**old.bodies, number: body})

    # ---------------------------------------------------------------- the old network and its data

    def network(self, change: Change) -> OldNetwork:
        """The network as it was when it was loaded; copied now where nothing has trained yet.

        Raises:
            ModelError: it had random weights, or cannot be copied.
            NotReady: something was trained, and the network of before is not known.
        """
        state = change.state
        check_old(state)
        if state.old.network is None:
            loaded = state.need_model()
            copy = OldNetwork.of(loaded.model, loaded.head, _old_modules(state), loaded.task)
            change.set_old(network=copy)
            return copy
        return state.old.network

    def name_data(self, change: Change, source: object) -> None:
        """Take data of the old task.

        Args:
            change: takes it.
            source: anything that names data; None for what was named before, or what ships with tlnb, if any.

        Raises:
            DataError: the data is not of the old task.
        """
        state = change.state
        loaded, old = state.need_model(), state.old
        known = old.source or SHIPPED.get(loaded.name)
        if source is None and (old.data is not None or known is None):
            return
        first = next(iter(state.tasks.values()), None)
        classes = first.classes if first is not None else None
        named = known if source is None else source
        fresh = old_data(named, loaded.preprocess, classes, _old_outputs(state))
        if old.data is not None:
            same = old.data.samples.fingerprint() == fresh.samples.fingerprint()
        else:
            same = _by_name(named) == old.source
        change.set_old(
            data=fresh,
            source=_by_name(named),
            scores=old.scores if same else {},  # measured on other data
            importance=old.importance if source is None else None,
        )

    def score(self, state: SessionState, model: nn.Module) -> float:
        """The score of this network's body under the old head, on data of the old task."""
        known, old = state.old.data, state.old.network
        assert known is not None
        assert old is not None
        head = (
            old.model.get_submodule(old.head) if state.old_head is not None else model.get_submodule(old.head)
        )
        device = self._tools.device
        model.to(device)
        return figure_with_head(model, old.head, head, known.samples, known.task, device)

    def _read_again(self, change: Change) -> None:
        """After the session was resumed, read the old data that had been named; where it has gone, say so."""
        old = change.state.old
        if old.data is not None or old.source is None or old.network is None:
            return
        try:
            self.name_data(change, None)
        except TlnbError as error:
            self._tools.log(f"the data of the old task cannot be read again: {error}")
            change.set_old(source=None)

    # ---------------------------------------------------------------- guards

    def guard(self, change: Change, trainer: StageTrainer, keep: str) -> Guard:
        """What the stage's ``keep`` asks for.

        Raises:
            ModelError, NotReady: there is nothing old.
        """
        old = self.network(change)
        name, _, strength = keep.partition(":")
        if name == "lwf":
            train, device = trainer.forward_plan.train, self._tools.device
            return Distillation(float(strength), old.head, old, lambda: old.scores(train.view(0, 0), device))
        if name == "l2sp":
            return Anchor(float(strength), old.body)
        self._read_again(change)
        self.name_data(change, None)
        return Anchor(float(strength), old.body, lambda: self._fisher(change, old))

    def _fisher(self, change: Change, old: OldNetwork) -> Mapping[str, Tensor]:
        """From old data where there is some, else from the new inputs under the old head; taken once."""
        state = change.state
        data, known = state.old.data, state.old.importance
        of = f"{OLD}{data.name}" if data is not None else state.data_fingerprint
        # After the session was resumed, what was found on old data stands, though that is not named again.
        if known is not None and (known.of == of or (data is None and known.of.startswith(OLD))):
            return known.weights
        samples = data.learned if data is not None else state.need_samples()[0].view(0, 0)
        if data is None:
            self._tools.log(
                "keep ewc weighs by the new data, since no old data is named (%tl_forget --source)"
            )
        importance = Importance(of, fisher(old, samples, self._tools.device))
        change.set_old(importance=importance)
        return importance.weights

    # ---------------------------------------------------------------- checkpoints

    def get_state(self, state: SessionState) -> dict[str, Any]:
        """The old network, its scores, by which its data can be read again, and what ``keep ewc`` found."""
        old = state.old
        found = old.importance
        return {
            "old_network": old.network,
            "old_scores": old.scores,
            "old_source": old.source,
            "importance": (found.of, dict(found.weights)) if found is not None else None,
        }

    def set_state(self, change: Change, snapshot: Any) -> None:
        """The way back."""
        change.set_old(scores=dict(snapshot.old_scores))
        if snapshot.old_network is None:
            return
        network = snapshot.old_network.network(change.state.need_model())
        change.set_old(network=network, source=snapshot.old_source)
        if snapshot.importance is None:
            return
        importance = Importance(*snapshot.importance)
        body = {
            name: p.shape
            for name, p in network.model.named_parameters()
            if p.is_floating_point() and not name.startswith(f"{network.head}.")
        }
        if {name: tensor.shape for name, tensor in importance.weights.items()} != body:
            raise CheckpointError("the checkpoint weighs other weights for keep ewc than the network has")
        change.set_old(importance=importance)


def check_old(state: SessionState) -> None:
    """See that there is a network of before training.

    Raises:
        ModelError: it had random weights.
        NotReady: something was trained, and it is not known.
    """
    loaded = state.need_model()
    if not loaded.trained:
        raise ModelError(f"{loaded.name} has random weights, so there is nothing old to forget")
    under_way = state.plan is not None and state.plan.result is not None
    if state.old.network is None and (under_way or any(stage.records for stage in state.all_stages)):
        raise NotReady("the network as it was before training is not known; load it again")


def cloned(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of tensors."""
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def _old_modules(state: SessionState) -> dict[str, nn.Module]:
    """The modules that came with the weights, by place, where those of another task stand there now."""
    first, loaded = state.first_task, state.need_model()
    if first is None or state.old_head is None:
        return {}
    behind = {loaded.behind: first.side_heads[loaded.behind]} if loaded.behind in first.side_heads else {}
    return {loaded.head: first.head, **behind}


def _old_outputs(state: SessionState) -> int:
    """How many scores the old head gives."""
    old = state.old.network
    head = old.model.get_submodule(old.head) if old is not None else state.came_with
    if head is None:
        raise ModelError(f"{state.need_model().name} came without a head that knew anything")
    return outputs_of(head)


def _by_name(source: object) -> str | None:
    """How data can be named from any folder; None for an object."""
    if not isinstance(source, str | os.PathLike):
        return None
    path = path_of(source)
    return str(path.absolute()) if path.exists() else os.fspath(source)
