"""A whole session as a checkpoint, and what a checkpoint says of a session."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from tlnb.engine.checkpoint import origin
from tlnb.engine.checkpoint.file import Checkpoint, reason_of
from tlnb.engine.checkpoint.network import (  # fmt: skip
    OldParts,
    check_fit,
    filled_head,
    head_to,
    network_from,
    network_to,
    old_from,
    old_to,
    tensors_of,
)
from tlnb.engine.checkpoint.schema import (  # fmt: skip
    BROKEN,
    DataRecord,
    OldNetworkRecord,
    SessionRecord,
    TaskRecord,
    answers_to,
    below,
    optimizer_from,
    optimizer_to,
    point_to,
    session_from,
)
from tlnb.engine.core.structure import Plain, plain
from tlnb.engine.data.marks import Log
from tlnb.engine.data.sealed import Look
from tlnb.engine.forgetting.old_network import OldNetwork
from tlnb.engine.models.loaded import LoadedModel
from tlnb.engine.network.adapters import tensor_names
from tlnb.engine.training.optim import ByName
from tlnb.engine.training.records import PlanProgress, ResumePoint, StageResult
from tlnb.errors import CheckpointError, TlnbError
from tlnb.session.state import Task
from tlnb.version import __version__


@dataclass
class SessionSnapshot:
    """What a checkpoint holds of a session.

    Attributes:
        loaded: the network; in a file its weights stand apart, until the session takes it over.
        frozen: for each layer, whether it stays fixed.
        adapters: for the name of each weight that has an adapter, the adapter's words.
        adapted: indexes of the layers that are adapted.
        tasks: with their heads.
        task: name of the one whose head is on the network.
        came_with: name of the task whose head came with the weights; empty for none.
        data: name of what it learns from; empty for none.
        asked: the arguments by which the data can be read again; None where it was an object.
        classes: of the data.
        fingerprint: of the training samples; empty where it is not known.
        history: the stages that ended.
        old_scores: on the old task after a stage, by the stage's number.
        pending: what is left of the plan.
        moments: the optimizer's state after the last stage.
        old_source: by which data of the old task can be read again; None where it cannot, or was not named.
        importance: what ``keep ewc`` found out, and on which data; None where it was not asked.
        looks: how often each test part was measured, by its digest.
        old_network: the network of before training, or what a file says of it; None where nothing was trained.
        marks: what was decided about samples, by the name of their data.
    """

    loaded: LoadedModel
    frozen: tuple[bool, ...]
    tasks: list[Task]
    task: str
    came_with: str
    data: str
    asked: Plain | None
    classes: tuple[str, ...]
    fingerprint: str
    history: Sequence[StageResult]
    pending: PlanProgress | None
    moments: ByName
    old_scores: Mapping[int, float]
    old_source: str | None = None
    importance: tuple[str, dict[str, Tensor]] | None = None
    old_network: OldNetwork | OldParts | None = None
    looks: Mapping[str, tuple[Look, ...]] = field(default_factory=dict)
    adapters: Mapping[str, str] = field(default_factory=dict)
    adapted: tuple[int, ...] = ()
    marks: Mapping[str, Log] = field(default_factory=dict)


def notebook() -> str:
    """What the kernel knows of the notebook that it runs: its path in Jupyter; empty elsewhere."""
    return os.environ.get("JPY_SESSION_NAME", "")


def to_checkpoint(parts: SessionSnapshot, progress: ResumePoint | None) -> Checkpoint:
    """A session as it is now.

    Args:
        parts: of the session.
        progress: where the first stage of ``parts.pending`` stands.
    """
    old, plan = parts.old_network, parts.pending
    if plan is not None and plan.result is not None:
        plan = replace(plan, result=replace(plan.result, left=progress))
    before, old_tensors = old_to(old, parts.loaded) if isinstance(old, OldNetwork) else (None, {})
    weighed_by, importance = parts.importance or (None, {})
    record = SessionRecord(
        tlnb=__version__, torch=torch.__version__, saved=time.time(), notebook=notebook(),
        model=network_to(parts.loaded), frozen=parts.frozen, tasks=tuple(map(_task_to, parts.tasks)), task=parts.task,
        came_with=parts.came_with,
        data=DataRecord(parts.data, parts.asked, parts.classes, parts.fingerprint) if parts.data else None,
        history=list(parts.history), pending=plan, old=dict(parts.old_scores), old_network=before,
        old_source=parts.old_source, importance=weighed_by, looks=dict(parts.looks), adapters=dict(parts.adapters),
        adapted=parts.adapted, marked=dict(parts.marks),
    )  # fmt: skip
    about = plain(record)
    tensors = {f"model.{name}": t for name, t in tensors_of(parts.loaded.model).items()}
    for i, task in enumerate(parts.tasks):
        for j, module in enumerate((task.head, *task.side_heads.values())):
            tensors |= {f"head.{i}.{j}.{name}": t for name, t in tensors_of(module).items()}
    tensors |= {f"place.{name}": t for name, t in point_to(progress).items()}
    if progress is None:  # a stage under way has moments of its own, and those before it are of no more use
        tensors |= {f"moments.{name}": t for name, t in optimizer_to(parts.moments).items()}
    tensors |= {f"old.{name}": t for name, t in old_tensors.items()}
    tensors |= {f"importance.{name}": t for name, t in importance.items()}
    return Checkpoint(about | {"origin": origin.sign(about)}, tensors | answers_to(parts.history))


def _task_to(task: Task) -> TaskRecord:
    sides = {place: head_to(module) for place, module in task.side_heads.items()}
    return TaskRecord(task.name, task.classes, head_to(task.head), sides, *task.learned_from)


def from_checkpoint(checkpoint: Checkpoint, own: LoadedModel | None) -> SessionSnapshot:
    """What a checkpoint says; nothing of the session has changed by it, nor of a module of the user's.

    Args:
        checkpoint: from a file, so anything may stand in it.
        own: the network that the session has.

    Raises:
        CheckpointError: it cannot be used here, and why.
    """
    try:
        return _parts(checkpoint, own)
    except TlnbError as error:
        raise CheckpointError(str(error)) from None
    except BROKEN as error:
        raise CheckpointError(f"the checkpoint is damaged: {reason_of(error)}") from None


def _parts(checkpoint: Checkpoint, own: LoadedModel | None) -> SessionSnapshot:
    record = session_from(checkpoint)
    loaded = network_from(record.model, own, checkpoint.part("model"))
    data = record.data or DataRecord("", None, (), "")
    importance = record.importance
    return SessionSnapshot(
        loaded, record.frozen,
        [_task_from(task, checkpoint.part(f"head.{i}"), loaded) for i, task in enumerate(record.tasks)],
        record.task, record.came_with, data.name, data.asked, data.classes, data.fingerprint, record.history,
        record.pending, optimizer_from(checkpoint.part("moments")), record.old, record.old_source,
        None if importance is None else (importance, checkpoint.part("importance")),
        None if record.old_network is None else _old_from(record.old_network, record.adapters, checkpoint, loaded),
        record.looks, record.adapters, record.adapted, record.marked,
    )  # fmt: skip


def _old_from(
    record: OldNetworkRecord, adapters: Mapping[str, str], checkpoint: Checkpoint, loaded: LoadedModel
) -> OldParts:
    added = tensor_names(adapters)
    now = {name: tensor for name, tensor in checkpoint.part("model").items() if name not in added}
    return old_from(
        record, checkpoint.part("old"), now, loaded,
        lambda form, saved, place: _head_from(form, saved, loaded, place),
    )  # fmt: skip


def _task_from(record: TaskRecord, saved: dict[str, Tensor], loaded: LoadedModel) -> Task:
    forms = [(loaded.head, record.head), *record.side_heads.items()]
    head, *sides = [
        _head_from(form, below(saved, str(i)), loaded, place) for i, (place, form) in enumerate(forms)
    ]
    places = dict(zip(record.side_heads, sides, strict=True))
    return Task(record.name, head, places, record.classes, source=record.data, asked=record.asked)


def _head_from(form: Any, saved: Mapping[str, Tensor], loaded: LoadedModel, place: str) -> nn.Module:
    if form is not None:
        return filled_head(form, saved, f"the head {place}")
    module = loaded.model.get_submodule(place) if place else nn.Identity()
    check_fit(module, saved, f"the head {place}")
    return module


def head_places(loaded: LoadedModel, task: Task) -> dict[str, nn.Module]:
    """The modules of a task, by the place in the network where each belongs."""
    return ({loaded.head: task.head} if loaded.head else {}) | dict(task.side_heads)
