"""How each stage was set up, in plain values: enough to do it again."""

from __future__ import annotations

import inspect
import textwrap
from typing import Any

import torch
from torch import Tensor, nn

from tlnb.engine.data.augment import describe
from tlnb.engine.features import precision, prefix
from tlnb.engine.features.fold import FastPart
from tlnb.engine.features.route import ChannelsLast
from tlnb.engine.network.head import outputs_of
from tlnb.engine.saving.checkpoint_network import tensors_of
from tlnb.engine.saving.pending import Pending
from tlnb.engine.training.history import History, StageResult
from tlnb.engine.training.trainer import StageTrainer
from tlnb.session.saving import Saving

LASTING = ("asked", "fingerprint", "batch", "step")
"""What must not change between the beginning of a stage and its end, for a script to tell it."""


class Recipes(Saving):
    """Notes at each stage what a script needs to know of it."""

    _before: float | None = None
    _start: tuple[History, dict[str, Tensor]] | None = None

    def _stage_begins(self, trainer: StageTrainer) -> None:
        super()._stage_begins(trainer)
        self._before = _mark(trainer.model)
        known = self._start is not None and self._start[0] is self._history
        if not self._history.stages and not known and self._needs_start():
            state = tensors_of(trainer.model)
            copies = {
                name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in state.items()
            }
            self._start = self._history, copies

    def _needs_start(self) -> bool:
        """Whether the weights of the start cannot be had again by loading the network once more."""
        loaded = self._need_model()
        return loaded.own or _kept_some(loaded.notes)

    def _close_stage(self, plan: Pending, trainer: StageTrainer, ended: bool) -> None:
        result = plan.result
        if result is not None:
            earlier = result.setup  # of the same stage, where it was left and gone on with
            result.setup = self._setup(plan, trainer, result)
            if earlier:
                result.setup["before"] = earlier["before"]
                changed = any(earlier[key] != result.setup[key] for key in LASTING)
                result.setup["unknown"] = earlier["unknown"] or result.setup["unknown"]
                if changed:
                    result.setup["unknown"] = "what was changed while the stage was under way"
        self._before = None
        super()._close_stage(plan, trainer, ended)

    def _setup(self, plan: Pending, trainer: StageTrainer, result: StageResult) -> dict[str, Any]:
        loaded, source, stage = self._need_model(), self._need_data(), trainer.stage
        came = self._came_with
        task = self._tasks[self._task]
        auto = stage.precision == "auto" and precision.fast_bfloat16(self.device)
        step = getattr(trainer._step, "source", None) or _unless_usual(trainer)
        short = trainer.route.forward is not trainer.model
        return {
            "before": self._before,
            "after": _mark(trainer.model),
            "asked": [stage.epochs, stage.lr, stage.patience],
            "fingerprint": self._data_print(),
            "network": {
                "name": loaded.name,
                "weights": loaded.weights,
                "outputs": outputs_of(came) if came is not None else None,
                "layers_from": _kept_some(loaded.notes),
            },
            "data": source.asked or {"source": None, "name": source.name},
            "head": None if task.head is came else {"seed": source.seed, "outputs": len(source.classes)},
            "batch": trainer.batch,
            "seed": source.seed,
            "bn": plan.bn,
            "micro": trainer.micro,
            "step": step,
            "unknown": _unknown(plan, trainer, step),
            "bfloat16": stage.precision == "bf16" or auto,
            "augment": stage.augment or describe(source.augment),
            "epochs": _epochs(plan, result),
            "cut": prefix.cut_for(trainer.layers, stage.frozen) if short else 0,
            "dtype": _dtype(trainer.route.train),
            "channels_last": _channels_last(trainer),
            "device": str(self.device),
            "threads": torch.get_num_threads(),
        }


def _unknown(plan: Pending, trainer: StageTrainer, step: str | None) -> str:
    """What a script could not tell of this stage, in words; empty where it can tell all."""
    if not step and trainer._step != trainer._usual_step:
        return "a step whose source is not known"
    return "a beginning with the optimizer's moments of the stage before" if plan.with_moments else ""


@torch.no_grad()
def _mark(model: nn.Module) -> float:
    """A number that changes when a weight does; quicker than a digest, and enough to see a change by hand."""
    return float(sum(tensor.double().abs().sum() for tensor in model.parameters()))


def _kept_some(notes: tuple[str, ...]) -> bool:
    return any(note.startswith("kept: ") for note in notes)


def _unless_usual(trainer: StageTrainer) -> str | None:
    """The source of a step that was given as a function."""
    if trainer._step == trainer._usual_step:
        return None
    try:
        source = textwrap.dedent(inspect.getsource(trainer._step))
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
