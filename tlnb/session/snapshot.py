"""A whole session as a checkpoint, and what a checkpoint says of a session."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from tlnb.engine.checkpoint import origin
from tlnb.engine.checkpoint.fields import (
    BROKEN,
    Plain,
    flag,
    number,
    optional,
    text,
    texts,
    whole,
    wholes,
)
from tlnb.engine.checkpoint.fields import adapters as adapters_from
from tlnb.engine.checkpoint.file import Checkpoint
from tlnb.engine.checkpoint.network import (  # fmt: skip
    LARGEST,
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
from tlnb.engine.checkpoint.schema import (
    Pending,
    answers_from,
    answers_to,
    optimizer_from,
    optimizer_to,
    pending_from,
    pending_to,
    result_from,
    result_to,
)
from tlnb.engine.data.marks import ACTS, Log, Mark
from tlnb.engine.data.request import HIDDEN, SourceRequest
from tlnb.engine.data.sealed import Look, from_plain, to_plain
from tlnb.engine.forgetting.old_network import OldNetwork
from tlnb.engine.models.loaded import LoadedModel
from tlnb.engine.network.adapters import tensor_names
from tlnb.engine.training.optim import ByName
from tlnb.engine.training.records import Progress, StageResult
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
    pending: Pending | None
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


def to_checkpoint(parts: SessionSnapshot, progress: Progress | None) -> Checkpoint:
    """A session as it is now.

    Args:
        parts: of the session.
        progress: where the first stage of ``parts.pending`` stands.
    """
    old = parts.old_network
    pending, place = (None, {}) if parts.pending is None else pending_to(parts.pending, progress)
    before, old_tensors = old_to(old, parts.loaded) if isinstance(old, OldNetwork) else (None, {})
    weighed_by, importance = parts.importance or (None, {})
    about = {
        "tlnb": __version__,
        "torch": torch.__version__,
        "saved": time.time(),
        "notebook": notebook(),
        "model": network_to(parts.loaded),
        "frozen": list(parts.frozen),
        "adapters": dict(parts.adapters),
        "adapted": list(parts.adapted),
        "tasks": [_task_to(task) for task in parts.tasks],
        "task": parts.task,
        "came_with": parts.came_with,
        "data": {
            "name": parts.data, "asked": parts.asked, "classes": list(parts.classes),
            "fingerprint": parts.fingerprint,
        } if parts.data else None,
        "history": [result_to(stage) for stage in parts.history],
        "old": {str(stage): score for stage, score in parts.old_scores.items()},
        "pending": pending,
        "old_network": before,
        "old_source": parts.old_source,
        "importance": weighed_by,
        "looks": {digest: to_plain(looks) for digest, looks in parts.looks.items()},
        "marked": {name: [asdict(mark) for mark in log] for name, log in parts.marks.items()},
    }  # fmt: skip
    tensors = {f"model.{name}": t for name, t in tensors_of(parts.loaded.model).items()}
    for i, task in enumerate(parts.tasks):
        for j, module in enumerate((task.head, *task.side_heads.values())):
            tensors |= {f"head.{i}.{j}.{name}": t for name, t in tensors_of(module).items()}
    tensors |= {f"place.{name}": t for name, t in place.items()}
    if progress is None:  # a stage under way has moments of its own, and those before it are of no more use
        tensors |= {f"moments.{name}": t for name, t in optimizer_to(parts.moments).items()}
    tensors |= {f"old.{name}": t for name, t in old_tensors.items()}
    tensors |= {f"importance.{name}": t for name, t in importance.items()}
    return Checkpoint(about | {"origin": origin.sign(about)}, tensors | answers_to(parts.history))


def _task_to(task: Task) -> Plain:
    source, asked = task.learned_from
    return {
        "name": task.name,
        "classes": None if task.classes is None else list(task.classes),
        "head": head_to(task.head),
        "side_heads": {place: head_to(module) for place, module in task.side_heads.items()},
        "data": source,
        "asked": asked,
    }


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
    except (*BROKEN, RecursionError, MemoryError) as error:
        what = type(error).__name__ if isinstance(error, KeyError) else str(error).splitlines()[0][:120]
        raise CheckpointError(f"the checkpoint is damaged: {what or type(error).__name__}") from None


def _parts(checkpoint: Checkpoint, own: LoadedModel | None) -> SessionSnapshot:
    about = checkpoint.about
    loaded = network_from(about["model"], own, checkpoint.part("model"))
    tasks = [
        _task_from(plain, checkpoint.part(f"head.{i}"), loaded) for i, plain in enumerate(about["tasks"])
    ]
    named = {task.name: task for task in tasks}
    data = about["data"] or {"name": "", "asked": None, "classes": [], "fingerprint": ""}
    parts = SessionSnapshot(
        loaded,
        tuple(map(flag, about["frozen"])),
        tasks,
        text(about["task"]),
        text(about["came_with"]),
        text(data["name"]),
        optional(_asked, data["asked"]),
        texts(data["classes"]),
        text(data["fingerprint"]),
        answers_from(
            [result_from(plain) for plain in about["history"]], about["history"], checkpoint.tensors
        ),
        optional(lambda plain: pending_from(plain, checkpoint.part("place")), about["pending"]),
        optimizer_from(checkpoint.part("moments")),
        {int(stage): number(score) for stage, score in about.get("old", {}).items()},
        optional(text, about.get("old_source")),
        optional(lambda of: (text(of), checkpoint.part("importance")), about.get("importance")),
        optional(lambda plain: _old_from(plain, checkpoint, loaded), about.get("old_network")),
        {text(digest): from_plain(looks) for digest, looks in about.get("looks", {}).items()},
        adapters_from(about.get("adapters", {})),
        wholes(about.get("adapted", [])),
        {text(name): tuple(map(_mark_from, log)) for name, log in about.get("marked", {}).items()},
    )
    if parts.task not in named or (parts.came_with and parts.came_with not in named):
        raise ValueError(f"no task {parts.task!r}")
    return parts


def _mark_from(plain: Plain) -> Mark:
    if plain["act"] not in ACTS:
        raise ValueError(f"{plain['act']!r} is no mark")
    words = {name: _as_named(plain[name]) for name in ("label", "given", "name", "content", "why")}
    return Mark(str(plain["act"]), sample=whole(plain["sample"], -1), **words)


def _as_named(value: object) -> str:
    """A word by which something is found again, just as it is; it is made printable where it is shown."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _old_from(plain: Plain, checkpoint: Checkpoint, loaded: LoadedModel) -> OldParts:
    added = tensor_names(adapters_from(checkpoint.about.get("adapters", {})))
    now = {name: tensor for name, tensor in checkpoint.part("model").items() if name not in added}
    return old_from(
        plain, checkpoint.part("old"), now, loaded,
        lambda form, saved, place: _head_from(form, saved, loaded, place),
    )  # fmt: skip


def _task_from(plain: Plain, saved: dict[str, Tensor], loaded: LoadedModel) -> Task:
    places = {text(place): form for place, form in plain["side_heads"].items()}
    built = [_head_from(form, _below(saved, i), loaded, place) for i, (place, form) in
             enumerate(((loaded.head, plain["head"]), *places.items()))]  # fmt: skip
    return Task(
        text(plain["name"]),
        built[0],
        dict(zip(places, built[1:], strict=True)),
        optional(texts, plain["classes"]),
        source=text(plain.get("data", "")),
        asked=optional(_asked, plain.get("asked")),
    )


def _head_from(form: Any, saved: Mapping[str, Tensor], loaded: LoadedModel, place: str) -> nn.Module:
    if form is not None:
        return filled_head(form, saved, f"the head {place}")
    module = loaded.model.get_submodule(place) if place else nn.Identity()
    check_fit(module, saved, f"the head {place}")
    return module


def _below(saved: Mapping[str, Tensor], index: int) -> dict[str, Tensor]:
    start = f"{index}."
    return {name.removeprefix(start): t for name, t in saved.items() if name.startswith(start)}


_ASKED = {
    "source": text, "valid": float, "size": lambda n: whole(n, 1, LARGEST), "batch": lambda n: whole(n, 1, 1 << 31),
    "per_class": lambda n: whole(n, 1), "augment": text, "balance": text, "target": text, "strict": flag,
    "seed": whole,
}  # fmt: skip


_MORE_ASKED = {
    f.name: flag if isinstance(f.default, bool) else (lambda n: whole(n, 1)) if f.name == "length" else text
    for f in fields(SourceRequest)
    if f.name not in (*_ASKED, *HIDDEN)
} | {"window": number, "rate": whole}


def _asked(plain: Plain) -> Plain:
    """The arguments of ``Session.data``, each of its type."""
    known = {name: optional(read, plain[name]) for name, read in _ASKED.items()}
    return known | {name: read(plain[name]) for name, read in _MORE_ASKED.items() if name in plain}


def head_places(loaded: LoadedModel, task: Task) -> dict[str, nn.Module]:
    """The modules of a task, by the place in the network where each belongs."""
    return ({loaded.head: task.head} if loaded.head else {}) | dict(task.side_heads)
