"""How well fixed features tell the new classes apart: scores without training, a probe in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tlnb.engine.core.metrics import CLASSES, VALUES
from tlnb.engine.core.objectives import Objective

ROUNDS = 50


def one_hot(targets: Tensor) -> Tensor:
    """Targets as columns: (n, classes) of 0 and 1 for classes; floating-point targets as they are, 2-D."""
    if targets.is_floating_point():
        return targets.double().reshape(len(targets), -1)
    return functional.one_hot(targets, int(targets.max()) + 1).double()


def left_vectors(f: Tensor) -> tuple[Tensor, Tensor]:
    """Left singular vectors of a matrix and the squares of its singular values, from the smaller Gram matrix.

    Three times as fast as a singular value decomposition. What it loses are directions whose squared singular
    value is below rounding, ``n eps`` times the largest; they are left out.

    Args:
        f: (n, d), float64.

    Returns:
        (n, r) with orthonormal columns, and (r,), r the rank that is left.
    """
    wide = f.shape[1] > len(f)
    squares, vectors = torch.linalg.eigh(f @ f.T if wide else f.T @ f)
    largest = squares[-1].clamp(min=0)
    there = squares > max(f.shape) * torch.finfo(f.dtype).eps * largest
    squares, vectors = squares[there], vectors[:, there]
    return (vectors if wide else (f @ vectors) / squares.sqrt()), squares


def logme(features: Tensor, targets: Tensor) -> float:
    """Logarithm of maximum evidence (You et al. 2021, "LogME", algorithm 1 with its fixed-point iteration).

    For each class a Bayesian linear regression ``y = F w + noise`` with prior ``w ~ N(0, 1/alpha)`` and noise
    ``N(0, 1/beta)``; the evidence is maximised over alpha and beta:

    ``n/2 log beta + d/2 log alpha - n/2 log 2 pi - beta/2 |Fm - y|^2 - alpha/2 m'm - 1/2 log|A|``,
    ``A = alpha I + beta F'F``, ``m = beta A^-1 F'y``; then divided by n, and the mean over classes taken.

    Args:
        features: (n, d).
        targets: int64 (n,), or floating point (n,) or (n, outputs).

    Returns:
        NaN where all features are 0.
    """
    f, y = features.double(), one_hot(targets)
    y = y[:, y.abs().sum(0) > 0]
    u, squares = left_vectors(f)
    if not len(squares):
        return float("nan")
    along = (u.T @ y).square()  # (r, classes)
    beside = (y.square().sum(0) - along.sum(0)).clamp(min=0)
    scores = [_evidence(squares, along[:, c], float(beside[c]), f.shape) for c in range(y.shape[1])]
    return sum(scores) / len(scores)


def _evidence(squares: Tensor, along: Tensor, beside: float, shape: torch.Size) -> float:
    """Largest evidence of one column, divided by the number of samples."""
    n, d = shape
    alpha, beta, m2, residual = 1.0, 1.0, 0.0, 0.0
    for _ in range(ROUNDS):
        ratio = alpha / beta
        gamma = float((squares / (squares + ratio)).sum())
        m2 = float((squares * along / (squares + ratio).square()).sum())
        residual = float((along / (1 + squares / ratio).square()).sum()) + beside
        before = ratio
        alpha, beta = gamma / (m2 + 1e-12), (n - gamma) / (residual + 1e-12)
        if abs(alpha / beta - before) <= 1e-3 * before:
            break
    ratio = alpha / beta
    m2 = float((squares * along / (squares + ratio).square()).sum())
    residual = float((along / (1 + squares / ratio).square()).sum()) + beside
    log_det = float((alpha + beta * squares).log().sum()) + (d - len(squares)) * math.log(alpha)
    evidence = n * math.log(beta) + d * math.log(alpha) - n * math.log(2 * math.pi)
    return (evidence - beta * residual - alpha * m2 - log_det) / 2 / n


def h_score(features: Tensor, targets: Tensor, *, shrink: bool = True) -> float:
    """``tr(cov(f)^-1 cov(E[f | y]))`` (Bao et al. 2019); larger is better, at most classes - 1.

    With few samples cov(f) has no inverse; it is then shrunk towards a multiple of the identity (Ledoit and
    Wolf 2004) and the score multiplied by ``1 - shrinkage``, as in Ibrahim et al. 2021.

    Args:
        features: (n, d).
        targets: int64 of shape (n,).
        shrink: False for the plain formula, with a pseudo-inverse.
    """
    f = features.double()
    f = f - f.mean(0)
    counts = torch.bincount(targets).double()
    present = counts > 0
    sums = torch.zeros(len(counts), f.shape[1], dtype=f.dtype).index_add_(0, targets, f)
    means = sums[present] / counts[present, None]
    weighted = means * (counts[present, None] / len(f)).sqrt()  # cov(E[f|y]) = weighted' weighted
    if not shrink:
        inverse = torch.linalg.pinv(f.T @ f / len(f), hermitian=True)
        return float(torch.einsum("kd,de,ke->", weighted, inverse, weighted))
    from sklearn.covariance import ledoit_wolf

    covariance, shrinkage = ledoit_wolf(f.numpy(), assume_centered=True)
    scale = float(covariance.trace()) / len(covariance)
    fixed = torch.from_numpy(covariance) + 1e-10 * max(scale, 1e-300) * torch.eye(f.shape[1], dtype=f.dtype)
    return (1 - float(shrinkage)) * float((weighted * torch.linalg.solve(fixed, weighted.T).T).sum())


DRAWS = 100  # of the samples, for the error of a score
LEAST = 1e-3  # that a probe's answer counts as a probability
PENALTIES = tuple(10.0**k for k in range(-4, 4))


@dataclass(frozen=True)
class Probe:
    """What a linear probe found.

    Attributes:
        accuracy: share of samples named rightly by a probe that never saw them; R² for measured values.
        penalty: the ridge penalty chosen, in units of the features' mean squared singular value.
        error: standard error of the accuracy, from the number of samples alone.
    """

    accuracy: float
    penalty: float
    error: float


def ridge_probe(features: Tensor, targets: Tensor, task: Objective | None = None) -> Probe:
    """Ridge regression on one-hot classes, scored by leaving out each sample in turn (Alain and Bengio 2016).

    Nothing is fitted n times: with the hat matrix ``H = 1/n + U diag(s²/(s²+a)) U'`` the prediction for
    sample i without sample i is ``(yhat_i - h_ii y_i) / (1 - h_ii)``, exactly. The penalty ``a`` is the one
    with the least squared error over those predictions.

    How frequent each class is counts as known. Left to the other samples, the class of the one that is left out
    would always look rarer than it is, and features that say nothing would score below chance, down to 0.

    Args:
        features: (n, d); columns are centred here, and not scaled.
        targets: int64 (n,), or floating point (n,) or (n, outputs).
        task: what is learned, where a score is asked for: it takes the place of the accuracy, with the standard
            error of a bootstrap. As a probability counts what the regression says, between 0 and 1.
    """
    f, y = features.double(), one_hot(targets)
    f, middle = f - f.mean(0), y.mean(0)
    u, squares = left_vectors(f)
    unit = max(float(squares.sum()) / min(f.shape), 1e-300)
    projected, own = u.T @ (y - middle), u.square()
    best: tuple[float, float, Tensor] | None = None
    for penalty in PENALTIES:
        share = squares / (squares + penalty * unit)
        hat = (1 / len(f) + own @ share).clamp(max=1 - 1e-9)[:, None]
        left_out = (middle + u @ (share[:, None] * projected) - hat * y) / (1 - hat)
        error = float((left_out - y).square().sum())
        if best is None or error < best[0]:
            best = (error, penalty, left_out)
    assert best is not None
    others = (len(f) * middle - y) / max(len(f) - 1, 1)
    predicted = best[2] if targets.is_floating_point() else best[2] - others + middle
    if task is not None and task.score is not None:
        return Probe(*_by_score(task, predicted, targets, best[1]))
    score = _score(predicted, y, targets)
    return Probe(score, best[1], (max(score * (1 - score), 0.0) / len(f)) ** 0.5)


def _by_score(
    task: Objective, predicted: Tensor, targets: Tensor, penalty: float
) -> tuple[float, float, float]:
    """The score that is asked for, the penalty, and the standard error of the score."""
    score = task.score
    assert score is not None
    answers, given = predicted, targets
    if score.kind == VALUES:
        answers, given = task.answers(predicted), task.answers(targets)
    elif score.name == "loss":
        answers = predicted.clamp(LEAST, 1 - LEAST)
        answers = answers / answers.sum(1, keepdim=True) if score.kind == CLASSES else answers
    drawn = (
        np.random.default_rng(0).multinomial(len(given), [1 / len(given)] * len(given), DRAWS).astype(float)
    )
    spread = score.many(given.numpy(), answers.numpy(), drawn)
    return score(given.numpy(), answers.numpy()), penalty, float(np.nanstd(spread))


def _score(predicted: Tensor, y: Tensor, targets: Tensor) -> float:
    if not targets.is_floating_point():
        return float((predicted.argmax(1) == targets).double().mean())
    total = (y - y.mean(0)).square().sum(0)
    varies = total > 0
    return float((1 - (predicted - y).square().sum(0)[varies] / total[varies]).mean())
