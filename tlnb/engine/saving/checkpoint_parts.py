"""History, stages, curves and places in a stage as plain values and tensors, and the way back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields

import torch
from torch import Tensor

from tlnb.engine.rates.lr_curve import LRCurve
from tlnb.engine.saving.plain import Plain, flag, number, optional, text, whole, wholes
from tlnb.engine.saving.setup_parts import setup_from
from tlnb.engine.training.history import EpochRecord, StageResult
from tlnb.engine.training.progress_state import Progress
from tlnb.engine.training.stage import FIT, KEYS, TRAIN, Stage, read_key

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
    return Stage(text(plain["text"]), wholes(plain["frozen"]), asked=asked, kind=kind, **settings)


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
    )
    tensors = {f"random.{name}": state for name, state in progress.random.items()}
    tensors |= {f"best.{name}": tensor for name, tensor in progress.best.items()}
    tensors |= {f"start.{name}": tensor for name, tensor in progress.start.items()}
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
        optimizer=optimizer_from(tensors), random=_below(tensors, "random"),
    )  # fmt: skip
    if not math.isfinite(progress.rate) or progress.rate < 0:  # 0 where a head was fitted
        raise ValueError(f"{progress.rate!r} is no learning rate")
    return progress


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
