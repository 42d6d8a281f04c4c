"""A failure at any internal step of any call: the whole state is as before; a stage is never trained twice.

Each function of the session, and each of the engine that it calls by name, is a step, at its beginning and at its
end. A trial lets one of them fail.
"""

from __future__ import annotations

import copy
import importlib
import os
import pkgutil
import signal
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.calls import CALLS, pair, plain_net, ready

import tlnb.session
from tlnb.engine.training import loop
from tlnb.engine.training.ending import Best
from tlnb.engine.training.trainer import StageTrainer
from tlnb.session import Session
from tlnb.session.autosave import Autosave

# What makes a change whole cannot itself be made to fail: setting the state, taking back, telling the views.
WHOLE = {"Store", "Change", "Interrupts", "Session", "Hook", "SessionView", "_Flags"}
EXEMPT = {"began", "fingerprint_of", "take_back", "clear", "note", "copy", "back"}
ERRORS = (RuntimeError, KeyboardInterrupt)
MOST = int(os.environ.get("TLNB_STEPS", "8"))  # steps of a call that fail; spread evenly over all of them


class Steps:
    """Counts the steps of a call, and lets one fail."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.fail_at: str | None = None
        self.error: type[BaseException] = RuntimeError
        self.fired = False

    def step(self, name: str) -> None:
        if self.fail_at is None:
            if name not in self.seen:
                self.seen.append(name)
        elif name == self.fail_at and not self.fired:
            self.fired = True
            raise self.error("injected")

    def wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **keys: Any) -> Any:
            self.step(f"before {name}")
            answer = function(*args, **keys)
            self.step(f"after {name}")
            return answer

        return call


def _modules() -> list[types.ModuleType]:
    names = [info.name for info in pkgutil.iter_modules(tlnb.session.__path__)]
    return [importlib.import_module(f"tlnb.session.{name}") for name in names if name not in ("interrupts",)]


@contextmanager
def watched(steps: Steps, *more: object) -> Iterator[None]:
    """Inside, each function of the session, and of the engine that it names, is a step."""
    with pytest.MonkeyPatch.context() as patch:
        done: set[int] = set()

        def wrap(owner: Any) -> None:
            if id(owner) in done:
                return
            done.add(id(owner))
            for name, value in list(vars(owner).items()):
                plain = isinstance(value, types.FunctionType) and value.__module__.startswith("tlnb.")
                if plain and not name.startswith("__") and name not in EXEMPT:
                    patch.setattr(owner, name, steps.wrapped(f"{owner.__name__}.{name}", value))

        for module in _modules():
            for value in list(vars(module).values()):
                if isinstance(value, types.ModuleType) and value.__name__.startswith("tlnb.engine"):
                    wrap(value)
                own = isinstance(value, type) and value.__module__.startswith("tlnb.session")
                if own and value.__name__ not in WHOLE and not value.__name__.endswith("State"):
                    wrap(value)
            wrap(module)
        for owner in more:
            wrap(owner)
        yield


def whole(tl: Session) -> list[object]:
    """All that a call could have changed, as values."""
    state = tl.view.state
    net = state.loaded
    found: list[object] = [
        id(state),
        tl.frozen,
        tl.revision,
        tl.busy,
        tl.stop_request,
        tl.task,
        list(tl.heads),
    ]
    found += [signal.getsignal(signal.SIGINT), len(tl.history), dict(tl.history.old), tl.layers.rows]
    found += [
        (id(s), len(s.records), s.stopped, s.kept, s.note, s.recipe is not None) for s in tl.history.stages
    ]
    if net is not None:
        found += [net.name, net.head, net.input, net.categories, net.notes, net.behind, str(net.preprocess)]
        found += [(n, p.requires_grad, p.detach().numpy().tobytes()) for n, p in net.model.named_parameters()]
        found += [(n, b.numpy().tobytes()) for n, b in net.model.named_buffers()]
        found += [(n, id(m), m.training) for n, m in net.model.named_modules()]
        found.append(sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.model.modules()))
    return found


def adapted() -> Session:
    """Ready, with the first layer adapted and trained so."""
    tl = ready()
    tl.adapt("0", rank=1)
    tl.train(1, 0.01, guard="off")
    return tl


def with_a_file() -> Session:
    """Not adapted, with an adapter for it in a file."""
    tl = adapted()
    tl.save("alone", adapter=True)
    tl.undo()
    tl.freeze("0")
    return tl


ADAPTED: dict[str, tuple[Callable[[], Session], Callable[[Session], object]]] = {
    "merge": (adapted, lambda tl: tl.merge()),
    "undo of a stage that adapted": (adapted, lambda tl: tl.undo()),
    "freeze what is adapted": (adapted, lambda tl: tl.freeze("0")),
    "a new head on what is adapted": (adapted, lambda tl: tl.head("mlp:6")),
    "save alone": (adapted, lambda tl: tl.save("other", adapter=True)),
    "adapt as in a file": (with_a_file, lambda tl: tl.adapt(file="alone")),
}


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", [*CALLS, *ADAPTED])
def test_a_failure_at_any_step_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLNB_AUTOSAVE", "0")
    begun, call = ADAPTED[name] if name in ADAPTED else (ready, CALLS[name])
    steps, tl = Steps(), begun()
    with watched(steps):
        call(tl)
    assert steps.seen
    tl = begun()
    for number, step in enumerate(some(steps.seen)):
        before = whole(tl)
        trial = Steps()
        trial.fail_at, trial.error = step, ERRORS[number % 2]
        failure = outcome_of(trial, lambda tl=tl: call(tl))
        if failure is None:
            tl = begun()  # this step may fail, or is not taken now; the call did what it should
            continue
        assert trial.fired, f"{step}: {failure!r}"
        assert whole(tl) == before, f"{trial.error.__name__} {step}"


def some(steps: list[str]) -> list[str]:
    """At most so many of the steps, evenly spread; ``TLNB_STEPS=1000`` takes them all."""
    each = -(-len(steps) // MOST)
    return steps[len(steps) % each :: each]


def outcome_of(trial: Steps, work: Callable[[], object], *more: object) -> BaseException | None:
    """What a call fails with."""
    try:
        with watched(trial, *more):
            work()
    except BaseException as error:
        return error
    return None


PLAN = "freeze 0 epochs 2 lr 1e-2\nunfreeze all epochs 1 lr 1e-3"
ADAPTS = "adapt 0 rank 1 epochs 2 lr 1e-2\nfreeze 0 epochs 1 lr 1e-3"


def learner() -> Session:
    tl = Session([])
    tl.load(plain_net(), input="1,8,8")
    tl.data(pair(), batch=32)
    tl.forgetting(pair(30, 3, 5))
    return tl


def outcome(tl: Session) -> tuple[list[bytes], list[tuple[object, ...]], dict[int, float]]:
    values = [tensor.numpy().tobytes() for tensor in tl.model.state_dict().values()]
    return values, [(r.stage, r.epoch, r.valid_loss) for r in tl.history], dict(tl.history.old)


@pytest.mark.parametrize(("plan", "keep_best"), [(PLAN, False), (PLAN, True), (ADAPTS, False)])
def test_a_failure_at_any_step_of_training_costs_nothing(
    plan: str, keep_best: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Autosave, "save", lambda self, state, capture: None)
    engine, steps, undisturbed = (loop, loop._StageRun, StageTrainer, Best), Steps(), learner()
    fresh = copy.deepcopy(undisturbed.model.state_dict())
    with watched(steps, *engine):
        undisturbed.run(plan, keep_best=keep_best)
    expected, (known_values, records, scores) = len(records_of(undisturbed)), outcome(undisturbed)
    assert expected == 3
    for number, step in enumerate(some(steps.seen)):
        tl, trial = learner(), Steps()
        trial.fail_at, trial.error = step, ERRORS[number % 2]
        failure = outcome_of(trial, lambda tl=tl: tl.run(plan, keep_best=keep_best), *engine)
        assert failure is None or trial.fired, f"{step}: {failure!r}"
        if tl.view.plan is None and not tl.history.stages:
            now = tl.model.state_dict()
            assert all(torch.equal(now[name], tensor) for name, tensor in fresh.items()), step
            assert now.keys() == fresh.keys(), step
            tl.run(plan, keep_best=keep_best)
        while tl.view.plan is not None:
            tl.go_on()
        values, figures, old = outcome(tl)
        assert figures == records, f"{trial.error.__name__} {step}"
        assert values == known_values, f"{trial.error.__name__} {step}"
        assert all(scores[n] == score for n, score in old.items()), f"{trial.error.__name__} {step}"


def records_of(tl: Session) -> list[Any]:
    return [record for stage in tl.history.stages for record in stage.records]
