"""What a source answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tlnb.engine.data.collections import Collection
from tlnb.engine.data.images.check import Problem

CLASSES, LABELS, REGRESSION = "classes", "labels", "regression"
TARGETS = (CLASSES, LABELS, REGRESSION)


@dataclass
class Ask:
    """How a source is to be read.

    Attributes:
        seed: of what is drawn.
        target: what the targets are: one of ``TARGETS``; None to be told by how they look.
        progress: told how many of how many files are looked at.
    """

    seed: int = 0
    target: str | None = None
    progress: Callable[[int, int], None] = lambda done, total: None


@dataclass
class Found:
    """A data set as its source has it.

    Attributes:
        train: all samples, or the training samples where the source has a split of its own.
        valid: the validation samples of the source's own split, or None.
        classes: names of the network's outputs, in order.
        kind: what the targets are: one of ``TARGETS``.
        problems: files that are not used, with the reason.
        notes: what the user should know about how it was read.
        batch: samples a step, where the source says so.
    """

    train: Collection
    valid: Collection | None
    classes: tuple[str, ...]
    kind: str = CLASSES
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    batch: int | None = None
