"""Labels that are likely wrong: confident learning (Northcutt, Jiang and Chuang 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LabelDoubts:
    """How far each label can be doubted.

    Attributes:
        likely: the class that is likelier than all others but the given one, int64 (N,).
        sure: probability of that class, (N,).
        given: probability of the given label, (N,).
        quality: of the label, (N,): 1 where it is surely right, 0 where it is surely wrong.
        wrong: which labels are likely wrong, bool (N,).
        rate: share of labels that are estimated to be wrong.
    """

    likely: Tensor
    sure: Tensor
    given: Tensor
    quality: Tensor
    wrong: Tensor
    rate: float


def thresholds(probabilities: Tensor, labels: Tensor) -> Tensor:
    """For each class how sure the classifier is of it, on the mean, where it is the label: (classes,).

    One for a class that no sample has.
    """
    classes = probabilities.shape[1]
    own = probabilities.gather(1, labels[:, None])[:, 0].double()
    counts = torch.bincount(labels, minlength=classes)
    sums = torch.zeros(classes, dtype=torch.float64).index_add_(0, labels, own)
    return torch.where(counts > 0, sums / counts.clamp(min=1), torch.ones_like(sums))


def confident_joint(probabilities: Tensor, labels: Tensor) -> Tensor:
    """How many samples labelled i are confidently of class j: int64 (classes, classes), as equation 1 has it.

    A sample counts for the likeliest of the classes whose threshold its probability reaches.
    """
    classes = probabilities.shape[1]
    at = confident_class(probabilities, labels)
    there = at >= 0
    pairs = labels[there] * classes + at[there]
    return torch.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def confident_class(probabilities: Tensor, labels: Tensor) -> Tensor:
    """The class that each sample is confidently of, int64 (N,); -1 for none."""
    reached = probabilities.double() >= thresholds(probabilities, labels) - 1e-6
    found = torch.where(
        reached, probabilities.double(), torch.full_like(probabilities, -1.0).double()
    ).argmax(1)
    return torch.where(reached.any(1), found, torch.full_like(found, -1))


def doubts(probabilities: Tensor, labels: Tensor) -> LabelDoubts:
    """Which labels are likely wrong, and how far each can be doubted.

    A label is likely wrong where the sample is confidently of another class. The quality of a label is its
    probability against that of the likeliest other class, each measured by the threshold of its class, so that classes
    of which the classifier is never sure are not all doubted.

    Args:
        probabilities: out of fold, (N, classes).
        labels: given, int64 (N,).
    """
    at = confident_class(probabilities, labels)
    own = probabilities.gather(1, labels[:, None])[:, 0]
    others = probabilities.scatter(1, labels[:, None], -1.0)
    sure, likely = others.max(1)
    quality = (own - sure + 1) / 2
    wrong = (at >= 0) & (at != labels)
    return LabelDoubts(likely, sure, own, quality, wrong, float(wrong.float().mean()))
