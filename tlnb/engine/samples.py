"""Training and validation samples, as training asks for them: by index, in batches."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from tlnb.engine.hashing import tensors_digest
from tlnb.engine.preprocess import Preprocess


class Samples(ABC):
    """Inputs of a network and their targets.

    Attributes:
        targets: int64 of shape (N,) for classes.
    """

    targets: Tensor

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
        """A digest of the content, equal for equal samples."""


class ImageSamples(Samples):
    """Images kept in memory as uint8 at the size that the network takes.

    Args:
        images: uint8 of shape (N, C, H, W).
        targets: int64 of shape (N,).
        preprocess: how pixels become network input.
    """

    def __init__(self, images: Tensor, targets: Tensor, preprocess: Preprocess):
        self.images, self.targets, self.preprocess = images, targets, preprocess

    def batch(self, indices: Tensor) -> Tensor:
        """Normalised images: float32 of shape (B, C, H, W)."""
        return self.preprocess.normalise(self.images[indices])

    def fingerprint(self) -> str:
        """SHA-256 over pixels, targets and preprocessing."""
        return tensors_digest([("images", self.images), ("targets", self.targets)], note=str(self.preprocess))


class TensorSamples(Samples):
    """Inputs kept in memory just as the network takes them.

    Args:
        inputs: shape (N, ...), any dtype.
        targets: int64 of shape (N,).
    """

    def __init__(self, inputs: Tensor, targets: Tensor):
        self.inputs, self.targets = inputs, targets

    def batch(self, indices: Tensor) -> Tensor:
        """A copy of these rows of the inputs."""
        return self.inputs.index_select(0, indices)

    def fingerprint(self) -> str:
        """SHA-256 over inputs and targets."""
        return tensors_digest([("inputs", self.inputs), ("targets", self.targets)])
