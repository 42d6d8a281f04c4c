"""The test part of the data: measured by one call, and each time is counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from tlnb.engine.checkpoint.network import tensors_of
from tlnb.engine.core.fingerprint import tensors_digest
from tlnb.engine.core.metrics import score_named, shown_beside
from tlnb.engine.core.objectives import Regression
from tlnb.engine.data.dataset import Data
from tlnb.engine.data.sealed import Look, warning
from tlnb.engine.results.bootstrap import interval
from tlnb.engine.results.results import gather
from tlnb.engine.results.scores import scores_over
from tlnb.engine.results.test_result import TestResult
from tlnb.errors import NotReady
from tlnb.session.change import Change
from tlnb.session.state import SessionState
from tlnb.session.tools import OnProgress

USUAL = {"classes": "accuracy", "labels": "ap", "values": "r2"}
"""The score of each kind of data, where none is named."""


def test(
    change: Change, device: torch.device, on_progress: OnProgress, settle: Callable[[], None]
) -> TestResult:
    """Measure the test part; see ``Session.test``. ``settle`` is called before the look is counted."""
    state = change.state
    state.need_ready()
    loaded, data, valid = state.need_model(), state.need_data(), state.need_samples()[1]
    if data.test is None:
        raise NotReady("there is no test part; name the data with one, such as: %tl_data digits --test 0.2")
    preprocess = getattr(valid, "preprocess", loaded.preprocess)
    with data.test.opened() as opened:
        part = opened.samples.subset(torch.arange(len(data.test)))
        if isinstance(data.task, Regression):
            part.targets = data.task.standardised(part.targets)
        prepared = part.prepare(preprocess)
        scores = scores_over(loaded.model, prepared, device, on_progress)
        found = gather(loaded.model, replace(data, valid=part), prepared, device, worst=0, scores=scores)
        score = data.task.score or score_named(USUAL[found.kind], found.kind)
        value = score(found.targets, found.answers)
        look = Look(score.name, value, tensors_digest(sorted(tensors_of(loaded.model).items())))
        settle()
        opened.note(look)
    # Whatever fails from here on, somebody may have seen the number.
    looks = data.test.looks
    change.set(looks={**state.looks, data.test.digest: looks})
    units = None
    if data.units is not None and data.split is not None:
        units = data.units[data.split.test.numpy()]
    also = shown_beside(found.targets, found.kind) if score.name == "accuracy" else None
    beside = score_named(also, found.kind) if also else None
    return TestResult(
        found, score, value, interval(score, found.targets, found.answers, units),
        (beside, beside(found.targets, found.answers)) if beside is not None else None,
        len(looks), warning(looks),
    )  # fmt: skip


def looked_before(state: SessionState, data: Data) -> None:
    """Count the looks that the session had at the same test part."""
    if data.test is None:
        return
    data.test.continued(state.looks.get(data.test.digest, ()))
    held = state.data.test if state.data is not None else None
    if held is not None and held.digest == data.test.digest:
        data.test.continued(held.looks)


def looks_at(data: Data) -> tuple[Look, ...] | None:
    """Each time that the test part was measured; None where there is none."""
    return None if data.test is None else data.test.looks


def all_looks(*known: Mapping[str, tuple[Look, ...]]) -> dict[str, tuple[Look, ...]]:
    """The looks of two sessions at each test part: the longer list where it begins with the other, else both."""
    found: dict[str, tuple[Look, ...]] = {}
    for digest, looks in (pair for each in known for pair in each.items()):
        mine = found.get(digest, ())
        if looks[: len(mine)] == mine:
            found[digest] = looks
        elif mine[: len(looks)] != looks:
            found[digest] = (*looks, *mine)
    return found
