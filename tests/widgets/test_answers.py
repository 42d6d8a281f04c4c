"""Which view an answer brings, whose it is, and what becomes of older ones; in a shell that seems to be a kernel."""

from __future__ import annotations

import copy
import gc
import pickle
from pathlib import Path
from typing import Any

import pytest
import traitlets
from ipywidgets.widgets.widget import _instances
from networks import small

from tlnb.display.progress import Listener
from tlnb.engine.features import prefix
from tlnb.engine.features.samples import FeatureSamples
from tlnb.errors import NotReady
from tlnb.session import Session, reports
from tlnb.session.answers import owner_of
from tlnb.widgets import LayerToggles, LRPicker, Panel, TrainingView
from tlnb.widgets.progress import CellProgress
from tlnb.widgets.showing import VIEW, Showing


class Notebook:
    """The outputs that answers make."""

    def __init__(self, shell: Any, monkeypatch: pytest.MonkeyPatch):
        self.shell, self.outputs = shell, []
        monkeypatch.setattr("tlnb.widgets.showing.live", lambda shell: True)  # a test run is nobody
        shell.kernel = object()
        shell.get_parent = lambda: {"metadata": {"cellId": "a"}, "header": {"msg_id": "1"}}
        monkeypatch.setattr(shell.display_pub, "publish", lambda data, **_: self.outputs.append(data))
        self.showing = Showing(shell)
        self.showing.install()

    def show(self, answer: Any) -> dict[str, Any]:
        """What the answer itself looks like."""
        return dict(self.shell.display_formatter.format(answer)[0])

    @property
    def views(self) -> list[Any]:
        """The views that are in the outputs, oldest first."""
        widgets = {widget.model_id: widget for widget in _instances.values()}
        return [widgets[data[VIEW]["model_id"]] for data in self.outputs if VIEW in data]


@pytest.fixture
def notebook(shell: Any, monkeypatch: pytest.MonkeyPatch) -> Notebook:
    return Notebook(shell, monkeypatch)


def two() -> tuple[Session, Session]:
    sessions = []
    for _ in range(2):
        made = Session(listeners=[])
        made.load("convnet5")
        made.data("digits", per_class=8)
        sessions.append(made)
    return sessions[0], sessions[1]


def test_a_click_on_an_answer_acts_on_the_session_that_gave_it(notebook: Notebook) -> None:
    tl, small = two()
    notebook.show(small.layers)
    (strip,) = notebook.views
    strip.act("preset", name="none")
    assert (all(small.frozen), any(tl.frozen)) == (True, False)
    small.unfreeze("head")
    notebook.show(small.find_lr(steps=12))
    picker = notebook.views[-1]
    assert isinstance(picker, LRPicker)
    picker.act("train")
    assert picker.error == ""
    assert (len(tl.history), len(small.history)) == (0, 1)
    notebook.show(small.panel())
    assert notebook.views[-1].session is small
    notebook.show(tl.unfreeze("0", find=False))
    assert notebook.views[-1].session is tl


def test_what_is_chosen_on_a_map_is_dropped_from_the_data(
    notebook: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLNB_HOME", str(tmp_path))  # where marks are kept
    tl, _ = two()
    tl.clean(drop=tl.split.train[0])  # so that the places in the part are no numbers any more
    notebook.show(tl.map())
    (view,) = notebook.views
    train, valid = len(tl.view.need_data().train), len(tl.view.need_data().valid)
    gone = [int(tl.split.train[3]), int(tl.split.valid[2])]
    view.selected = [3, train + 2]
    view.act("give", to="Drop from the data")
    assert view.error == ""
    assert view.magic == f"%tl_clean --drop {gone[0]},{gone[1]}"
    data = tl.view.need_data()
    assert (len(data.train), len(data.valid)) == (train - 1, valid - 1)
    assert not {*tl.split.train.tolist(), *tl.split.valid.tolist()} & set(gone)
    tl.clean(undo=True)
    tl.clean(undo=True)
    assert (len(tl.view.need_data().train), len(tl.view.need_data().valid)) == (train, valid)


def test_an_answer_whose_session_is_gone_or_unknown_is_its_twin_alone(notebook: Notebook) -> None:
    tl, _ = two()
    table = copy.deepcopy(tl.layers)
    assert owner_of(table) is None
    assert owner_of(pickle.loads(pickle.dumps(tl.find_lr(steps=12)))) is None
    assert owner_of(tl.layers) is tl
    assert "❄" in notebook.show(table)["text/html"]
    lone = Session(listeners=[])
    lone.load("convnet5")
    answer = lone.freeze("0")
    del lone
    gc.collect()
    assert owner_of(answer) is None
    assert "froze layer 0" in notebook.show(answer)["text/html"]
    assert notebook.views == []


def test_the_newest_strip_is_live_and_the_older_ones_show_what_they_found(notebook: Notebook) -> None:
    tl, small = two()
    first = notebook.show(tl.layers)
    notebook.show(small.layers)
    second = notebook.show(tl.freeze("0:5"))
    strips = notebook.views
    assert [strip.retired for strip in strips] == [True, False, False], "each session has its own"
    tl.freeze("7")
    assert (strips[0].frozen[7], strips[2].frozen[7]) == (False, True), "it follows no more"
    assert first["text/html"].count("❄") == 1, "the legend: nothing was frozen there"
    assert second["text/html"].count("❄") == 6
    said = second["text/html"].partition('data-of="')[2].partition("</div></div>")[2]
    assert "froze layers 0–4" in second["text/html"].replace("0-4", "0–4")
    assert "froze layers" in said, "beside the twin, so that it stays while the view is there"
    assert "<details>" in first["text/html"]
    assert "352" in first["text/html"], "the table of parameters"


def test_a_strip_of_a_network_that_was_replaced_becomes_its_twin(notebook: Notebook) -> None:
    tl, _ = two()
    notebook.show(tl.layers)
    tl.load("convnet5")
    (strip,) = notebook.views
    assert strip.retired
    assert not tl._trait_notifiers.get("frozen", {}).get("change"), "nobody follows any more"


def test_frozen_of_a_strip_can_be_set_and_what_is_wrong_is_refused(session: Session) -> None:
    strip, mirror = LayerToggles(session), LayerToggles(session)
    strip.frozen = [True, False, True, False]
    assert session.frozen == (True, False, True, False)
    assert mirror.frozen == [True, False, True, False]
    for wrong in ([True], [True, False, "no", True], [True] * 5):
        with pytest.raises(traitlets.TraitError, match="frozen takes 4 of True and False"):
            strip.frozen = wrong
    assert session.frozen == (True, False, True, False)
    strip.set_state({"frozen": [False] * 4})  # as a page sets it
    assert session.frozen == (False,) * 4
    strip.set_state({"frozen": [False] * 3})
    assert "frozen takes 4" in strip.error
    assert strip.frozen == [False] * 4


def test_a_strip_that_is_set_while_something_trains_keeps_the_truth(session: Session) -> None:
    strip, seen = LayerToggles(session), []

    class Sets(Listener):
        def on_batch(self, step: int, steps: int) -> None:
            if not seen:
                from widgets.parts import in_thread

                with pytest.raises(NotReady, match="training is under way"):
                    in_thread(lambda: setattr(strip, "frozen", [True] * 4))
                seen.append(list(strip.frozen))

    session.listeners = [Sets()]
    session.train(1, 1e-3)
    assert seen == [list(session.frozen)]


def test_the_rate_of_a_picker_can_be_linked_in_both_directions(session: Session) -> None:
    picker = LRPicker(session, session.find_lr(steps=12))

    class Mine(traitlets.HasTraits):
        rate = traitlets.Float(1e-3, allow_none=True)

    mine = Mine()
    traitlets.link((picker, "rate"), (mine, "rate"))
    mine.rate = 0.02
    assert picker.line == picker.magic == "%tl_train epochs 1 lr 0.02"
    picker.act("pick", rate=0.005)
    assert mine.rate == 0.005
    with pytest.raises(traitlets.TraitError, match="a learning rate is a number above 0"):
        picker.rate = -1.0


def test_a_curve_of_other_layers_is_said_and_trains_nothing(session: Session) -> None:
    picker = LRPicker(session, session.find_lr(steps=12))
    session.unfreeze("all")
    assert picker.stale == "found for layer 3; run it again"
    picker.act("train")
    assert picker.error == "this curve was found for layer 3; run it again"
    assert len(session.history) == 0
    session.freeze("body")
    session.unfreeze("-1:")
    assert picker.stale == ""
    session.unfreeze("2:")
    picker.act("find")
    assert (picker.error, picker.stale) == ("", "")
    session.load(small())
    assert picker.stale == "found for another network; run it again"


def test_a_picker_needs_no_curve(session: Session) -> None:
    picker = LRPicker(session)
    assert (picker.curve, repr(picker)) == ({}, "<LRPicker: no rate picked>")
    picker.act("find")
    assert picker.error == ""
    assert picker.rate == picker.result.rate


def test_the_states_of_a_good_run(session: Session) -> None:
    panel, states = Panel(session), []
    panel.observe(lambda change: states.append(change["new"]), "state")
    panel.act("set_epochs", epochs=1)
    panel.act("train")
    assert (panel.error, states) == ("", ["running", "done"])


def test_a_view_of_training_shows_any_run_until_it_is_closed(session: Session) -> None:
    view = TrainingView(session)
    session.train(1, 1e-3)
    assert (view.state, len(view.stages)) == ("done", 1)
    before = list(session.listeners)
    view.close()
    assert view.listener in before
    assert view.listener not in session.listeners


def test_a_run_that_goes_on_shows_the_epochs_before(session: Session) -> None:
    view = TrainingView(session)

    class Stops(Listener):
        def on_epoch(self, record: Any) -> None:
            if record.epoch == 1:
                session.stop_request.ask()

    session.listeners.append(Stops())
    session.train(3, 1e-3)
    session.listeners.pop()
    assert view.state == "stopped"
    session.go_on()
    assert [record["epoch"] for record in view.stages[0]["records"]] == [1, 2, 3]


def test_views_say_what_they_show_where_they_cannot(session: Session) -> None:
    assert repr(LayerToggles(session)) == "<LayerToggles: 4 layers, 0–2 frozen>"
    assert repr(TrainingView(session)) == "<TrainingView: nothing has run yet>"


def test_what_walks_over_samples_has_one_view_with_the_time_left(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlnb.widgets.progress._MOMENT", -1)
    made: list[TrainingView] = []

    def view() -> TrainingView:
        made.append(TrainingView(session, follows=False))
        return made[-1]

    seen = []

    class Reads(Listener):
        def on_walk(self, what: str, done: int, total: int) -> None:
            if made:
                seen.append((made[-1].state, made[-1].progress.get("what"), made[-1].progress.get("steps")))

    session.listeners = [CellProgress(lambda: None, view), Reads()]
    session.results()
    assert len(made) == 1
    assert seen[-1] == ("running", "judging the validation samples", len(session.view.samples[1]))
    assert made[0].state == "", "as before it"


@pytest.mark.parametrize("call", ["results", "tasks", "advise", "forgetting"])
def test_what_walks_over_samples_can_be_stopped_and_changes_nothing(call: str) -> None:
    session, _ = two()
    session.freeze("body")
    session.train(1, 1e-3)
    frozen, epochs = session.frozen, len(session.history)

    class Stops(Listener):
        def on_walk(self, what: str, done: int, total: int) -> None:
            if done:
                session.stop_request.ask()

    session.listeners = [Stops()]
    with pytest.raises(NotReady, match=r"stopped while .*; nothing has changed"):
        getattr(session, call)()
    assert (session.frozen, len(session.history), session.busy, session.stop_request) == (
        frozen,
        epochs,
        "",
        None,
    )
    session.listeners = []
    getattr(session, call)()


def test_results_run_the_frozen_layers_once_and_no_pixels_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    session, _ = two()
    session.freeze("0:5")
    passes, judged, usual, judge = [], [], prefix.run_pass, reports.scores_over

    def spied(parts: Any, samples: Any, *rest: Any) -> Any:
        passes.append(len(samples))
        return usual(parts, samples, *rest)

    monkeypatch.setattr(prefix, "run_pass", spied)
    monkeypatch.setattr(
        reports, "scores_over", lambda m, samples, *r: judged.append(samples) or judge(m, samples, *r)
    )
    before = session.results(worst=0)
    valid = len(before.targets)
    assert passes == [valid], "what no training has kept is computed once"
    session.train(1, 1e-3)
    assert passes == [valid, len(session.view.samples[0])], "and serves the training"
    found = session.results(worst=0)
    assert len(passes) == 2
    assert [type(samples) for samples in judged] == [FeatureSamples] * 2
    assert found.accuracy == session.history[-1].accuracy
    assert found.loss == pytest.approx(session.history[-1].valid_loss, rel=1e-4)
    tasks = session.tasks()
    assert len(passes) == 2
    assert f"accuracy {found.accuracy:.3f}" in repr(tasks)
