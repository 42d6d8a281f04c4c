"""The score that the user names is the one that epochs are judged and shown by."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from tlnb.engine.core.metrics import SCORES
from tlnb.engine.core.objectives import Classification, Regression, scored, worth
from tlnb.engine.training.ending import Best
from tlnb.errors import TlnbError
from tlnb.magics import commands
from tlnb.session import Session


@pytest.fixture(scope="module")
def by_area(tmp_path_factory: pytest.TempPathFactory) -> Session:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLNB_HOME", str(tmp_path_factory.mktemp("home")))
        found = Session([])
        found.load("convnet5")
        found.data("digits", per_class=10, score="auroc", test=0.2)
        found.freeze("body")
        found.train(lr=2e-2, epochs=3, keep_best=True)
    return found


def test_the_command_takes_all_scores():
    assert set(commands.SCORES) == {name for each in SCORES.values() for name in each}


def test_history_results_and_test_part_show_it(by_area):
    last = by_area.history.stages[-1].records[-1]
    found = by_area.results(worst=0)
    assert last.metric_name == "auroc" == found.metric
    expected = roc_auc_score(found.targets, found.answers, multi_class="ovr")
    assert found.figure_value == pytest.approx(expected, abs=1e-6)
    assert found.accuracy == (found.predicted == found.targets).mean()
    assert found.summary.startswith("digits: auroc 0.9")
    assert by_area.test().score.name == "auroc"


def test_the_script_names_what_it_measures(by_area):
    text = by_area.script().text
    assert "auroc" not in text.split("def train")[-1]


def test_the_file_keeps_it(by_area, tmp_path):
    by_area.save(str(tmp_path / "one"))
    other = Session([])
    other.resume(str(tmp_path / "one"))
    assert other.view.data.task.metric == "auroc"


@pytest.mark.parametrize(
    ("task", "figures", "best"),
    [
        (Classification(), (0.5, 0.9, 0.7), 2),  # by the loss below
        (scored(Classification(), "balanced"), (0.5, 0.9, 0.7), 1),
        (scored(Regression(), "mae"), (3.0, 2.0, 1.0), 2),
        (scored(Classification(), "auroc"), (math.nan, 0.6, math.nan), 1),
    ],
)
def test_the_best_epoch_is_the_one_of_the_best_score(task, figures, best):
    losses = (3.0, 2.0, 1.0)
    found = [worth(task, loss, figure) for loss, figure in zip(losses, figures, strict=True)]
    assert found.index(min(found)) == best


def test_keep_best_takes_by_worth(by_area):
    kept = Best(by_area.model, by_area.view.layers, by_area.view.state.frozen_indexes)
    for epoch, value in enumerate((-0.5, -0.9, -0.7), start=1):
        kept.take(value, epoch)
    assert kept.epoch == 2


def test_very_uneven_classes_show_the_mean_over_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TLNB_HOME", str(tmp_path))
    targets = torch.tensor([0] * 90 + [1] * 12)
    inputs = torch.randn(102, 4, generator=torch.Generator().manual_seed(0)) + targets[:, None]
    session = Session([])
    session.load(
        torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)), input=(4,)
    )
    session.data((inputs, targets), valid=0.3, test=0.3)
    found, tested = session.results(worst=0), session.test()
    balanced = balanced_accuracy_score(found.targets, found.predicted)
    assert f"balanced {100 * balanced:.1f} %" in found.summary
    assert tested.beside[1] == pytest.approx(
        balanced_accuracy_score(tested.results.targets, tested.results.predicted)
    )


@pytest.mark.parametrize("score", ["acuracy", "r2", "", 3])
def test_a_wrong_score_is_one_line_and_changes_nothing(score):
    session = Session([])
    with pytest.raises(TlnbError) as caught:
        session.data((np.zeros((20, 3)), np.arange(20) % 2), score=score)
    assert "\n" not in str(caught.value)
    assert session.view.data is None
