"""Coming back to a saved session: all of it, or nothing has changed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from tlnb.answers import Lines
from tlnb.engine.arguments import path_of
from tlnb.engine.data import load as data
from tlnb.engine.network import head as heads
from tlnb.engine.network.old_network import OldNetwork
from tlnb.engine.printable import printable
from tlnb.engine.saving import autosave, checkpoint
from tlnb.engine.saving.checkpoint import SUFFIX, Checkpoint
from tlnb.engine.saving.checkpoint_network import check_fit, fill, tensors_of
from tlnb.engine.saving.pending import Pending
from tlnb.engine.training.history import History
from tlnb.errors import CheckpointError, TlnbError
from tlnb.session.contents import Parts, from_checkpoint, notebook, put_heads, stages_with
from tlnb.session.datasets import Datasets
from tlnb.session.keeping import Importance
from tlnb.session.standing import Standing
from tlnb.session.task import Task
from tlnb.session.train import Training


class Resuming(Datasets, Training, Standing):
    """Resume."""

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
        path = None if path is None else str(path_of(path, CheckpointError))
        where, found = self._find(path)
        parts, held = from_checkpoint(found, self._loaded), self._data
        with self._all_as_before(parts):
            self._take_over(parts, found)
        age = max(time.time() - autosave.modified(where), 0.0)
        source = printable(path) if path is not None else f"the autosave of {age:.0f} s ago"
        lines = [f"resumed from {source}", *self._read_again(parts, held), *self._other_tasks()]
        plan = self._paused
        if plan is not None:
            lines.append(f"{self._left_of(plan)}; %tl_train --continue goes on")
            if self._old is None and any(stage.keep for stage in plan.stages):
                lines.append("keep: the file does not hold the network of before training; it cannot go on")
        return Lines(*lines)

    def _find(self, path: str | None) -> tuple[Path, Checkpoint]:
        if path is not None:
            place = path_of(path, CheckpointError)
            place = place if place.suffix or place.exists() else place.with_name(place.name + SUFFIX)
            return place, checkpoint.read(place)
        auto = self._autosave
        say = lambda text: self._emit("on_message", text)  # noqa: E731
        return autosave.last_good(auto.folder, mine=auto.name, notebook=notebook(), say=say)

    @contextmanager
    def _all_as_before(self, parts: Parts) -> Iterator[None]:
        """Where something goes wrong inside, session and network are those of before."""
        names = (
            "_data", "_plan", "_plan_of", "_steps_back", "_moments", "_keeps_head", "_old", "_old_source",
            "_importance",
        )  # fmt: skip
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
        self._forget_all()
        if parts.old_network is not None:
            self._old, self._old_source = parts.old_network.network(loaded), parts.old_source
            self._importance = _importance(parts, self._old) if parts.importance else None

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
            self._data = fresh = self._load_again(parts.data, parts.asked, parts.classes)
        except TlnbError as error:
            yield f"its data {parts.data} is not there any more ({error}); {again}"
            return
        yield f"data {fresh.name} is read again"
        yield from self._other_samples(parts)

    def _other_samples(self, parts: Parts) -> Iterable[str]:
        if parts.fingerprint and self._data_print() != parts.fingerprint:
            yield "the samples are not those of then; a stage under way goes on from the start of its epoch"

    # ---------------------------------------------------------------- other tasks

    def _other_tasks(self) -> Iterable[str]:
        """What to say of the tasks whose heads are not on the network."""
        others = [task for task in self._tasks.values() if task.name != self._task and task.source]
        if others:
            names = ", ".join(task.name for task in others)
            yield f"other tasks: {names}; %tl_head --task NAME puts the head back and reads its data again"

    def _data_of(self, task: Task) -> str:
        """Read a task's data again, after the session was resumed; what to say of it."""
        if task.data is not None or not task.source:
            return super()._data_of(task)
        again = "name it again (%tl_data); the head stays"
        if task.asked is None:
            return f"its data was an object, {task.source}; {again}"
        try:
            fresh = self._load_again(task.source, task.asked, task.classes)
        except TlnbError as error:
            return f"its data {task.source} is not there any more ({error}); {again}"
        self._data = fresh
        return f"data {fresh.name} is read again"

    def _load_again(self, name: str, asked: dict[str, Any], classes: tuple[str, ...] | None) -> data.Data:
        """Data of another time, under the name that it had, fitted to the network.

        Raises:
            TlnbError: it is not there any more, or is other data now.
        """
        arguments = {name: value for name, value in asked.items() if value is not None}
        fresh = data.load_data(**arguments, progress=lambda *at: self._emit("on_check", *at))
        if fresh.classes != classes:
            raise CheckpointError("it has other classes now")
        fresh.name = name
        self._fit_data(fresh)
        return fresh

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


def _heads_of(model: nn.Module, parts: Parts) -> dict[str, nn.Module]:
    """The modules that stand where the checkpoint has heads."""
    task = next(task for task in parts.tasks if task.name == parts.task)
    places = [parts.loaded.head, *task.side_heads] if parts.loaded.head else list(task.side_heads)
    return {place: model.get_submodule(place) for place in places}


def _importance(parts: Parts, old: OldNetwork) -> Importance:
    """What ``keep ewc`` had found out, which must fit the network of before training."""
    assert parts.importance is not None
    found = Importance(*parts.importance)
    body = {
        name: p.shape
        for name, p in old.model.named_parameters()
        if p.is_floating_point() and not name.startswith(f"{old.head}.")
    }
    if {name: tensor.shape for name, tensor in found.weights.items()} != body:
        raise CheckpointError("the checkpoint weighs other weights for keep ewc than the network has")
    return found


def _check_plan(pending: Pending | None, layers: int) -> None:
    for stage in pending.stages if pending is not None else ():
        if not all(index < layers for index in stage.frozen) or len(set(stage.frozen)) >= layers:
            raise CheckpointError("the checkpoint's plan names layers that the network does not have")
