"""What a stage feeds, and through which part of the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from tlnb.engine.data.samples import Samples


@dataclass
class Route:
    """What a stage feeds, and through which part of the network.

    Attributes:
        train: samples to learn from.
        valid: samples to measure on.
        forward: from a batch of those samples to class scores.
        device: where it runs.
        note: what it leaves out, in one line; empty where it is the whole way.
        saved: seconds that this has saved so far, what it cost taken off.
    """

    train: Samples
    valid: Samples
    forward: nn.Module
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    note: str = ""
    saved: Callable[[], float] = lambda: 0.0


Shortcut = Callable[[Callable[[str], None], Callable[[int, int], None]], Route]
"""Makes the route: told what it computes in one line, and how far it has come."""
