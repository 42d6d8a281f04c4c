"""Runs side by side, and whether they differ by more than luck: out of memory, or out of files of ``%tl_save``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from tlnb.display.tables import printable
from tlnb.engine.checkpoint import file as checkpoint
from tlnb.engine.checkpoint.schema import history_from
from tlnb.engine.core.arguments import others_code, path_of
from tlnb.engine.core.metrics import CLASSES, SCORES, Score, score_named
from tlnb.engine.core.structure import Unfit
from tlnb.engine.results import bootstrap
from tlnb.engine.results.bootstrap import Difference
from tlnb.engine.results.cross_validation import CrossValidation
from tlnb.engine.training.curves import Comparison, Line
from tlnb.engine.training.records import StageResult
from tlnb.errors import CheckpointError, NotReady

BY_CLASS_ALONE = ("accuracy", "balanced", "f1", "kappa", "qwk", "mcc")
"""Scores that ask for nothing but the predicted class."""


def compare(sources: Sequence[object]) -> Comparison | Difference:
    """Runs side by side; each later one is tested against the first.

    Args:
        sources: each a run, a history, a session, or a file that ``%tl_save`` wrote; or two cross-validations of
            the same samples, whose out-of-fold answers are compared.

    Raises:
        NotReady: one of them holds no epoch, or cross-validations of other samples.
        CheckpointError: no such file.
    """
    folds = [source for source in sources if isinstance(source, CrossValidation)]
    if folds and len(folds) == len(sources) == 2:
        return _of_folds(*folds)
    lines = []
    for number, source in enumerate(sources, start=1):
        name, stages = _read(source, number)
        trained = tuple(stage for stage in stages if stage.records)
        if not trained:
            raise NotReady(f"nothing was trained in {name}, so there is nothing to draw")
        lines.append(Line(name, trained))
    tested = [_tested(lines[0], line) for line in lines[1:]]
    return Comparison(
        lines,
        [found if isinstance(found, Difference) else None for found in tested],
        [found if isinstance(found, str) else repr(found) for found in tested],
    )


def _read(source: Any, number: int) -> tuple[str, Sequence[StageResult]]:
    if isinstance(source, str | os.PathLike):
        path = path_of(source, CheckpointError)
        path = path if path.suffix or path.exists() else path.with_suffix(checkpoint.SUFFIX)
        found = checkpoint.read(path)
        try:
            return printable(path.stem), history_from(found)
        except Unfit as error:
            raise CheckpointError(
                f"{printable(path.name)} holds no history that can be read: {error}"
            ) from None
    with others_code(source, NotReady):
        held = getattr(getattr(source, "history", source), "stages", None)
    if not isinstance(held, list):
        raise NotReady(
            f"a {type(source).__name__} holds no run; give what %tl_train answered, or a saved file"
        )
    return f"run {number}", held


# -------------------------------------------------------------------- more than luck?


def _tested(a: Line, b: Line) -> Difference | str:
    """The difference of two runs, or why it is not tested."""
    ends = [line.stages[-1] for line in (a, b)]
    answers = [stage.final.answers if stage.final is not None else None for stage in ends]
    for line, stage, found in zip((a, b), ends, answers, strict=True):
        if found is None or stage.measured is None:
            return (
                f"{line.name} kept no answer for each validation sample (an earlier version saved it, or it was "
                f"resumed in the middle), so the difference of {a.name} and {b.name} is not tested"
            )
    first, second = (stage.measured for stage in ends)
    assert first is not None
    assert second is not None
    assert answers[0] is not None
    assert answers[1] is not None
    if first.of != second.of or first.kind != second.kind:
        return (
            f"{a.name} and {b.name} were measured on other validation samples ({len(first.targets):,} and "
            f"{len(second.targets):,}), so they are not paired and their difference is not tested; name the same "
            "data with the same --seed, --valid and --groups for both"
        )
    score = _score_of(a, b, first.kind, all(found.dim() == 2 for found in answers if found is not None))
    units = first.units if first.units is not None else second.units
    return bootstrap.compare(
        score, first.targets.numpy(), *_alike(answers[0], answers[1]), names=(a.name, b.name),
        units=None if units is None else units.numpy(),
    )  # fmt: skip


def _score_of(a: Line, b: Line, kind: str, probabilities: bool) -> Score:
    """The score that both runs went by; the usual one where they went by others, or by more than is known."""
    names = {line.final.metric_name for line in (a, b)}
    name = names.pop() if len(names) == 1 else ""
    usual = next(iter(SCORES[kind]))
    known = name in SCORES[kind] and (probabilities or kind != CLASSES or name in BY_CLASS_ALONE)
    return score_named(name if known else usual, kind)


def _alike(*answers: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Both as (N, outputs); where one of them is class numbers alone, both as 0 and 1."""
    if all(found.dim() == 2 for found in answers):
        a, b = (found.numpy() for found in answers)
        return a, b
    numbers = [found.argmax(1).numpy() if found.dim() == 2 else found.long().numpy() for found in answers]
    width = max(int(part.max(initial=0)) for part in numbers) + 1
    widths = [found.shape[1] for found in answers if found.dim() == 2]
    a, b = (np.eye(max(width, *widths, 1))[part] for part in numbers)
    return a, b


def _of_folds(a: CrossValidation, b: CrossValidation) -> Difference:
    same = a.kind == b.kind and a.classes == b.classes and np.array_equal(a.positions, b.positions)
    if not same or not np.array_equal(a.targets, b.targets):
        raise NotReady(
            "the two cross-validations are of other samples, so they cannot be paired; run both on the same data"
        )
    there = a.answered & b.answered
    if not there.any():
        raise NotReady("no sample was answered for in both; %tl_cv --continue goes on")
    return bootstrap.compare(
        a.score if a.score == b.score else score_named(next(iter(SCORES[a.kind])), a.kind),
        a.targets[there], a.answers[there], b.answers[there], names=("the first", "the second"),
        units=None if a.units is None else a.units[there],
    )  # fmt: skip
