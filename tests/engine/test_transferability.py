"""Scores of fixed features against independent implementations and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneOut

from tlnb.engine.advice.transferability import PENALTIES, h_score, left_vectors, logme, ridge_probe
from tlnb.engine.forgetting.measure import linear_cka, unbiased_cka


def features(
    n: int = 60, d: int = 8, classes: int = 3, spread: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n + d)
    targets = torch.arange(n) % classes
    middles = torch.randn(classes, d, generator=generator)
    return middles[targets] + spread * torch.randn(n, d, generator=generator), targets


def evidence(f: np.ndarray, y: np.ndarray, alpha: float, beta: float) -> float:
    """The marginal likelihood as a density: y ~ N(0, FF'/alpha + I/beta); no posterior, no SVD."""
    covariance = f @ f.T / alpha + np.eye(len(f)) / beta
    _, log_det = np.linalg.slogdet(covariance)
    return -(len(f) * np.log(2 * np.pi) + log_det + y @ np.linalg.solve(covariance, y)) / 2


@pytest.mark.parametrize(("n", "d"), [(60, 8), (30, 50)])
def test_logme_is_the_highest_evidence_that_a_search_finds(n: int, d: int) -> None:
    from scipy.optimize import minimize

    f, targets = features(n, d)
    f64 = f.double().numpy()
    best = []
    for c in range(3):
        y = (targets == c).double().numpy()
        tries = [
            minimize(lambda p, y=y: -evidence(f64, y, *np.exp(p)), start, method="Nelder-Mead")
            for start in ([0.0, 0.0], [3.0, 3.0], [3.0, 0.0])
        ]
        best.append(-min(t.fun for t in tries) / n)
    assert logme(f, targets) == pytest.approx(np.mean(best), abs=2e-3)


def test_logme_prefers_features_that_tell_the_classes_apart() -> None:
    assert logme(*features(spread=0.3)) > logme(*features(spread=1.0)) > logme(*features(spread=5.0))


def test_the_plain_h_score_is_the_trace_written_out() -> None:
    f, targets = features(90, 6)
    x = f.double().numpy()
    means = np.stack([x[targets.numpy() == c].mean(0) for c in range(3)])[targets.numpy()]
    between = np.cov(means, rowvar=False, bias=True)
    within_all = np.cov(x, rowvar=False, bias=True)
    assert h_score(f, targets, shrink=False) == pytest.approx(np.trace(np.linalg.pinv(within_all) @ between))


def test_the_h_score_of_perfect_features_is_classes_minus_one() -> None:
    targets = torch.arange(400) % 4
    assert h_score(torch.eye(4)[targets], targets, shrink=False) == pytest.approx(3.0)


def test_shrinking_keeps_the_h_score_of_random_features_small() -> None:
    # 50 samples in 100 dimensions: the plain score is the most there is, whatever the labels say.
    f, targets = torch.randn(50, 100, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 5
    assert h_score(f, targets, shrink=False) == pytest.approx(4.0)
    assert h_score(f, targets) < 1.0


def test_the_probe_leaves_each_sample_out_as_if_fitted_anew() -> None:
    f, targets = features(45, 5, spread=1.5)
    x, y = f.double().numpy(), torch.nn.functional.one_hot(targets).double().numpy()
    centred = x - x.mean(0)
    unit = (np.linalg.svd(centred, compute_uv=False) ** 2).mean()
    results = {}
    for penalty in PENALTIES:
        predicted = np.empty_like(y)
        for train, test in LeaveOneOut().split(x):
            predicted[test] = Ridge(alpha=penalty * unit).fit(x[train], y[train]).predict(x[test])
        others = np.array([np.delete(y, i, axis=0).mean(0) for i in range(len(y))])
        named = (predicted - others + y.mean(0)).argmax(1)  # how frequent each class is counts as known
        results[penalty] = ((predicted - y) ** 2).sum(), (named == targets.numpy()).mean()
    best = min(results, key=lambda p: results[p][0])
    found = ridge_probe(f, targets)
    assert found.penalty == best
    assert found.accuracy == pytest.approx(results[best][1])
    assert found.error == pytest.approx((found.accuracy * (1 - found.accuracy) / 45) ** 0.5)


def test_features_that_say_nothing_score_chance_and_not_less() -> None:
    # Two classes of ten: without the one that is left out, the other class is the larger one.
    found = [
        ridge_probe(torch.randn(20, 30, generator=torch.Generator().manual_seed(seed)), torch.arange(20) % 2)
        for seed in range(40)
    ]
    assert sum(probe.accuracy for probe in found) / len(found) == pytest.approx(0.5, abs=0.06)


def test_the_probe_of_measured_values_is_r_squared() -> None:
    x = torch.randn(80, 4, generator=torch.Generator().manual_seed(1))
    exact = x @ torch.tensor([1.0, 2.0, -1.0, 0.5])
    assert ridge_probe(x, exact[:, None]).accuracy > 0.999
    noise = torch.randn(80, 1, generator=torch.Generator().manual_seed(2))
    assert ridge_probe(x, noise).accuracy < 0.2


def hsic(a: np.ndarray, b: np.ndarray) -> float:
    """The double-centred formula of Gretton et al. 2005."""
    n = len(a)
    h = np.eye(n) - np.ones((n, n)) / n
    return np.trace(h @ a @ a.T @ h @ b @ b.T) / (n - 1) ** 2


@pytest.mark.parametrize("d", [5, 70])  # through d×d and through n×n matrices
def test_cka_is_hsic_of_double_centred_kernels(d: int) -> None:
    x, _ = features(40, d)
    y = x[:, :4] ** 2 + 0.1
    a, b = x.double().numpy(), y.double().numpy()
    assert linear_cka(x, y) == pytest.approx(hsic(a, b) / (hsic(a, a) * hsic(b, b)) ** 0.5)


def test_cka_does_not_see_rotation_scale_or_shift() -> None:
    x, _ = features(40, 6)
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(3)))
    assert linear_cka(x, 3 * x @ rotation + 7) == pytest.approx(1.0)


def test_unbiased_cka_of_unrelated_features_is_about_zero_where_the_plain_one_is_not() -> None:
    x, y = (torch.randn(30, 200, generator=torch.Generator().manual_seed(k)) for k in (4, 5))
    assert linear_cka(x, y) > 0.5
    assert abs(unbiased_cka(x, y)) < 0.1
    assert unbiased_cka(x, x) == pytest.approx(1.0)


@pytest.mark.parametrize(("n", "d"), [(60, 8), (30, 50)])  # through d×d and through n×n matrices
def test_left_vectors_are_those_of_the_singular_value_decomposition(n: int, d: int) -> None:
    f = features(n, d)[0].double()
    f[:, 1] = 3 * f[:, 0]  # a direction that is none
    u, squares = left_vectors(f)
    exact_u, exact, _ = torch.linalg.svd(f, full_matrices=False)
    rank = int((exact > 1e-6 * exact[0]).sum())
    assert len(squares) == rank
    assert torch.allclose(squares.flip(0), exact[:rank].square(), rtol=1e-9)
    assert torch.allclose(u @ u.T, exact_u[:, :rank] @ exact_u[:, :rank].T, atol=1e-7)


def test_features_that_do_not_vary_tell_nothing() -> None:
    targets = torch.arange(20) % 2
    assert torch.tensor(logme(torch.zeros(20, 5), targets)).isnan()
    assert ridge_probe(torch.ones(20, 5), targets).accuracy <= 0.5
