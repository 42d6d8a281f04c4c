"""Loss and figure of a network on samples, as they are now."""

from __future__ import annotations

import torch
from torch import nn

from tlnb.engine.data.samples import Samples
from tlnb.engine.training.tasks import Task, scores_of

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
    total, meter = 0.0, task.meter(torch.device(device))
    order = torch.arange(len(samples)).split(BATCH)
    try:
        model.eval()
        with torch.inference_mode():
            for indices, inputs in zip(order, samples.stream(order), strict=True):
                targets = samples.targets[indices].to(device)
                scores = scores_of(model(inputs.to(device))).float()
                total += task.loss(scores, targets).item() * len(indices)
                meter.update(scores, targets)
    finally:
        for module, training in modes:
            module.training = training
    return total / len(samples), meter.value()
