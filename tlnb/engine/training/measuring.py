"""Loss and figure of a network on samples, as they are now."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from tlnb.engine.data.samples import Samples
from tlnb.engine.network.modes import set_training
from tlnb.engine.training.tasks import Task, class_weights, scores_of

BATCH = 256


def measure(
    model: nn.Module, samples: Samples, task: Task, device: torch.device | str = "cpu"
) -> tuple[float, float]:
    """Mean loss and the task's figure, in test mode; the modes of the model are put back.

    Args:
        model: gives scores (B, outputs).
        samples: what it is measured on.
        task: loss and figure.
        device: where the model is.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        set_training(model, False)
        return loss_and_figure(model, samples, task, torch.device(device), BATCH)
    finally:
        for module, training in modes:
            module.training = training


@torch.no_grad()
def loss_and_figure(
    forward: nn.Module,
    samples: Samples,
    task: Task,
    device: torch.device,
    batch: int,
    *,
    precision: Callable[[], AbstractContextManager[object]] = nullcontext,
    on_batch: Callable[[], None] = lambda: None,
) -> tuple[float, float]:
    """Mean loss and the task's figure in the modes that the network is in; the same for any ``batch``.

    Args:
        forward: from a batch of the samples to scores.
        samples: what it is measured on.
        task: loss and figure.
        device: where it runs.
        batch: samples at a time.
        precision: the number format that ``forward`` runs under.
        on_batch: called before each batch; what it raises passes through.
    """
    loss, meter = torch.zeros((), device=device), task.meter(device)
    weights = class_weights(task, device)
    amounts = torch.zeros((), device=device)  # with class weights, a batch counts by those of its samples
    order = torch.arange(len(samples)).split(batch)
    for indices, inputs in zip(order, samples.stream(order), strict=True):
        on_batch()
        targets = samples.targets[indices].to(device)
        with precision():
            scores = scores_of(forward(inputs.to(device, non_blocking=True)))
        # On the device: reading the loss of each batch would make an accelerator wait.
        amount = len(indices) if weights is None else weights[targets].sum()
        loss += task.loss(scores.float(), targets) * amount
        amounts += amount
        meter.update(scores, targets)
    mean = loss.item() / len(samples) if weights is None else (loss / amounts).item()
    return mean, meter.value()
