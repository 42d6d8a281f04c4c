"""Saving a session, going on where it was left, and going a stage back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tlnb.answers import Lines
from tlnb.engine.arguments import path_of
from tlnb.engine.features.samples import show_bytes
from tlnb.engine.network import freezing
from tlnb.engine.printable import printable
from tlnb.engine.saving import checkpoint
from tlnb.engine.saving.checkpoint import SUFFIX
from tlnb.engine.saving.pending import Pending
from tlnb.engine.training.history import Run, spans
from tlnb.engine.training.plan import one_stage
from tlnb.engine.training.stage import Stage, read_keys
from tlnb.errors import CheckpointError, NotReady, PlanError
from tlnb.session.keeping import autosave_seconds
from tlnb.session.resuming import Resuming

MAY_CHANGE = ("epochs", "lr", "patience")
"""Settings of a stage that can be given anew where it goes on."""


class Saving(Resuming):
    """Save, resume, go on, undo."""

    # ---------------------------------------------------------------- to a file

    def save(self, path: str) -> Lines:
        """Write the whole state of the session to a file: nothing that training needs is left out.

        Args:
            path: of the file; ``.safetensors`` is added where it has no ending.

        Raises:
            NotReady: no model yet.
            CheckpointError: it cannot be written, or another file stands there.
        """
        self._need_model()
        target = _target(path)
        plan = self._paused
        left = plan.result.left if plan is not None and plan.result is not None else None
        size = checkpoint.write(target, self._snapshot(plan, left))
        return Lines(
            f"saved to {printable(str(target))}, {show_bytes(size)}: network, heads, optimizer, history"
            + (f"; {self._left_of(plan)}" if plan is not None else "")
        )

    # ---------------------------------------------------------------- going on

    def go_on(self, **keys: Any) -> Run:
        """Go on where training was stopped, through the rest of the plan.

        Where nothing was stopped, a further stage begins that keeps the optimizer's moments of the last one,
        and its settings but for those given; ``epochs`` must be given then.

        Args:
            keys: settings of the stage to change: ``lr``, ``epochs``, ``patience``; any for a further stage.

        Raises:
            NotReady: there is nothing to go on with, or the data or step of then is missing.
            PlanError, TrainingError: as ``train``.
        """
        self._need_ready()
        plan = self._paused
        if plan is None:
            return self._further(keys)
        if plan.own_step and self._step is None:
            raise NotReady("a step of your own was training (%%tl_step); run that cell again, then go on")
        settings = read_keys(keys)
        if plan.result is not None and plan.result.diverged and not settings.get("lr"):
            raise NotReady(
                "the loss diverged at that rate; give a lower one, such as: %tl_train --continue lr 1e-4"
            )
        self._need_head_of(plan)
        self._change_stage(plan, settings)
        now = self._data_print()
        if plan.data != now and plan.result is not None and plan.result.left is not None:
            stage = plan.stages[0]
            size = stage.batch or self._need_data().batch
            assert self._samples is not None
            plan.result.left.at_epoch_start(_steps(len(self._samples[0]), size))
            plan.result.before = None  # measured on other samples, so no guard can compare with it
        plan.data = now
        return self._carry_out(plan)

    def _need_head_of(self, plan: Pending) -> None:
        """Refuse to go on with a stage under another head than the one that it trained."""
        points = [point for point in self._steps_back if point.history is self._history]
        under_way = plan.result is not None and plan.result.left is not None
        if under_way and points and points[-1].head is not self._head():
            raise NotReady(
                "another head is on the network than when the stage was stopped; put it back "
                "(%tl_head --task), or train the new one: %tl_train"
            )

    def _change_stage(self, plan: Pending, settings: dict[str, Any]) -> None:
        wrong = [name for name in settings if name not in MAY_CHANGE]
        if wrong:
            raise PlanError(
                f"{wrong[0]} cannot change while a stage is under way; {', '.join(MAY_CHANGE)} can"
            )
        if not settings:
            return
        stage = replace(plan.stages[0], **settings)
        result = plan.result
        left = result.left if result is not None else None
        if left is not None:
            if stage.epochs < left.epoch:
                raise PlanError(f"epochs {stage.epochs}: {left.epoch} have been trained already")
            if "lr" in settings and stage.lr is None:
                raise PlanError(
                    f"lr auto: the stage under way has its rate, {left.rate:.1e}; give a number to change it"
                )
            left.rate = settings.get("lr") or left.rate
        plan.stages[0] = stage
        if result is not None:
            result.stage = stage

    def _further(self, keys: dict[str, Any]) -> Run:
        """A further stage with the moments of the last one."""
        if not self._history.stages:
            raise NotReady("nothing was trained yet; %tl_train trains what is unfrozen")
        last = self._history.stages[-1]
        if "epochs" not in keys:
            raise NotReady(
                f"nothing was stopped; to go on with the optimizer of stage {last.number}, "
                "say for how long: %tl_train --continue epochs 3"
            )
        bn = {"bn": last.setup["bn"]} if "bn" in last.setup else {}
        settings = {**last.stage.asked, **bn, "lr": last.rate or "auto", **keys}
        free = [i for i, fixed in enumerate(self.frozen) if not fixed]
        stage: Stage = one_stage(
            f"continue {spans(free)}", self._need_layers(), self._frozen_indexes(), settings
        )
        cache, keep_best = last.setup.get("cache") is not False, last.setup.get("keep_best") is True
        plan = Pending.of([stage], cache, keep_best)
        plan.with_moments, plan.data = True, self._data_print()
        return self._carry_out(plan)

    # ---------------------------------------------------------------- going back

    def undo(self) -> Lines:
        """Go one stage back: weights, buffers, history and what was frozen are those before it.

        Up to five stages can be taken back, one at a time, as far as memory reaches.

        Raises:
            NotReady: nothing was trained since the network was loaded, or the head was exchanged since.
        """
        self._need_rest("a stage can be undone")
        loaded, layers = self._need_model(), self._need_layers()
        points = [point for point in self._steps_back if point.history is self._history]
        if not points:
            raise NotReady("nothing to undo: no stage was trained since the network was loaded or resumed")
        point = points[-1]
        if point.head is not self._head():
            raise NotReady(
                "another head is on the network than when that stage began; put it back (%tl_head --task)"
            )
        undone = self._history.stages[point.stages :]
        ours = dict(freezing.state_of(loaded.model, layers, range(len(layers))))
        with torch.no_grad():
            for name, tensor in point.weights.items():
                ours[name].copy_(tensor)
        del self._history.stages[point.stages :]
        self._steps_back = points[:-1]
        self._moments, self.frozen = point.moments, point.frozen
        self._pause(None)
        self._save_now(None, lambda: None)
        names = (
            f"stage {undone[-1].number} ({undone[-1].stage.text})" if undone else "a stage that had no epoch"
        )
        last = self._history.final
        now = f"{last.metric_name} {last.accuracy:.4g}" if last is not None else "no stage was trained"
        return Lines(f"undone: {names}; weights and history are those before it ({now})")

    # ---------------------------------------------------------------- in words

    def _status(self) -> Iterable[str]:
        yield from super()._status()
        plan, auto = self._paused, self._autosave
        if plan is not None:
            yield f"plan     {self._left_of(plan)}; %tl_train --continue goes on"
        if not autosave_seconds():
            yield "saved    autosave is off (TLNB_AUTOSAVE=0)"
        elif auto.failure:
            yield f"saved    NOT: {auto.failure}"
        elif auto.last is not None:
            yield f"saved    {auto.age:.0f} s ago by autosave, in {auto.took:.2f} s; %tl_resume comes back"


def _target(path: object) -> Path:
    """The file to write to.

    Raises:
        CheckpointError: something else than a checkpoint stands there.
    """
    place = path_of(path, CheckpointError)
    if not place.name:
        raise CheckpointError("a file needs a name, such as: %tl_save birds")
    if not place.suffix:
        place = place.with_name(place.name + SUFFIX)
    if place.exists() and not (place.is_file() and checkpoint.is_checkpoint(place)):
        raise CheckpointError(
            f"{printable(str(place))} is there and is no checkpoint of tlnb; take another name"
        )
    return place


def _steps(samples: int, batch: int) -> int:
    from tlnb.engine.training.order import batches

    return len(batches(samples, batch, 0))
