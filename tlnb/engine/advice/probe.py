"""A linear probe in closed form: what a linear head on fixed features would score on unseen samples."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tlnb.engine.advice.transferability import left_vectors, one_hot

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


def ridge_probe(features: Tensor, targets: Tensor) -> Probe:
    """Ridge regression on one-hot classes, scored by leaving out each sample in turn (Alain and Bengio 2016).

    Nothing is fitted n times: with the hat matrix ``H = 1/n + U diag(s²/(s²+a)) U'`` the prediction for
    sample i without sample i is ``(yhat_i - h_ii y_i) / (1 - h_ii)``, exactly. The penalty ``a`` is the one
    with the least squared error over those predictions.

    How frequent each class is counts as known. Left to the other samples, the class of the one that is left out
    would always look rarer than it is, and features that say nothing would score below chance, down to 0.

    Args:
        features: (n, d); columns are centred here, and not scaled.
        targets: int64 (n,), or floating point (n,) or (n, outputs).
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
    score = _score(best[2] if targets.is_floating_point() else best[2] - others + middle, y, targets)
    return Probe(score, best[1], (max(score * (1 - score), 0.0) / len(f)) ** 0.5)


def _score(predicted: Tensor, y: Tensor, targets: Tensor) -> float:
    if not targets.is_floating_point():
        return float((predicted.argmax(1) == targets).double().mean())
    total = (y - y.mean(0)).square().sum(0)
    varies = total > 0
    return float((1 - (predicted - y).square().sum(0)[varies] / total[varies]).mean())
