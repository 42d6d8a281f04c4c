"""The place in a stage that breaks off is kept, whatever broke it off, and whatever is refused after."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tlnb.errors import NotReady, PlanError, TlnbError
from tlnb.session import Session

PLAN = "freeze 0 epochs 3 lr 1e-2\nunfreeze all epochs 2 lr 1e-3"


def fresh() -> Session:
    torch.manual_seed(0)
    tl = Session([])
    tl.load(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3)))
    tl.data((torch.randn(60, 6, generator=torch.Generator().manual_seed(1)), torch.arange(60) % 3), batch=16)
    return tl


@pytest.fixture(scope="module")
def undisturbed() -> Session:
    tl = fresh()
    tl.run(PLAN)
    return tl


def same(a: Session, b: Session) -> bool:
    pairs = zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True)
    figures = [[(r.stage, r.epoch, r.valid_loss) for r in tl.history] for tl in (a, b)]
    return all(torch.equal(x, y) for x, y in pairs) and figures[0] == figures[1]


class Trips:
    """Raises at the n-th call of one event, and stops there if it is told to."""

    def __init__(self, event: str, at: int, error: type[BaseException]):
        self.left = at
        setattr(self, event, lambda *what: self.count(error))

    def count(self, error: type[BaseException]) -> None:
        self.left -= 1
        if self.left == 0:
            raise error("tripped")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize(
    ("event", "at"), [("on_epoch", 1), ("on_epoch", 3), ("on_epoch", 4), ("on_batch", 5)]
)
def test_any_error_in_a_listener_keeps_the_place(
    undisturbed: Session, event: str, at: int, error: type[BaseException]
) -> None:
    tl = fresh()
    tl.listeners.append(Trips(event, at, error))
    with pytest.raises(error):
        tl.run(PLAN)
    tl.listeners.clear()
    tl.go_on()
    assert same(tl, undisturbed)


class Asks:
    """Asks for a stop at the n-th batch."""

    def __init__(self, tl: Session, at: int):
        self.tl, self.left = tl, at

    def on_batch(self, step: int, steps: int) -> None:
        self.left -= 1
        if self.left == 0 and self.tl.stop_request is not None:
            self.tl.stop_request.ask()


def stopped() -> Session:
    """In the third epoch of the first stage."""
    tl = fresh()

    tl.listeners.append(Asks(tl, 8))
    assert tl.run(PLAN).stopped
    tl.listeners.clear()
    return tl


def train_in_another_thread(tl: Session) -> None:
    """While this one trains."""
    refused: list[BaseException] = []

    class Meanwhile:
        def on_batch(self, step: int, steps: int) -> None:
            def train() -> None:
                try:
                    tl.train(5, lr=1.0)
                except TlnbError as error:
                    refused.append(error)

            if not refused:
                thread = threading.Thread(target=train)
                thread.start()
                thread.join()

    tl.listeners.append(Meanwhile())
    tl.go_on()
    tl.listeners.clear()
    assert refused


def refuses(message: str, **keys: Any) -> Callable[[Session], None]:
    def run(tl: Session) -> None:
        with pytest.raises((PlanError, NotReady), match=message):
            tl.go_on(**keys)

    return run


def fails_at_once(tl: Session) -> None:
    tl.listeners.append(Trips("on_stage_start", 1, KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        tl.go_on()
    tl.listeners.clear()


def fails_before_its_stage(tl: Session) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tlnb.session.training.StageTrainer", None)
        with pytest.raises(TypeError):
            tl.go_on()


TROUBLE = {
    "fewer epochs": refuses("have been trained already", epochs=1),
    "another key": refuses("cannot change", batch=4),
    "no rate": refuses("has its rate", lr="auto"),
    "an interrupt": fails_at_once,
    "an error": fails_before_its_stage,
    "another thread": train_in_another_thread,
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_a_refused_or_failed_continue_keeps_the_place(undisturbed: Session, trouble: str) -> None:
    tl = stopped()
    TROUBLE[trouble](tl)
    if len(tl.history) < len(undisturbed.history):
        tl.go_on()
    assert same(tl, undisturbed)


def test_another_head_is_not_trained_by_the_stage_of_the_old_one() -> None:
    tl = stopped()
    tl.head("linear")
    with pytest.raises(NotReady, match="another head"):
        tl.go_on()


def test_a_stage_that_breaks_off_before_its_first_batch_leaves_the_layers_as_they_were() -> None:
    tl = fresh()
    tl.listeners.append(Trips("on_test", 3, KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        tl.run("freeze 0")
    assert tl.frozen == (False, False)
    assert len(tl.history.stages) == 0


@pytest.mark.parametrize("line", ["freeze 0 augment light", "freeze 0 keep lwf:1"])
def test_what_a_later_stage_cannot_have_is_said_before_anything_trains(line: str) -> None:
    tl = fresh()
    if "keep" in line:  # random weights know nothing that could be kept
        tl = Session([])
        tl.load("convnet5", weights="none")
        tl.data((torch.rand(20, 1, 32, 32), torch.arange(20) % 2))
    with pytest.raises(TlnbError):
        tl.run(f"unfreeze all lr 1e-3\n{line}")
    assert len(tl.history) == 0


def test_a_further_stage_keeps_what_the_last_one_was_told() -> None:
    tl = fresh()
    tl.train(lr=1e-3, bn="frozen", keep_best=True, cache=False)
    tl.go_on(epochs=1)
    assert [getattr(tl.history.stages[1].recipe, key) for key in ("bn", "keep_best", "cache")] == [
        "frozen",
        True,
        False,
    ]
