"""Saving a session, coming back to it, going on, and going a stage back."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tlnb.answers import Lines
from tlnb.engine.data import load as data
from tlnb.engine.features.samples import show_bytes
from tlnb.engine.network import freezing
from tlnb.engine.network import head as heads
from tlnb.engine.printable import printable
from tlnb.engine.saving import autosave, checkpoint
from tlnb.engine.saving.checkpoint import SUFFIX, Checkpoint
from tlnb.engine.saving.checkpoint_network import check_fit, fill, tensors_of
from tlnb.engine.saving.pending import Pending
from tlnb.engine.training.history import History, Run, spans
from tlnb.engine.training.plan import one_stage
from tlnb.engine.training.stage import Stage, read_keys
from tlnb.errors import CheckpointError, NotReady, PlanError, TlnbError
from tlnb.session.contents import Parts, from_checkpoint, notebook, put_heads, stages_with
from tlnb.session.datasets import Datasets
from tlnb.session.keeping import autosave_seconds
from tlnb.session.standing import Standing
from tlnb.session.train import Training

MAY_CHANGE = ("epochs", "lr", "patience")
"""Settings of a stage that can be given anew where it goes on."""


class Saving(Datasets, Training, Standing):
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

    # ---------------------------------------------------------------- from a file

    def resume(self, path: str | None = None) -> Lines:
        """Come back to what was saved: by ``save`` to a file, or by the last autosave.

        Everything is as it was then: weights and buffers, the optimizer's moments, the place in the schedule
        and in the order of the samples, random states, history, heads and plan. Data that has a name is read
        again; a variable must be named again (``%tl_data $name``).

        Args:
            path: of the file; None for the last autosave of this notebook, or else of this folder.

        Raises:
            CheckpointError: no such file, or it cannot be used here, and why; nothing has changed then.
        """
        self._need_rest("the session can be resumed")
        where, found = self._find(path)
        parts, held = from_checkpoint(found, self._loaded), self._data
        with self._all_as_before(parts):
            self._take_over(parts, found)
        age = max(time.time() - autosave.modified(where), 0.0)
        source = printable(path) if path is not None else f"the autosave of {age:.0f} s ago"
        lines = [f"resumed from {source}", *self._read_again(parts, held)]
        plan = self._paused
        if plan is not None:
            lines.append(f"{self._left_of(plan)}; %tl_train --continue goes on")
            if any(stage.keep for stage in plan.stages):
                lines.append(
                    "keep: the file does not hold the network from before all training, "
                    "so in a new kernel a stage with keep cannot go on"
                )
        return Lines(*lines)

    def _find(self, path: str | None) -> tuple[Path, Checkpoint]:
        if path is not None:
            place = Path(path).expanduser()
            place = place if place.suffix or place.exists() else place.with_name(place.name + SUFFIX)
            return place, checkpoint.read(place)
        auto = self._autosave
        say = lambda text: self._emit("on_message", text)  # noqa: E731
        return autosave.last_good(auto.folder, mine=auto.name, notebook=notebook(), say=say)

    @contextmanager
    def _all_as_before(self, parts: Parts) -> Iterator[None]:
        """Where something goes wrong inside, session and network are those of before."""
        names = ("_data", "_plan", "_plan_of", "_steps_back", "_moments", "_keeps_head")
        before = {name: getattr(self, name) for name in names}
        loaded = self._loaded
        # Only a module of the user's is filled where it stands; any other is a new one.
        own = loaded is not None and loaded.model is parts.loaded.model
        modules = _heads_of(loaded.model, parts) if own and loaded is not None else {}
        saved = {n: t.detach().clone() for n, t in tensors_of(parts.loaded.model).items()} if own else {}
        try:
            with self._all_or_nothing():
                yield
        except BaseException:
            for name, value in before.items():
                setattr(self, name, value)
            for place, module in modules.items():
                heads.replace(parts.loaded.model, place, module)
            if own:
                fill(parts.loaded.model, saved)
            raise

    def _take_over(self, parts: Parts, found: Checkpoint) -> None:
        loaded = parts.loaded
        tasks = {task.name: task for task in parts.tasks}
        put_heads(loaded, tasks[parts.task])
        check_fit(loaded.model, found.part("model"), loaded.name)
        fill(loaded.model, found.part("model"))
        loaded.model.to(self.device)
        layers = self._find_layers(loaded)
        if layers is not None and len(parts.frozen) != len(layers):
            raise CheckpointError(
                f"the checkpoint has {len(parts.frozen)} layers, {loaded.name} has {len(layers)} here"
            )
        self._loaded, self._layers, self._history = loaded, None, History()
        self._history.stages = stages_with(parts.history, parts.pending)
        self._history.old = parts.old
        self._tasks, self._task = tasks, parts.task
        self._came_with = tasks[parts.came_with].head if parts.came_with else None
        self._data, self._samples = None, None
        if layers is None:
            self.frozen = ()
        else:
            _check_plan(parts.pending, len(layers))
            self._accept_layers(layers, parts.frozen)
        self._pause(parts.pending)
        self._moments, self._steps_back, self._keeps_head = parts.moments, [], True

    def _read_again(self, parts: Parts, held: data.Data | None) -> Iterable[str]:
        """Read the data again, or keep the object that is named; what to say where neither can be done."""
        if not parts.data:
            return
        if parts.asked is None and held is not None and held.classes == parts.classes:
            self._fit_data(held)
            self._data = held
            yield from self._other_samples(parts)
            return
        again = "name it again (%tl_data), with as many classes: the head stays, and training can go on"
        if parts.asked is None:
            yield f"its data was an object, {parts.data}; {again}"
            return
        try:
            fresh = data.load_data(
                **_arguments(parts.asked), progress=lambda *at: self._emit("on_check", *at)
            )
            if fresh.classes != parts.classes:
                raise CheckpointError("it has other classes now")
            self._fit_data(fresh)
            self._data = fresh
        except TlnbError as error:
            yield f"its data {parts.data} is not there any more ({error}); {again}"
            return
        yield f"data {fresh.name} is read again"
        yield from self._other_samples(parts)

    def _other_samples(self, parts: Parts) -> Iterable[str]:
        if parts.fingerprint and self._data_print() != parts.fingerprint:
            yield "the samples are not those of then; a stage under way goes on from the start of its epoch"

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
        self._change_stage(plan, settings)
        now = self._data_print()
        if plan.data != now and plan.result is not None and plan.result.left is not None:
            stage = plan.stages[0]
            size = stage.batch or self._need_data().batch
            assert self._samples is not None
            plan.result.left.at_epoch_start(_steps(len(self._samples[0]), size))
        plan.data = now
        return self._carry_out(plan)

    def _change_stage(self, plan: Pending, settings: dict[str, Any]) -> None:
        wrong = [name for name in settings if name not in MAY_CHANGE]
        if wrong:
            raise PlanError(
                f"{wrong[0]} cannot change while a stage is under way; {', '.join(MAY_CHANGE)} can"
            )
        if not settings:
            return
        stage = plan.stages[0] = replace(plan.stages[0], **settings)
        result = plan.result
        if result is None:
            return
        if result.left is not None and settings.get("lr"):
            result.left.rate = settings["lr"]
        if stage.epochs < (result.left.epoch if result.left else 0):
            raise PlanError(f"epochs {stage.epochs}: {result.left.epoch} have been trained already")  # type: ignore[union-attr]
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
        settings = {**last.stage.asked, "lr": last.rate, **keys}
        free = [i for i, fixed in enumerate(self.frozen) if not fixed]
        stage: Stage = one_stage(
            f"continue {spans(free)}", self._need_layers(), self._frozen_indexes(), settings
        )
        plan = Pending.of([stage], "train", True, False)
        plan.with_moments, plan.data = True, self._data_print()
        return self._carry_out(plan)

    def _left_of(self, plan: Pending | None) -> str:
        """Where a plan stands, in words."""
        if plan is None:
            return ""
        at = f"stage {plan.first}/{plan.count}"
        left = plan.result.left if plan.result is not None else None
        if left is None:
            return f"{at} has not begun"
        done = f", {left.done} batches into the next" if left.done else ""
        return f"{at} stands after epoch {left.epoch} of {plan.stages[0].epochs}{done}"

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
        last = self._history[-1] if len(self._history) else None
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


def _target(path: str) -> Path:
    """The file to write to.

    Raises:
        CheckpointError: something else than a checkpoint stands there.
    """
    if not Path(path).name or "\0" in path:
        raise CheckpointError("a file needs a name, such as: %tl_save birds")
    place = Path(path).expanduser()
    if not place.suffix:
        place = place.with_name(place.name + SUFFIX)
    if place.exists() and not (place.is_file() and checkpoint.is_checkpoint(place)):
        raise CheckpointError(
            f"{printable(str(place))} is there and is no checkpoint of tlnb; take another name"
        )
    return place


def _heads_of(model: nn.Module, parts: Parts) -> dict[str, nn.Module]:
    """The modules that stand where the checkpoint has heads."""
    task = next(task for task in parts.tasks if task.name == parts.task)
    places = [parts.loaded.head, *task.side_heads] if parts.loaded.head else list(task.side_heads)
    return {place: model.get_submodule(place) for place in places}


def _check_plan(pending: Pending | None, layers: int) -> None:
    for stage in pending.stages if pending is not None else ():
        if not all(index < layers for index in stage.frozen) or len(set(stage.frozen)) >= layers:
            raise CheckpointError("the checkpoint's plan names layers that the network does not have")


def _arguments(asked: dict[str, Any]) -> dict[str, Any]:
    """The arguments of ``load_data``; those that were not given keep their own default."""
    return {name: value for name, value in asked.items() if value is not None}


def _steps(samples: int, batch: int) -> int:
    from tlnb.engine.training.order import batches

    return len(batches(samples, batch, 0))
