"""History, stages, curves and what is left of a plan as plain values and tensors, and the way back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from tlnb.engine.checkpoint.fields import (
    Plain,
    adapter,
    flag,
    number,
    optional,
    setup_from,
    text,
    whole,
    wholes,
)
from tlnb.engine.core.metrics import CLASSES, SCORES
from tlnb.engine.training.lr_curve import LRCurve
from tlnb.engine.training.records import EpochRecord, Measured, Progress, StageResult
from tlnb.engine.training.stage import FIT, FITS, KEYS, TRAIN, Stage, read_key

# ---------------------------------------------------------------- stages and history


def stage_from(plain: Plain) -> Stage:
    """The way back from ``Stage.to_dict``; keys that came later take their usual value."""
    known = {f.name for f in fields(Stage)}
    named = {name: value for name, value in plain.items() if name in known and name in KEYS}
    usual = Stage("", ())
    found = {
        name: getattr(usual, name) if value is None else read_key(name, value)
        for name, value in named.items()
    }
    asked = {name: value for name, value in dict(plain.get("asked", {})).items() if name in KEYS}
    # A file from before these keys: BatchNorm trained, and nothing guarded a stage.
    settings: Plain = {"bn": "train", "guard": False} | found
    kind = plain.get("kind", TRAIN)
    if kind not in (TRAIN, FIT):
        raise ValueError(f"{kind!r} is no kind of stage")
    adapted = tuple((whole(index), adapter(words)) for index, words in plain.get("adapted", []))
    by = plain.get("by", "")
    if by not in ("", *FITS):
        raise ValueError(f"{by!r} is no way to fit a head")
    return Stage(
        text(plain["text"]),
        wholes(plain["frozen"]),
        asked=asked,
        kind=kind,
        adapted=adapted,
        by=by,
        **settings,
    )


def record_from(plain: Plain) -> EpochRecord:
    """The way back from ``EpochRecord.to_dict``."""
    numbers = ("rate", "train_loss", "valid_loss", "accuracy", "seconds")
    values: Plain = {name: number(plain[name]) for name in numbers}
    values |= {name: whole(plain[name], 1) for name in ("stage", "epoch", "epochs")}
    values |= {name: text(plain[name]) for name in ("digest", "metric_name")}
    return EpochRecord(trained=wholes(plain["trained"]), **values)


def curve_to(curve: LRCurve) -> Plain:
    """A curve as plain values."""
    return {f.name: getattr(curve, f.name) for f in fields(LRCurve)}


def curve_from(plain: Plain) -> LRCurve:
    """The way back from ``curve_to``."""
    rates, losses, smoothed = (tuple(map(number, plain[name])) for name in ("rates", "losses", "smoothed"))
    suggestions = {text(k): optional(number, v) for k, v in plain["suggestions"].items()}
    ratios = {text(k): number(v) for k, v in plain["ratios"].items()}
    return LRCurve(rates, losses, smoothed, text(plain["rule"]), suggestions, text(plain["reason"]), ratios)


_TEXTS = ("digest_before", "digest_after", "frozen_names", "note", "shortcut")
_NUMBERS = ("rate", "seconds", "saved", "test_seconds")
_FLAGS = ("stopped", "diverged")


def result_to(result: StageResult) -> Plain:
    """A stage that was run, as plain values."""
    simple = {name: getattr(result, name) for name in ("number", "kept", *_TEXTS, *_NUMBERS, *_FLAGS)}
    return simple | {
        "stage": result.stage.to_dict(),
        "trained": list(result.trained),
        "curve": None if result.curve is None else curve_to(result.curve),
        "records": [record.to_dict() for record in result.records],
        "setup": result.setup,
        "share": result.share,
        "fitted": result.fitted,
        "ending": None if result.ending is None else result.ending.to_dict(),
        "before": None if result.before is None else result.before.to_dict(),
        "measured": None
        if result.measured is None
        else {"of": result.measured.of, "kind": result.measured.kind},
    }


def result_from(plain: Plain) -> StageResult:
    """The way back from ``result_to``."""
    values: Plain = {name: text(plain[name]) for name in _TEXTS}
    values |= {
        name: number(plain.get(name, 0.0) if name == "test_seconds" else plain[name]) for name in _NUMBERS
    }
    values |= {name: flag(plain[name]) for name in _FLAGS}
    return StageResult(
        number=whole(plain["number"], 1),
        stage=stage_from(plain["stage"]),
        trained=wholes(plain["trained"]),
        curve=optional(curve_from, plain["curve"]),
        records=[record_from(record) for record in plain["records"]],
        setup=setup_from(plain.get("setup", {})),
        kept=whole(plain.get("kept", 0)),
        share=number(plain.get("share", 1.0)),
        fitted=text(plain.get("fitted", "")),
        ending=optional(record_from, plain.get("ending")),
        before=optional(record_from, plain.get("before")),
        **values,
    )


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


def answers_from(
    stages: list[StageResult], plain: Sequence[Plain], tensors: Mapping[str, Tensor]
) -> list[StageResult]:
    """The stages with their answers, as far as a file holds them.

    Args:
        stages: as ``result_from`` reads them.
        plain: of which they were read.
        tensors: of the file.

    Raises:
        ValueError: answers that do not fit their samples.
    """
    for place, (stage, about) in enumerate(zip(stages, plain, strict=True)):
        answers, told = tensors.get(f"answers.{place}"), about.get("measured")
        if answers is None or told is None:
            continue
        of, kind = text(told["of"]), text(told["kind"])
        targets, units = tensors[f"measured.{of}.targets"], tensors.get(f"measured.{of}.units")
        if not _fit(kind, answers, targets, units):
            raise ValueError("answers that do not fit their samples")
        stage.with_answers(answers, Measured(of, kind, targets, units))
    return stages


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


def progress_to(progress: Progress) -> tuple[Plain, dict[str, Tensor]]:
    """A place in a stage as plain values and tensors."""
    names = (
        "rate",
        "epoch",
        "done",
        "steps_done",
        "unmeasured",
        "micro",
        "best_loss",
        "waited",
        "best_epoch",
        "averaged",
        "scaler",
    )
    tensors = {f"random.{name}": state for name, state in progress.random.items()}
    tensors |= {f"best.{name}": tensor for name, tensor in progress.best.items()}
    tensors |= {f"start.{name}": tensor for name, tensor in progress.start.items()}
    tensors |= {f"average.{name}": tensor for name, tensor in progress.average.items()}
    tensors |= optimizer_to(progress.optimizer)
    if progress.total is not None:
        tensors["total"] = progress.total
    return {name: getattr(progress, name) for name in names}, tensors


def progress_from(plain: Plain, tensors: Mapping[str, Tensor]) -> Progress:
    """The way back from ``progress_to``."""
    total = tensors.get("total")
    progress = Progress(
        number(plain["rate"]), whole(plain["epoch"]), whole(plain["done"]), whole(plain["steps_done"]),
        None if total is None else total.to(torch.float32).reshape(()),
        optional(number, plain["unmeasured"]), optional(lambda n: whole(n, 1), plain["micro"]),
        number(plain["best_loss"]), whole(plain["waited"]), whole(plain["best_epoch"]),
        best=_below(tensors, "best"), start=_below(tensors, "start"),
        average=_below(tensors, "average"), averaged=whole(plain.get("averaged", 0)),
        optimizer=optimizer_from(tensors), random=_below(tensors, "random"),
        scaler=optional(_scale, plain.get("scaler")),
    )  # fmt: skip
    if not math.isfinite(progress.rate) or progress.rate < 0:  # 0 where a head was fitted
        raise ValueError(f"{progress.rate!r} is no learning rate")
    return progress


def _scale(value: Sequence[object]) -> tuple[float, int]:
    scale, since = value
    if not 0 < number(scale) < math.inf:
        raise ValueError(f"{scale!r} is no scale of a loss")
    return number(scale), whole(since)


def optimizer_to(state: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """An optimizer's state as tensors, each under the kind of moment and the parameter's name."""
    return {f"optimizer.{key}.{name}": t for name, kept in state.items() for key, t in kept.items()}


def optimizer_from(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The way back from ``optimizer_to``."""
    state: dict[str, dict[str, Tensor]] = {}
    for joined, tensor in _below(tensors, "optimizer").items():
        key, _, name = joined.partition(".")
        state.setdefault(name, {})[key] = tensor
    return state


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}


@dataclass(frozen=True)
class Pending:
    """What is left of a plan that is carried out, stage by stage: one stage at least.

    Attributes:
        stages: those that have not ended; the first may be under way.
        first: its place in the plan, from 1.
        count: stages of the plan.
        cache, keep_best: see ``Session.train``.
        result: of the stage under way, ``result.left`` where it stands; None where it has not begun.
        data: fingerprint of the training samples that it was left on; empty where that is not known.
        own_step: whether a step of the user's own trains.
        with_moments: whether its first stage begins with the optimizer's moments of the stage before.
    """

    stages: tuple[Stage, ...]
    first: int
    count: int
    cache: bool = True
    keep_best: bool = False
    result: StageResult | None = None
    data: str = ""
    own_step: bool = False
    with_moments: bool = False

    @classmethod
    def of(cls, stages: Sequence[Stage], cache: bool, keep_best: bool) -> Pending:
        """A plan that begins."""
        return cls(tuple(stages), 1, len(stages), cache, keep_best)

    def after(self) -> Pending | None:
        """What is left when its first stage has ended; None for nothing."""
        if len(self.stages) == 1:
            return None
        return replace(self, stages=self.stages[1:], first=self.first + 1, result=None, with_moments=False)


_SIMPLE = ("first", "count", "cache", "keep_best", "data", "own_step", "with_moments")


def pending_to(pending: Pending, progress: Progress | None) -> tuple[Plain, dict[str, Tensor]]:
    """What is left of a plan as plain values and tensors.

    Args:
        pending: the plan.
        progress: where its first stage stands now.
    """
    place, tensors = (None, {}) if progress is None else progress_to(progress)
    return {name: getattr(pending, name) for name in _SIMPLE} | {
        "stages": [stage.to_dict() for stage in pending.stages],
        "result": None if pending.result is None else result_to(pending.result),
        "progress": place,
    }, tensors


def pending_from(plain: Plain, tensors: Mapping[str, Tensor]) -> Pending | None:
    """The way back from ``pending_to``; None for a plan of which nothing is left."""
    result = optional(result_from, plain["result"])
    if result is not None and plain["progress"] is not None:
        result.left = progress_from(plain["progress"], tensors)
    stages = tuple(stage_from(stage) for stage in plain["stages"])
    if "bn" in plain:  # a file from before it became a key of each stage
        stages = tuple(replace(stage, bn=str(read_key("bn", plain["bn"]))) for stage in stages)
    if not stages:
        return None
    return Pending(
        stages, whole(plain["first"], 1), whole(plain["count"], 1), flag(plain["cache"]),
        flag(plain["keep_best"]), result, text(plain["data"]), flag(plain["own_step"]),
        flag(plain["with_moments"]),
    )  # fmt: skip
