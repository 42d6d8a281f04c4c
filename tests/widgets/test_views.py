"""Views against the session, without a page: actions, errors, static fallback."""

from __future__ import annotations

import re
import threading

import pytest
import torch
from torch import nn

from tlnb import widgets
from tlnb.engine.training.history import Run
from tlnb.session import Session
from tlnb.widgets import LayerToggles, LRPicker, Panel, TrainingView, fallback
from tlnb.widgets.channel import follow_front_end
from tlnb.widgets.layer_toggles import preset_lines

HOSTILE = "<img src=x onerror='hacked=1'>"


@pytest.fixture
def trained(session: Session) -> Run:
    return session.run("freeze body epochs 2 lr 1e-2\nunfreeze -2: epochs 1 decay 2")


def test_views_are_named_where_the_package_says_and_no_others() -> None:
    assert [getattr(widgets, name).__name__ for name in widgets.__all__] == widgets.__all__
    with pytest.raises(AttributeError, match=r"'tlnb\.widgets' has no attribute 'LayerToggle'"):
        widgets.LayerToggle  # noqa: B018


@pytest.mark.parametrize(
    ("kind", "action", "values"),
    [
        (LayerToggles, "set", {"low": 0, "high": 1, "frozen": False}),
        (LayerToggles, "preset", {"name": "all frozen"}),
        (LRPicker, "train", {}),
        (LRPicker, "find", {}),
        (TrainingView, "stop", {}),
        (Panel, "load", {"name": "convnet5"}),
        (Panel, "set", {"low": 0, "high": 0, "frozen": False}),
        (Panel, "undo", {}),
        (widgets.Suspects, "clean", {}),
        (widgets.Map, "draw", {"layer": 0}),
    ],
)
def test_a_view_that_is_disabled_does_nothing(
    session: Session, kind: type, action: str, values: dict
) -> None:
    view = kind(session)
    before = session.frozen, session.revision, len(session.history), session.model
    view.disabled = True
    view.act(action, **values)
    assert view.error == "this view is disabled"
    assert (session.frozen, session.revision, len(session.history), session.model) == before
    if action == "set":
        view.disabled = False
        view.act(action, **values)
        assert view.error == ""
        assert session.frozen != before[0]


def test_toggles_and_session_stay_in_step(session: Session) -> None:
    one, two = LayerToggles(session), LayerToggles(session)
    one.act("set", low=0, high=1, frozen=False)
    assert session.frozen == (False, False, True, False)
    assert one.frozen == two.frozen == [False, False, True, False]
    assert one.magic == "%tl_unfreeze 0:2"
    session.freeze("all")
    assert two.frozen == [True] * 4
    assert two.summary.endswith("nothing would train")


def test_another_network_gets_other_boxes(session: Session) -> None:
    view = LayerToggles(session)
    session.load(nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 3)))
    assert [layer["name"] for layer in view.layers] == ["1", "3"]
    assert view.frozen == [False, False]


@pytest.mark.parametrize(
    ("action", "values", "error"),
    [
        ("set", {"low": 2, "high": 9, "frozen": True}, "there are layers 0 to 3; not 2 to 9"),
        ("preset", {"name": "al"}, "no preset 'al'; presets: head, third, all, none"),
    ],
)
def test_a_bad_message_changes_nothing(session: Session, action: str, values: dict, error: str) -> None:
    view, before = LayerToggles(session), session.frozen
    view.act(action, **values)
    assert (view.error, session.frozen) == (error, before)
    view.act("preset", name="all")
    assert view.error == ""


def test_an_unknown_action_is_said(session: Session) -> None:
    view = LayerToggles(session)
    view._on_message(view, {"do": "delete", "id": 1})
    assert view.error == "LayerToggles has no action 'delete'"


def test_an_unforeseen_error_is_shown_and_logged(
    session: Session, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = LayerToggles(session)
    monkeypatch.setattr(session, "freeze", lambda where: {}["missing"])
    view.act("set", low=0, high=0, frozen=True)
    assert view.error == "KeyError: 'missing'"
    assert "Traceback" in caplog.text


def test_presets_are_magics() -> None:
    assert preset_lines("third", 8) == ["%tl_freeze all", "%tl_unfreeze -3:"]
    assert preset_lines("third", 1) == ["%tl_freeze all", "%tl_unfreeze -1:"]


def test_the_picker_trains_with_what_it_shows(session: Session) -> None:
    session.unfreeze("1:")
    picker = LRPicker(session, session.find_lr(steps=12, decay=2.0))
    picker.act("pick", rate=0.0123)
    picker.act("set_epochs", epochs=2)
    assert picker.magic == picker.line == "%tl_train epochs 2 lr 0.0123 decay 2"
    picker.act("train")
    assert picker.error == ""
    (stage,) = session.history.stages
    assert (stage.rate, stage.stage.decay, len(stage.records)) == (0.0123, 2.0, 2)
    assert picker.state == "done"
    assert [record["epoch"] for record in picker.stages[0]["records"]] == [1, 2]


@pytest.mark.parametrize("rate", [0, -1, float("nan"), "1e-3"])
def test_a_rate_is_a_number_above_0(session: Session, rate: object) -> None:
    picker = LRPicker(session, session.find_lr(steps=12))
    before = picker.rate
    picker.act("pick", rate=rate)
    assert picker.error.startswith("a learning rate is a number above 0")
    assert picker.rate == before


def test_stop_at_rest_is_refused(session: Session) -> None:
    view = TrainingView(session)
    view.act("stop")
    assert view.error == "nothing is training now"


def test_an_error_ends_the_view(session: Session) -> None:
    view = TrainingView(session)

    class Broken:
        def on_epoch(self, record: object) -> None:
            raise RuntimeError("boom")

    session.listeners = [view.listener, Broken()]
    with pytest.raises(RuntimeError, match="boom"):
        session.train(1, 1e-3)
    assert (view.state, view.busy) == ("failed", "")


def test_the_panel_does_the_main_job_and_writes_it_down() -> None:
    panel = Panel(Session(listeners=[]))
    panel.act("load", model="convnet5")
    panel.act("data", source="digits")
    panel.act("preset", name="head")
    panel.act("train")
    assert panel.error == ""
    assert list(panel.magics) == [
        "%tl_load convnet5", "%tl_data digits", "%tl_freeze body\n%tl_unfreeze head", "%tl_train",
    ]  # fmt: skip
    assert panel.session.history[-1].accuracy > 0.8


def test_the_panel_says_what_is_missing() -> None:
    panel = Panel(Session(listeners=[]))
    panel.act("train")
    assert panel.error == "no model yet; load one first, such as: %tl_load convnet5"
    panel.act("load", model="convnet55")
    assert "convnet5" in panel.error
    assert not panel.magics


def test_twins_escape_every_name() -> None:
    torch.manual_seed(0)
    session = Session(listeners=[])
    net = nn.Sequential()
    net.add_module(HOSTILE, nn.Linear(4, 4))
    net.add_module("head", nn.Linear(4, 2))
    session.load(net, input=(4,))
    session.data((torch.randn(40, 4), torch.arange(40) % 2))
    run = session.run("freeze 0 epochs 2 lr 1e-2\nunfreeze all epochs 1 lr 1e-3")
    html = fallback.marked(
        fallback.strip(session.layers) + session.layers._repr_html_() + fallback.run(run), "key"
    )
    assert HOSTILE not in html
    assert "&lt;img src=x" in html
    assert not re.search(r"<(script|iframe|object)", html)


def test_the_twin_of_a_run_holds_stages_curves_and_epochs(trained: Run) -> None:
    html = fallback.run(trained)
    assert html.count("<details>") == 2, "the range test of the second stage, and the epochs"
    assert html.count("<polyline") == 3
    assert html.count("data:image/png;base64") == 1
    assert "<tr" in html
    assert f"{trained.records[-1].valid_loss:.4f}" in html


def test_a_comm_follows_the_front_end_only_where_it_can() -> None:
    class Comm:
        def _reply_subshell_for(self, data: object, default: str) -> str:
            return "main"

    comm = Comm()
    assert follow_front_end(comm)
    assert comm._reply_subshell_for({}, "subshell") == "subshell"
    assert not follow_front_end(object())


def test_todays_ipykernel_has_the_rule_that_is_replaced() -> None:
    from ipykernel.comm.comm import BaseComm

    assert hasattr(BaseComm, "_reply_subshell_for"), "look at follow_front_end: the private rule has changed"


def test_long_actions_run_on_the_thread_of_cells(session: Session) -> None:
    import asyncio

    async def cell() -> tuple[LRPicker, str, int]:
        picker = LRPicker(session, session.find_lr(steps=12))
        seen: list[threading.Thread] = []
        picker.train = lambda: seen.append(threading.current_thread())  # type: ignore[method-assign]
        await asyncio.to_thread(picker.act, "train")
        await asyncio.sleep(0.05)
        return picker, picker.error, seen.count(threading.main_thread())

    _, error, on_main = asyncio.run(cell())
    assert (error, on_main) == ("", 1)


def test_toggles_have_three_states_and_change_no_other_layer(session: Session) -> None:
    view = LayerToggles(session)
    session.unfreeze("all")
    session.freeze("0")
    assert view.states == ["frozen", "trains", "trains", "trains"]
    assert [layer["adaptable"] for layer in view.layers][-1] is False  # the head
    can = next(i for i, layer in enumerate(view.layers) if layer["adaptable"])
    view.act("set", low=can, high=can, state="adapted")
    assert view.error == ""
    wanted = ["frozen", "trains", "trains", "trains"]
    wanted[can] = "adapted"
    assert view.states == wanted == [row.state for row in session.layers]
    assert view.magic.startswith(f"%tl_adapt {can}")
    assert session.frozen[can] is False
    assert f"layer {can}, {session.layers[can].name}, adapted, rank 4" in fallback.strip(session.layers)
    assert "◆ adapted" in fallback.strip(session.layers)
    assert "◆ adapted, rank 4" in repr(session.layers)
    view.act("set", low=can, high=can, state="frozen")
    assert view.states[can] == "frozen"
    assert session.layers[can].adapter == ""  # it had learned nothing
    view.act("set", low=can, high=can, state="melted")
    assert view.error == "a layer is frozen, trains, adapted, not 'melted'"
