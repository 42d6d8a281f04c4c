"""What a linear classifier on fixed features says of each sample that it has not seen."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from tlnb.engine.training.linear_fit import principal

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # what is chosen among, as in ``linear_fit``
CHOSEN_BY = 2000  # samples that choose the strength
PASSES = 40
WIDEST = 512  # principal axes that are kept
BLOCK = 1 << 27  # numbers of the scores of all fits at once


def standard_axes(features: Tensor) -> Tensor:
    """Features (N, D), standardised, along their first principal axes: float32 (N, r), r at most ``WIDEST``."""
    x = features.double()
    x = x - x.mean(0)
    scale = x.std(0, correction=0)
    x = x / torch.where(scale > 1e-6 * scale.max() + 1e-12, scale, torch.ones_like(scale))
    z, squares, _ = principal(x)
    return z[:, squares.argsort(descending=True)[:WIDEST]].float()


def out_of_fold(
    axes: Tensor,
    labels: Tensor,
    classes: int,
    folds: Tensor,
    learn: Tensor | None = None,
    on_progress: Callable[[], None] = lambda: None,
) -> Tensor:
    """Probabilities of the classes for each sample, by a classifier that has not seen its fold.

    Multinomial logistic regression, fitted for all folds at once by accelerated gradient steps (Nesterov 1983) under
    Böhning's bound of the curvature; the strength has the least loss on what is left out.

    Args:
        axes: of :func:`standard_axes`, (N, r).
        labels: int64 (N,).
        classes: how many.
        folds: of each sample, int64 (N,), from 0 without gaps.
        learn: which samples teach, bool (N,); all are answered for. None for all.
        on_progress: called now and then; what it raises ends the work.

    Returns:
        float32 (N, classes).
    """
    teach = torch.ones(len(labels), dtype=torch.bool) if learn is None else learn
    some = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:CHOSEN_BY]
    losses = []
    for strength in STRENGTHS:  # the valley has one floor
        scores = _fit(axes[some], labels[some], classes, folds[some], teach[some], strength, on_progress)
        each = torch.nn.functional.cross_entropy(scores, labels[some], reduction="none")
        losses.append(float(each[teach[some]].mean()))
        if len(losses) > 1 and losses[-1] > losses[-2]:
            break
    strength = STRENGTHS[min(range(len(losses)), key=losses.__getitem__)]
    return _fit(axes, labels, classes, folds, teach, strength, on_progress).softmax(1)


def _fit(
    z: Tensor,
    labels: Tensor,
    classes: int,
    folds: Tensor,
    teach: Tensor,
    strength: float,
    on_progress: Callable[[], None],
) -> Tensor:
    """Scores (N, classes) of what is left out."""
    count = int(folds.max()) + 1
    if count * classes * len(z) > BLOCK:  # a fold at a time
        found = z.new_zeros(len(z), classes)
        for fold in range(count):
            held = folds == fold
            seen = (~held & teach).float()[None]
            found[held] = _descend(z, labels, classes, seen, strength, on_progress)[0].T[held]
        return found
    seen = ((folds != torch.arange(count)[:, None]) & teach).float()
    scores = _descend(z, labels, classes, seen, strength, on_progress)
    return scores[folds, :, torch.arange(len(z))]


def _descend(
    z: Tensor, labels: Tensor, classes: int, seen: Tensor, strength: float, on_progress: Callable[[], None]
) -> Tensor:
    """Scores (fits, classes, N) of fits that each see some samples, (fits, N)."""
    (n, r), fits, penalty = z.shape, len(seen), 1 / strength
    goal = torch.nn.functional.one_hot(labels, classes).T.float()
    step = 1 / (0.5 * z.square().sum(0) + penalty)
    step_bias = 1 / (0.5 * seen.sum(1)).clamp(min=1e-6)[:, None, None]
    w = v = torch.zeros(fits, classes, r)
    b = c = torch.zeros(fits, classes, 1)
    speed = 1.0
    for _ in range(PASSES):
        on_progress()
        error = (
            ((v.reshape(-1, r) @ z.T).reshape(fits, classes, n) + c).softmax(1).sub_(goal).mul_(seen[:, None])
        )
        slope = (error.reshape(-1, n) @ z).reshape(fits, classes, r)
        w_next, b_next = v - step * (slope + penalty * v), c - step_bias * error.sum(2, keepdim=True)
        speed_next = (1 + math.sqrt(1 + 4 * speed * speed)) / 2
        ahead = (speed - 1) / speed_next
        v, c = w_next + ahead * (w_next - w), b_next + ahead * (b_next - b)
        w, b, speed = w_next, b_next, speed_next
    return (w.reshape(-1, r) @ z.T).reshape(fits, classes, n) + b
