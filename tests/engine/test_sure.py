"""How sure an answer is: temperature, sets that hold, what is none of these."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from tlnb.engine.results.conformal import Conformal, Coverage, RiskCoverage, crossed
from tlnb.engine.results.judging import log_odds
from tlnb.engine.results.novelty import MOST, Novelty, fit_novelty
from tlnb.engine.results.temperature import fit_temperature
from tlnb.errors import CheckpointError, DataError


@pytest.fixture(scope="module")
def digits():
    """Features, and class numbers."""
    found = load_digits()
    return found.data / 16, found.target


def scores_of(pixels, targets, train, rest):
    """A linear network's scores of the rest."""
    model = LogisticRegression(C=3, max_iter=60, tol=1e-3).fit(pixels[train], targets[train])
    return torch.from_numpy(model.decision_function(pixels[rest]))


# ------------------------------------------------------------------ temperature


@pytest.mark.parametrize("hot", [0.25, 1.0, 4.0])
def test_the_temperature_undoes_what_was_done(hot):
    generator = torch.Generator().manual_seed(0)
    scores = 2 * torch.randn(4000, 5, generator=generator)
    targets = torch.multinomial(scores.softmax(1), 1, generator=generator)[:, 0]
    found = fit_temperature(scores * hot, targets)
    assert found.value == pytest.approx(hot, rel=0.05)
    assert found.loss[1] <= found.loss[0] + 1e-6
    assert found.error is not None
    assert found.error[1] < 0.03
    assert torch.allclose(found.probabilities(scores * hot), (scores * hot / found.value).softmax(1))


def test_labels_have_a_temperature_too():
    generator = torch.Generator().manual_seed(0)
    scores = 2 * torch.randn(3000, 3, generator=generator)
    targets = torch.bernoulli(scores.sigmoid(), generator=generator)
    assert fit_temperature(scores * 3, targets).value == pytest.approx(3, rel=0.06)


def test_a_network_that_is_always_right_is_not_infinitely_sure():
    scores = 10 * torch.eye(3)[torch.arange(30) % 3]
    found = fit_temperature(scores, torch.arange(30) % 3)
    wrong = 1 - found.probabilities(scores).amax(1)
    assert wrong.mean() == pytest.approx(1 / 32, rel=0.01)
    assert "temperature" in repr(found)
    with pytest.raises(DataError, match="finite"):
        fit_temperature(scores * float("inf"), torch.arange(30) % 3)


# ------------------------------------------------------------------ sets


def test_sets_hold_the_right_class_as_often_as_they_say(digits):
    pixels, targets = digits
    rng = np.random.default_rng(0)
    order = rng.permutation(len(targets))
    train, rest = order[:300], order[300:]
    scores, own = scores_of(pixels, targets, train, rest), torch.from_numpy(targets[rest])
    for sure in (0.8, 0.9, 0.98):
        shares = []
        for seed in range(100):
            mixed = torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed))
            half, other = mixed.chunk(2)
            found = Conformal.of_classes(scores[half], own[half])
            shares.append(Coverage.of(found.sets(scores[other], sure), own[other], sure).share)
        assert np.mean(shares) == pytest.approx(sure, abs=0.01)


def test_sets_hold_where_probabilities_are_1_to_the_last_bit():
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(4, (2000,), generator=generator)
    scores = (60 + 20 * torch.rand(2000, 1, generator=generator)) * torch.eye(4)[targets]
    found = Conformal.of_classes(scores[:1000], targets[:1000])
    report = Coverage.of(found.sets(scores[1000:], 0.9), targets[1000:], 0.9)
    assert report.share == pytest.approx(0.9, abs=0.03)
    assert report.sizes[0] + report.sizes[1] == 1000


def test_sets_of_samples_are_under_the_bound_of_the_others(digits):
    pixels, targets = digits
    order = np.random.default_rng(0).permutation(len(targets))
    train, rest = order[:300], order[300:]
    scores, own = scores_of(pixels, targets, train, rest), torch.from_numpy(targets[rest])
    sets = crossed(scores, own, 0.9)
    assert Coverage.of(sets, own, 0.9).share == pytest.approx(0.9, abs=0.03)
    assert crossed(scores[:9], own[:9], 0.9) is None
    one = crossed(scores[:60], own[:60], 0.9)
    other = own[:60].clone()
    other[0] = (other[0] + 1) % 10  # what a sample is has no part in its own set
    assert torch.equal(crossed(scores[:60], other, 0.9)[0], one[0])


def test_the_bound_is_the_one_of_the_definition():
    found = Conformal(torch.arange(9.0, dtype=torch.float64))
    assert found.bound(0.9) == 0
    assert found.bound(0.8) == 1
    assert found.surest == 0.9
    assert found.bound(0.91) == -np.inf
    assert found.sets(torch.randn(2, 3), 0.95).all()
    with pytest.raises(DataError, match="sure takes a number between 0 and 1"):
        found.bound(90)


def test_log_odds_are_those_of_the_probabilities():
    scores = torch.randn(20, 4, dtype=torch.float64)
    sure = scores.softmax(1)
    assert torch.allclose(log_odds(scores), (sure / (1 - sure)).log())


def test_spans_of_values_hold_too():
    rng = torch.Generator().manual_seed(0)
    answers = torch.randn(4000, 2, generator=rng)
    targets = answers + torch.randn(4000, 2, generator=rng)
    width = Conformal.of_values(answers[:2000], targets[:2000]).half_width(0.9)
    inside = ((answers[2000:] - targets[2000:]).abs() <= width).all(1).float().mean()
    assert inside == pytest.approx(0.9, abs=0.025)


def test_a_report_says_how_large_the_sets_are():
    sets = torch.tensor(
        [[True, False, False], [True, True, False], [False, False, False], [True, True, True]]
    )
    report = Coverage.of(sets, torch.tensor([0, 1, 2, 2]), 0.75)
    assert (report.share, report.mean_size, report.sizes) == (0.75, 1.5, (1, 1, 1, 1))
    assert "75.0 % hold the right class" in repr(report)
    assert repr(report).endswith("1.50 classes a set, 1 of them empty")


def test_the_risk_falls_with_the_share_that_is_answered():
    found = RiskCoverage.of(np.array([0.9, 0.5, 0.9, 0.4]), np.array([True, False, True, False]))
    assert found.coverage.tolist() == [0.5, 0.75, 1.0]
    assert found.risk.tolist() == [0, 1 / 3, 0.5]
    assert found.area == pytest.approx((0 * 2 + 1 / 3 + 0.5) / 4)
    assert found.answered(0.4) == 0.75
    assert RiskCoverage.of(np.array([0.9]), np.array([False])).answered(0.4) == 0
    assert len(found.figure.axes) == 1


# ------------------------------------------------------------------ none of these


def test_classes_that_were_left_out_are_told_better_than_by_the_largest_probability(digits):
    pixels, targets = digits
    gains = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        left = rng.choice(10, 2, replace=False)
        known = rng.permutation(np.flatnonzero(~np.isin(targets, left)))
        strange = np.flatnonzero(np.isin(targets, left))
        train, valid, test = known[:500], known[500:900], np.concatenate([known[900:], strange])
        features = torch.from_numpy(pixels).float()
        found = fit_novelty(features[train], features[valid], scores_of(pixels, targets, train, valid))
        scores, new = scores_of(pixels, targets, train, test), np.isin(targets[test], left)
        strangeness = found.strangeness(features[test], scores)
        gains.append(roc_auc_score(new, strangeness) - roc_auc_score(new, -scores.softmax(1).amax(1)))
        alarms = found.none_of_these(features[test], scores).numpy()[~new].mean()
        assert alarms == pytest.approx(0.05, abs=0.04)
    assert np.mean(gains) > 0.03


def test_it_goes_through_plain_tensors():
    features, scores = torch.randn(60, 4), torch.randn(60, 3)
    found = fit_novelty(features[:40], features[40:], scores[40:])
    tensors = {name: tensor.clone() for name, tensor in found.tensors().items()}
    again = Novelty.from_tensors(tensors)
    assert torch.equal(again.strangeness(features, scores), found.strangeness(features, scores))
    assert again.threshold(0.1) == found.threshold(0.1) > found.threshold(0.5)
    with pytest.raises(CheckpointError, match="lacks scale"):
        Novelty.from_tensors({k: v for k, v in tensors.items() if k != "scale"})
    with pytest.raises(CheckpointError, match="another shape"):
        Novelty.from_tensors(tensors | {"centre": torch.zeros(5)})


def test_of_many_samples_each_class_keeps_as_many():
    targets = torch.cat([torch.zeros(3 * MOST), torch.ones(300)]).long()
    features = torch.randn(len(targets), 2) + 100 * targets[:, None]
    found = fit_novelty(features, features[:9], torch.randn(9, 2), targets=targets)
    assert len(found.references) == MOST
    assert int((found.references[:, 0] > 0.5).sum()) >= 300


def test_too_few_samples_never_raise_an_alarm():
    features, scores = torch.randn(20, 4), torch.randn(20, 3)
    found = fit_novelty(features[:10], features[10:], scores[10:])
    assert not found.none_of_these(100 * features, scores, false_alarms=0.01).any()
    with pytest.raises(DataError, match="two validation samples"):
        fit_novelty(features, features[:1], scores[:1])
    with pytest.raises(DataError, match="false alarms"):
        found.threshold(0)
    with pytest.raises(DataError, match="finite"):
        fit_novelty(features / 0, features, scores)
