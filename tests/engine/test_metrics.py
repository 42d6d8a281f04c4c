"""Scores against scikit-learn's; intervals and comparisons against what they promise."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn import metrics as sk

from tlnb.engine.core.metrics import SCORES, ScoreMeter, score_named, shown_beside
from tlnb.engine.core.objectives import Classification, Regression
from tlnb.engine.results.bootstrap import compare, draws, fold_interval, interval, mcnemar
from tlnb.engine.results.scores import wilson
from tlnb.errors import BadArguments, DataError


def classes(seed, count=60, number=5, present=5):
    """Targets of the first classes only, probabilities with ties, and weights."""
    rng = np.random.default_rng(seed)
    answers = np.round(rng.dirichlet(np.ones(number), count), 2) + 1e-3
    answers /= answers.sum(1, keepdims=True)
    targets = rng.integers(0, present, count)
    better = rng.random(count) < 0.5
    answers[better] = (answers[better] + np.eye(number)[targets[better]]) / 2
    return targets, answers, rng.choice([0.5, 1.0, 3.0], count)


def one_hot(targets, answers):
    return np.eye(answers.shape[1])[targets]


def mean_over_defined(figure, targets, answers, weights):
    """One class against the others, as scikit-learn has it, for the classes for which it is defined."""
    there = one_hot(targets, answers)
    columns = [
        c for c in range(there.shape[1]) if there[:, c].any() and (figure is ap or not there[:, c].all())
    ]
    return np.mean([figure(there[:, c], answers[:, c], sample_weight=weights) for c in columns])


ap, roc = sk.average_precision_score, sk.roc_auc_score
AS_SKLEARN = {
    "accuracy": lambda t, a, w: sk.accuracy_score(t, a.argmax(1), sample_weight=w),
    "balanced": lambda t, a, w: sk.balanced_accuracy_score(t, a.argmax(1), sample_weight=w),
    "f1": lambda t, a, w: sk.f1_score(t, a.argmax(1), average="macro", sample_weight=w),
    "auroc": lambda t, a, w: mean_over_defined(roc, t, a, w),
    "ap": lambda t, a, w: mean_over_defined(ap, t, a, w),
    "kappa": lambda t, a, w: sk.cohen_kappa_score(t, a.argmax(1), sample_weight=w),
    "qwk": lambda t, a, w: sk.cohen_kappa_score(t, a.argmax(1), weights="quadratic", sample_weight=w,
                                                labels=range(a.shape[1])),
    "mcc": lambda t, a, w: sk.matthews_corrcoef(t, a.argmax(1), sample_weight=w),
    "top5": lambda t, a, w: sk.top_k_accuracy_score(t, a, k=5, labels=range(a.shape[1]), sample_weight=w),
    "loss": lambda t, a, w: sk.log_loss(t, a, labels=range(a.shape[1]), sample_weight=w),
}  # fmt: skip


@pytest.mark.parametrize("name", AS_SKLEARN)
@pytest.mark.parametrize(("number", "present"), [(5, 5), (7, 3), (2, 2)])
def test_scores_of_classes_are_scikit_learns(name, number, present):
    for seed in range(5):
        targets, answers, weights = classes(seed, number=number, present=present)
        for given in (None, weights):
            if name == "top5":
                answers = answers + np.arange(number) * 1e-9  # scikit-learn breaks ties by place
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = AS_SKLEARN[name](targets, answers, given) if (name, number) != ("top5", 2) else 1.0
            assert score_named(name, "classes")(targets, answers, given) == pytest.approx(expected, abs=1e-12)


def test_whole_tables_of_scikit_learn_agree_where_every_class_is_there():
    targets, answers, weights = classes(3)
    assert score_named("auroc", "classes")(targets, answers) == pytest.approx(
        roc(targets, answers, multi_class="ovr", average="macro")
    )
    assert score_named("ap", "classes")(targets, answers, weights) == pytest.approx(
        ap(one_hot(targets, answers), answers, sample_weight=weights)
    )


def test_a_single_class_has_no_curve_but_the_other_scores():
    targets, answers = np.zeros(6, int), np.array([[0.8, 0.2]] * 5 + [[0.3, 0.7]])
    assert np.isnan(score_named("auroc", "classes")(targets, answers))
    assert score_named("ap", "classes")(targets, answers) == 1
    assert score_named("balanced", "classes")(targets, answers) == pytest.approx(5 / 6)
    assert (
        score_named("mcc", "classes")(targets, answers)
        == sk.matthews_corrcoef(targets, answers.argmax(1))
        == 0
    )
    assert np.isnan(score_named("kappa", "classes")(targets, np.array([[0.8, 0.2]] * 6)))


@pytest.mark.parametrize("name", sorted(set(AS_SKLEARN) - {"auroc", "kappa", "qwk", "top5"}))
def test_a_single_class_of_several_with_weights_is_scikit_learns(name):
    for seed in range(5):
        targets, answers, weights = classes(seed, number=4, present=1)
        for given in (None, weights):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = AS_SKLEARN[name](targets, answers, given)
            assert score_named(name, "classes")(targets, answers, given) == pytest.approx(expected, abs=1e-12)


def test_scores_of_labels_that_all_have_or_nobody_has_are_scikit_learns():
    rng = np.random.default_rng(1)
    targets, answers = (rng.random((30, 3)) < 0.5).astype(np.float32), np.round(rng.random((30, 3)), 2)
    weights = rng.choice([0.5, 2.0], 30)
    targets[:, 1], targets[:, 2] = 1, 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        each = [roc(targets[:, c], answers[:, c], sample_weight=weights) for c in (0,)]
        found = [ap(targets[:, c], answers[:, c], sample_weight=weights) for c in (0, 1)]
    assert score_named("auroc", "labels")(targets, answers, weights) == pytest.approx(np.mean(each))
    assert score_named("ap", "labels")(targets, answers, weights) == pytest.approx(np.mean(found))
    assert score_named("accuracy", "labels")(targets, answers, weights) == pytest.approx(
        sk.accuracy_score(targets, answers >= 0.5, sample_weight=weights)
    )


def test_scores_of_labels_are_scikit_learns():
    rng = np.random.default_rng(0)
    targets, answers = (rng.random((50, 4)) < 0.3).astype(np.float32), np.round(rng.random((50, 4)), 2)
    weights = rng.choice([1.0, 2.0], 50)
    expected = {
        "ap": ap(targets, answers, sample_weight=weights),
        "auroc": roc(targets, answers, sample_weight=weights),
        "f1": sk.f1_score(targets, answers >= 0.5, average="macro", sample_weight=weights),
        "accuracy": sk.accuracy_score(targets, answers >= 0.5, sample_weight=weights),
        "loss": np.mean([sk.log_loss(targets[:, i], answers[:, i], sample_weight=weights) for i in range(4)]),
    }
    assert list(expected) == list(SCORES["labels"])
    for name, value in expected.items():
        assert score_named(name, "labels")(targets, answers, weights) == pytest.approx(value, abs=1e-12)
    targets[:, 1] = 0  # a label that nobody has is left out
    assert score_named("ap", "labels")(targets, answers) == pytest.approx(
        ap(targets[:, [0, 2, 3]], answers[:, [0, 2, 3]])
    )


def test_scores_of_values_are_scikit_learns():
    rng = np.random.default_rng(0)
    targets = rng.normal(1e4, 1, (40, 2))
    answers, weights = targets + rng.normal(0, 0.5, (40, 2)), rng.choice([1.0, 2.0], 40)
    expected = {
        "r2": sk.r2_score(targets, answers, sample_weight=weights),
        "mae": sk.mean_absolute_error(targets, answers, sample_weight=weights),
        "rmse": sk.root_mean_squared_error(targets, answers, sample_weight=weights),
        "loss": sk.mean_squared_error(targets, answers, sample_weight=weights),
    }
    assert list(expected) == list(SCORES["values"])
    for name, value in expected.items():
        assert score_named(name, "values")(targets, answers, weights) == pytest.approx(value, abs=1e-9)
    targets[:, 0] = 5.0  # what does not vary cannot be explained
    assert score_named("r2", "values")(targets, answers) == pytest.approx(
        sk.r2_score(targets[:, 1], answers[:, 1])
    )


@pytest.mark.parametrize("name", SCORES["classes"])
def test_many_weightings_are_each_weighting(name):
    targets, answers, _ = classes(1, count=30)
    weights = next(draws(30, np.arange(30) // 2, seed=1, number=7))
    score = score_named(name, "classes")
    each = [score(targets, answers, row) for row in weights]
    assert score.many(targets, answers, weights) == pytest.approx(each, nan_ok=True)


def test_batches_give_the_score_of_all():
    rng = torch.Generator().manual_seed(0)
    scores, targets = torch.randn(50, 3, generator=rng), torch.randint(3, (50,), generator=rng)
    meter = ScoreMeter(score_named("f1", "classes"), Classification().answers)
    for x, y in zip(scores.split(16), targets.split(16), strict=True):
        meter.update(x, y)
    assert meter.value() == pytest.approx(sk.f1_score(targets, scores.argmax(1), average="macro"))
    values = 40 + 3 * torch.randn(50, 2, generator=rng)
    task = Regression.of(values)
    meter = ScoreMeter(score_named("mae", "values"), task.answers)
    meter.update(torch.zeros(50, 2), task.standardised(values))
    assert meter.value() == pytest.approx(
        sk.mean_absolute_error(values, values.mean(0).expand(50, 2)), rel=1e-4
    )


def test_names_are_checked_in_one_line():
    with pytest.raises(BadArguments, match="not 'balancd'; did you mean 'balanced'"):
        score_named("balancd", "classes")
    with pytest.raises(BadArguments, match="it is for values"):
        score_named("mae", "classes")


def test_what_is_better_and_what_is_shown_beside():
    mae = score_named("mae", "values")
    assert mae.better(1.0, 2.0)
    assert not mae.better(float("nan"), 2.0)
    assert mae.better(3.0, float("nan"))
    assert shown_beside(np.array([0] * 51 + [1] * 10), "classes") == "balanced"
    assert shown_beside(np.array([0] * 50 + [1] * 10), "classes") is None
    assert shown_beside(np.zeros((3, 2)), "labels") is None


# ------------------------------------------------------------------ how sure


def test_accuracy_has_wilsons_interval():
    targets, answers, _ = classes(0)
    hits = int((answers.argmax(1) == targets).sum())
    found = interval(score_named("accuracy", "classes"), targets, answers)
    assert (found.low, found.high, found.how) == (*wilson(hits, 60), "Wilson")


def test_groups_make_the_interval_as_wide_as_it_is():
    # Ten samples a group, all right or all wrong together: there are 40 facts, not 400.
    rng = np.random.default_rng(0)
    accuracy, covered = score_named("accuracy", "classes"), []
    units = np.arange(400) // 10
    for seed in range(60):
        right = (rng.random(40) < 0.8)[units]
        answers = np.where(right[:, None], [0.9, 0.1], [0.1, 0.9])
        found = interval(accuracy, np.zeros(400, int), answers, units, seed)
        covered.append(found.low <= 0.8 <= found.high)
    assert np.mean(covered) > 0.88
    assert found.how == "bootstrap over 40 groups"
    alone = interval(accuracy, np.zeros(400, int), answers)
    assert found.high - found.low > 2 * (alone.high - alone.low)


def test_all_right_in_few_groups_is_not_certain():
    found = interval(
        score_named("accuracy", "classes"),
        np.zeros(100, int),
        np.array([[1.0, 0.0]] * 100),
        np.arange(100) // 10,
    )
    assert (found.low, found.high) == wilson(10, 10)


def test_other_scores_have_a_bootstrap_that_can_be_repeated():
    targets, answers, _ = classes(2)
    auroc = score_named("auroc", "classes")
    found = interval(auroc, targets, answers)
    assert found == interval(auroc, targets, answers)
    assert found.low < auroc(targets, answers) < found.high
    assert found.how == "bootstrap over 60 samples"


def test_folds_are_less_sure_than_their_spread():
    found = fold_interval([0.8, 0.82, 0.78, 0.81, 0.79], 0.25)
    plain = 2.776 * np.std([0.8, 0.82, 0.78, 0.81, 0.79], ddof=1) / np.sqrt(5)
    assert (found.high - found.low) / 2 == pytest.approx(plain * np.sqrt(5 * (0.2 + 0.25)), rel=1e-3)


def test_mcnemar_is_the_binomial_test():
    for only_a, only_b in ((3, 15), (0, 6), (7, 7), (1, 0), (40, 61)):
        expected = binomtest(only_a, only_a + only_b, 0.5).pvalue
        assert mcnemar(only_a, only_b) == pytest.approx(expected)
    assert mcnemar(0, 0) == 1


def test_two_networks_that_differ_by_luck_are_seldom_told_apart():
    rng = np.random.default_rng(0)
    accuracy, told = score_named("accuracy", "classes"), []
    for seed in range(60):
        a, b = (np.eye(2)[(rng.random(150) < 0.2).astype(int)] for _ in range(2))
        told.append(compare(accuracy, np.zeros(150, int), a, b, seed=seed).more_than_luck)
    assert np.mean(told) < 0.1


def test_a_better_network_is_named_with_what_it_has_right():
    a, b = np.tile([0.9, 0.1], (200, 1)), np.tile([0.9, 0.1], (200, 1))
    a[:30], b[20:25] = [0.1, 0.9], [0.1, 0.9]
    found = compare(score_named("accuracy", "classes"), np.zeros(200, int), a, b, names=("plain", "tuned"))
    assert found.only == (0, 25)
    assert found.better == "tuned"
    assert found.low < found.difference == pytest.approx(0.125)
    assert "only plain has 0 right, only tuned 25; McNemar p" in repr(found)
    assert repr(found).endswith("tuned is better by more than luck")
    loss = compare(score_named("loss", "classes"), np.zeros(200, int), a, b, names=("plain", "tuned"))
    assert loss.better == "tuned"
    assert loss.difference < 0
    same = compare(score_named("f1", "classes"), np.zeros(200, int), a, a)
    assert same.p == 1
    assert "may be luck" in repr(same)
    with pytest.raises(DataError, match="cannot be compared"):
        compare(score_named("f1", "classes"), np.zeros(200, int), a, b[:9])


def test_groups_that_go_together_make_a_difference_less_sure():
    units = np.arange(200) // 50
    a, b = np.tile([0.9, 0.1], (200, 1)), np.tile([0.9, 0.1], (200, 1))
    a[:40] = [0.1, 0.9]  # all in one group
    accuracy = score_named("accuracy", "classes")
    assert compare(accuracy, np.zeros(200, int), a, b).more_than_luck
    assert not compare(accuracy, np.zeros(200, int), a, b, units=units).more_than_luck
