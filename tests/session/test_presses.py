"""The stop button: the first press asks, the second asks again, the third breaks off; nothing is lost by any."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import blobs
from torch import nn

from tlnb.errors import Interrupted
from tlnb.session import Session
from tlnb.session.recorder import Recorder

PLAN = "freeze 0 epochs 2 lr 1e-2\nunfreeze all epochs 2 lr 1e-3"


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


def learner() -> Session:
    torch.manual_seed(3)
    tl = Session([])
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    tl.load(net, input="1,8,8")
    found = blobs(60)
    tl.data((found.inputs, found.targets), batch=16)
    return tl


def press(times: int) -> None:
    for _ in range(times):
        signal.raise_signal(signal.SIGINT)


class Presses:
    """Presses the button at the n-th batch."""

    def __init__(self, batch: int, times: int):
        self.left, self.times = batch, times

    def on_batch(self, step: int, steps: int) -> None:
        self.left -= 1
        if self.left == 0:
            press(self.times)


def outcome(tl: Session) -> tuple[list[bytes], list[tuple[int, int, float]]]:
    values = [tensor.numpy().tobytes() for tensor in tl.model.state_dict().values()]
    return values, [(r.stage, r.epoch, r.valid_loss) for r in tl.history]


@pytest.fixture(scope="module")
def undisturbed() -> tuple[list[bytes], list[tuple[int, int, float]]]:
    tl = learner()
    tl.run(PLAN)
    return outcome(tl)


@pytest.mark.parametrize("batch", [1, 4, 6, 11])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_any_number_of_presses_in_a_batch_costs_nothing(undisturbed: Any, batch: int, times: int) -> None:
    tl = learner()
    tl.listeners = [Presses(batch, times)]
    if times < 3:
        assert tl.run(PLAN).stopped
    else:
        with pytest.raises(KeyboardInterrupt):
            tl.run(PLAN)
    assert (tl.busy, tl.stop_request) == ("", None)
    tl.listeners = []
    while tl.view.plan is not None:
        tl.go_on()
    assert outcome(tl) == undisturbed


@pytest.mark.parametrize("times", [1, 2, 3])
def test_presses_while_a_stage_is_closed_do_not_train_it_again(
    undisturbed: Any, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tl, usual, once = learner(), Recorder.after_stage, [times]

    def closes(self: Recorder, *what: Any) -> None:
        if once:
            press(once.pop())
        usual(self, *what)

    monkeypatch.setattr(Recorder, "after_stage", closes)
    if times < 3:
        assert tl.run(PLAN).stopped
    else:
        with pytest.raises(KeyboardInterrupt):
            tl.run(PLAN)
    assert len(tl.history.stages) == 1
    assert tl.view.plan is not None
    assert tl.view.plan.result is None
    tl.go_on()
    assert outcome(tl) == undisturbed


CALLS: dict[str, Callable[[Session], object]] = {
    "freeze": lambda tl: tl.freeze("0"),
    "load": lambda tl: tl.load(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), input="1,8,8"),
    "head": lambda tl: tl.head("mlp:4"),
    "find_lr": lambda tl: tl.find_lr(steps=12),
    "tasks": lambda tl: tl.tasks(),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_press_in_a_call_without_batches_leaves_all_as_it_was(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tl = learner()
    state, values = tl.view.state, outcome(tl)[0]
    step = tl._store.change

    def pressed() -> Any:
        press(1)
        return step()

    with monkeypatch.context() as patch:
        patch.setattr(tl._store, "change", pressed)
        with pytest.raises(Interrupted):
            CALLS[name](tl)
    assert tl.view.state is state
    assert outcome(tl)[0] == values
    CALLS[name](tl)


def test_a_press_while_a_state_is_taken_back_waits_for_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    tl = learner()
    before = [p.requires_grad for p in tl.model.parameters()]
    usual = tl._store.journal.take_back

    def slow(mark: int = 0) -> None:
        press(3)
        usual(mark)

    monkeypatch.setattr(tl._store.journal, "take_back", slow)

    def fails(change: Any, *_: object) -> None:
        tl._network.set_frozen(change, [True] * len(tl.frozen))
        raise RuntimeError("no memory")

    monkeypatch.setattr(tl._network, "freeze", fails)
    with pytest.raises(KeyboardInterrupt):
        tl.freeze("all")
    assert [p.requires_grad for p in tl.model.parameters()] == before
    assert not any(tl.frozen)
