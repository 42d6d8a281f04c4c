"""What a source answers."""

from __future__ import annotations

from dataclasses import dataclass, field

from tlnb.engine.data.collections import Collection
from tlnb.engine.data.images.check import Problem
from tlnb.engine.data.images.scale import PLAIN, PixelScale
from tlnb.engine.data.request import CLASSES


@dataclass
class Found:
    """A data set as its source has it.

    Attributes:
        train: all samples, or the training samples where the source has a split of its own.
        valid: the validation samples of the source's own split, or None.
        classes: names of the network's outputs, in order.
        kind: what the targets are: one of ``request.TARGETS``.
        problems: files that are not used, with the reason.
        notes: what the user should know about how it was read.
        batch: samples a step, where the source says so.
        scale: of the pixels of its pictures.
    """

    train: Collection
    valid: Collection | None
    classes: tuple[str, ...]
    kind: str = CLASSES
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    batch: int | None = None
    scale: PixelScale = PLAIN
