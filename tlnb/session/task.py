"""One task of a network: its head, its classes and its data."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from tlnb.engine.data.load import Data
from tlnb.engine.data.samples import Samples


@dataclass
class Task:
    """What changes when a network turns to something else; the body stays.

    Attributes:
        name: what the task is called.
        head: the module that gives its class scores.
        side_heads: further classifiers that help in training, by their place in the network.
        classes: names of the classes in the order of the scores; None where nobody told.
        data: what it learns from; None until data is named.
        samples: the training and validation samples, fitted to the network.
    """

    name: str
    head: nn.Module
    side_heads: dict[str, nn.Module] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    data: Data | None = None
    samples: tuple[Samples, Samples] | None = None
