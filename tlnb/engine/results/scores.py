"""Scores of a network over samples, and the figures of each class or value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tlnb.engine.data.samples import Samples
from tlnb.engine.network.tracing import flags
from tlnb.engine.training.tasks import Classification, MultiLabel, Task, scores_of

BATCH = 256


def scores_over(model: nn.Module, samples: Samples, device: torch.device) -> Tensor:
    """Scores (N, outputs) of all samples, float32 on the CPU, in test mode; modes are put back."""
    order = torch.arange(len(samples)).split(BATCH)
    with flags(model, training=False), torch.no_grad():
        return torch.cat([scores_of(model(x.to(device))).float().cpu() for x in samples.stream(order)])


def per_sample_loss(task: Task, scores: Tensor, targets: Tensor) -> Tensor:
    """The loss of each sample, (N,), without weights of classes."""
    if isinstance(task, Classification):
        return F.cross_entropy(scores, targets, reduction="none")
    if isinstance(task, MultiLabel):
        return F.binary_cross_entropy_with_logits(scores, targets, reduction="none").mean(1)
    return (scores - targets).square().mean(1)


def per_class_rows(classes: Sequence[str], targets: Tensor, predicted: Tensor) -> tuple[tuple[Any, ...], ...]:
    """Name, precision, recall, F1 and samples of each class or label; 0 where a figure has nothing to count.

    Args:
        classes: names.
        targets, predicted: class numbers (N,), or labels (N, labels) of 0 and 1.
    """
    from sklearn.metrics import precision_recall_fscore_support

    figures = precision_recall_fscore_support(
        targets.numpy(), predicted.numpy(), labels=range(len(classes)), average=None, zero_division=0
    )
    columns = zip(*(figure.tolist() for figure in figures), strict=True)
    return tuple((name, *row) for name, row in zip(classes, columns, strict=True))


def value_rows(names: Sequence[str], targets: Tensor, answers: Tensor) -> tuple[tuple[Any, ...], ...]:
    """Name, R², mean absolute error and root mean square error of each value, in the user's unit.

    Args:
        names: of the values.
        targets, answers: (N, values).
    """
    error = answers.double() - targets.double()
    spread = (targets.double() - targets.double().mean(0)).square().sum(0)
    explained = torch.where(spread > 0, 1 - error.square().sum(0) / spread, torch.nan)
    columns = explained, error.abs().mean(0), error.square().mean(0).sqrt()
    return tuple((name, *(float(c[i]) for c in columns)) for i, name in enumerate(names))
