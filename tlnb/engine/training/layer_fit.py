"""A head on the features of all layers, fitted to those that are worth it: selected first, then regressed.

Plain torch and nothing of tlnb, so that a script of a session can hold the very same code.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tlnb.engine.training.linear_fit import fit_linear, folds_of

SHARES = (
    0.02,
    0.1,
    0.3,
    1.0,
)  # of the features, that the folds choose among; besides, the last layer's alone
CHOOSERS = 1000  # samples that choose; more hardly move it
ROUNDS = 3  # folds that choose, at most
GAIN = 1.0  # standard errors by which features of other layers must beat those of the last alone


def fit_layers(
    features: Tensor,
    last: int,
    targets: Tensor,
    outputs: int,
    weights: Tensor | None = None,
    strength: float | None = None,
) -> dict:
    """Fit scores = features @ weight' + bias with most columns of the weight at zero.

    As in Head2Toe (Evci et al. 2022) a linear fit on all features ranks them by the length of their column of the
    weight, of standardised features: what a group lasso over the columns keeps longest. How many of them are kept is
    chosen by the loss on folds that neither ranked nor fitted; the last layer's features alone are one of the choices,
    and stay unless another is better by more than a standard error. Then those kept are fitted anew.

    Args:
        features: (n, d), floating point; the last ``last`` columns are the last layer's.
        last: how many columns that is.
        targets, outputs, weights, strength: see ``fit_linear``.

    Returns:
        As ``fit_linear``, and ``kept``, the columns that are not zero (int64).
    """
    kept = _chosen(features, last, targets, outputs, weights)
    found = fit_linear(features[:, kept], targets, outputs, weights, strength)
    weight = torch.zeros(outputs, features.shape[1], dtype=torch.float64)
    weight[:, kept] = found["weight"]
    return found | {"weight": weight, "kept": kept}


def _chosen(features: Tensor, last: int, targets: Tensor, outputs: int, weights: Tensor | None) -> Tensor:
    """The columns that are kept."""
    width = features.shape[1]
    alone = torch.arange(width - last, width)
    if len(features) > CHOOSERS:
        some = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))[:CHOOSERS]
        seen, told = features[some], targets[some]
    else:
        seen, told = features, targets
    folds = folds_of(told) if not told.is_floating_point() else torch.arange(len(told)) % 5
    if folds is None or last == width:
        return alone
    losses: list[list[Tensor]] = [[] for _ in range(len(SHARES) + 1)]
    for fold in range(min(ROUNDS, int(folds.max()) + 1)):
        train, valid = folds != fold, folds == fold
        order = _ranked(seen[train], told[train], outputs, weights)
        for place, columns in enumerate([alone, *_choices(order)]):
            found = fit_linear(seen[train][:, columns], told[train], outputs, weights)
            scores = seen[valid][:, columns].double() @ found["weight"].T + found["bias"]
            losses[place].append(_loss(scores, told[valid]))
    each = torch.stack([torch.cat(parts) for parts in losses])
    best = int(each.mean(1).argmin())
    gain = each[0] - each[best]
    if not best or float(gain.mean()) < GAIN * float(gain.std()) / len(gain) ** 0.5:
        return alone
    return _choices(_ranked(features, targets, outputs, weights))[best - 1].sort().values


def _ranked(features: Tensor, targets: Tensor, outputs: int, weights: Tensor | None) -> Tensor:
    """The columns by the length of their part of the weight, the longest first."""
    weight = fit_linear(features, targets, outputs, weights)["weight"]
    return (weight * features.double().std(0, correction=0)).norm(dim=0).argsort(descending=True, stable=True)


def _choices(order: Tensor) -> list[Tensor]:
    return [order[: max(round(share * len(order)), 1)] for share in SHARES]


def _loss(scores: Tensor, targets: Tensor) -> Tensor:
    """The loss of each sample, (n,)."""
    if targets.dim() == 1 and not targets.is_floating_point():
        return F.cross_entropy(scores, targets, reduction="none")
    if targets.is_floating_point():
        return (scores - targets.double().reshape(scores.shape)).square().mean(1)
    return F.binary_cross_entropy_with_logits(scores, targets.double(), reduction="none").mean(1)
