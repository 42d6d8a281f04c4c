"""The score that the user names is the one that epochs are judged and shown by."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from tlnb.engine.advice.advice import behind
from tlnb.engine.advice.figures import LayerScore
from tlnb.engine.advice.transferability import ridge_probe
from tlnb.engine.core.metrics import SCORES
from tlnb.engine.core.objectives import Classification, Regression, scored, worth
from tlnb.engine.training.ending import Best
from tlnb.errors import TlnbError
from tlnb.magics import network_and_data as commands
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


# -------------------------------------------------------------------- advice and sweeps go by it


def rows(score: str | None, tmp_path, monkeypatch) -> Session:
    monkeypatch.setenv("TLNB_HOME", str(tmp_path))
    generator = torch.Generator().manual_seed(0)
    targets = (torch.arange(160) % 8 == 0).long()  # one of eight
    inputs = torch.randn(160, 6, generator=generator)
    inputs[:, 0] += 2.5 * targets
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(6, 16),
        torch.nn.ReLU(),
        torch.nn.Linear(16, 16),
        torch.nn.ReLU(),
        torch.nn.Linear(16, 2),
    )
    session = Session([])
    session.load(net, input=(6,))
    session.data((inputs, targets), valid=0.4, score=score)
    return session


@pytest.mark.parametrize(
    ("score", "floor", "larger"),
    [("auroc", 0.5, True), ("balanced", 0.5, True), ("loss", 0.3768, False), ("kappa", 0.0, True)],
)
def test_a_sweep_goes_by_the_score(score, floor, larger, tmp_path, monkeypatch):
    session = rows(score, tmp_path, monkeypatch)
    found = session.sweep(epochs=4, seeds=1, images=160, lr=2e-2)
    assert (found.metric, found.larger) == (score, larger)
    assert found.chance == pytest.approx(floor, abs=0.01)
    means = {(mode, k): mean for mode in found.modes for k, (mean, _) in found.curve(mode).items()}
    top = (max if larger else min)(means, key=means.get)
    assert found.best in (top, None)
    assert found.best == top or abs(means[top] - floor) < 0.3
    assert score in repr(found)


def test_a_sweep_that_is_worse_than_chance_has_no_best(tmp_path, monkeypatch):
    session = rows("loss", tmp_path, monkeypatch)
    found = session.sweep(epochs=1, seeds=1, images=160, lr=1e-6)
    assert found.best is None
    assert "no depth is below chance" in repr(found)


def test_advice_goes_by_the_score(tmp_path, monkeypatch):
    usual, by_area = rows(None, tmp_path, monkeypatch).advise(), rows("auroc", tmp_path, monkeypatch).advise()
    assert by_area.figures.metric == "auroc"
    assert by_area.figures.chance == pytest.approx(0.5)
    assert usual.figures.chance == pytest.approx(0.875)
    assert "by auroc" in repr(by_area)
    assert "linear probe, auroc" in repr(by_area.scores)
    assert "by auroc" not in repr(usual)
    by_loss = rows("loss", tmp_path, monkeypatch).advise()
    assert not by_loss.figures.larger
    assert "but of the probe less" in repr(by_loss.scores)


@pytest.mark.parametrize("larger", [True, False])
def test_the_best_layer_is_the_one_of_the_better_score(larger):
    sign = 1 if larger else -1
    scores = [
        LayerScore(k, 0.5 + sign * value, 0.01, 0.0, None) for k, value in enumerate((0.1, 0.4, 0.1), 1)
    ]
    gap, worse = behind(scores, larger=larger)
    assert (gap, worse) == (pytest.approx(0.3), True)


def test_a_probe_by_a_score_is_that_of_the_samples_left_out():
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(40) % 2
    x = torch.randn(40, 5, generator=generator) + targets[:, None]
    found = ridge_probe(x, targets, scored(Classification(), "auroc"))
    f = (x - x.mean(0)).double().numpy()
    unit = (f**2).sum() / 5
    y = np.eye(2)[targets.numpy()]
    left_out = []
    for i in range(40):
        others = np.arange(40) != i
        fit = Ridge(alpha=found.penalty * unit).fit(f[others], y[others])
        left_out.append(fit.predict(f[i : i + 1])[0] - y[others].mean(0) + y.mean(0))
    area = np.mean([roc_auc_score(y[:, c], np.array(left_out)[:, c]) for c in (0, 1)])
    assert found.accuracy == pytest.approx(area)
    assert 0 < found.error < 0.15
