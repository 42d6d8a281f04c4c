"""Training and validation samples, as training asks for them: by index, in batches."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.hashing import tensors_digest


class Samples(ABC):
    """Inputs of a network and their targets.

    Attributes:
        targets: int64 of shape (N,) for classes; float32 of shape (N, labels) or (N, values) otherwise.
        random: whether a batch differs from view to view (augmentation).
        at_hand: whether making a batch costs little more than copying it.
    """

    targets: Tensor
    random: bool = False
    at_hand: bool = False

    def __len__(self) -> int:
        return len(self.targets)

    @abstractmethod
    def batch(self, indices: Tensor) -> Tensor:
        """Network input for these samples.

        Args:
            indices: int64 of shape (B,).

        Returns:
            float32 of shape (B, ...), a fresh tensor that the caller may change.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """A digest of the content, equal for equal samples.

        Where samples are files, a file that has changed since is read anew from now on.
        """

    def view(self, *numbers: int) -> Samples:
        """The samples as a certain stage and epoch see them.

        Random samples are a function of these numbers and the index alone, so that training can be repeated
        and resumed anywhere; all others are the same in every view.
        """
        return self

    def stream(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """``batch`` for each, in order; where that takes time, it is done ahead in threads."""
        for indices in batches:
            yield self.batch(indices)

    def warm(self) -> None:  # noqa: B027 - nothing to do is the usual case
        """Begin in threads what the first batches of all samples in order will need, where that takes time."""


class PictureSamples(Samples):
    """Samples that are pictures.

    Attributes:
        preprocess: how pixels become network input.
    """

    preprocess: Preprocess

    @abstractmethod
    def pixels(self, indices: Tensor) -> Tensor:
        """Pictures at training size: (B, C, H, W), uint8 in 0..255 or floating point in 0..1."""

    @abstractmethod
    def whole(self, indices: Tensor) -> list[Tensor]:
        """The same after the resize and before the crop, each of its own size: B tensors (C, H, W)."""

    def batch(self, indices: Tensor) -> Tensor:
        """Normalised pictures: float32 of shape (B, C, H, W)."""
        return self.preprocess.normalise(self.pixels(indices))


class ImageSamples(PictureSamples):
    """Images kept in memory at the size that the network takes.

    Args:
        images: uint8 in 0..255, or floating point in 0..1, of shape (N, C, H, W).
        targets: of shape (N,) or (N, outputs).
        preprocess: how pixels become network input.
        originals: the images as they came, of shape (N, C', H', W'); None where these are all there is.
    """

    at_hand = True

    def __init__(
        self, images: Tensor, targets: Tensor, preprocess: Preprocess, originals: Tensor | None = None
    ):
        self.images, self.targets, self.preprocess = images, targets, preprocess
        self.originals = originals

    def pixels(self, indices: Tensor) -> Tensor:
        """These images."""
        return self.images[indices]

    def whole(self, indices: Tensor) -> list[Tensor]:
        """These images before the crop, as far as there is more of them."""
        if self.originals is None or self.preprocess.resize is None:
            return list(self.images[indices])
        return list(self.preprocess.colour(self.preprocess.scale(self.originals[indices])))

    def fingerprint(self) -> str:
        """SHA-256 over pixels, targets and preprocessing."""
        return tensors_digest([("images", self.images), ("targets", self.targets)], note=str(self.preprocess))


class TensorSamples(Samples):
    """Inputs kept in memory just as the network takes them.

    Args:
        inputs: shape (N, ...), any dtype.
        targets: of shape (N,) or (N, outputs).
    """

    at_hand = True

    def __init__(self, inputs: Tensor, targets: Tensor):
        self.inputs, self.targets = inputs, targets

    def batch(self, indices: Tensor) -> Tensor:
        """A copy of these rows of the inputs."""
        return self.inputs.index_select(0, indices)

    def fingerprint(self) -> str:
        """SHA-256 over inputs and targets."""
        return tensors_digest([("inputs", self.inputs), ("targets", self.targets)])


def with_targets(samples: Samples, targets: Tensor) -> Samples:
    """The same samples under other targets."""
    other = copy.copy(samples)
    other.targets = targets.to(torch.float32) if targets.is_floating_point() else targets
    return other
