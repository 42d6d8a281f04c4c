"""What stays without a kernel, a stop of the range test, and interrupts between cells."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from widgets.parts import in_thread

from tlnb.display.progress import Listener
from tlnb.engine.training.history import Run
from tlnb.errors import NotReady
from tlnb.session import Session
from tlnb.widgets.lr_picker import LRPicker
from tlnb.widgets.panel import Panel
from tlnb.widgets.progress import CellProgress
from tlnb.widgets.slot import Slot
from tlnb.widgets.training_part import TrainingView
from tlnb.widgets.view import interruptible


class Output:
    """Stands for a cell's output: what was published under each display id, the last of each."""

    def __init__(self) -> None:
        self.shown: dict[str, dict[str, str]] = {}

    def publish(self, *, data: dict[str, str], transient: dict[str, str], update: bool, **_: Any) -> None:
        assert update == (transient["display_id"] in self.shown)
        self.shown[transient["display_id"]] = data

    @property
    def last(self) -> dict[str, str]:
        return list(self.shown.values())[-1]


@pytest.fixture
def output() -> Output:
    return Output()


def watched(session: Session, output: Output) -> TrainingView:
    view = TrainingView(session)
    view.slot = Slot(output.publish)
    session.listeners = [view.listener]
    return view


def test_the_twin_is_there_while_it_trains_and_after(session: Session, output: Output) -> None:
    view, texts = watched(session, output), []

    class Reads(Listener):
        def on_batch(self, step: int, steps: int) -> None:
            texts.append(output.last["text/plain"])

    session.listeners.append(Reads())
    run = session.train(2, 1e-3)
    assert texts[0].startswith("training is under way; this is how far it was")
    assert output.last["text/plain"].startswith(f"done: accuracy {100 * run.accuracy:.1f} %")
    assert output.last["text/plain"].count("2/2") == 2, "in the table of stages and in that of epochs"
    assert f'data-of="{view.key}"' in output.last["text/html"]
    assert output.last["text/html"].count("<polyline") == 3


def test_the_twin_of_a_run_that_an_error_ended_holds_what_there_was(session: Session, output: Output) -> None:
    watched(session, output)

    class Breaks(Listener):
        def on_epoch(self, record: Any) -> None:
            if record.epoch == 2:
                raise RuntimeError("no <b>room</b>")

    session.listeners.append(Breaks())
    with pytest.raises(RuntimeError):
        session.train(4, 1e-3)
    assert output.last["text/plain"].startswith("ended by an error: RuntimeError: no <b>room</b>")
    assert "2/4" in output.last["text/plain"]
    assert "<b>" not in output.last["text/html"]
    assert output.last["text/html"].count("<polyline") == 3
    assert session.train(1, 1e-3).accuracy is not None, "the next run works"


def test_a_slot_is_emptied_and_filled_again(output: Output) -> None:
    slot = Slot(output.publish, "<i></i>")
    assert output.last == {"text/plain": "", "text/html": "<i></i>"}
    slot.put("text", "<p>html</p>")
    assert output.last == {"text/plain": "text", "text/html": "<p>html</p>"}
    slot.clear()
    assert output.last == {"text/plain": "", "text/html": "<i></i>"}
    assert len(output.shown) == 1


def test_the_twin_of_the_panel_follows_the_clicks(session: Session, output: Output) -> None:
    panel = Panel(session)
    panel.slot = Slot(output.publish)
    panel.act("preset", name="head")
    panel.act("set_epochs", epochs=2)
    panel.act("train")
    assert panel.error == ""
    text, html = output.last["text/plain"], output.last["text/html"]
    assert "done: accuracy" in text
    assert text.endswith("%tl_freeze body\n%tl_unfreeze head\n%tl_train epochs 2")
    assert html.count("❄") == 4, "three frozen layers, and the legend"


def test_the_picker_keeps_what_was_trained_from_it(session: Session, output: Output) -> None:
    picker = LRPicker(session, session.find_lr(steps=12))
    picker.slot = Slot(output.publish)
    picker.keep()
    assert output.last["text/html"] == "", "its answer shows the curve"
    picker.act("train")
    assert "done: accuracy" in output.last["text/plain"]


def test_a_stop_ends_a_range_test_and_leaves_no_trace(session: Session) -> None:
    picker = LRPicker(session, session.find_lr(steps=12))
    curve, before = picker.curve, {k: v.clone() for k, v in session.model.state_dict().items()}
    seen: list[str] = []

    class Stops(Listener):
        def on_test(self, done: int, total: int) -> None:
            if done == 5:
                seen.append(picker.state)
                in_thread(lambda: picker.act("stop"))

    session.listeners = [Stops()]
    picker.act("find")
    assert isinstance(picker.failure, NotReady)
    assert picker.error == "the range test was stopped; the network is as it was before it"
    assert (seen, picker.state, picker.busy) == (["running"], "", "")
    assert picker.curve == curve
    now = session.model.state_dict()
    assert all(torch.equal(value, now[name]) for name, value in before.items())
    session.listeners = []
    picker.act("find")
    assert picker.error == ""


def test_a_short_range_test_in_a_cell_has_no_view(session: Session) -> None:
    asked: list[int] = []
    session.listeners = [CellProgress(lambda: None, lambda: asked.append(1))]
    session.find_lr(steps=12)
    assert not asked


def test_the_view_of_a_long_range_test_has_the_points_of_before_it(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = TrainingView(session)
    cell = CellProgress(lambda: None, lambda: view)
    cell.on_test(0, 9)
    cell.on_point(1e-2, 2.0)
    assert view.points == []
    monkeypatch.setattr("tlnb.widgets.progress._MOMENT", -1)
    cell.on_test(5, 9)
    cell.on_point(1e-3, 3.0)
    cell.on_point(1e-2, 1.0)
    assert view.points == [[1e-3, 3.0], [1e-2, 1.0]], "in the order of the rates, each as it is known best"
    assert view.progress["testing"]


def test_the_curve_is_there_while_it_is_measured(session: Session) -> None:
    view, seen = TrainingView(session), []

    class Reads(Listener):
        def on_point(self, rate: float, loss: float) -> None:
            seen.append((view.state, len(view.points)))

    session.listeners = [view.listener, Reads()]
    curve = session.find_lr()
    assert {state for state, _ in seen} == {"running"}
    counts = [count for _, count in seen]
    assert counts == sorted(counts)
    assert counts[0] == 1
    assert counts[-1] == len(curve.rates)
    assert view.state == ""


def test_an_interrupt_between_cells_is_heard_inside_alone() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt), interruptible():
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        os.kill(os.getpid(), signal.SIGINT)  # unheard
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_interrupted_action_is_said_and_the_next_works(session: Session) -> None:
    picker = LRPicker(session, session.find_lr(steps=12))

    class Presses(Listener):
        def on_test(self, done: int, total: int) -> None:
            if done == 4:
                os.kill(os.getpid(), signal.SIGINT)

    session.listeners = [Presses()]
    picker.act("find")
    assert (picker.error, picker.state, picker.doing) == ("interrupted; nothing is lost", "", "")
    session.listeners = []
    picker.act("train")
    assert (picker.error, picker.state) == ("", "done")


def test_what_takes_long_is_refused_in_words_while_another_thread_trains(session: Session) -> None:
    picker, said = LRPicker(session, session.find_lr(steps=12)), []

    class Clicks(Listener):
        def on_batch(self, step: int, steps: int) -> None:
            if not said:
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(picker.act, "train").result(20)
                said.append(picker.error)

    session.listeners = [Clicks()]
    run = session.train(1, 1e-3)
    assert isinstance(run, Run)
    assert said == ["training is under way; this can be done when it has ended, or after a Stop"]
    assert len(session.history.stages) == 1
