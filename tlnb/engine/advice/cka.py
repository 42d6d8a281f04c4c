"""Centred kernel alignment: how alike two sets of features of the same samples are."""

from __future__ import annotations

import torch
from torch import Tensor


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear CKA (Kornblith et al. 2019): ``|Y'X|_F^2 / (|X'X|_F |Y'Y|_F)`` on centred columns.

    Between 0 and 1; 1 where the features are equal up to rotation and one common scale. NaN where one of them
    does not vary.

    Args:
        x: (n, d).
        y: (n, e), of the same samples.
    """
    x, y = (v.double() - v.double().mean(0) for v in (x, y))
    if len(x) < max(x.shape[1], y.shape[1]):  # n×n matrices are the smaller ones
        a, b = x @ x.T, y @ y.T
        cross, own = (a * b).sum(), a.norm() * b.norm()
    else:
        cross, own = (y.T @ x).square().sum(), (x.T @ x).norm() * (y.T @ y).norm()
    return float(cross / own) if own > 0 else float("nan")


def unbiased_cka(x: Tensor, y: Tensor) -> float:
    """Linear CKA from the unbiased estimator of HSIC (Song et al. 2012), which few samples do not inflate.

    Args:
        x: (n, d) with n of at least 4.
        y: (n, e), of the same samples.
    """
    a, b = (v.double() @ v.double().T for v in (x, y))
    own = _hsic(a, a) * _hsic(b, b)
    return float(_hsic(a, b) / own.sqrt()) if own > 0 else float("nan")


def _hsic(a: Tensor, b: Tensor) -> Tensor:
    n = len(a)
    off = 1 - torch.eye(n, dtype=a.dtype)
    a, b = a * off, b * off
    total = (a * b).sum() + a.sum() * b.sum() / ((n - 1) * (n - 2)) - 2 * (a.sum(0) @ b.sum(1)) / (n - 2)
    return total / (n * (n - 3))
