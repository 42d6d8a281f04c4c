"""Advice in a session: the cell, the figures, the plan, and what it says where evidence is thin."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from tlnb.engine.advice.advice import CELLS, behind, decide, write_plan
from tlnb.engine.advice.figures import Figures, LayerScore
from tlnb.engine.data import glyphs
from tlnb.engine.features import prefix
from tlnb.engine.network.layers import find_layers
from tlnb.engine.training.plan import LOW, NORMED, Traits, parse_plan
from tlnb.errors import BadArguments, ModelError, NotReady
from tlnb.session import Session

LETTERS = ("A", "B", "E", "G")


def letters(per_class: int, change=lambda x: x) -> tuple[torch.Tensor, torch.Tensor]:
    images, targets = glyphs.draw(per_class * 8, seed=5, fonts=glyphs.HELD_OUT_FONTS, classes=LETTERS)
    return change(images), targets


def session(data: object, **options: object) -> Session:
    tl = Session([])
    tl.load("convnet5")
    tl.data(data, **options)
    return tl


def figures(**changes: object) -> Figures:
    scores = tuple(LayerScore(k, 0.9, 0.01, 0.5, 3.0) for k in range(1, 8))
    usual = Figures(500, 20, 10, 0.1, scores, 0.99, "norms", {}, 0.5)
    return dataclasses.replace(usual, **changes)


CONVNET5, MOBILENET = Traits(5, True), Traits(52, True)


@pytest.mark.parametrize(
    ("changes", "cell", "kept"),
    [
        ({}, ("little", "high"), 5),
        ({"similarity": 0.8}, ("little", "low"), 0),
        ({"per_class": 300}, ("much", "high"), 0),
        ({"per_class": 300, "similarity": 0.8}, ("much", "low"), 0),
        ({"similarity": None}, ("little", "high"), 5),
        (
            {"scores": (LayerScore(3, 0.9, 0.01, 0.5, 3.0), LayerScore(7, 0.6, 0.01, 0.3, 2.0))},
            ("little", "low"),
            0,
        ),
    ],
)
def test_the_cell_follows_from_the_figures(changes: dict, cell: tuple[str, str], kept: int) -> None:
    layers = session("digits", per_class=5).view.need_layers()
    found = decide(figures(**changes), layers, CONVNET5)
    assert (found.amount, found.likeness) == cell
    assert found.kept == kept
    assert found.procedure == CELLS[cell]
    first, then = parse_plan(write_plan(found, layers, 500, CONVNET5), layers, ())
    assert (first.kind, first.frozen) == ("fit", tuple(range(7)))
    assert (then.frozen, then.init, then.lr, then.blend) == (tuple(range(kept)), "soft", NORMED, "auto")


@pytest.mark.parametrize(
    ("best", "last", "error", "worse"),
    [
        (0.90, 0.90, 0.01, False),
        (0.95, 0.94, 0.01, False),  # one standard error
        (0.95, 0.90, 0.01, True),
        (0.95, 0.90, 0.05, False),  # the same gap, and rough probes
        (0.70, 0.45, 0.05, True),
    ],
)
def test_the_last_layer_is_worse_only_where_that_is_more_than_luck(
    best: float, last: float, error: float, worse: bool
) -> None:
    scores = (*(LayerScore(k, best, error, 0.5, 3.0) for k in (2, 4)), LayerScore(7, last, error, 0.3, 2.0))
    assert behind(scores) == (pytest.approx(best - last), worse)
    layers = session("digits", per_class=5).view.need_layers()
    found = decide(figures(scores=scores), layers, CONVNET5)
    assert found.likeness == ("low" if worse else "high")
    if best > last:
        assert ("more than luck, so" in found.reasons[-1]) == worse


def test_more_layers_to_look_at_take_more_to_be_worse() -> None:
    few, many = ([LayerScore(k, 0.8, 0.05, 0.5, 3.0) for k in range(n)] for n in (2, 40))
    assert behind([LayerScore(1, 0.8, 0.02, 0.5, 3.0), LayerScore(9, 0.74, 0.02, 0.5, 3.0)])[1]
    last = LayerScore(99, 0.74, 0.02, 0.5, 3.0)
    assert behind([*(dataclasses.replace(s, error=0.02) for s in few), last])[1]
    assert not behind(
        [*(dataclasses.replace(s, error=0.02) for s in many), dataclasses.replace(last, probe=0.75)]
    )[1]


@pytest.mark.parametrize(
    ("images", "similarity", "kept"), [(60, 0.99, 1), (60, 0.5, 1), (61, 0.99, 0), (61, 0.5, 0)]
)
def test_a_large_network_moves_as_a_whole_unless_there_is_a_handful_of_images(
    images: int, similarity: float, kept: int
) -> None:
    model = nn.Sequential(nn.Linear(900, 2000), nn.ReLU(), nn.Linear(2000, 30), nn.ReLU(), nn.Linear(30, 10))
    layers = find_layers(model, torch.zeros(1, 900), head="4")
    found = decide(figures(images=images, per_class=6, similarity=similarity), layers, MOBILENET)
    assert found.kept == kept
    assert found.reasons[0].endswith("more than the whole of it") == (images <= 60)
    stage = parse_plan(write_plan(found, layers, images, MOBILENET), layers, ())[1]
    assert (stage.frozen, stage.lr) == (tuple(range(kept)), LOW)


def test_letters_are_alike_and_inverted_ones_are_not() -> None:
    near, far = session(letters(20)).advise(), session(letters(20, lambda x: 255 - x)).advise()
    assert near.cell == ("little", "high")
    assert far.cell == ("little", "low")
    assert near.figures.similarity > 0.97 > 0.8 > far.figures.similarity
    assert near.kept > far.kept == 0


def test_the_table_marks_one_cell_and_the_text_holds_the_figures() -> None:
    advice = session("digits", per_class=20).advise()
    assert repr(advice.table).count("▶") == 1
    assert advice.procedure in repr(advice)
    assert "200 training images, 20 in the smallest class" in repr(advice)
    assert f"similarity {advice.figures.similarity:.2f}" in repr(advice)
    assert len(advice.scores.rows) == 7
    assert all(line in advice._repr_html_() for line in advice.plan.splitlines())


def test_thin_evidence_is_said() -> None:
    assert "only 20 images" in repr(session("digits", per_class=2).advise())
    plenty = figures()
    assert decide(plenty, session("digits", per_class=5).view.need_layers(), CONVNET5).doubts == ()
    assert (
        "no figure for the similarity"
        in decide(figures(similarity=None), session("digits").view.need_layers(), CONVNET5).doubts
    )
    near = decide(figures(similarity=0.965), session("digits", per_class=5).view.need_layers(), CONVNET5)
    assert "near the border" in near.doubts[0]


def test_advice_changes_nothing_and_training_starts_from_what_it_filled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passes, run_pass = [], prefix.run_pass
    monkeypatch.setattr(
        prefix,
        "run_pass",
        lambda parts, samples, *rest: passes.append(len(samples)) or run_pass(parts, samples, *rest),
    )
    tl = session("digits", per_class=10)
    before = {k: v.clone() for k, v in tl.model.state_dict().items()}
    flags, state = tl.frozen, torch.get_rng_state()
    tl.advise()
    assert passes.count(100) == 1  # every cut from one pass of the training samples
    assert all(torch.equal(v, before[k]) for k, v in tl.model.state_dict().items())
    assert tl.frozen == flags
    assert torch.equal(torch.get_rng_state(), state)
    passes.clear()
    tl.freeze("body")
    tl.train(1, 1e-2)
    tl.unfreeze("5:")
    tl.train(1, 1e-3)
    assert passes
    assert 100 not in passes  # the validation samples alone were new


def test_the_advised_plan_runs_whatever_was_frozen_and_asks_first() -> None:
    tl = session(letters(6))
    tl.freeze("head")
    run = tl.train_advised()
    advice = tl.advise()
    assert [stage.stage.text for stage in run.stages] == session(letters(6)).advise().plan.splitlines()
    assert run.accuracy > 0.6
    assert advice is not None
    with pytest.raises(BadArguments, match="brings its own lr"):
        tl.train_advised(lr=1e-3)


def test_what_cannot_be_advised_is_said_in_one_line() -> None:
    tl = Session([])
    with pytest.raises(NotReady, match="no model yet"):
        tl.advise()
    tl.load("convnet5", weights="none")
    tl.data("digits", per_class=3)
    with pytest.raises(ModelError, match="nothing to transfer"):
        tl.advise()
    with pytest.raises(ModelError, match="floor"):
        tl.sweep()


def test_a_sweep_leaves_the_session_alone_and_is_remembered() -> None:
    tl = session("digits", per_class=4)
    before = {k: v.clone() for k, v in tl.model.state_dict().items()}
    sweep = tl.sweep(epochs=1, seeds=1, images=40)
    assert len(sweep.done) == 15
    assert all(torch.equal(v, before[k]) for k, v in tl.model.state_dict().items())
    assert tl.sweep(epochs=1, seeds=1, images=40) is sweep
    blocks = tl.sweep(epochs=1, seeds=1, images=40, blocks=True)
    assert len(blocks.done) == 7
    assert len(tl.history) == 0
