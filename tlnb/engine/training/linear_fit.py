"""A linear layer fitted to convergence on fixed features: logistic regression, one against the rest, or ridge.

Plain torch and nothing of tlnb, so that a script of a session can hold the very same code.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # what the folds choose among; scikit-learn calls it C
FIRST = 2  # the place in STRENGTHS where the search begins
UNKNOWN = 1e-2  # the strength where a class has a single sample, so that there are no folds
FOLDS = 5
FOLDED = 2000  # samples that choose the strength; more hardly move it
TOLERANCE = (
    1e-6  # of the solver, on the largest entry of the gradient; weights are then right to 1e-4 or better
)
ROUNDING = 1e-6  # of a feature, relative to its mean and to the deviation of the others
PASSES = 15  # of the solver that compares strengths; it need not converge for that


def fit_linear(
    features: Tensor,
    targets: Tensor,
    outputs: int,
    weights: Tensor | None = None,
    strength: float | None = None,
) -> dict:
    """Fit scores = features @ weight' + bias.

    Features are standardised first and the scaling is folded into the layer, as a pipeline of scikit-learn's
    ``StandardScaler`` and ``LogisticRegression(C)``, ``OneVsRestClassifier`` or ``Ridge`` would do; a test holds
    it equal to those. The objective is ``C * sum(loss) + |weight|^2 / 2``, with the bias left free.

    Args:
        features: (n, d), floating point.
        targets: int64 (n,) for classes, 0/1 (n, labels) in uint8 or bool for labels, float (n, values) for values.
        outputs: rows of the layer; classes, labels or values.
        weights: of the classes in the loss (classes,), or of what is there against what is not (labels,).
        strength: ``C``; None to choose it by folds.

    Returns:
        ``weight`` (outputs, d) and ``bias`` (outputs,) in float64, ``strength`` and ``folds`` (0 where none were
        made).
    """
    x = features.double()
    mean, scale = x.mean(0), x.std(0, correction=0)
    # A feature that varies by the rounding of float32 alone is constant: scaled up, its noise would get huge weights,
    # which do no harm here, and ruin the first steps of a body behind which it varies.
    least = ROUNDING * (mean.abs() + scale.max()) + 1e-12
    scale = torch.where(scale > least, scale, torch.ones_like(scale))
    z, squares, back = principal((x - mean) / scale)
    if targets.is_floating_point():
        inner, bias, strength, folds = _ridge(z, squares, targets.double(), strength)
    else:
        goal, weigh, binary = _goals(targets, outputs, weights)
        chosen = _choose(z, squares, goal, weigh, targets, binary) if strength is None else (strength, 0)
        strength, folds = chosen
        inner, bias = _solve(z, squares, goal, weigh, strength, binary)
    weight = inner @ back.T / scale
    return {"weight": weight, "bias": bias - weight @ mean, "strength": strength, "folds": folds}


def fit_nearest(features: Tensor, targets: Tensor, outputs: int) -> dict:
    """A layer whose largest score is that of the nearest class mean, of features standardised first.

    ``-t |z - m_c|^2`` less what all classes share is linear in z: ``2 t m_c z - t |m_c|^2`` (Mensink et al. 2013). The
    scale t makes the probabilities right for samples that are left out of the mean of their class.

    Args:
        features: (n, d), floating point.
        targets: int64 (n,).
        outputs: classes.

    Returns:
        ``weight`` (outputs, d) and ``bias`` (outputs,) in float64, ``strength``, the scale, and ``folds``, 0.
    """
    x = features.double()
    mean, scale = x.mean(0), x.std(0, correction=0)
    scale = torch.where(scale > 1e-12 * (1 + mean.abs()), scale, torch.ones_like(scale))
    z, counts = (x - mean) / scale, torch.bincount(targets, minlength=outputs).double()
    means = (
        torch.zeros(outputs, z.shape[1], dtype=z.dtype).index_add_(0, targets, z)
        / counts.clamp(min=1)[:, None]
    )
    distances = (z.square().sum(1)[:, None] - 2 * z @ means.T + means.square().sum(1)).clamp(min=0)
    distances[:, counts == 0] = torch.inf
    several = counts[targets] > 1  # a mean without the one sample that it is of does not exist
    own, rows = counts[targets].clamp(min=2), torch.arange(len(z))
    left_out = distances.clone()
    left_out[rows, targets] *= (own / (own - 1)).square()
    t = 1.0 / z.shape[1]
    if several.any():
        scales = [10.0 ** (-5 + k / 8) for k in range(49)]
        losses = [float(F.cross_entropy(-t * left_out[several], targets[several])) for t in scales]
        t = scales[min(range(len(scales)), key=losses.__getitem__)]
    weight = 2 * t * means / scale
    bias = -t * means.square().sum(1) - weight @ mean
    bias[counts == 0] = bias.min() - 100.0
    return {"weight": weight, "bias": bias, "strength": t, "folds": 0}


def principal(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates (n, r) along principal axes, their squared lengths (r,), and the axes as columns (d, r).

    The penalty is the same in these coordinates, there are at most n of them, and along each the curvature of
    the loss is bounded by its squared length (Böhning 1992), which is what the solvers need.
    """
    wide = x.shape[1] > x.shape[0]
    squares, axes = torch.linalg.eigh(x @ x.T if wide else x.T @ x)
    kept = squares > max(float(squares[-1]), 1e-300) * 1e-10
    kept[-1] = True  # one axis, even where all features are constant
    squares, axes = squares[kept].clamp(min=1e-300), axes[:, kept]
    if wide:
        axes = x.T @ (axes / squares.sqrt())
    return x @ axes, squares, axes


def _goals(targets: Tensor, outputs: int, weights: Tensor | None) -> tuple[Tensor, Tensor, bool]:
    """What each output should be (n, columns), how much each entry counts, and whether each is a yes or no.

    Two classes are one yes or no, as in scikit-learn, so that a strength means the same.
    """
    if targets.dim() == 1:
        each = torch.ones(len(targets), 1).double() if weights is None else weights.double()[targets][:, None]
        if outputs == 2:
            return targets.double()[:, None], each, True
        return F.one_hot(targets, outputs).double(), each, False
    goal = targets.double()
    return (
        goal,
        torch.ones_like(goal) if weights is None else torch.where(goal > 0, weights.double(), 1.0),
        True,
    )


def folds_of(targets: Tensor) -> Tensor | None:
    """The fold of each sample (n,): classes in even shares; None where a class has a single sample."""
    kinds = targets if targets.dim() == 1 else torch.unique(targets, dim=0, return_inverse=True)[1]
    counts = torch.bincount(kinds)
    least = int(counts[counts > 0].min()) if targets.dim() == 1 else len(targets)
    if least < 2:
        return None
    folds, step = torch.zeros_like(kinds), min(FOLDS, least)
    order = torch.argsort(kinds, stable=True)
    folds[order] = torch.arange(len(kinds)) % step
    return folds


def _choose(
    z: Tensor, squares: Tensor, goal: Tensor, weigh: Tensor, targets: Tensor, binary: bool
) -> tuple[float, int]:
    """The strength with the least loss on samples left out, and how many folds found it."""
    if len(z) > FOLDED:
        some = torch.randperm(len(z), generator=torch.Generator().manual_seed(0))[:FOLDED]
        z, goal, weigh, targets = z[some], goal[some], weigh[some], targets[some]
        squares = z.square().sum(0)
    folds = folds_of(targets)
    if folds is None:
        return UNKNOWN, 0
    parts = z.float(), squares.float(), goal.float(), weigh.float()
    at = list(range(FIRST - 1, FIRST + 2))
    found = dict(zip(at, _left_out(*parts, folds, [STRENGTHS[i] for i in at], binary), strict=True))
    while True:  # the valley has one floor: walk on as long as an end of what was tried is the lowest
        best = min(found, key=lambda i: found[i])
        more = [i for i in (best - 1, best + 1) if i not in found and 0 <= i < len(STRENGTHS)]
        if not more:
            return STRENGTHS[best], int(folds.max()) + 1
        found |= dict(zip(more, _left_out(*parts, folds, [STRENGTHS[i] for i in more], binary), strict=True))


def _left_out(
    z: Tensor,
    squares: Tensor,
    goal: Tensor,
    weigh: Tensor,
    folds: Tensor,
    strengths: list[float],
    binary: bool,
) -> list[float]:
    """For each strength the mean loss of samples that the fit did not see.

    All folds and strengths are fitted at once by accelerated gradient steps (Nesterov 1983) under Böhning's
    bound of the curvature.
    """
    (n, r), columns, count = z.shape, goal.shape[1], int(folds.max()) + 1
    fits = len(strengths) * count
    penalty = 1 / torch.tensor(strengths).repeat_interleave(count)
    held = (folds == torch.arange(count).repeat(len(strengths))[:, None])[:, None]  # (fits, 1, n)
    goal, weigh = goal.T.contiguous(), weigh.T
    seen = ~held * weigh  # (fits, outputs or 1, n)
    curve = (0.25 if binary else 0.5) * weigh.max()
    step = 1 / (curve * squares + penalty[:, None])[:, None]
    step_bias = 1 / (curve * seen.sum(2, keepdim=True)).clamp(min=1e-6)
    w = v = torch.zeros(fits, columns, r)
    b = c = torch.zeros(fits, columns, 1)
    speed = 1.0
    for _ in range(PASSES):
        scores = (v.reshape(-1, r) @ z.T).reshape(fits, columns, n) + c
        error = ((scores.sigmoid() if binary else scores.softmax(1)) - goal) * seen
        slope = (error.reshape(-1, n) @ z).reshape(fits, columns, r)
        w_next = v - step * (slope + penalty[:, None, None] * v)
        b_next = c - step_bias * error.sum(2, keepdim=True)
        speed_next = (1 + math.sqrt(1 + 4 * speed * speed)) / 2
        ahead = (speed - 1) / speed_next
        v, c = w_next + ahead * (w_next - w), b_next + ahead * (b_next - b)
        w, b, speed = w_next, b_next, speed_next
    scores = ((w.reshape(-1, r) @ z.T).reshape(fits, columns, n) + b).transpose(1, 2)
    losses = _losses(scores, goal.T.expand_as(scores), weigh.T, binary) * held[:, 0]
    return (losses.reshape(len(strengths), -1).sum(1) / n).tolist()


def _losses(scores: Tensor, goal: Tensor, weigh: Tensor, binary: bool) -> Tensor:
    """The loss of each sample, over the last dimension."""
    if binary:
        return (F.binary_cross_entropy_with_logits(scores, goal, reduction="none") * weigh).sum(-1)
    return -(scores.log_softmax(-1) * goal * weigh).sum(-1)


def _solve(
    z: Tensor, squares: Tensor, goal: Tensor, weigh: Tensor, strength: float, binary: bool
) -> tuple[Tensor, Tensor]:
    """Weights (outputs, r) and biases at the minimum, by L-BFGS in coordinates of like curvature."""
    scale = (0.25 * float(weigh.max()) * squares + 1 / strength).rsqrt()
    lift = (0.25 * weigh.sum(0)).rsqrt()[:, None]
    # A row an output: matrices this wide and flat are multiplied several times faster than tall ones.
    scaled, goal, weigh = z * scale, goal.T.contiguous(), weigh.T.contiguous()
    w = torch.zeros(len(goal), z.shape[1], dtype=torch.float64, requires_grad=True)
    b = torch.zeros(len(goal), 1, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [w, b], max_iter=500, tolerance_grad=TOLERANCE, tolerance_change=1e-14, history_size=20,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def objective() -> Tensor:
        """The loss with its gradient worked out by hand, which halves the time."""
        with torch.no_grad():
            scores = w @ scaled.T + b * lift
            error = ((scores.sigmoid() if binary else scores.softmax(0)) - goal) * weigh
            pull = w * scale.square() / strength
            w.grad = error @ scaled + pull
            b.grad = error.sum(1, keepdim=True) * lift
            return _losses(scores.T, goal.T, weigh.T, binary).sum() + (w * pull).sum() / 2

    solver.step(objective)
    weight, bias = (w * scale).detach(), (b * lift)[:, 0].detach()
    if binary and len(weight) == 1:  # two classes: the second one's score against the first one's
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    return weight, bias


def _ridge(
    z: Tensor, squares: Tensor, targets: Tensor, given: float | None
) -> tuple[Tensor, Tensor, float, int]:
    """Ridge regression; the strength has the least squared error where each sample is left out in turn."""
    n, mean = len(z), targets.mean(0)
    centred, along = targets - mean, z.T @ (targets - mean)
    own = z.square() / squares  # squared left singular vectors
    best: tuple[float, float, Tensor] | None = None
    for strength in [given] if given is not None else [10.0**k for k in range(-6, 5)]:
        shrunk = (1 / (squares + 1 / strength))[:, None] * along
        hat = (1 / n + own @ (squares / (squares + 1 / strength)))[:, None]
        error = float(((centred - z @ shrunk) / (1 - hat).clamp(min=1e-9)).square().sum())
        if best is None or error < best[0]:
            best = error, strength, shrunk
    assert best is not None
    return best[2].T, mean, best[1], n
