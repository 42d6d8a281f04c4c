"""How much to transfer: advice from measured figures, and the sweep that tries every depth."""

from __future__ import annotations

import math
import time

from tlnb.engine.advice.advice import Advice, decide, write_plan
from tlnb.engine.advice.figures import chance_of, measure
from tlnb.engine.advice.sweep import Sweep, SweepPlan
from tlnb.engine.advice.trial import TrialGround
from tlnb.engine.checkpoint.network import tensors_of
from tlnb.engine.core.arguments import number_between, whole_number
from tlnb.engine.core.fingerprint import tensors_digest
from tlnb.engine.core.objectives import floor_of
from tlnb.engine.data.load import usual_batch
from tlnb.engine.data.samples import choose
from tlnb.engine.data.wholes import one_of_each
from tlnb.errors import ModelError
from tlnb.session.change import Change
from tlnb.session.plans import traits_of
from tlnb.session.state import SessionState
from tlnb.session.tools import Tools


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
    with tools.walk("looking at the features of every layer") as tick:
        task = state.need_data().task
        found = measure(loaded.model, layers, looked, tools.routes, tools.device, task=task, tick=tick)
    found = found.of_all(samples)
    traits = traits_of(state)
    decision = decide(found, layers, traits)
    note = "" if looked is samples else f"scores are from {len(looked):,} of {len(samples):,} images"
    plan = write_plan(decision, len(samples), traits)
    advice = Advice(found, decision, plan, len(layers.body), time.perf_counter() - began, note)
    change.set(advice=(advice_key(state), advice))
    return advice


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
        tools.device, tools.routes, loaded.fixed,
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
        found.go_on(ground, tools.stop, tools.say, tools.ticks("a sweep, run by run"), tools.workers)
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
