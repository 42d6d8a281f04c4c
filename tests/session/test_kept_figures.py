"""Figures that are shown are those of the weights, of the data and of the head that they are said to be of."""

from __future__ import annotations

import pytest
import torch
from torch import nn

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
