"""The view of a map: what is chosen goes to the answer, to other widgets and to variables."""

from __future__ import annotations

import ipywidgets
import numpy as np
import pytest
import traitlets

from tlnb.engine.results.feature_map import Selection
from tlnb.errors import NotReady
from tlnb.session import Session
from tlnb.widgets import Map


def test_what_is_chosen_can_be_observed_linked_and_read_from_the_answer(session: Session) -> None:
    answer = session.map()
    view, other = Map(session, answer), ipywidgets.SelectMultiple(options=range(len(answer)))
    heard: list[list[int]] = []
    view.observe(lambda change: heard.append(change["new"]), "selected")
    traitlets.dlink((view, "selected"), (other, "value"), tuple)
    view.set_state({"selected": [7, 3]})  # as a page does
    assert heard == [[3, 7]]
    assert answer.selected == other.value == (3, 7)
    assert view.chosen.startswith("2 chosen: ")
    view.set_state({"selected": [len(answer)]})
    assert view.error == f"places of this map are 0 to {len(answer) - 1}"
    assert view.selected == [3, 7]
    with pytest.raises(traitlets.TraitError, match="places of this map"):
        view.selected = [-1]


def test_points_reach_the_page_as_they_are(session: Session) -> None:
    answer = session.map(colour="part")
    view = Map(session, answer)
    assert np.array_equal(np.frombuffer(view.points, np.float32).reshape(-1, 2), answer.coordinates)
    assert np.array_equal(np.frombuffer(view.targets, np.float32), answer.targets)
    assert np.array_equal(np.frombuffer(view.wrong, np.uint8), ~answer.correct)
    assert (view.colour, view.layer, len(view.layers)) == ("part", answer.layer, 4)


def test_a_sample_is_looked_at(session: Session) -> None:
    view = Map(session, session.map())
    view.act("look", place=4)
    assert view.error == ""
    assert view.sample["place"] == 4
    assert view.sample["name"] == view.answer.names[4]
    assert view.sample["picture"].startswith("data:image/png;base64,")
    view.act("look", place=10_000)
    assert view.error.startswith("places of this map")


def test_a_selection_goes_to_a_variable_or_to_somebody(session: Session) -> None:
    variables: dict[str, object] = {}
    given: list[Selection] = []
    view = Map(session, session.map(), put=variables.__setitem__, to={"Clean": given.append})
    view.act("keep", name="mine")
    assert view.error.startswith("nothing is chosen")
    view.selected = [1, 2]
    for bad in ("", "a b", "for", "x.y"):
        view.act("keep", name=bad)
        assert "no name of a variable" in view.error
    view.act("keep", name="mine")
    view.act("give", to="Clean")
    assert view.given == ["Clean"]
    assert given == [variables["mine"]] == [view.answer.selection]
    view.act("give", to="nobody")
    assert "cannot be given" in view.error


def test_another_layer_is_drawn_in_the_same_view_and_an_error_leaves_it(session: Session) -> None:
    view = Map(session, session.map())
    view.selected = [1]
    before = view.points
    view.act("draw", layer=0)
    assert (view.layer, view.selected, view.magic) == (0, [], "%tl_map 0")
    assert view.points != before
    view.act("draw", layer=99)
    assert "no layer" in view.error
    assert view.layer == 0
    view.disabled = True
    view.act("draw", layer=1)
    assert view.layer == 0


def test_without_data_it_waits_and_when_closed_it_follows_no_more() -> None:
    session = Session(listeners=[])
    view = Map(session)
    assert view.layers == []
    view.act("keep", name="x")
    assert view.error == "no map has been drawn yet"
    session.load("convnet5")
    assert len(view.layers) == 8
    view.close()
    assert not any(
        getattr(handlers, "__len__", lambda: 0)()
        for handlers in session._trait_notifiers.get("revision", {}).values()
    )


def test_without_variables_it_is_said(session: Session) -> None:
    view = Map(session)
    view.selected = [0]
    view.act("keep", name="x")
    assert isinstance(view.failure, NotReady)
