"""Figures that are shown are those of the weights, of the data and of the head that they are said to be of."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tlnb.engine.training.history import Run
from tlnb.errors import TrainingError
from tlnb.session import Session
from tlnb.session.advising import advice_key

INPUTS = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))


def session() -> Session:
    torch.manual_seed(0)
    tl = Session([])
    tl.load(nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4)))
    tl.data((INPUTS, torch.arange(60) % 3), batch=16)
    return tl


def test_a_run_that_keeps_the_best_epoch_shows_its_figures() -> None:
    tl = session()
    run = tl.train(6, lr=0.3, schedule="constant", keep_best=True)
    stage = run.stages[0]
    assert stage.final is not None
    best = min(stage.records, key=lambda record: record.valid_loss)
    assert best is not stage.records[-1]
    assert stage.final == best
    assert run.accuracy == pytest.approx(tl.results().accuracy)
    assert f"{best.valid_loss:.4f}" in stage.row()


def test_what_was_measured_on_other_old_data_is_not_shown_for_this() -> None:
    tl = session()
    one, other = (INPUTS, torch.arange(60) % 4), (INPUTS + 1, torch.arange(60) % 4)
    tl.forgetting(one)
    tl.train(lr=1e-2)
    known = tl.forgetting((INPUTS, torch.arange(60) % 4)).stages
    assert known[0].old is not None
    assert tl.forgetting(other).stages[0].old is None


@pytest.mark.parametrize("keep", ["lwf:1", "ewc:1"])
def test_a_guard_that_would_do_nothing_is_refused(keep: str) -> None:
    tl = Session([])
    tl.load(nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1)))
    tl.data((INPUTS, torch.arange(60) % 3), batch=16)
    with pytest.raises(TrainingError, match=r"gives a single value; keep l2sp:0\.05"):
        tl.train(lr=1e-2, keep=keep)
    assert tl.train(lr=1e-2, keep="l2sp:0.05").records


def test_advice_holds_for_this_very_data() -> None:
    tl = Session([])
    tl.load("convnet5")
    tl.data("digits", per_class=5)
    keys = []
    for _ in range(4):
        tl.data((torch.rand(20, 1, 32, 32), torch.arange(20) % 2))
        keys.append(advice_key(tl.view.state))
    assert all(a != b for i, a in enumerate(keys) for b in keys[:i])
    assert keys[-1] == advice_key(tl.view.state)


def trained() -> Session:
    """A good stage on samples whose class is the place of the largest of three numbers."""
    tl = session()
    inputs = torch.randn(200, 6, generator=torch.Generator().manual_seed(1))
    tl.data((inputs, inputs[:, :3].argmax(1)), batch=16)
    tl.train(20, lr=3e-2)
    return tl


def trained_and_spoiled(**settings: object) -> Session:
    """The same, and a stage at a rate that ruins it."""
    tl = trained()
    tl.train(2, lr=5.0, schedule="constant", **settings)
    return tl


def test_after_a_stage_was_taken_back_the_figures_are_those_of_the_network() -> None:
    tl = trained_and_spoiled()
    good, spoiled = tl.history.stages
    assert spoiled.share == 0
    assert spoiled.records[-1].accuracy < good.records[-1].accuracy
    assert tl.history.final == good.final
    assert tl.results().accuracy == pytest.approx(good.final.accuracy)
    assert f"trained  2 stages, 22 epochs; accuracy {100 * good.final.accuracy:.1f} %" in repr(tl.status())
    assert spoiled.note.startswith("was worse (")
    assert [stage.taken_back for stage in tl.history.stages] == [False, True]
    assert "stage 2 was worse and is taken back" in repr(Run(tl.history.stages))
    assert "so the network is that of stage 1 again" in spoiled.row()[-1]
    tl = trained_and_spoiled(guard="off")
    assert tl.history.final == tl.history[-1]
    assert not tl.history.stages[-1].taken_back


def test_a_guard_compares_scores_of_the_same_samples_only() -> None:
    tl = trained()

    class Stops:
        def on_batch(self, step: int, steps: int) -> None:
            tl.stop_request.ask()

    tl.listeners = [Stops()]
    tl.train(2, lr=1e-3)
    tl.listeners = []
    shuffled = torch.randperm(60, generator=torch.Generator().manual_seed(1)) % 3
    tl.data((torch.randn(60, 6, generator=torch.Generator().manual_seed(2)), shuffled), batch=16)
    run = tl.go_on()
    assert run.stages[0].final.accuracy < 0.8 * tl.history.stages[0].final.accuracy
    assert run.stages[0].share == 1.0
