"""Stop, pause and the guard that other threads meet while a session trains."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from widgets.parts import Waiting, in_thread, trained_in_thread

from tlnb.engine.core.interrupts import Stopped, StopRequest
from tlnb.errors import NotReady
from tlnb.session import Session


def test_a_pause_holds_until_go_on() -> None:
    request = StopRequest()
    request.pause()
    assert request.paused
    waiting = threading.Thread(target=request.check)
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    request.go_on()
    waiting.join(2)
    assert not waiting.is_alive()
    assert not request.paused


def test_a_stop_ends_a_pause() -> None:
    request = StopRequest()
    request.pause()
    request.ask()
    began = time.monotonic()
    with pytest.raises(Stopped):
        request.check()
    assert time.monotonic() - began < 1


def test_stop_from_another_thread_keeps_the_last_finished_batch(session: Session) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    session.listeners = [Waiting(at=3, model=session.model, copies=seen)]
    run = trained_in_thread(session, epochs=50, lr=1e-3)
    session.listeners[0].reached.wait(20)
    assert session.busy == "training"
    session.stop_request.ask()
    session.listeners[0].go.set()
    result = run()
    assert result.stopped
    assert len(seen) == 3
    now = session.model.state_dict()
    assert all(torch.equal(value, now[name]) for name, value in seen[-1].items())
    assert (session.busy, session.stop_request) == ("", None)


def test_a_change_from_another_thread_is_refused_while_training(session: Session) -> None:
    waiting = Waiting(at=1)
    session.listeners = [waiting]
    run = trained_in_thread(session, epochs=1, lr=1e-3)
    waiting.reached.wait(20)
    before = session.frozen
    for change in (lambda: session.freeze("0"), lambda: session.train(1), lambda: session.find_lr()):
        with pytest.raises(NotReady, match="training is under way"):
            in_thread(change)
    assert session.frozen == before
    waiting.go.set()
    run()
    session.freeze("0")
    assert session.frozen[0]
