"""What training costs in old knowledge: forgetting, guards against it, and blends of old and new."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tlnb.engine.advice.blend import GRID, Blend, BlendPoint, blended
from tlnb.engine.advice.forgetting import Forgetting, OldData, StageMark, drift, old_data
from tlnb.engine.advice.guards import Anchor, Distillation, Guard, fisher
from tlnb.engine.arguments import path_of
from tlnb.engine.models.loaded import LoadedModel
from tlnb.engine.network.layers import LayerMap
from tlnb.engine.network.modes import set_training
from tlnb.engine.network.old_network import OldNetwork, body_state, figure_with_head, put_body
from tlnb.engine.training.history import StageResult
from tlnb.engine.training.stage import Stage
from tlnb.engine.training.trainer import StageTrainer
from tlnb.errors import BadArguments, ModelError, NotReady, TlnbError, TrainingError
from tlnb.session.keeping import Importance
from tlnb.session.network import Network
from tlnb.session.train import Training

SNAPSHOTS = 256 << 20  # bytes of bodies after stages that are kept, so that old data may be named later
OLD = "old: "
SHIPPED = {"convnet5": "glyphs"}  # old tasks that can be drawn again
State = Mapping[str, Tensor]


class Measuring(Network, Training):
    """Measure what was forgotten, guard against it, blend old and new."""

    def _forget_all(self) -> None:
        super()._forget_all()
        self._old_data: OldData | None = None
        self._bodies: dict[int, State] = {}
        self._ends: tuple[State, State] | None = None  # the new body of a blend, and the blend

    def forgetting(self, source: object = None) -> Forgetting:
        """What the network still knows of its old task, and how far each layer has moved.

        Args:
            source: data of the old task, such as ``glyphs`` for convnet5; its validation part is measured on.
                None for what was named before, what ships with tlnb, or drift alone.

        Raises:
            NotReady: no model or no data yet.
            ModelError: the network came without a head that knew anything.
            DataError: the data is not of the old task.
        """
        layers, old = self._need_ready(), self._need_old()
        self._name_old_data(source, old)
        known = self._old_data
        before = now = None
        if known is not None:
            before, now = self._old_figure(old.model), self._old_figure(self.model)
        return Forgetting(
            task=known.name if known else old.name,
            before=before,
            stages=tuple(self._marks()) if known else (),
            now=now,
            metric=known.task.metric if known else "accuracy",
            drift=drift(old.model, self.model, layers, self._any_samples(), self.device),
            source=self._measured_on(known),
        )

    def blend(self, a: float | None = None) -> Blend:
        """Set the body between what it was before training (0) and what it is after (1).

        Buffers, such as BatchNorm statistics, are blended as weights are; the head stays the new one. Any
        later blend is between the same two ends, until the body is trained again.

        Args:
            a: how much of the new; None changes nothing and shows the curve alone.

        Raises:
            NotReady: nothing was trained yet.
            BadArguments: ``a`` is not between 0 and 1.
        """
        if a is not None and (isinstance(a, bool) or not isinstance(a, int | float) or not 0 <= a <= 1):
            raise BadArguments(f"a blend is a number from 0 (old) to 1 (new), not {a!r}")
        self._need_ready()
        if self._old is None or not len(self._history):
            raise NotReady("nothing was trained yet, so there is nothing to blend; %tl_train comes first")
        old, head = self._old, self._need_model().head
        before = _cloned(body_state(self.model, head))
        new = self._ends[0] if self._ends is not None and _same(self._ends[1], before) else before
        self._name_old_data(None, old)
        set_training(self.model, False)
        last = before
        try:
            points = tuple(self._point(old, new, k) for k in sorted({*GRID, *(() if a is None else (a,))}))
            last = before if a is None else blended(old.body, new, a)
        finally:
            put_body(self.model, head, last)
        self._ends = (new, last)
        return Blend(self._held(old, new, last, a), points, self._need_data().task.metric)

    def _held(self, old: OldNetwork, new: State, last: State, a: float | None) -> float:
        """Which blend the network holds."""
        if a is not None:
            self._blend_at = a
        return 1.0 if _same(new, last) else getattr(self, "_blend_at", 1.0)

    def _point(self, old: OldNetwork, new: State, a: float) -> BlendPoint:
        put_body(self.model, old.head, blended(old.body, new, a))
        known = self._old_data
        return BlendPoint(a, self._new_figure(), self._old_figure(self.model) if known else None)

    # ---------------------------------------------------------------- the old network and its data

    def _need_old(self) -> OldNetwork:
        """The network as it was when it was loaded; copied now where nothing has trained yet."""
        loaded = self._need_model()
        if not loaded.trained:
            raise ModelError(f"{loaded.name} has random weights, so there is nothing old to forget")
        if self._old is None:
            plan = self._paused
            if len(self._history) or (plan is not None and plan.result is not None):
                raise NotReady("the network as it was before training is not known; load it again")
            self._old = OldNetwork.of(loaded.model, loaded.head, self._old_modules(), loaded.task)
        return self._old

    def _name_old_data(self, source: object, old: OldNetwork) -> None:
        loaded = self._need_model()
        known = self._old_source or SHIPPED.get(loaded.name)
        if source is None and (self._old_data is not None or known is None):
            return
        first = next(iter(self._tasks.values()), None)
        classes = first.classes if first is not None else None
        outputs = _outputs(old)
        named = known if source is None else source
        fresh, before = old_data(named, loaded.preprocess, classes, outputs), self._old_data
        if before is not None:
            same = before.samples.fingerprint() == fresh.samples.fingerprint()
        else:
            same = _by_name(named) == self._old_source
        if not same:
            self._history.old.clear()  # measured on other data
        self._old_data, self._old_source = fresh, _by_name(named)
        if source is not None:
            self._importance = None

    def _old_figure(self, model: nn.Module) -> float:
        """The figure of this network's body under the old head."""
        known, old = self._old_data, self._old
        assert known is not None
        assert old is not None
        head = (
            old.model.get_submodule(old.head) if self.old_head is not None else model.get_submodule(old.head)
        )
        model.to(self.device)
        return figure_with_head(model, old.head, head, known.samples, known.task, self.device)

    def _new_figure(self) -> float:
        assert self._samples is not None
        head, task = self._need_model().head, self._need_data().task
        own = self.model.get_submodule(head)
        return figure_with_head(self.model, head, own, self._samples[1], task, self.device)

    def _any_samples(self) -> Any:
        assert self._samples is not None
        return self._old_data.samples if self._old_data is not None else self._samples[1]

    def _measured_on(self, known: OldData | None) -> str:
        if known is None:
            return f"{self._need_data().name} (validation)"
        return f"{len(known.samples):,} samples of {known.name} that it was not trained on"

    def _marks(self) -> Iterator[StageMark]:
        """The old task after each stage, from the bodies that are kept."""
        head = self._need_model().head
        now = _cloned(body_state(self.model, head))
        try:
            for result in self._history.stages:
                if result.number not in self._history.old and result.number in self._bodies:
                    put_body(self.model, head, self._bodies[result.number])
                    self._history.old[result.number] = self._old_figure(self.model)
                yield StageMark(result.number, result.stage.text, self._history.old.get(result.number))
        finally:
            put_body(self.model, head, now)

    # ---------------------------------------------------------------- at each stage

    def _start_with(self, loaded: LoadedModel, layers: LayerMap | None) -> None:
        super()._start_with(loaded, layers)
        self._forget_all()

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        before = self._old, self._old_data, self._bodies, self._ends
        try:
            with super()._all_or_nothing():
                yield
        except BaseException:
            self._old, self._old_data, self._bodies, self._ends = before
            raise

    def _check_stage(self, stage: Stage) -> None:
        super()._check_stage(stage)
        if stage.keep is None:
            return
        old, name = self._need_old(), stage.keep.partition(":")[0]
        if name in ("lwf", "ewc") and _outputs(old) < 2:
            raise TrainingError(
                f"keep {name} needs an old head that tells classes apart, and this one gives a single value; "
                "keep l2sp:0.05 needs none"
            )

    def _trainer(self, stage: Stage, coming: Sequence[Stage] | None) -> StageTrainer:
        if self._need_model().trained and not len(self._history):
            self._remember(needed=stage.keep is not None)
        guard = self._guard(stage)
        trainer = super()._trainer(stage, coming)
        if guard is not None:
            trainer.guard_by(guard)
        return trainer

    def _remember(self, needed: bool) -> None:
        try:
            self._need_old()
        except ModelError:
            if needed:
                raise

    def _guard(self, stage: Stage) -> Guard | None:
        """What the stage's ``keep`` asks for."""
        if stage.keep is None:
            return None
        old = self._need_old()
        name, _, strength = stage.keep.partition(":")
        if name == "lwf":
            samples = self._samples_for(stage)[0]
            return Distillation(
                float(strength), old.head, old, lambda: old.scores(samples.view(0, 0), self.device)
            )
        if name == "l2sp":
            return Anchor(float(strength), old.body)
        self._read_old_data_again()
        self._name_old_data(None, old)
        return Anchor(float(strength), old.body, lambda: self._fisher(old))

    def _fisher(self, old: OldNetwork) -> Mapping[str, Tensor]:
        """From old data where there is some, else from the new inputs under the old head; taken once."""
        assert self._samples is not None
        of = f"{OLD}{self._old_data.name}" if self._old_data is not None else self._data_print()
        known = self._importance
        # After the session was resumed, what was found on old data stands, though that is not named again.
        if known is not None and (known.of == of or (self._old_data is None and known.of.startswith(OLD))):
            return known.weights
        samples = self._old_data.learned if self._old_data is not None else self._samples[0].view(0, 0)
        if self._old_data is None:
            self._emit(
                "on_message",
                "keep ewc weighs by the new data, since no old data is named (%tl_forget --source)",
            )
        self._importance = Importance(of, fisher(old, samples, self.device))
        return self._importance.weights

    def _emit(self, event: str, *what: Any) -> None:
        if event == "on_stage_end" and self._old is not None:
            self._after_stage(what[0])
        super()._emit(event, *what)

    def _after_stage(self, result: StageResult) -> None:
        """Measure the old task where its data is known; keep the body where that takes little memory."""
        self._read_old_data_again()
        if self._old_data is not None:
            self._history.old[result.number] = self._old_figure(self.model)
            return
        state = _cloned(body_state(self.model, self._need_model().head))
        size = sum(t.numel() * t.element_size() for t in state.values())
        if size * (len(self._bodies) + 1) <= SNAPSHOTS:
            self._bodies[result.number] = state

    def _read_old_data_again(self) -> None:
        """After the session was resumed, read the old data that had been named; where it has gone, say so."""
        if self._old_data is not None or self._old_source is None or self._old is None:
            return
        try:
            self._name_old_data(None, self._old)
        except TlnbError as error:
            super()._emit("on_message", f"the data of the old task cannot be read again: {error}")
            self._old_source = None


def _by_name(source: object) -> str | None:
    """How data can be named from any folder; None for an object."""
    if not isinstance(source, str | os.PathLike):
        return None
    path = path_of(source)
    return str(path.absolute()) if path.exists() else os.fspath(source)


def _outputs(old: OldNetwork) -> int:
    from tlnb.engine.network.head import outputs_of

    return outputs_of(old.model.get_submodule(old.head))


def _cloned(state: State) -> State:
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def _same(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.equal(t, b[name]) for name, t in a.items())
