"""A head that has learned nothing but remembers: the classes of the nearest training samples.

Plain torch and nothing of tlnb, so that scripts and loaders can hold the very same code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Neighbours(nn.Module):
    """Log-probabilities of classes by the k nearest of the samples that are kept, each by the inverse of its distance.

    ``p(c) ~ sum of 1 / |z - z_i| over the k nearest samples i of class c`` (Dudani 1976), with z standardised as the
    samples kept were; a hundredth of the whole is shared out evenly, so that no probability is zero. The samples are
    weights, which may be frozen or trained as those of any layer.

    Args:
        samples: how many are kept.
        features: numbers that enter for each sample.
        classes: how many there are.
        k: neighbours that vote; at most ``samples``.
    """

    def __init__(self, samples: int, features: int, classes: int, k: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(samples, features))
        self.register_buffer("labels", torch.zeros(samples, dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.classes, self.k = classes, k
        self.labels: Tensor
        self.mean: Tensor
        self.scale: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities (B, classes) for features (B, features)."""
        z = (x.float() - self.mean) / self.scale
        distances = torch.cdist(z, self.weight.float(), compute_mode="donot_use_mm_for_euclid_dist")
        near, places = distances.topk(self.k, dim=1, largest=False)
        votes = 1 / near.clamp(min=1e-6)
        votes = votes / votes.sum(1, keepdim=True)
        of_class = self.labels[places].unsqueeze(2) == torch.arange(self.classes, device=x.device)
        shares = (of_class * votes.unsqueeze(2)).sum(1)
        return (0.99 * shares + 0.01 / self.classes).log()

    @torch.no_grad()
    def remember(self, features: Tensor, labels: Tensor) -> None:
        """Keep these samples in place of those of before.

        Args:
            features: (samples, features).
            labels: int64 (samples,).
        """
        spread = features.std(0, correction=0)
        self.mean.copy_(features.mean(0))
        self.scale.copy_(
            torch.where(spread > 1e-6 * (1 + self.mean.to(spread).abs()), spread, torch.ones_like(spread))
        )
        self.weight.copy_((features.to(self.mean) - self.mean) / self.scale)
        self.labels.copy_(labels)

    def extra_repr(self) -> str:
        """What it is made with."""
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}, {self.classes}, k={self.k}"
