"""A small network in which every channel lets something through."""

from __future__ import annotations

import torch
from networks import Small, small
from torch import nn


def lively(seed: int = 0) -> Small:
    """``small`` with norms that have random biases.

    Without them whole layers are dead: features are zero whatever changes, and a dead channel sits on the
    kink of its ReLU, where a rounding decides about its gradient.
    """
    model = small(seed=seed)
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, 0.5, 0.5, generator=generator)
    return model
