"""A fitted head is that of scikit-learn: same scaling, same penalty, same choice of its strength."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, Ridge, RidgeCV
from sklearn.model_selection import PredefinedSplit
from sklearn.preprocessing import StandardScaler

from tlnb.engine.training.linear_fit import FOLDS, STRENGTHS, UNKNOWN, fit_linear, folds_of

LIKE = {"rtol": 0, "atol": 1e-4}


def features(count: int, width: int, seed: int = 0) -> torch.Tensor:
    """Of unlike size, off zero, correlated, and two of them constant."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, width, generator=generator) @ torch.randn(width, width, generator=generator)
    x = x * torch.logspace(-2, 1, width) + torch.linspace(-3, 5, width)
    x[:, 1], x[:, 3] = 7.25, 0.0
    return x


def classes_of(x: torch.Tensor, count: int, noise: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(9)
    z = (x - x.mean(0)) / x.std(0).clamp(min=1e-6)
    scores = z @ torch.randn(x.shape[1], count, generator=generator)
    return (scores + noise * scores.std() * torch.randn(scores.shape, generator=generator)).argmax(1)


def unfolded(scaler: StandardScaler, found: dict) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and intercepts of what stands behind the scaling in a pipeline."""
    weight, bias = found["weight"].numpy(), found["bias"].numpy()
    return weight * scaler.scale_, bias + weight @ scaler.mean_


def sure(strength: float, **options: object) -> LogisticRegression:
    return LogisticRegression(C=strength, tol=1e-10, max_iter=100_000, **options)


@pytest.mark.parametrize(("count", "width", "classes"), [(60, 8, 3), (24, 40, 4), (90, 6, 2)])
@pytest.mark.parametrize("strength", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_classes(count: int, width: int, classes: int, strength: float, weighted: bool) -> None:
    x = features(count, width)
    y = classes_of(x, classes)
    weights = torch.linspace(0.5, 2, classes) if weighted else None
    found = fit_linear(x, y, classes, weights, strength)
    scaler = StandardScaler()
    z = scaler.fit_transform(x.double().numpy())
    given = None if weights is None else dict(enumerate(weights.tolist()))
    theirs = sure(strength, class_weight=given).fit(z, y)
    weight, bias = unfolded(scaler, found)
    if classes == 2:  # the score of the second class against the first one's
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    np.testing.assert_allclose(weight, theirs.coef_, **LIKE)
    np.testing.assert_allclose(bias - bias.mean(), theirs.intercept_ - theirs.intercept_.mean(), **LIKE)
    shares = (x.double() @ found["weight"].T + found["bias"]).softmax(1)
    np.testing.assert_allclose(shares, theirs.predict_proba(z), **LIKE)
    assert found["weight"][:, [1, 3]].abs().max() < 1e-9, "a constant feature says nothing"


@pytest.mark.parametrize("weighted", [False, True])
def test_labels_are_one_against_the_rest(weighted: bool) -> None:
    x = features(70, 9)
    labels = torch.stack([classes_of(x[:, k:], 2) for k in range(3)], 1).to(torch.uint8)
    weights = torch.tensor([0.5, 1.0, 3.0]) if weighted else None
    found = fit_linear(x, labels, 3, weights, 0.3)
    scaler = StandardScaler()
    z = scaler.fit_transform(x.double().numpy())
    for at in range(3):
        given = None if weights is None else {0: 1.0, 1: weights[at].item()}
        theirs = sure(0.3, class_weight=given).fit(z, labels[:, at])
        weight, bias = unfolded(scaler, found)
        np.testing.assert_allclose(weight[at], theirs.coef_[0], **LIKE)
        np.testing.assert_allclose(bias[at], theirs.intercept_[0], **LIKE)


@pytest.mark.parametrize(("count", "width"), [(50, 7), (20, 30)])
def test_values_are_ridge_regression_with_each_sample_left_out_in_turn(count: int, width: int) -> None:
    x = features(count, width)
    y = torch.stack([x[:, 2] * 3 + 1, x[:, 4] - x[:, 5]], 1) + torch.randn(count, 2)
    found = fit_linear(x, y, 2)
    scaler = StandardScaler()
    z = scaler.fit_transform(x.double().numpy())
    alphas = [10.0**-k for k in range(-6, 5)]
    chosen = RidgeCV(alphas).fit(z, y.double().numpy()).alpha_
    assert 1 / found["strength"] == pytest.approx(chosen)
    theirs = Ridge(chosen, solver="svd").fit(z, y.double().numpy())
    weight, bias = unfolded(scaler, found)
    np.testing.assert_allclose(weight, theirs.coef_, **LIKE)
    np.testing.assert_allclose(bias, theirs.intercept_, **LIKE)


@pytest.mark.parametrize(("noise", "width"), [(0.1, 6), (1.0, 12), (1.0, 60), (9.0, 12)])
def test_the_strength_is_the_one_that_folds_choose(noise: float, width: int) -> None:
    x = features(80, width)
    y = classes_of(x, 3, noise)
    found = fit_linear(x, y, 3)
    folds = folds_of(y)
    assert folds is not None
    assert found["folds"] == FOLDS
    z = StandardScaler().fit_transform(x.double().numpy())
    named = inspect.signature(
        LogisticRegressionCV
    ).parameters  # scikit-learn 1.8 asks which attributes are meant
    more = {"use_legacy_attributes": True, "l1_ratios": (0.0,)} if "use_legacy_attributes" in named else {}
    theirs = LogisticRegressionCV(
        Cs=list(STRENGTHS), cv=PredefinedSplit(folds.numpy()), scoring="neg_log_loss", max_iter=10_000, tol=1e-8,
        **more,
    ).fit(z, y)  # fmt: skip
    losses = -np.mean(next(iter(theirs.scores_.values())), axis=0).reshape(-1)
    # Of strengths that are as good as each other either may be taken.
    assert losses[STRENGTHS.index(found["strength"])] <= losses.min() * 1.02


def test_each_class_is_in_the_training_part_of_every_fold() -> None:
    y = torch.tensor([0] * 2 + [1] * 9 + [3] * 30)
    folds = folds_of(y)
    assert folds is not None
    assert set(folds.tolist()) == {0, 1}
    for fold in range(2):
        assert set(y[folds != fold].tolist()) == {0, 1, 3}
    counts = torch.bincount(folds_of(torch.arange(53) % 4))  # type: ignore[arg-type]
    assert len(counts) == FOLDS
    assert counts.max() - counts.min() <= 1


def test_a_single_sample_of_a_class_makes_no_folds() -> None:
    x = features(10, 6)
    y = torch.tensor([0, 1, *[2, 3] * 4])
    found = fit_linear(x, y, 4)
    assert (found["strength"], found["folds"]) == (UNKNOWN, 0)
    assert torch.equal(found["weight"], fit_linear(x, y, 4, strength=UNKNOWN)["weight"])


def test_classes_and_labels_that_no_sample_has_are_never_said() -> None:
    x = features(40, 6)
    y = classes_of(x, 3) * 2  # of five classes two are missing
    found = fit_linear(x, y, 5)
    shares = (x.double() @ found["weight"].T + found["bias"]).softmax(1)
    assert shares.isfinite().all()
    assert shares[:, [1, 3]].max() < 0.01
    labels = torch.stack([y == 0, torch.zeros(40), torch.ones(40)], 1).to(torch.uint8)
    found = fit_linear(x, labels, 3)
    shares = (x.double() @ found["weight"].T + found["bias"]).sigmoid()
    assert shares[:, 1].max() < 0.01
    assert shares[:, 2].min() > 0.99


def test_features_that_are_all_constant_give_the_shares_of_the_classes() -> None:
    found = fit_linear(torch.ones(40, 3), torch.arange(40) % 4 % 3, 3)
    assert not found["weight"].any()
    values = fit_linear(torch.ones(6, 3), torch.arange(6.0)[:, None], 1)
    assert not values["weight"].any()
    assert values["bias"].item() == pytest.approx(2.5)
    torch.testing.assert_close(
        found["bias"].softmax(0), torch.tensor([0.5, 0.25, 0.25]).double(), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize(("mean", "noise"), [(0.0, 4e-9), (2.0, 1e-7), (3e-33, 1e-33)])
def test_a_feature_that_varies_by_rounding_alone_gets_no_weight(mean: float, noise: float) -> None:
    x = features(60, 10)
    y = classes_of(x, 3)
    x = torch.cat([x, mean + noise * torch.randn(60, 1, generator=torch.Generator().manual_seed(2))], 1)
    found = fit_linear(x, y, 3)
    assert found["weight"][:, -1].abs().max() < 10 * found["weight"][:, :-1].abs().max()


def test_the_same_samples_give_the_same_bits() -> None:
    x = features(60, 30)
    y = classes_of(x, 4)
    once, twice = fit_linear(x, y, 4), fit_linear(x.clone(), y, 4)
    assert torch.equal(once["weight"], twice["weight"])
    assert torch.equal(once["bias"], twice["bias"])
