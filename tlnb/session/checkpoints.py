"""Saving a session to a file, and coming back: all of it, or nothing has changed."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tlnb.display.tables import printable
from tlnb.engine.checkpoint import autosave, origin
from tlnb.engine.checkpoint import file as checkpoint
from tlnb.engine.checkpoint.file import SUFFIX, Checkpoint, reason_of
from tlnb.engine.checkpoint.network import check_fit, fill, filled_head, head_to, tensors_of
from tlnb.engine.checkpoint.schema import BROKEN, AdapterRecord
from tlnb.engine.core.arguments import file_to_write, path_of
from tlnb.engine.core.structure import plain, structure
from tlnb.engine.data.load import SOURCES
from tlnb.engine.data.mending import mended
from tlnb.engine.features.samples import show_bytes
from tlnb.engine.network import adapters
from tlnb.engine.network import head as heads
from tlnb.engine.training.records import PlanProgress, ResumePoint
from tlnb.errors import CheckpointError, NotReady, TlnbError
from tlnb.session.answers import Lines
from tlnb.session.change import Change, Store
from tlnb.session.heads import Heads
from tlnb.session.hooks import Hook
from tlnb.session.network import LOADED, Network
from tlnb.session.snapshot import SessionSnapshot, from_checkpoint, head_places, notebook, to_checkpoint
from tlnb.session.state import SessionState, Task
from tlnb.session.testing import all_looks, looked_before
from tlnb.session.tools import Tools
from tlnb.version import __version__


class Checkpoints:
    """Writes the state of a session, and takes it over again.

    Args:
        store, tools, network, heads: of the session.
        hooks: what each of them knows is saved with it.
    """

    def __init__(self, store: Store, tools: Tools, network: Network, heads: Heads, hooks: Sequence[Hook]):
        self._store, self._tools, self._network, self._heads = store, tools, network, heads
        self._hooks = hooks

    # ---------------------------------------------------------------- to a file

    def snapshot(self, state: SessionState, progress: ResumePoint | None) -> Checkpoint:
        """The session as a checkpoint.

        Args:
            state: of the session.
            progress: where the stage under way stands; None where none is.
        """
        data, plan, first = state.data, state.plan, state.first_task
        kept = {name: value for hook in self._hooks for name, value in hook.get_state(state).items()}
        parts = SessionSnapshot(
            loaded=state.need_model(),
            frozen=state.frozen,
            tasks=list(state.tasks.values()),
            task=state.task,
            came_with=first.name if first is not None else "",
            data=data.name if data is not None else "",
            asked=None if data is None or data.asked is None else dict(data.asked),
            classes=data.classes if data is not None else (),
            fingerprint=state.data_fingerprint,
            adapters=adapters.attached(state.need_model().model),
            adapted=tuple(sorted(state.layers.adapted)) if state.layers is not None else (),
            history=state.stages,
            pending=replace(plan, own_step=state.step is not None) if plan is not None else None,
            moments=state.moments,
            looks=state.looks,
            marks=state.marks,
            **kept,
        )
        return to_checkpoint(parts, progress)

    def save(self, path: str) -> Lines:
        """See ``Session.save``."""
        state = self._store.now
        state.need_model()
        target = _target(path)
        plan = state.plan
        left = plan.result.left if plan is not None and plan.result is not None else None
        _keeps_kind(target, None, "a whole session")
        taken = self.snapshot(state, left)
        self._tools.interrupts.settle()
        size = checkpoint.write(target, taken)
        return Lines(
            f"saved to {printable(str(target))}, {show_bytes(size)}: network, heads, optimizer, history"
            + (f"; {left_of(plan)}" if plan is not None else "")
        )

    # ---------------------------------------------------------------- adapters alone

    def save_adapter(self, path: str) -> Lines:
        """Write the adapters and the head; see ``Session.save``."""
        state = self._store.now
        layers, loaded = state.need_layers(), state.need_model()
        spec = adapters.attached(loaded.model)
        if not spec:
            raise NotReady(
                "nothing is adapted, so there is no adapter to save; such as: %tl_adapt 3: --rank 8"
            )
        target = _target(path)
        _keeps_kind(target, checkpoint.ADAPTER, "adapters alone")
        task, tensors = state.tasks[state.task], tensors_of(loaded.model)
        form = head_to(task.head)
        body = adapters.body_digest(loaded.model, loaded.places)
        told = AdapterRecord(
            __version__,
            loaded.name,
            body,
            dict(spec),
            tuple(sorted(layers.adapters)),
            task.name,
            task.classes,
            form,
        )
        kept = {f"adapter.{name}": tensors[name] for name in adapters.tensor_names(spec)}
        if form is not None:
            kept |= {f"head.{name}": tensor for name, tensor in tensors_of(task.head).items()}
        size = checkpoint.write(target, Checkpoint(plain(told), kept))
        whole = sum(t.numel() * t.element_size() for t in tensors.values())
        head = "and the head" if form is not None else "without the head, which only its own code can build"
        return Lines(
            f"saved to {printable(str(target))}, {show_bytes(size)}, {size / whole:.1%} of the network's weights: the "
            f"adapters of {layers.describe(layers.adapters)} {head}; %tl_adapt --file puts them on the same body"
        )

    def load_adapter(self, change: Change, path: str) -> Lines:
        """Put adapters and a head from a file on the body that they are for; see ``Session.adapt``."""
        place = path_of(path, CheckpointError)
        place = place if place.suffix or place.exists() else place.with_name(place.name + SUFFIX)
        found, shown = checkpoint.read(place), printable(str(place))
        if found.about.get("kind") != checkpoint.ADAPTER:
            raise CheckpointError(f"{shown} is no adapter but a whole session; %tl_resume reads it")
        try:
            return self._take_adapter(change, found, shown)
        except BROKEN as error:
            raise CheckpointError(f"{shown} is damaged: {reason_of(error)}") from None

    def _take_adapter(self, change: Change, found: Checkpoint, shown: str) -> Lines:
        told, state = structure(AdapterRecord, found.about), change.state
        layers, loaded = state.need_layers(), state.need_model()
        if told.body != adapters.body_digest(loaded.model, loaded.places):
            raise CheckpointError(
                f"{shown} is for another body, {told.network} of sha256 {told.body[:8]}…; load "
                "that with the weights that it was adapted with"
            )
        if state.data is not None and told.head is not None and state.data.classes != told.classes:
            raise CheckpointError(
                f"{shown} tells other classes apart than {state.data.name} has; name its data, or none (%tl_data none)"
            )
        known = adapters.attached(loaded.model)
        if known and adapters.learned(loaded.model, known):
            raise NotReady("the network has adapters that learned; %tl_merge them or undo the stage first")
        if told.head is not None:
            head = filled_head(told.head, found.part("head"), f"the head {loaded.head}")
            sides = state.tasks[state.task].side_heads
            self._heads.put_task(
                change, Task(told.task, head, sides, told.classes, state.data, state.samples)
            )
        layers = change.state.need_layers()
        self._network.match(change, told.adapters)
        own = dict(loaded.model.named_parameters())
        change.journal.tensors(own[name] for name in found.part("adapter"))
        check_sizes_of(own, found.part("adapter"), adapters.tensor_names(told.adapters))
        with torch.no_grad():
            for name, tensor in found.part("adapter").items():
                own[name].copy_(tensor)
        adapted = set(told.adapted)
        frozen = [i in layers.body and i not in adapted for i in range(len(layers))]
        self._network.set_frozen(change, frozen, adapted)
        notes = (*change.state.need_model().notes, f"{LOADED} {shown}")
        change.set_loaded(notes=tuple(dict.fromkeys(notes)))
        which = change.state.need_layers().describe(adapted)
        return Lines(
            f"adapted {which} as in {shown}, the same body by its sha256; {change.state.layer_table.summary}"
        )

    # ---------------------------------------------------------------- back from a file

    def find(self, path: str | None, files: autosave.Autosave) -> tuple[Path, Checkpoint]:
        """The checkpoint that is meant.

        Args:
            path: of the file; None for the last autosave.
            files: the autosave of this session.

        Raises:
            CheckpointError: there is none, or it is not sound.
        """
        if path is not None:
            place = path_of(path, CheckpointError)
            place = place if place.suffix or place.exists() else place.with_name(place.name + SUFFIX)
            found = checkpoint.read(place)
            if found.about.get("kind") == checkpoint.ADAPTER:
                raise CheckpointError(
                    f"{printable(str(place))} holds adapters alone; %tl_adapt --file puts them on"
                )
            return place, found
        return autosave.last_good(files.folder, mine=files.name, notebook=notebook(), log=self._tools.log)

    def resume(self, change: Change, found: Checkpoint) -> list[str]:
        """Take a checkpoint over; what to say of it.

        Raises:
            CheckpointError: it cannot be used here, and why.
        """
        before = change.state
        snapshot = from_checkpoint(found, before.loaded)
        foreign = not origin.is_ours(found.about)
        if foreign:
            snapshot = _without_sources(snapshot, before)
        self._take_over(change, snapshot, found)
        change.set(foreign=foreign)
        lines = [*self._read_again(snapshot, before, foreign), *_other_tasks(change.state)]
        plan = change.state.plan
        if plan is not None:
            lines.append(f"{left_of(plan)}; %tl_train --continue goes on")
            if change.state.old.network is None and any(stage.keep for stage in plan.stages):
                lines.append("keep: the file does not hold the network of before training; it cannot go on")
        return lines

    def _take_over(self, change: Change, snapshot: SessionSnapshot, found: Checkpoint) -> None:
        before, loaded = change.state, snapshot.loaded
        tasks = {task.name: task for task in snapshot.tasks}
        if before.loaded is not None and before.loaded.model is loaded.model:
            # Only a module of the user's is filled where it stands; any other is a new one.
            change.journal.tensors(tensors_of(loaded.model).values())
            change.journal.adapters(loaded.model)
        for place, module in head_places(loaded, tasks[snapshot.task]).items():
            change.journal.module(loaded.model, place)
            heads.replace(loaded.model, place, module)
        try:
            adapters.match(loaded.model, snapshot.adapters)
        except (AttributeError, KeyError):
            raise CheckpointError(f"the checkpoint adapts weights that {loaded.name} does not have") from None
        check_fit(loaded.model, found.part("model"), loaded.name)
        fill(loaded.model, found.part("model"))
        loaded.model.to(self._tools.device)
        layers = self._network.find_layers(loaded)
        if layers is not None and len(snapshot.frozen) != len(layers):
            raise CheckpointError(
                f"the checkpoint has {len(snapshot.frozen)} layers, {loaded.name} has {len(layers)} here"
            )
        came_with = tasks[snapshot.came_with].head if snapshot.came_with else None
        change.state = SessionState(
            loaded=loaded, tasks=tasks, task=snapshot.task, came_with=came_with, strict=True,
            stages=tuple(snapshot.history), moments=snapshot.moments, step=before.step,
            looks=all_looks(before.looks, snapshot.looks), marks={**before.marks, **snapshot.marks},
            network_number=before.network_number + 1, revision=before.revision + 1,
        )  # fmt: skip
        if layers is not None:
            _check_plan(snapshot.pending, len(layers))
            self._network.accept_layers(change, layers, snapshot.frozen, snapshot.adapted)
        for hook in self._hooks:
            hook.set_state(change, snapshot)
        change.set(plan=_as_left(snapshot.pending))

    def _read_again(self, snapshot: SessionSnapshot, before: SessionState, foreign: bool) -> Iterable[str]:
        """Read the data again, or keep the object that is named; what to say where neither can be done."""
        if not snapshot.data:
            return
        again = "name it again (%tl_data), with as many classes: the head stays, and training can go on"
        held = before.data
        same = held is not None and held.classes == snapshot.classes
        if snapshot.asked is None and not same:
            if foreign:
                yield f"it was saved elsewhere, so its data {snapshot.data} is not read unasked; {again}"
            else:
                yield f"its data was an object, {snapshot.data}; {again}"
            return
        try:
            with self._store.change() as change:
                if snapshot.asked is None:
                    assert held is not None
                    fresh = mended(held, change.state.marks.get(held.name, ()))
                else:
                    marks = change.state.marks.get(snapshot.data, ())
                    fresh = self._heads.load_again(snapshot.data, snapshot.asked, snapshot.classes, marks)
                looked_before(change.state, fresh)
                self._heads.fit_data(change, fresh)
                change.set(data=fresh)
        except TlnbError as error:
            if snapshot.asked is None:
                yield f"its data was an object; what is named here does not fit ({error}); {again}"
            else:
                yield f"its data {snapshot.data} is not there any more ({error}); {again}"
            return
        if snapshot.asked is not None:
            yield f"data {fresh.name} is read again"
        if fresh.mending is not None:
            yield fresh.notes[-1]
        if snapshot.fingerprint and self._store.now.data_fingerprint != snapshot.fingerprint:
            yield "the samples are not those of then; a stage under way goes on from the start of its epoch"


def check_sizes_of(own: Mapping[str, Tensor], saved: Mapping[str, Tensor], names: Collection[str]) -> None:
    """See that the tensors of a file are those that the network has under these names.

    Raises:
        CheckpointError: they are not.
    """
    if set(saved) != set(names) or any(
        own[n].shape != t.shape or own[n].dtype != t.dtype for n, t in saved.items()
    ):
        raise CheckpointError("the adapter's tensors are not those that its words ask for")


def _without_sources(snapshot: SessionSnapshot, before: SessionState) -> SessionSnapshot:
    """A checkpoint from elsewhere without what would be read by its word: paths, and downloads.

    What ships with tlnb stays, and the data that this session has named by itself.
    """
    mine = before.data.asked if before.data is not None else None

    def allowed(asked: dict[str, Any] | None) -> dict[str, Any] | None:
        return asked if asked is not None and (asked["source"] in SOURCES or asked == mine) else None

    return replace(
        snapshot,
        asked=allowed(snapshot.asked),
        tasks=[replace(task, asked=allowed(task.asked)) for task in snapshot.tasks],
        old_source=snapshot.old_source if snapshot.old_source in SOURCES else None,
    )


def age_of(path: Path) -> float:
    """Seconds since a file was written."""
    return max(time.time() - autosave.modified(path), 0.0)


def left_of(plan: PlanProgress | None) -> str:
    """Where a plan stands, in words."""
    if plan is None:
        return ""
    at = f"stage {plan.first}/{plan.count}"
    left = plan.result.left if plan.result is not None else None
    if left is None:
        return f"{at} has not begun"
    done = f", {left.done} batches into the next" if left.done else ""
    return f"{at} stands after epoch {left.epoch} of {plan.stages[0].epochs}{done}"


def _as_left(plan: PlanProgress | None) -> PlanProgress | None:
    """A plan whose stage under way was cut off: it counts as one that was stopped, unless all of it was trained."""
    if plan is None or plan.result is None:
        return plan
    if plan.result.left is None and len(plan.result.records) >= plan.stages[0].epochs:
        return replace(plan, result=replace(plan.result, stopped=False))
    result = replace(plan.result, stopped=True, note=plan.result.note or "interrupted")
    return replace(plan, result=result)


def _other_tasks(state: SessionState) -> Iterable[str]:
    """What to say of the tasks whose heads are not on the network."""
    others = [task for task in state.tasks.values() if task.name != state.task and task.source]
    if others:
        names = ", ".join(task.name for task in others)
        yield f"other tasks: {names}; %tl_head --task NAME puts the head back and reads its data again"


def _check_plan(plan: PlanProgress | None, layers: int) -> None:
    for stage in plan.stages if plan is not None else ():
        if not all(index < layers for index in stage.frozen) or len(set(stage.frozen)) >= layers:
            raise CheckpointError("the checkpoint's plan names layers that the network does not have")


def _keeps_kind(place: Path, kind: str | None, what: str) -> None:
    """Adapters never take the place of a whole session, nor the other way round.

    Raises:
        CheckpointError: a file of the other kind stands there.
    """
    try:
        there = checkpoint.read_about(place).get("kind")
    except CheckpointError:  # none there, damaged, or of a version that is not known: nothing to lose
        return
    if there != kind:
        other = "a whole session" if there is None else "adapters alone"
        raise CheckpointError(
            f"{printable(str(place))} holds {other}, and this would be {what}; take another name"
        )


def _target(path: object) -> Path:
    """The file to write to.

    Raises:
        CheckpointError: something else than a checkpoint stands there.
    """
    place = file_to_write(path, "%tl_save birds", CheckpointError)
    if not place.suffix:
        place = place.with_name(place.name + SUFFIX)
    if place.exists() and not (place.is_file() and checkpoint.is_checkpoint(place)):
        raise CheckpointError(
            f"{printable(str(place))} is there and is no checkpoint of tlnb; take another name"
        )
    return place
