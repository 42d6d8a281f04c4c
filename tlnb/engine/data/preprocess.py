"""What has to happen to a picture before a given set of weights understands it.

Size, crop, mean and standard deviation belong to the weights, not to the data: they are part of how the
network was trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import Annotated, Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from tlnb.engine.core.structure import one_of, plain, structure, whole
from tlnb.errors import DataError

LARGEST = 1 << 15  # pixels of a side
Side = Annotated[int, whole(1, LARGEST)]


@dataclass(frozen=True)
class Preprocess:
    """Resize, crop and normalise.

    Args:
        channels: 1 (grey) or 3 (red, green, blue).
        size: height and width that the network takes, in pixels.
        resize: length of the shorter side before the centre crop, in pixels; None resizes straight to
            ``size``, whatever the proportions.
        mean: mean of each channel, for values in 0..1.
        std: standard deviation of each channel, for values in 0..1.
        interpolation: ``bilinear``, ``bicubic`` or ``nearest``.
    """

    channels: Annotated[int, whole(1, 1 << 10)] = 3
    size: tuple[Side, Side] = (224, 224)
    resize: Side | None = 256
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: Annotated[str, one_of(*(mode.value for mode in InterpolationMode))] = "bilinear"

    def fit(self, images: Tensor) -> Tensor:
        """Resized and cropped images with the right number of channels.

        Args:
            images: uint8 of shape (N, C, H, W), with 1 or 3 channels.

        Returns:
            uint8 of shape (N, ``channels``, *``size``).
        """
        return self.colour(self.crop(images))

    def crop(self, images: Tensor) -> Tensor:
        """Images at the size that the network takes, channels as they were."""
        images = self.scale(images)
        same = tuple(images.shape[-2:]) == tuple(self.size)
        return images if same else F.center_crop(images, list(self.size))

    def scale(self, images: Tensor) -> Tensor:
        """Images after the resize and before the crop: what augmentation starts from."""
        target = self._target(*images.shape[-2:])
        if tuple(images.shape[-2:]) == target:
            return images
        mode = InterpolationMode(self.interpolation)
        return F.resize(images, list(target), interpolation=mode, antialias=True)

    def _target(self, height: int, width: int) -> tuple[int, int]:
        if self.resize is None:
            return self.size
        shorter = min(height, width)
        # As torchvision's Resize does it: the longer side is cut off, not rounded.
        return int(self.resize * height / shorter), int(self.resize * width / shorter)

    def colour(self, images: Tensor) -> Tensor:
        """Images with ``channels`` channels: grey is repeated, colour becomes luma (ITU-R 601).

        Raises:
            DataError: another number of bands.
        """
        have = images.shape[-3]
        if have == self.channels:
            return images
        if have == 1:
            return images.expand(*images.shape[:-3], self.channels, *images.shape[-2:])
        if have not in (3, 4) or self.channels != 1:
            self.check_bands(images)
        return F.rgb_to_grayscale(images[..., :3, :, :], num_output_channels=self.channels)

    def check_bands(self, images: Tensor) -> None:
        """See that pictures (..., C, H, W) have as many bands as the network takes.

        Raises:
            DataError: another number.
        """
        if images.shape[-3] != self.channels:
            have = images.shape[-3]
            raise DataError(
                f"the pictures have {have} bands and the network takes {self.channels}; --bands chooses them"
            )

    def normalise(self, images: Tensor) -> Tensor:
        """Model input from pixels.

        Args:
            images: (N, C, H, W); uint8 in 0..255, or floating point in 0..1.

        Returns:
            float32 of the same shape, ``(x - mean) / std`` a channel.

        Raises:
            DataError: another number of bands.
        """
        self.check_bands(images)
        top = 1.0 if images.is_floating_point() else 255.0
        std = torch.tensor(self.std).view(-1, 1, 1).to(images.device)
        mean = torch.tensor(self.mean).view(-1, 1, 1).to(images.device)
        # One multiplication and one addition a pixel, in place on the fresh float copy.
        return images.to(torch.float32, copy=True).mul_(1.0 / (top * std)).sub_(mean / std)

    def at(self, size: int | tuple[int, int]) -> Preprocess:
        """The same for another input size; the margin that is cropped away stays in proportion."""
        new = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        resize = None if self.resize is None else round(self.resize * min(new) / min(self.size))
        return replace(self, size=new, resize=resize)

    def describe(self) -> str:
        """One line for people."""
        mean, std = (", ".join(f"{v:.3g}" for v in values) for values in (self.mean, self.std))
        how = f"resize {self.resize}, centre crop" if self.resize else "resize"
        shape = f"{self.channels}×{self.size[0]}×{self.size[1]}"
        return f"{shape} ({how}, {self.interpolation}), mean {mean}, std {std}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        values: dict[str, Any] = plain(self)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """The way back from ``to_dict``, also through JSON, and from a file that may say anything.

        Raises:
            ValueError: a value that cannot be.
        """
        return structure(cls, values)

    def check(self) -> None:
        """See that mean and deviation fit the channels, and can be divided by.

        Raises:
            ValueError: they do not.
        """
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError("mean and std do not fit the channels")
        if not all(isfinite(number) for number in self.mean + self.std) or min(self.std) <= 0:
            raise ValueError("mean and std are no numbers to divide by")
