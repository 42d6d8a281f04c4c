"""How much to transfer: advice from measured figures, and the sweep that tries every depth."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from numbers import Real

from tlnb.engine.advice.advice import Advice, decide, write_plan
from tlnb.engine.advice.figures import SCORED, SEEN, chance_of, measure
from tlnb.engine.advice.pace import MARGIN, Pace, measure_pace, plan_within, seconds_of, show_seconds
from tlnb.engine.advice.sweep import Sweep, SweepPlan
from tlnb.engine.advice.trial import TrialGround
from tlnb.engine.checkpoint.network import tensors_of
from tlnb.engine.core.arguments import number_between, shown, whole_number
from tlnb.engine.core.fingerprint import tensors_digest
from tlnb.engine.core.objectives import floor_of
from tlnb.engine.data.load import usual_batch
from tlnb.engine.data.samples import choose
from tlnb.engine.data.wholes import one_of_each
from tlnb.engine.features.layer_features import WIDEST
from tlnb.engine.training.plan import default_plan, parse_plan
from tlnb.errors import BadArguments, ModelError
from tlnb.session.change import Change
from tlnb.session.plans import traits_of
from tlnb.session.state import SessionState
from tlnb.session.tools import Tools

ADVISED_ON = 2000
"""Training images that advice looks at, at most."""
ASKING = 0.25  # of a budget, that advice may take
QUICKEST = "fit head"


def advise(change: Change, tools: Tools, images: int) -> Advice:
    """Measure how much data there is and how similar it is, and say what to do about it.

    See ``Session.advise``.
    """
    whole_number(images, "--images", 2)
    state = change.state
    layers, loaded = state.need_ready(), state.need_model()
    if not loaded.trained:
        raise ModelError(
            f"{loaded.name} has random weights: there is nothing to transfer, so train all of it"
        )
    if not layers.body:
        raise ModelError("the network is all head, so there is nothing to keep or to train but that")
    began, samples = time.perf_counter(), one_of_each(state.need_samples()[0])
    looked = choose(samples, images, seed=0)
    pace = pace_of(state, tools)
    tools.log(
        f"advice takes about {show_seconds(advice_seconds(state, pace, images))}: one pass of {len(looked):,} images, "
        "and probes of every layer"
    )
    with tools.walk("looking at the features of every layer") as on_progress:
        task = state.need_data().task
        found = measure(
            loaded.model, layers, looked, tools.planner, tools.device, task=task, on_progress=on_progress
        )
    found = found.of_all(samples)
    traits = traits_of(state)
    decision = decide(found, layers, traits)
    note = "" if looked is samples else f"scores are from {len(looked):,} of {len(samples):,} images"
    plan = write_plan(decision, layers, len(samples), traits)
    advice = Advice(
        found,
        decision,
        plan,
        len(layers.body),
        time.perf_counter() - began,
        note,
        plan_seconds(state, pace, plan),
    )
    change.set(advice=(advice_key(state), advice))
    return advice


def pace_of(state: SessionState, tools: Tools) -> Pace:
    """How fast the network runs on the data here; nothing changes."""
    loaded, layers = state.need_model(), state.need_ready()
    with tools.working("timing a batch"):
        return measure_pace(
            loaded.model, loaded.head, layers, state.need_samples()[0].view(0, 0), tools.device
        )


def advice_seconds(state: SessionState, pace: Pace, images: int) -> float:
    """About how long ``advise`` takes."""
    layers, count = state.need_layers(), min(images, len(one_of_each(state.need_samples()[0])))
    cuts = len(layers.graph.cuts) if layers.graph is not None else len(layers.body)
    once = (count + min(SEEN, count)) * (pace.read + pace.forward)
    return once + (cuts + 1) * pace.probes(min(count, SCORED), WIDEST)


def plan_seconds(state: SessionState, pace: Pace, text: str) -> float:
    """About how long a plan takes."""
    layers, data, samples = state.need_layers(), state.need_data(), state.need_samples()
    counts = len(samples[0]), len(samples[1])
    return seconds_of(parse_plan(text, layers, ()), pace, layers, counts, len(data.classes), data.batch)


def read_budget(budget: object) -> float:
    """Seconds, from a number of them or words such as ``90s``, ``5min`` and ``1.5h``.

    Raises:
        BadArguments: something else, or no time at all.
    """
    known = isinstance(budget, str | Real) and not isinstance(budget, bool)
    told = _BUDGET.fullmatch(str(budget).strip().lower()) if known else None
    seconds = float(told[1]) * _UNITS[(told[2] or "s")[0]] if told else 0.0
    if not 0 < seconds < math.inf:
        raise BadArguments(f"budget takes a time such as 90s, 5min or 1.5h, not {shown(budget)}")
    return seconds


_BUDGET = re.compile(r"(\d{1,9}(?:\.\d{1,9})?|\.\d{1,9}) ?(s|secs?|seconds?|m|mins?|minutes?|h|hours?)?")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def plan_for_budget(
    state: SessionState, tools: Tools, budget: float, known: Advice | None, ask: Callable[[], Advice]
) -> str:
    """The best plan that fits into a budget; what it takes is said.

    Advice that is not known yet is asked for only where it takes a small part of the budget; else the default plan
    stands in its place.

    Args:
        state: of the session.
        tools: of the session.
        budget: seconds, the advice included.
        known: the advice on this network and data; None where there is none yet.
        ask: asks for it.

    Raises:
        BadArguments: not even the head can be fitted in that time; says what is enough.
    """
    began, layers, images = time.perf_counter(), state.need_ready(), len(state.need_samples()[0])
    pace = pace_of(state, tools)
    needed = MARGIN * plan_seconds(state, pace, QUICKEST)
    if needed <= budget and known is None:
        asking = advice_seconds(state, pace, ADVISED_ON)
        if asking <= ASKING * budget:
            known = ask()
        else:
            tools.log(
                f"advice alone would take about {show_seconds(asking)}, so the default plan is taken in its place"
            )
    if known is not None:
        tools.log(f"advised: {known.procedure}")
    spent = time.perf_counter() - began
    traits, left = traits_of(state), budget - spent
    usual = known.plan if known is not None else default_plan(layers, (), images, traits, fit=True)
    found = plan_within(usual, layers, images, traits, left, lambda text: plan_seconds(state, pace, text))
    if found is None:
        asked = f", of which {show_seconds(max(left, 0))} is left," if known is not None else ""
        raise BadArguments(
            f"a budget of {show_seconds(budget)}{asked} is too small: the quickest plan, {QUICKEST}, takes about "
            f"{show_seconds(needed)} here; --budget {max(math.ceil(spent + needed), 1)}s is enough"
        )
    text, seconds = found
    kind = "it" if text == usual else "the best plan that fits"
    tools.log(
        f"{kind} takes about {show_seconds(seconds)} of {show_seconds(budget)}: {'; '.join(text.splitlines())}"
    )
    return text


def begin_sweep(
    change: Change, tools: Tools, *, epochs: int, seeds: int, images: int, lr: float, blocks: bool
) -> TrialGround:
    """Set up a sweep, or find the one that was left; what its runs need. See ``Session.sweep``."""
    for name, value in (("--epochs", epochs), ("--seeds", seeds), ("--images", images)):
        whole_number(value, name, 2 if name == "--images" else 1)
    number_between(lr, "--lr", 0, math.inf)
    state = change.state
    loaded, layers, source = state.need_model(), state.need_ready(), state.need_data()
    if not loaded.trained:
        raise ModelError(f"{loaded.name} has random weights: every depth would be the floor")
    if not loaded.head:
        raise ModelError(f"{loaded.name} has no head that a sweep could make new")
    train, valid = (choose(part, images, seed=0) for part in state.need_samples())
    task = source.task
    ground = TrialGround(
        loaded.model, loaded.head, (train, valid), len(source.classes), task, usual_batch(len(train)),
        tools.device, tools.planner, loaded.fixed,
    )  # fmt: skip
    plan = SweepPlan(len(layers.body), epochs, seeds, lr, blocks)
    key = (advice_key(state), plan, images)
    found = state.sweep
    if found is None or found.key != key:
        chance = chance_of(valid.targets) if task.score is None else floor_of(task, valid.targets)
        found = Sweep(
            plan,
            task.metric,
            key,
            tuple(layers.names),
            chance,
            task.score is None or task.score.larger,
            len(valid),
        )
        change.set(sweep=found)
    return ground


def go_on_with_sweep(state: SessionState, tools: Tools, ground: TrialGround) -> Sweep:
    """Carry out what is left of the sweep."""
    found = state.sweep
    assert found is not None
    with tools.working("a sweep"):
        tools.emit("on_walk", "a sweep, run by run", 0, 0)
        found.go_on(ground, tools.stop, tools.log, tools.ticks("a sweep, run by run"), tools.workers)
    return found


def advice_key(state: SessionState) -> tuple[object, ...]:
    """What advice holds for: this network, this data, nothing trained since.

    By the content of the weights, so that measuring with others in between does not count as a change.
    """
    model = state.need_model().model
    digest = tensors_digest(sorted(tensors_of(model).items()))
    epochs = sum(len(stage.records) for stage in state.all_stages)
    return The(model), The(state.data), epochs, digest


class The:
    """This very object, held so that no other can come to stand at its address.

    Args:
        thing: the object.
    """

    def __init__(self, thing: object):
        self._thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, The) and self._thing is other._thing

    def __hash__(self) -> int:
        return id(self._thing)
