"""Weights by which rare classes and labels count as much as frequent ones."""

from __future__ import annotations

import torch
from torch import Tensor


def class_weights(targets: Tensor, classes: int) -> tuple[float, ...]:
    """Inverse to the frequency of each class; the mean over the samples is 1."""
    counts = torch.bincount(targets, minlength=classes).clamp(min=1)
    return tuple((len(targets) / (classes * counts)).tolist())


def label_weights(targets: Tensor) -> tuple[float, ...]:
    """How many samples lack a label for each that has it."""
    have = targets.sum(0).clamp(min=1)
    return tuple(((len(targets) - have) / have).clamp(min=1e-3).tolist())
