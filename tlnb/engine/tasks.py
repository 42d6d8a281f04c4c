"""What is learned: the loss, and the figure that people read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Classification:
    """One class a sample: cross-entropy, and accuracy.

    Attributes:
        metric: name of the figure.
    """

    metric: str = "accuracy"

    def loss(self, scores: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        """Mean cross-entropy.

        Args:
            scores: (B, classes), before softmax.
            targets: int64 of shape (B,).
            smoothing: label smoothing (Szegedy et al. 2016).
        """
        return F.cross_entropy(scores, targets, label_smoothing=smoothing)

    def right(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Number of samples whose largest score is the right one, as a tensor on the device."""
        return (scores.argmax(1) == targets).sum()


def scores_of(output: object) -> Tensor:
    """The class scores in what a network returns: itself, or the main one of several (Inception)."""
    if isinstance(output, Tensor):
        return output
    first = output[0] if isinstance(output, tuple | list) else getattr(output, "logits", None)
    if not isinstance(first, torch.Tensor):
        raise TypeError(f"the network returned {type(output).__name__}, not class scores")
    return first
