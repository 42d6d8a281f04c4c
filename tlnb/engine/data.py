"""Data as a user names it, split and ready to be fitted to a network."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape

import torch
from torch import Tensor

from tlnb.engine.preprocess import Preprocess
from tlnb.engine.samples import ImageSamples, Samples
from tlnb.engine.splits import first_per_class, split
from tlnb.engine.table import Table
from tlnb.errors import DataError, did_you_mean

GLYPHS_PER_CLASS = 100


@dataclass
class Pictures:
    """Images in memory before they are fitted to a network.

    Args:
        images: uint8 of shape (N, C, H, W).
        targets: int64 of shape (N,).
    """

    images: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, indices: Tensor) -> Pictures:
        """These samples only."""
        return Pictures(self.images[indices], self.targets[indices])

    def prepare(self, preprocess: Preprocess) -> Samples:
        """Samples at the size and in the colours that the network takes."""
        return ImageSamples(preprocess.fit(self.images).contiguous(), self.targets, preprocess)


@dataclass
class Data:
    """A data set with its split.

    Attributes:
        name: what the user called it.
        classes: class names in the order of the targets.
        train: samples to learn from.
        valid: samples to measure on.
        batch: samples a step, unless a stage says otherwise.
        seed: of the split, and of the training that follows.
        size: side of the training images in pixels; None for the network's own.
        notes: what the user should know about how it was read.
    """

    name: str
    classes: tuple[str, ...]
    train: Pictures
    valid: Pictures
    batch: int = 64
    seed: int = 0
    size: int | None = None
    notes: list[str] = field(default_factory=list)

    def counts(self) -> Table:
        """Training and validation samples of each class."""
        train, valid = (
            torch.bincount(p.targets, minlength=len(self.classes)) for p in (self.train, self.valid)
        )
        rows = [(c, int(t), int(v)) for c, t, v in zip(self.classes, train, valid, strict=True)]
        return Table(("class", "train", "valid"), rows)

    def __repr__(self) -> str:
        per_class = torch.bincount(self.train.targets, minlength=len(self.classes))
        lines = [
            f"{self.name}: {len(self.train):,} training and {len(self.valid):,} validation samples "
            f"in {len(self.classes)} classes ({_few(self.classes)}), "
            f"{int(per_class.min())} to {int(per_class.max())} a class to train on"
        ]
        return "\n".join(lines + self.notes)

    def _repr_html_(self) -> str:
        text = "<br>".join(escape(line) for line in repr(self).splitlines())
        return f"<div>{text}<details><summary>classes</summary>{self.counts()._repr_html_()}</details></div>"


def load_data(
    source: object,
    *,
    valid: float = 0.2,
    per_class: int | None = None,
    batch: int = 64,
    seed: int = 0,
    size: int | None = None,
) -> Data:
    """Read a data set and split it.

    Args:
        source: ``digits`` or ``glyphs``.
        valid: share of the samples to validate on.
        per_class: at most this many training samples of each class.
        batch: samples a step.
        seed: of the split and of the choice that ``per_class`` makes.
        size: side of the training images in pixels; None for the network's own.

    Raises:
        DataError: an unknown source or an impossible split.
    """
    if not isinstance(source, str) or source not in SOURCES:
        raise DataError(
            f"no data {source!r}{did_you_mean(str(source), SOURCES)}; there are {', '.join(SOURCES)}"
        )
    if per_class is not None and per_class < 1:
        raise DataError(f"--per-class takes a whole number from 1 up, not {per_class}")
    for option, number in (("--batch", batch), ("--size", size)):
        if number is not None and number < 1:
            raise DataError(f"{option} takes a whole number from 1 up, not {number}")
    pictures, classes = SOURCES[source](seed)
    train, held = split(pictures.targets, valid, seed)
    if per_class is not None:
        train = first_per_class(pictures.targets, train, per_class, seed)
    return Data(source, classes, pictures.subset(train), pictures.subset(held), batch, seed, size)


def _digits(seed: int) -> tuple[Pictures, tuple[str, ...]]:
    """scikit-learn's 1,797 handwritten digits, 8×8 pixels of 0..16 (Alpaydin and Kaynak 1998)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
    return Pictures(images, torch.from_numpy(digits.target).long()), tuple(map(str, digits.target_names))


def _glyphs(seed: int) -> tuple[Pictures, tuple[str, ...]]:
    """Letters drawn now from matplotlib's fonts: the task that ``convnet5`` was trained on."""
    from tlnb.engine import glyphs

    images, targets = glyphs.draw(GLYPHS_PER_CLASS * len(glyphs.CLASSES), seed=seed)
    return Pictures(images, targets), glyphs.CLASSES


SOURCES = {"digits": _digits, "glyphs": _glyphs}


def _few(names: tuple[str, ...], most: int = 8) -> str:
    if len(names) <= most:
        return ", ".join(names)
    return ", ".join(names[: most - 1]) + f", … {names[-1]}"
