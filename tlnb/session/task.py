"""One task of a network: its head, its classes and its data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

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
        source: name of the data that it learned from in another kernel, where it is not named again yet.
        asked: the arguments by which that can be read again; None where it was an object.
    """

    name: str
    head: nn.Module
    side_heads: dict[str, nn.Module] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    data: Data | None = None
    samples: tuple[Samples, Samples] | None = None
    source: str = ""
    asked: dict[str, Any] | None = None

    @property
    def learned_from(self) -> tuple[str, dict[str, Any] | None]:
        """Name of its data, and the arguments by which that can be read again; an empty name for none."""
        if self.data is None:
            return self.source, self.asked
        return self.data.name, None if self.data.asked is None else dict(self.data.asked)
