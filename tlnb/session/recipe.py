"""How each stage was set up, in plain values: enough to do it again."""

from __future__ import annotations

import copy
import inspect
import textwrap
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tlnb.engine.data.augment import NONE, describe
from tlnb.engine.data.dataset import Data
from tlnb.engine.data.samples import Samples
from tlnb.engine.export.script.heads import layer_code
from tlnb.engine.export.script.network import rows_of
from tlnb.engine.features import precision, prefix
from tlnb.engine.features.fold import FastPart
from tlnb.engine.features.routes import ChannelsLast
from tlnb.engine.network import head as heads
from tlnb.engine.network.head import outputs_of
from tlnb.engine.saving.checkpoint_network import tensors_of
from tlnb.engine.saving.pending import Pending
from tlnb.engine.training.history import EpochRecord, History, Run, StageResult
from tlnb.engine.training.order import seed_for
from tlnb.engine.training.stage import FIT
from tlnb.engine.training.trainer import StageTrainer, Step
from tlnb.session.measuring import Measuring
from tlnb.session.saving import Saving

LASTING = ("asked", "batch", "step", "augment")
"""What must not change between the beginning of a stage and its end, for a script to tell it."""

Marks = tuple[float, float]
"""Of the weights of the body and of the head: numbers that change when a weight does."""


class Recipes(Measuring, Saving):
    """Notes at each stage what a script needs to know of it."""

    _begun: tuple[Marks, float | None, str, bool] | None = None
    _start: tuple[History, dict[str, Tensor]] | None = None
    _objects: tuple[History, dict[str, tuple[Data, tuple[Samples, Samples]]]] | None = None

    def _stage_begins(self, trainer: StageTrainer) -> None:
        super()._stage_begins(trainer)
        marks, drawn, first = self._marks_now(), self._head_is_new(), not self._history.stages
        whole = self._weights_are_own() or (first and not drawn)
        self._begun = marks, self._blended_since(marks[0]), drawn, whole
        known = self._start is not None and self._start[0] is self._history
        if first and whole and not known:
            state = tensors_of(trainer.model)
            copies = {
                name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in state.items()
            }
            self._start = self._history, copies

    def _score_before(self) -> EpochRecord | None:
        last = self._history.stages[-1] if self._history.stages else None
        if last is None or "marks" not in last.setup or last.setup["data"][-1]["print"] != self._data_print():
            return None
        same = [last.setup["marks"][part][1] for part in ("body", "head")] == list(self._marks_now())
        return last.final if same else None

    def _weights_are_own(self) -> bool:
        """Whether the weights of the start cannot be had again by loading the network once more."""
        loaded = self._need_model()
        return loaded.own or _kept_some(loaded.notes)

    def _close_stage(self, plan: Pending, trainer: StageTrainer, ended: bool) -> None:
        result = plan.result
        if result is not None:
            earlier = result.setup  # of the same stage, where it was left and gone on with
            result.setup = self._setup(plan, trainer, result)
            self._tell_data(result, earlier.get("data", []), trainer, ended)
            if earlier:
                _join(result.setup, earlier)
            self._keep_object()
        self._begun = None
        super()._close_stage(plan, trainer, ended)

    def go_on(self, **keys: Any) -> Run:
        """See ``Saving.go_on``."""
        plan = self._paused
        result = plan.result if plan is not None else None
        if plan is not None and result is not None and not result.setup and plan.data != self._data_print():
            result.setup = {"unknown": "other data, named after the kernel died in the middle of it,"}
        return super().go_on(**keys)

    def _setup(self, plan: Pending, trainer: StageTrainer, result: StageResult) -> dict[str, Any]:
        loaded, source, stage = self._need_model(), self._need_data(), trainer.stage
        came = self._came_with
        auto = stage.precision == "auto" and precision.fast_bfloat16(self.device)
        step = source_of(self._step)
        short = trainer.route.forward is not trainer.model
        before, blend, drawn, whole = self._begun or ((None, None), None, "zero", self._weights_are_own())
        after = self._marks_now()
        return {
            "marks": {"body": [before[0], after[0]], "head": [before[1], after[1]]},
            "blend": blend,
            "whole": whole,
            "asked": [stage.epochs, stage.lr, stage.patience],
            "network": {
                "name": loaded.name,
                "weights": loaded.weights,
                "outputs": outputs_of(came) if came is not None else None,
                "layers_from": _kept_some(loaded.notes),
            },
            "layers": rows_of(loaded.model, self._need_layers()),
            "head": self._head_told(drawn),
            "batch": trainer.batch,
            "bn": trainer.bn,
            "kind": stage.kind,
            "cache": plan.cache,
            "keep_best": plan.keep_best,
            "micro": trainer.micro,
            "step": step,
            "moments": plan.with_moments,
            "unknown": _unknown(trainer, step),
            "bfloat16": stage.precision == "bf16" or auto,
            "augment": stage.augment or (NONE if stage.kind == FIT else describe(source.augment)),
            "epochs": _epochs(plan, result),
            "cut": prefix.cut_for(trainer.layers, stage.frozen) if short else 0,
            "dtype": _dtype(trainer.route.train),
            "channels_last": _channels_last(trainer),
            "device": str(self.device),
            "threads": torch.get_num_threads(),
        }

    # ---------------------------------------------------------------- the head

    def _head_told(self, drawn: str) -> dict[str, Any] | None:
        """The head as code; None for the one that came with the weights."""
        task, source = self._tasks[self._task], self._need_data()
        if task.head is self._came_with:
            return None
        modules = (task.head, *task.side_heads.values())
        return {
            "task": task.name, "seed": source.seed, "drawn": bool(drawn), "init": drawn or "zero",
            "outputs": len(source.classes),
            "code": [layer_code(module) for module in modules],
        }  # fmt: skip

    def _head_is_new(self) -> str:
        """How a new head starts that has these very weights, or came with the network; empty where none does."""
        task = self._tasks[self._task]
        if task.head is self._came_with:
            return "zero"
        modules = [m for m in (task.head, *task.side_heads.values()) if list(m.parameters())]
        return next((init for init in ("zero", "he") if self._starts_so(modules, init)), "")

    def _head_learned_nothing(self) -> bool:
        return self._head() is not self._came_with and bool(self._head_is_new())

    def _starts_so(self, modules: Iterable[nn.Module], init: str) -> bool:
        generator = torch.Generator().manual_seed(seed_for(self._need_data().seed, 0))
        for module in modules:
            fresh = copy.deepcopy(module).cpu()
            heads.start(fresh, generator, init)
            pairs = zip(fresh.parameters(), module.parameters(), strict=True)
            if not all(torch.equal(a, b.cpu()) for a, b in pairs):
                return False
        return True

    # ---------------------------------------------------------------- what has changed

    def _marks_now(self) -> Marks:
        """Quicker than a digest, and enough to see a change by hand."""
        loaded = self._need_model()
        places = loaded.places
        body: list[Tensor] = []
        head: list[Tensor] = []
        for name, parameter in loaded.model.named_parameters():
            (head if any(name.startswith(f"{p}.") for p in places) else body).append(parameter)
        return _mark(body), _mark(head)

    def _blended_since(self, body: float) -> float | None:
        """How much of the new the body holds, where a blend alone has changed it since the last stage."""
        last = self._history.stages[-1] if self._history.stages else None
        if self._ends is None or last is None or "marks" not in last.setup:
            return None
        places = {name for name, _ in self._need_model().model.named_parameters()}
        new, held = (_mark([t for name, t in state.items() if name in places]) for state in self._ends)
        after = last.setup["marks"]["body"][1]
        return self._blend_at if new == after and held == body and body != after else None

    # ---------------------------------------------------------------- the data

    def _tell_data(
        self, result: StageResult, earlier: list[dict[str, Any]], trainer: StageTrainer, ended: bool
    ) -> None:
        """Note which epochs the stage learned from which data."""
        source, epochs = self._need_data(), result.setup["epochs"]
        asked = source.asked or {"source": None, "name": source.name, "balance": source.balance}
        stands = [epochs, 0] if ended or result.diverged else [trainer.epoch, trainer.done]
        now = {"asked": asked, "print": self._data_print(), "seed": source.seed}
        same = bool(earlier) and {key: earlier[-1][key] for key in now} == now
        result.setup["data"] = [*(earlier[:-1] if same else earlier), {**now, "until": stands}]
        if len(result.setup["data"]) > 1 and epochs != len(result.records):
            result.setup["unknown"] = "an epoch that was put back, after other data was named,"

    def _keep_object(self) -> None:
        """Data that was an object cannot be read again, so it is held."""
        if self._objects is None or self._objects[0] is not self._history:
            self._objects = self._history, {}
        if self._need_data().asked is None and self._samples is not None:
            self._objects[1][self._data_print()] = self._need_data(), self._samples


def _join(setup: dict[str, Any], earlier: dict[str, Any]) -> None:
    """A stage that was left and gone on with began where it did, and must have stayed the same."""
    setup["unknown"] = earlier["unknown"] or setup["unknown"]
    if "marks" not in earlier:
        return
    for kind, (before, _) in earlier["marks"].items():
        setup["marks"][kind][0] = before
    for key in ("blend", "whole", "head", "moments"):
        setup[key] = earlier[key]
    if any(earlier[key] != setup[key] for key in LASTING):
        setup["unknown"] = "what was changed while the stage was under way"


def _unknown(trainer: StageTrainer, step: str | None) -> str:
    """What a script could not tell of this stage, in words; empty where it can tell all."""
    if not step and trainer._step != trainer._usual_step:
        return "a step whose source is not known"
    return ""


@torch.no_grad()
def _mark(tensors: Iterable[Tensor]) -> float:
    return float(sum(tensor.double().abs().sum() for tensor in tensors))


def _kept_some(notes: tuple[str, ...]) -> bool:
    return any(note.startswith("kept: ") for note in notes)


def source_of(step: Step | None) -> str | None:
    """The source of a step of the user's, from a cell or a function; None where it is not known."""
    if step is None:
        return None
    told = getattr(step, "source", None)
    if told:
        return str(told)
    try:
        source = textwrap.dedent(inspect.getsource(step))
    except (OSError, TypeError):
        return None
    return source if source.startswith("def ") else None


def _epochs(plan: Pending, result: StageResult) -> int:
    """After how many epochs the weights are those of now."""
    if plan.keep_best and result.records:
        return min(result.records, key=lambda record: record.valid_loss).epoch
    return len(result.records)


def _channels_last(trainer: StageTrainer) -> bool:
    """Whether images, or features that are images, come with channels last in memory."""
    train = trainer.route.train
    return isinstance(train, ChannelsLast) or bool(getattr(train, "channels_last", False))


def _dtype(samples: object) -> str:
    part, features = getattr(samples, "part", None), getattr(samples, "features", None)
    if isinstance(part, FastPart):
        return str(part.dtype).removeprefix("torch.")
    return str(features.rows.dtype).removeprefix("torch.") if features is not None else "float32"
