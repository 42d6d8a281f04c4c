"""What is learned: the loss, the metric that people read, and what scores mean.

One class a sample, several labels a sample, or measured values; each has the same methods, so that training
does not ask which it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from tlnb.engine.core.metrics import CLASSES, LABELS, VALUES, Score, ScoreMeter, score_named
from tlnb.engine.core.modules import exact
from tlnb.errors import ModelError


class Meter(Protocol):
    """Gathers a metric over batches, on the device, without waiting for it."""

    def update(self, scores: Tensor, targets: Tensor) -> None:
        """Take in a batch."""

    def value(self) -> float:
        """The metric over all batches."""


class Objective(Protocol):
    """Loss, metric and answers.

    Attributes:
        metric: its name.
        score: the metric, where another one than the usual is asked for.
    """

    @property
    def score(self) -> Score | None:
        """The metric that is asked for; None for the usual one."""

    @property
    def metric(self) -> str:
        """Its name."""

    def loss(self, scores: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        """Mean loss of a batch."""

    def meter(self, device: torch.device) -> Meter:
        """Gathers the metric, from nothing."""

    def answers(self, scores: Tensor) -> Tensor:
        """What people want to know of scores."""


@dataclass(frozen=True)
class Classification:
    """One class a sample: cross-entropy, and accuracy.

    Attributes:
        metric: its name.
        weights: of each class in the loss; None for all alike.
        score: the metric, where another one than accuracy is asked for.
    """

    metric: str = "accuracy"
    weights: tuple[float, ...] | None = None
    score: Score | None = None

    def loss(self, scores: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        """Mean cross-entropy.

        Args:
            scores: (B, classes), before softmax.
            targets: int64 of shape (B,).
            smoothing: label smoothing (Szegedy et al. 2016).
        """
        weights = _on(self.weights, scores.device)
        return F.cross_entropy(scores, targets, weight=weights, label_smoothing=smoothing)

    def right(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Number of samples whose largest score is the right one, as a tensor on the device."""
        return (scores.argmax(1) == targets).sum()

    def meter(self, device: torch.device) -> Meter:
        """Share of samples whose largest score is the right one."""
        return _Accuracy(device) if self.score is None else ScoreMeter(self.score, self.answers)

    def answers(self, scores: Tensor) -> Tensor:
        """Probability of each class: (B, classes), rows sum to 1."""
        return scores.float().softmax(1)


def class_weights(task: Objective, device: torch.device) -> Tensor | None:
    """Of each class in the loss, so that a sample counts by the weight of its class; None for all alike."""
    return _on(task.weights, device) if isinstance(task, Classification) else None


@dataclass(frozen=True)
class MultiLabel:
    """Any number of labels a sample: binary cross-entropy for each, and mean average precision.

    Attributes:
        metric: its name: the mean over the labels of the area under precision against recall.
        weights: of what is there against what is not, for each label; None for all alike.
        score: the metric, where another one is asked for.
    """

    metric: str = "mAP"
    weights: tuple[float, ...] | None = None
    score: Score | None = None

    def loss(self, scores: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        """Mean binary cross-entropy.

        Args:
            scores: (B, labels), before the sigmoid.
            targets: float32 of shape (B, labels), 0 or 1.
            smoothing: moves the targets this share of the way to 1/2.
        """
        goal = targets * (1 - smoothing) + smoothing / 2
        weights = _on(self.weights, scores.device)
        return F.binary_cross_entropy_with_logits(scores, goal, pos_weight=weights)

    def meter(self, device: torch.device) -> Meter:
        """Mean average precision."""
        return _AveragePrecision() if self.score is None else ScoreMeter(self.score, self.answers)

    def answers(self, scores: Tensor) -> Tensor:
        """Probability of each label: (B, labels)."""
        return scores.float().sigmoid()


@dataclass(frozen=True)
class Regression:
    """Measured values: mean squared error, and R².

    The network learns values with mean 0 and standard deviation 1, so that a new head is near from the start
    whatever the unit; ``answers`` gives the user's own.

    Attributes:
        mean: of each value over the training samples, in the user's unit.
        std: its standard deviation.
        metric: its name: the share of the variance that is explained; 1 is best, 0 is no better
            than always answering the mean.
        score: the metric, where another one is asked for.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    metric: str = "R²"
    score: Score | None = None

    @classmethod
    def of(cls, targets: Tensor) -> Regression:
        """The task that the training targets (N, values) ask for."""
        std = targets.std(0, correction=0)
        std = torch.where(std > 0, std, torch.ones_like(std))
        return cls(tuple(targets.mean(0).tolist()), tuple(std.tolist()))

    def standardised(self, targets: Tensor) -> Tensor:
        """Targets (N, values) as the network learns them."""
        return (targets - targets.new_tensor(self.mean)) / targets.new_tensor(self.std)

    def loss(self, scores: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        """Mean squared error.

        Args:
            scores: (B, values).
            targets: float32 of shape (B, values), standardised.
            smoothing: of no meaning here.
        """
        return F.mse_loss(scores, targets)

    def meter(self, device: torch.device) -> Meter:
        """R², the mean over the values."""
        if self.score is not None:
            return ScoreMeter(self.score, self.answers)
        return _Explained(len(self.mean), device)

    def answers(self, scores: Tensor) -> Tensor:
        """Values in the user's unit: (B, values)."""
        return scores.float() * scores.new_tensor(self.std).float() + scores.new_tensor(self.mean).float()


def scored(task: Objective, name: str | None) -> Objective:
    """The same task with another metric; None for the usual one.

    Raises:
        BadArguments: there is none of that name for such data.
    """
    assert isinstance(task, Classification | MultiLabel | Regression)
    if name is None:
        usual = type(task)()
        return replace(task, metric=usual.metric, score=None)
    kind = CLASSES if isinstance(task, Classification) else LABELS if isinstance(task, MultiLabel) else VALUES
    return replace(task, metric=name, score=score_named(name, kind))


def floor_of(task: Objective, targets: Tensor) -> float:
    """What the task's score gives to somebody who always answers how frequent each class or label is, or the mean.

    Args:
        task: with a score that is asked for.
        targets: of the samples that are measured on, as the network learns them.
    """
    score = task.score
    assert score is not None
    given = task.answers(targets) if score.kind == VALUES else targets
    there = F.one_hot(targets) if score.kind == CLASSES else given
    usual = there.float().mean(0)
    return score(given.numpy(), usual.expand(len(targets), -1).numpy())


def worth(task: Objective, loss: float, value: float) -> float:
    """By what epochs are compared, smaller is better: the loss, or the metric where one is asked for."""
    if task.score is None:
        return loss
    if value != value:
        return float("inf")
    return -value if task.score.larger else value


class _Accuracy:
    def __init__(self, device: torch.device):
        self.right = torch.zeros((), dtype=torch.int64, device=device)
        self.count = 0

    def update(self, scores: Tensor, targets: Tensor) -> None:
        """Take in a batch."""
        self.right += (scores.argmax(1) == targets).sum()
        self.count += len(targets)

    def value(self) -> float:
        """Share that is right."""
        return self.right.item() / max(1, self.count)


class _AveragePrecision:
    """Keeps scores and targets: the order of all scores is needed."""

    def __init__(self) -> None:
        self.scores: list[Tensor] = []
        self.targets: list[Tensor] = []

    def update(self, scores: Tensor, targets: Tensor) -> None:
        """Take in a batch."""
        self.scores.append(scores.float())
        self.targets.append(targets)

    def value(self) -> float:
        """Mean over the labels that some sample has; NaN where none has any."""
        from sklearn.metrics import average_precision_score

        scores, targets = torch.cat(self.scores).cpu(), torch.cat(self.targets).cpu()
        there = targets.any(0)
        if not there.any():
            return float("nan")
        return float(average_precision_score(targets[:, there].numpy(), scores[:, there].numpy()))


class _Explained:
    def __init__(self, values: int, device: torch.device):
        # Sums of squares of many numbers: float32 would lose the small ones.
        self.count = 0
        self.error, self.total, self.squares = exact(torch.zeros(3, values, device=device))

    def update(self, scores: Tensor, targets: Tensor) -> None:
        """Take in a batch."""
        scores, targets = exact(scores), exact(targets)
        self.count += len(targets)
        self.error = self.error + (scores - targets).square().sum(0)
        self.total = self.total + targets.sum(0)
        self.squares = self.squares + targets.square().sum(0)

    def value(self) -> float:
        """1 minus the error's share of the variance, the mean over the values that vary."""
        spread = self.squares - self.total.square() / max(1, self.count)
        varies = spread > 0
        return float((1 - self.error[varies] / spread[varies]).mean())


@lru_cache(maxsize=32)
def _on(weights: tuple[float, ...] | None, device: torch.device) -> Tensor | None:
    """Weights as a tensor that is already where it is needed; no copy at each step."""
    return None if weights is None else torch.tensor(weights).to(device)


_SCORES = (
    "logits", "scores", "class_logits", "out", "output", "outputs", "pred", "preds", "prediction", "predictions",
    "y_hat", "y_pred",
)  # fmt: skip


def scores_of(output: object) -> Tensor:
    """The class scores in what a network returns.

    A tensor is the scores. Of several tensors they are what is called ``logits`` (or ``scores``, ``out`` ...), in a
    dictionary or an object; else the first one (Inception), or the only one with a row for each sample.

    Raises:
        ModelError: there are none.
    """
    found = _scores_in(output)
    if found is None:
        keys = f" with the keys {', '.join(map(repr, output))}" if isinstance(output, dict) else ""
        raise ModelError(
            f"the network returned {type(output).__name__}{keys}, not class scores; return them alone, first in a "
            "tuple, or under the name logits"
        )
    return found


def _scores_in(output: object, depth: int = 2) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    named = output if isinstance(output, Mapping) else _Attributes(output)
    for name in _SCORES:
        value = named.get(name)
        if isinstance(value, Tensor):
            return value
    if isinstance(output, tuple | list) and output and depth:
        return _scores_in(output[0], depth - 1)
    if isinstance(output, Mapping):
        rows = [
            v for v in output.values() if isinstance(v, Tensor) and v.dim() == 2 and v.is_floating_point()
        ]
        return rows[0] if len(rows) == 1 else None
    return None


class _Attributes:
    """The attributes of an answer by name."""

    def __init__(self, of: object):
        self._of = of

    def get(self, name: str) -> object:
        """The attribute, or None."""
        return getattr(self._of, name, None)


def kind_of(task: object) -> str:
    """``classes``, ``labels`` or ``values``."""
    if isinstance(task, Classification):
        return "classes"
    return "labels" if isinstance(task, MultiLabel) else "values"
