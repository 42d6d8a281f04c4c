"""Training what enters the head by comparing the samples of a batch, with no head in between.

A fitted head tells a few samples of each class apart already and leaves its features hardly anything to learn. Between
the samples themselves there is: those of one class are to lie near each other, and apart from all others (SupCon,
Khosla et al. 2020; for sentence encoders SetFit, Tunstall et al. 2022).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tlnb.engine.core.objectives import Classification, Objective
from tlnb.engine.core.tree import call
from tlnb.engine.training.fit_head import as_vectors, last_layer
from tlnb.errors import TrainingError


def contrastive_loss(features: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """The mean over the samples of ``-log p``, the mean over others of their class; p is a softmax over the batch.

    The softmax is that of the cosines to all other samples, divided by the temperature: ``L_out`` of Khosla et al.
    (2020). A sample with no other of its class in the batch is none of the samples that the mean is over.

    Args:
        features: (B, d).
        targets: class numbers, int64 (B,).
        temperature: above 0; the smaller, the more the nearest samples count.

    Returns:
        A tensor of no dimension; 0 where no class has two samples.
    """
    unit = F.normalize(features.float(), dim=1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    with torch.autocast(unit.device.type, enabled=False):  # near samples differ by less than halves tell
        cosines = (unit @ unit.T / temperature).masked_fill(itself, torch.finfo(unit.dtype).min)
    alike = (targets[:, None] == targets[None]) & ~itself
    count = alike.sum(1)
    each = -cosines.log_softmax(1).masked_fill(~alike, 0.0).sum(1) / count.clamp(min=1)
    return each.sum() / (count > 0).sum().clamp(min=1)


def check(task: Objective, head: str, *, own_step: bool) -> None:
    """Refuse what there is nothing to compare in.

    Args:
        task: what is learned.
        head: qualified name of the head; empty where the network has none.
        own_step: whether the user's step makes the loss.

    Raises:
        TrainingError: the task is not one of classes, these are weighted, there is no head, or a step of the user's
            makes the loss.
    """
    if not isinstance(task, Classification):
        raise TrainingError(
            "contrast compares samples by their class; labels and values have none: leave it out"
        )
    if task.weights is not None:
        raise TrainingError(
            "contrast counts all samples alike; take --balance samples in place of weights, or leave it out"
        )
    if not head:
        raise TrainingError("contrast looks at what enters the head, and this network has none: leave it out")
    if own_step:
        raise TrainingError(
            "contrast is a loss, and so is the step of your own; %tl_step off takes that away"
        )


def loss_before_head(
    forward: nn.Module, inputs: Any, targets: Tensor, head: nn.Module, temperature: float
) -> Tensor:
    """The contrastive loss of what enters the head's last layer, which for most heads is what enters the head.

    Args:
        forward: from the batch to scores; holds the head.
        inputs: the batch.
        targets: (B,).
        head: of the network.
        temperature: see :func:`contrastive_loss`.
    """
    layer, seen = last_layer(head), []
    handle = layer.register_forward_pre_hook(lambda module, entering: seen.append(entering[0]))
    try:
        call(forward, inputs)
    finally:
        handle.remove()
    return contrastive_loss(as_vectors(seen[0], layer), targets, temperature)
