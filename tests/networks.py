"""Small networks and data for tests."""

from __future__ import annotations

import torch
from torch import nn

from tlnb.engine.data.samples import TensorSamples


class Small(nn.Module):
    """Three convolutions with everything that drifts when it should not, and a head: 4 layers."""

    def __init__(self, classes: int = 3):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5),
            nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5),
            nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        )  # fmt: skip
        self.flat = nn.Flatten()
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        return self.head(self.flat(self.body(x)))


def small(classes: int = 3, seed: int = 0) -> Small:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Small(classes)
        with torch.no_grad():  # statistics that a real network would have
            for buffer in model.buffers():
                if buffer.is_floating_point():
                    buffer.add_(torch.rand(buffer.shape))
    return model.eval()


def blobs(count: int = 90, classes: int = 3, seed: int = 0) -> TensorSamples:
    """Images whose class is their brightness, with noise."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % classes
    images = torch.randn(count, 1, 8, 8, generator=generator) + 1.5 * targets.view(-1, 1, 1, 1)
    return TensorSamples(images, targets)
