"""Labels that are likely wrong: true classes behind given labels (Dawid and Skene 1979; Natarajan et al. 2013)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

STEPS = 20  # of the estimate; it hardly moves after ten
BELIEVED = 0.9  # how often a label is right, before any is seen
WORTH = 5.0  # samples of a class that this belief is worth
LEAST = 1e-6  # probability that is left to a class that a classifier rules out


@dataclass(frozen=True)
class LabelDoubts:
    """How far each label can be doubted.

    Attributes:
        likely: the class that is likelier than all others but the given one, int64 (N,).
        sure: probability of that class by the classifiers, (N,).
        given: probability of the given label by the classifiers, (N,).
        chance: that the label is wrong, from 0 to 1, (N,).
        wrong: which labels are likely wrong, bool (N,).
        rate: share of labels that are likely wrong.
    """

    likely: Tensor
    sure: Tensor
    given: Tensor
    chance: Tensor
    wrong: Tensor
    rate: float


def chance_wrong(probabilities: Tensor, labels: Tensor) -> Tensor:
    """How likely each label is wrong, by Bayes' rule from what a classifier says of the sample: float64 (N,).

    Behind a label i stands a true class j with a probability in proportion to ``p(j | sample) T(i | j)``. How often
    class j is labelled i, T, is estimated along with that by expectation maximisation (Dawid and Skene 1979). Where
    mistakes fall on any class alike, samples so stand in the order of their given class's probability, and where two
    classes are mistaken for each other, in the order of the two probabilities' ratio.

    Args:
        probabilities: of classifiers that have not seen the sample, (N, classes).
        labels: given, int64 (N,).
    """
    classes = probabilities.shape[1]
    if classes < 2:
        return torch.zeros(len(labels), dtype=torch.float64)
    p = probabilities.double().clamp(min=LEAST)
    p = p / p.sum(1, keepdim=True)
    belief = torch.full((classes, classes), (1 - BELIEVED) / (classes - 1), dtype=torch.float64)
    belief.fill_diagonal_(BELIEVED)
    given = belief  # [true class, label]
    for _ in range(STEPS):
        true = p * given[:, labels].T
        true = true / true.sum(1, keepdim=True)
        counts = torch.zeros_like(belief).index_add_(0, labels, true).T + WORTH * belief
        given = counts / counts.sum(1, keepdim=True)
    true = p * given[:, labels].T
    return 1 - (true / true.sum(1, keepdim=True)).gather(1, labels[:, None])[:, 0]


def doubts(first: Tensor, again: Tensor, labels: Tensor) -> LabelDoubts:
    """Which labels are likely wrong, and how far each can be doubted.

    The second look, which learned from labels that the first one did not doubt, says which labels are likely wrong.
    How suspicious each is goes by the mean of both: the second look doubts all that is like what it was not taught.

    Args:
        first: probabilities by classifiers that have not seen the sample, (N, classes).
        again: by such as have not learned from what the first ones doubt, (N, classes).
        labels: given, int64 (N,).
    """
    both = (first + again) / 2
    own = both.gather(1, labels[:, None])[:, 0]
    sure, likely = both.scatter(1, labels[:, None], -1.0).max(1)
    wrong = chance_wrong(again, labels) > 0.5
    return LabelDoubts(likely, sure, own, chance_wrong(both, labels), wrong, float(wrong.float().mean()))
