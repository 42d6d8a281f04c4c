"""What a checkpoint says of a session: a tree of dataclasses, of which reader and writer are derived; and its tensors.

Each class here is a table of the file's JSON. What is the same in memory stands there as it is: a stage's result, a
plan, a look at the test part, a mark. Tensors stand beside the JSON, under the names that this file gives them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any

import torch
from torch import Tensor

from tlnb.engine.checkpoint.file import ADAPTER, FORMAT, Checkpoint
from tlnb.engine.core.metrics import CLASSES, SCORES
from tlnb.engine.core.structure import Plain, Unfit, structure, whole
from tlnb.engine.data.marks import Mark
from tlnb.engine.data.request import asked_from
from tlnb.engine.data.sealed import Look
from tlnb.engine.data.tokens import AnyPreprocess
from tlnb.engine.models.loaded import Input
from tlnb.engine.training.records import Measured, PlanProgress, ResumePoint, StageResult
from tlnb.engine.training.stage import KEYS, Stage, read_adapter

LARGEST = 4096  # pixels of a side
BROKEN = (
    KeyError,
    IndexError,
    TypeError,
    ValueError,
    AttributeError,
    OverflowError,
    RuntimeError,
    MemoryError,
)
"""What may be raised where a network or a head is built from what a file says of it."""

Asked = Annotated[dict[str, Any], asked_from]
Adapter = Annotated[str, read_adapter]


@dataclass(frozen=True)
class NetworkRecord:
    """What has to be known to build and use a network again; see ``LoadedModel``.

    Attributes:
        kind: name of its class.
        image_size: side of the pictures that it is built for, in pixels; None where it does not say.
    """

    name: str
    kind: str
    own: bool
    weights: str
    preprocess: AnyPreprocess
    categories: tuple[str, ...] | None
    head: str
    side_heads: tuple[str, ...]
    notes: tuple[str, ...]
    input: Input | None
    any_size: bool
    task: str
    image_size: Annotated[int, whole(1, LARGEST)] | None
    behind: str = ""
    recipe: Any = None


@dataclass(frozen=True)
class TaskRecord:
    """A task.

    Attributes:
        head, side_heads: their forms, see ``head_to``; None for one that only its architecture can build.
        data: name of what it learned from; empty for none.
        asked: the arguments by which that is read again; None where it was an object.
    """

    name: str
    classes: tuple[str, ...] | None
    head: Any
    side_heads: dict[str, Any]
    data: str = ""
    asked: Asked | None = None


@dataclass(frozen=True)
class DataRecord:
    """The data that is named, and the fingerprint of its training samples."""

    name: str
    asked: Asked | None
    classes: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True)
class OldNetworkRecord:
    """The network of before training.

    Attributes:
        name: of the old task.
        heads: the forms of its heads, by place.
        same: names of the tensors that the network still has bit for bit.
    """

    name: str
    heads: dict[str, Any]
    same: tuple[str, ...]


@dataclass(frozen=True)
class SessionRecord:
    """Everything that a checkpoint says beside its tensors; see ``SessionSnapshot``.

    Attributes:
        tlnb, torch, saved, notebook: which versions wrote it, when (seconds since 1970), and in which notebook.
        old: scores on the old task, by the stage's number.
        importance: of which data it holds the importance; None for none.
        marked: what was decided about samples, by the name of their data.
        origin: the signature of what it says of its sources.
    """

    tlnb: str
    torch: str
    saved: float
    notebook: str
    model: NetworkRecord
    frozen: tuple[bool, ...]
    tasks: tuple[TaskRecord, ...]
    task: str
    came_with: str
    data: DataRecord | None
    history: list[StageResult]
    pending: PlanProgress | None
    old: dict[int, float] = field(default_factory=dict)
    old_network: OldNetworkRecord | None = None
    old_source: str | None = None
    importance: str | None = None
    looks: dict[str, tuple[Look, ...]] = field(default_factory=dict)
    adapters: dict[str, Adapter] = field(default_factory=dict)
    adapted: tuple[int, ...] = ()
    marked: dict[str, tuple[Mark, ...]] = field(default_factory=dict)
    origin: str = ""
    format: int = FORMAT

    def check(self) -> None:
        """See that the tasks that are named are there.

        Raises:
            ValueError: one is not.
        """
        named = {task.name for task in self.tasks}
        if self.task not in named or (self.came_with and self.came_with not in named):
            raise ValueError(f"there is no task {self.task!r}")


@dataclass(frozen=True)
class AdapterRecord:
    """What a file of adapters alone says beside its tensors.

    Attributes:
        network: name of the network that was adapted.
        body: digest of its body.
        adapters: for the name of each weight, its adapter's words.
        adapted: indexes of the layers.
        task: that the head is for.
        head: its form; None where the file does not hold it.
    """

    tlnb: str
    network: str
    body: str
    adapters: dict[str, Adapter]
    adapted: tuple[int, ...]
    task: str
    classes: tuple[str, ...] | None
    head: Any
    kind: str = ADAPTER
    format: int = FORMAT


def session_from(checkpoint: Checkpoint) -> SessionRecord:
    """What a checkpoint says of a session, whichever version wrote it, with the tensors of its stages.

    Raises:
        Unfit: something is missing, unknown, of another type or out of range.
    """
    record = structure(SessionRecord, upgraded(checkpoint.about))
    answers_from(record.history, checkpoint.tensors)
    under_way = record.pending.result if record.pending is not None else None
    if under_way is not None and under_way.left is not None:
        under_way.left = point_from(under_way.left, checkpoint.part("place"))
    for stage in record.history:
        stage.left = None  # it ended
    for stage in [*record.history, *([] if under_way is None else [under_way])]:
        if stage.recipe is not None:
            stage.recipe = replace(stage.recipe, from_file=True)
    return record


def history_from(checkpoint: Checkpoint) -> list[StageResult]:
    """The stages of a checkpoint alone, with their answers.

    Raises:
        Unfit: as :func:`session_from`.
    """
    stages = structure(list[StageResult], upgraded(checkpoint.about).get("history"))
    answers_from(stages, checkpoint.tensors)
    return stages


# ---------------------------------------------------------------- files of earlier versions


def upgraded(about: Plain) -> Plain:
    """What a file says, in the words of the present format; values that are no tables stay, to be refused by name."""
    if about.get("format") != 1:
        return about
    return {
        **about, **_with(about, "history", lambda stages: [_table(stage, _stage_1) for stage in stages], list),
        **_with(about, "pending", _plan_1), **_with(about, "model", _network_1), "format": FORMAT,
    }  # fmt: skip


def _with(plain: Plain, name: str, change: Any, kind: type = dict) -> Plain:
    return {name: change(plain[name])} if isinstance(plain.get(name), kind) else {}


def _table(value: Any, change: Any) -> Any:
    return change(value) if isinstance(value, dict) else value


def _network_1(plain: Plain) -> Plain:
    """Format 1 wrote an input as a list, and the kind of a preprocessing into it."""

    def input_1(one: Any) -> Any:
        if not isinstance(one, list) or not 2 <= len(one) <= 3:
            return one
        parts = [[name, input_1(part)] for name, part in one[2]] if len(one) == 3 else []
        return {"shape": one[0], "dtype": one[1], "parts": parts}

    without = _with(plain, "preprocess", lambda values: {k: v for k, v in values.items() if k != "kind"})
    return {**plain, **without, "input": input_1(plain.get("input"))}


def _settings_1(plain: Plain) -> Plain:
    """Before these keys BatchNorm trained and nothing guarded a stage; what was not set might be null."""
    usual = {f.name: f.default for f in fields(Stage)}
    kept = {k: v for k, v in plain.items() if not (v is None and k in KEYS and usual.get(k) is not None)}
    asked = _with(plain, "asked", lambda asked: {k: v for k, v in asked.items() if k in KEYS})
    return {"bn": "train", "guard": False, **kept, **asked}


def _stage_1(plain: Plain) -> Plain:
    """Format 1 had one table for how a stage was set up and for what a script cannot tell of it."""

    def renamed(table: Plain, old: str, new: str) -> Plain:
        return {new if name == old else name: value for name, value in table.items()}

    def used_1(part: Plain) -> Plain:
        return renamed(part, "print", "fingerprint")

    def recipe_1(setup: Plain) -> Plain | None:
        kept = {k: v for k, v in setup.items() if k not in ("unknown", "from_file")}
        data = _with(kept, "data", lambda parts: [_table(part, used_1) for part in parts], list)
        return renamed(kept | data, "marks", "checksums") or None

    setup = plain.get("setup")
    untold = {"untold": setup["unknown"]} if isinstance(setup, dict) and "unknown" in setup else {}
    rest = {name: value for name, value in plain.items() if name != "setup"}
    return {**rest, **_with(plain, "stage", _settings_1), "recipe": _table(setup, recipe_1), **untold}


def _plan_1(plain: Plain) -> Plain | None:
    """Format 1 kept the place in a stage beside the stage, and ``bn`` once for a plan."""
    rest = {name: value for name, value in plain.items() if name not in ("bn", "progress")}
    if plain.get("stages") == []:
        return None
    if isinstance(plain.get("stages"), list):
        shared = {"bn": plain["bn"]} if "bn" in plain else {}
        rest["stages"] = [
            _table(stage, lambda stage: _settings_1(stage) | shared) for stage in plain["stages"]
        ]
    if isinstance(plain.get("result"), dict):
        rest["result"] = _stage_1(plain["result"]) | {"left": plain.get("progress")}
    return rest


# ---------------------------------------------------------------- answers for each validation sample


def answers_to(stages: Sequence[StageResult]) -> dict[str, Tensor]:
    """What the network answered after each stage, and the samples of all of them, each set once."""
    found: dict[str, Tensor] = {}
    for place, stage in enumerate(stages):
        last, on = stage.final, stage.measured
        if last is None or last.answers is None or on is None:
            continue
        found |= {f"answers.{place}": last.answers, f"measured.{on.of}.targets": on.targets}
        if on.units is not None:
            found[f"measured.{on.of}.units"] = on.units
    return found


def answers_from(stages: Iterable[StageResult], tensors: Mapping[str, Tensor]) -> None:
    """Give the stages their answers, as far as a file holds them.

    Args:
        stages: as the file tells them.
        tensors: of the file.

    Raises:
        Unfit: answers that do not fit their samples.
    """
    for place, stage in enumerate(stages):
        answers, on = tensors.get(f"answers.{place}"), stage.measured
        if answers is None or on is None:
            continue
        targets, units = tensors.get(f"measured.{on.of}.targets"), tensors.get(f"measured.{on.of}.units")
        if targets is None or not _fit(on.kind, answers, targets, units):
            raise Unfit("do not fit their samples", f"answers.{place}")
        stage.with_answers(answers, Measured(on.of, on.kind, targets, units))


def _fit(kind: str, answers: Tensor, targets: Tensor, units: Tensor | None) -> bool:
    if kind not in SCORES or not len(targets) or (units is not None and units.shape != targets.shape[:1]):
        return False
    if kind != CLASSES:
        return answers.shape == targets.shape and answers.dim() == 2
    numbers = targets.dim() == 1 and not targets.is_floating_point() and int(targets.min()) >= 0
    if answers.dim() == 1:
        return numbers and not answers.is_floating_point() and answers.shape == targets.shape
    return (
        numbers
        and answers.dim() == 2
        and len(answers) == len(targets)
        and answers.shape[1] > int(targets.max())
    )


# ---------------------------------------------------------------- a place in a stage

_NAMED = ("random", "best", "start", "average")
"""What a resume point keeps of tensors by name."""


def point_to(point: ResumePoint | None) -> dict[str, Tensor]:
    """The tensors of a place in a stage."""
    if point is None:
        return {}
    tensors = {f"{kind}.{name}": t for kind in _NAMED for name, t in getattr(point, kind).items()}
    return tensors | optimizer_to(point.optimizer) | ({} if point.total is None else {"total": point.total})


def point_from(point: ResumePoint, tensors: Mapping[str, Tensor]) -> ResumePoint:
    """The place with its tensors, the way back from ``point_to``."""
    total = tensors.get("total")
    named: Any = {kind: below(tensors, kind) for kind in _NAMED}
    return replace(
        point, total=None if total is None else total.to(torch.float32).reshape(()),
        optimizer=optimizer_from(tensors), **named,
    )  # fmt: skip


def optimizer_to(state: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """An optimizer's state as tensors, each under the kind of moment and the parameter's name."""
    return {f"optimizer.{key}.{name}": t for name, kept in state.items() for key, t in kept.items()}


def optimizer_from(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The way back from ``optimizer_to``."""
    state: dict[str, dict[str, Tensor]] = {}
    for joined, tensor in below(tensors, "optimizer").items():
        key, _, name = joined.partition(".")
        state.setdefault(name, {})[key] = tensor
    return state


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with ``prefix`` and a dot, without it."""
    start = f"{prefix}."
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
