"""What training costs in old knowledge, and blends of the old and the new network."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tlnb.engine.core.arguments import shown
from tlnb.engine.core.modules import set_training
from tlnb.engine.forgetting.blend import GRID, Blend, BlendPoint, blended
from tlnb.engine.forgetting.measure import Forgetting, StageMark, drift
from tlnb.engine.forgetting.old_network import OldNetwork, body_state, figure_with_head, put_body
from tlnb.engine.network.adapters import merged_copy
from tlnb.errors import BadArguments, NotReady
from tlnb.session.change import Change
from tlnb.session.old_task import OldTask, cloned
from tlnb.session.state import SessionState
from tlnb.session.tools import OnProgress, Tools

Body = Mapping[str, Tensor]


def forgetting(
    change: Change, old_task: OldTask, tools: Tools, source: object = None,
    on_progress: OnProgress = lambda done, total: None,
) -> Forgetting:  # fmt: skip
    """What the network still knows of its old task; see ``Session.forgetting``."""
    layers = change.state.need_ready()
    old = old_task.network(change)
    old_task.name_data(change, source)
    state = change.state
    model, known = state.need_model().model, state.old.data
    before = now = None
    marks: tuple[StageMark, ...] = ()
    if known is not None:
        before = old_task.score(state, old.model)
        on_progress(1, 3)
        now = old_task.score(state, model)
        on_progress(2, 3)
        marks = _marks(change, old_task)
    samples = known.samples if known is not None else state.need_samples()[1]
    return Forgetting(
        task=known.name if known else old.name,
        before=before,
        stages=marks,
        now=now,
        metric=known.task.metric if known else "accuracy",
        drift=drift(old.model, model, layers, samples, tools.device),
        source=_measured_on(state),
    )


def _marks(change: Change, old_task: OldTask) -> tuple[StageMark, ...]:
    """The old task after each stage, from the bodies that are kept."""
    state = change.state
    loaded, old = state.need_model(), state.old
    unmeasured = [s.number for s in state.all_stages if s.number not in old.scores and s.number in old.bodies]
    if unmeasured:
        twin, scores = merged_copy(loaded.model), dict(old.scores)
        for number in unmeasured:
            put_body(twin, loaded.head, old.bodies[number])
            scores[number] = old_task.score(state, twin)
        change.set_old(scores=scores)
    found = change.state.old.scores
    return tuple(StageMark(s.number, s.stage.text, found.get(s.number)) for s in state.all_stages)


def _measured_on(state: SessionState) -> str:
    known = state.old.data
    if known is None:
        return f"{state.need_data().name} (validation)"
    return f"{len(known.samples):,} samples of {known.name} that it was not trained on"


def blend(
    change: Change, old_task: OldTask, tools: Tools, a: float | None = None, between: object = None,
    on_progress: OnProgress = lambda done, total: None,
) -> Blend:  # fmt: skip
    """Set the body between what it was before training and what it is after; see ``Session.blend``."""
    if a is not None and (isinstance(a, bool) or not isinstance(a, int | float) or not 0 <= a <= 1):
        raise BadArguments(f"a blend is a number from 0 (old) to 1 (new), not {a!r}")
    state = change.state
    state.need_ready()
    if state.old.network is None or not any(stage.records for stage in state.all_stages):
        raise NotReady("nothing was trained yet, so there is nothing to blend; %tl_train comes first")
    if state.need_layers().adapters:
        raise NotReady(
            "the network is adapted; %tl_merge puts the adapters into the weights, which blend then"
        )
    old_task.name_data(change, None)
    state = change.state
    old, loaded = state.old.network, state.need_model()
    assert old is not None
    model, head = loaded.model, loaded.head
    before = cloned(body_state(model, head))
    new = state.old.ends[0] if state.old.ends is not None and _same(state.old.ends[1], before) else before
    change.journal.modes(model)
    change.journal.note(lambda: put_body(model, head, before))
    set_training(model, False)
    points: list[BlendPoint] = []
    if between is None and a is None and state.old.share == ELSEWHERE and not _same(new, before):
        raise NotReady("the body stands between two stages; %tl_blend 1 takes it back to what training gave")
    first, second = (0, len(state.stages)) if between is None else _two_points(between, len(state.stages))
    start = _body_after(state, first, new, old)
    end = new if between is None else _body_after(state, second, new, old)
    shares = sorted({*GRID, *(() if a is None else (a,))})
    for share in shares:
        on_progress(len(points), len(shares))
        put_body(model, old.head, blended(start, end, share))
        points.append(_point(state, old_task, tools, old, share))
    last: Body = before if a is None else blended(start, end, a)
    put_body(model, head, last)
    usual = between is None or (first, second) == (0, len(state.stages))
    share = state.old.share if a is None else float(a) if usual else ELSEWHERE
    change.set_old(ends=(new, last), share=share)
    if not usual:
        names = (
            f"stage {first}" if first else "before training",
            f"stage {second}" if second else "before training",
        )
        held = 0.0 if a is None else float(a)
        note = f"0 is {names[0]}, 1 is {names[1]}" + ("; nothing has changed" if a is None else "")
        return Blend(held, tuple(points), state.need_data().task.metric, note)
    held = 1.0 if _same(new, last) else share
    return Blend(held, tuple(points), state.need_data().task.metric)


ELSEWHERE = -1.0
"""The share of a body that is not between the networks of before and after training, but between two stages."""


def _two_points(between: object, stages: int) -> tuple[int, int]:
    """Two points of the history: 0 is before training, k after stage k."""
    words = between.split(",") if isinstance(between, str) else between
    parts = words if isinstance(words, list | tuple) else ()
    try:
        first, second = (int(part) if isinstance(part, int | str) else -1 for part in parts)
    except ValueError:
        first = second = -1
    if not (0 <= first <= stages and 0 <= second <= stages) or first == second:
        raise BadArguments(
            f"--between takes two of the points 0 (before training) to {stages}, such as 0,{stages}; "
            f"not {shown(between)}"
        )
    return first, second


def _body_after(state: SessionState, number: int, last: Body, old: OldNetwork) -> Body:
    """The body after a stage, from what is kept of then.

    Args:
        state: of the session.
        number: of the stage; 0 for before training.
        last: the body after the last one.
        old: the network of before training.

    Raises:
        NotReady: nothing is kept of then.
    """
    if number == 0:
        return old.body
    if number == len(state.stages):
        return last
    if number in state.old.bodies:
        return state.old.bodies[number]
    points = [point for point in reversed(state.undo) if point.stages >= number]
    if not points or points[-1].stages != number or any(point.adapters or point.merges for point in points):
        raise NotReady(
            f"the weights after stage {number} are not kept any more; %tl_save after a stage keeps them in a file"
        )
    found = dict(last)
    for point in points:
        found |= {name: tensor for name, tensor in point.weights.items() if name in found}
    return found


def _point(state: SessionState, old_task: OldTask, tools: Tools, old: OldNetwork, share: float) -> BlendPoint:
    """The scores of the body as it is now, on the new task and on the old one."""
    loaded, task = state.need_model(), state.need_data().task
    own = loaded.model.get_submodule(loaded.head)
    valid = state.need_samples()[1]
    new = figure_with_head(loaded.model, loaded.head, own, valid, task, tools.device)
    return BlendPoint(share, new, old_task.score(state, loaded.model) if state.old.data else None)


def _same(a: Body, b: Body) -> bool:
    return a.keys() == b.keys() and all(torch.equal(t, b[name]) for name, t in a.items())
