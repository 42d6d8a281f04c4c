"""One number that makes probabilities mean what they say (Guo et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tlnb.engine.results.scores import Calibration
from tlnb.errors import DataError

COLD, HOT = 0.05, 20.0  # the temperatures that are looked at
TINY = 1e-38  # the smallest probability that is told from none
STEPS = 40  # of the search; each narrows the span to two thirds


@dataclass(frozen=True)
class Temperature:
    """The number by which scores are divided before softmax or sigmoid.

    Attributes:
        value: above 1 for a network that is too sure, below 1 for one that is not sure enough.
        loss: mean loss of the samples before and after.
        error: expected calibration error before and after; None where a sample has several labels.
        of: the samples that it fits, in words.
    """

    value: float
    loss: tuple[float, float]
    error: tuple[float, float] | None
    of: str = "the validation samples"

    def probabilities(self, scores: Tensor, kind: str = "classes") -> Tensor:
        """Probabilities of scores (N, outputs) of any samples."""
        warm = scores.float() / self.value
        return warm.softmax(1) if kind == "classes" else warm.sigmoid()

    def __repr__(self) -> str:
        text = f"temperature {self.value:.2f}: loss {self.loss[0]:.3f} → {self.loss[1]:.3f}"
        if self.error is not None:
            text = f"{text}, calibration error {100 * self.error[0]:.1f} % → {100 * self.error[1]:.1f} %"
        return f"{text} (on {self.of})"


def fit_temperature(scores: Tensor, targets: Tensor) -> Temperature:
    """The temperature with the least loss on samples that the network did not learn from.

    The targets are moved a little towards all being possible, as Platt (1999) does: of n samples that are all
    right, one cannot say more than that about one in n + 2 will be wrong.

    Args:
        scores: before softmax or sigmoid, (N, outputs), of validation samples or out of fold.
        targets: class numbers, int64 (N,), or labels, float (N, labels) of 0 and 1.

    Raises:
        DataError: there are no samples, or a score is not finite.
    """
    if not len(scores):
        raise DataError("a temperature needs validation samples")
    exact = scores.detach().double().cpu()
    if not exact.isfinite().all():
        raise DataError("a temperature needs finite scores; the network gives some that are not")
    labels = targets.is_floating_point()
    goal = _softened(targets.cpu(), exact)
    low, high = float(np.log(COLD)), float(np.log(HOT))
    # The loss has one minimum in 1 / temperature, so thirds of the span can be left out one by one.
    for _ in range(STEPS):
        a, b = low + (high - low) / 3, high - (high - low) / 3
        if _loss(exact / np.exp(a), goal, labels) <= _loss(exact / np.exp(b), goal, labels):
            high = b
        else:
            low = a
    value = float(np.exp((low + high) / 2))
    plain = targets.cpu().double() if labels else targets.cpu()
    losses = _loss(exact, plain, labels), _loss(exact / value, plain, labels)
    if labels:
        return Temperature(value, losses, None)
    errors = (_error(exact, plain), _error(exact / value, plain))
    return Temperature(value, losses, errors)


def fit_to_answers(answers: np.ndarray, targets: np.ndarray, of: str) -> Temperature:
    """The temperature that fits answers out of fold: of networks that had not seen the samples.

    Scores are known from probabilities but for a number that is the same for all classes of a sample, which changes
    nothing.

    Args:
        answers: probabilities of classes or labels, float (N, outputs).
        targets: class numbers (N,), or labels (N, labels) of 0 and 1.
        of: the samples, in words.

    Raises:
        DataError: there are none.
    """
    chances = torch.from_numpy(answers).double().clamp(TINY, 1)
    goal = torch.from_numpy(targets)
    if goal.dim() == 1:
        return replace(fit_temperature(chances.log(), goal.long()), of=of)
    return replace(fit_temperature(torch.logit(chances, eps=1e-7), goal.double()), of=of)


def _softened(targets: Tensor, scores: Tensor) -> Tensor:
    doubt = 1 / (len(scores) + 2)
    if targets.is_floating_point():
        return targets.double() * (1 - 2 * doubt) + doubt
    classes = scores.shape[1]
    sure = functional.one_hot(targets, classes).double()
    return sure * (1 - doubt) + (1 - sure) * doubt / max(classes - 1, 1)


def _loss(scores: Tensor, goal: Tensor, labels: bool) -> float:
    if labels:
        return functional.binary_cross_entropy_with_logits(scores, goal).item()
    return functional.cross_entropy(scores, goal).item()


def _error(scores: Tensor, targets: Tensor) -> float:
    sure, predicted = scores.softmax(1).max(1)
    return Calibration.of(sure.numpy(), (predicted == targets).numpy()).error
