"""Inputs in memory: pictures on any scale, or rows that go to the network as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tlnb.engine.data.collections import Collection, Pictures, Rows
from tlnb.errors import DataError


def collection_of(inputs: Any) -> tuple[Callable[[Tensor], Collection], list[str]]:
    """How inputs in memory are taken: as pictures, or just as they are.

    Pictures are uint8, uint16, or floating-point numbers from 0 to 255, of shape (N, H, W), (N, C, H, W) or
    (N, H, W, C) with 1 or 3 channels; uint8 also of shape (N, H, W, 4), with what is transparent shown white.
    Anything else goes to the network as it is.

    Returns:
        What makes a collection once the targets are known, and notes for the user.
    """
    deep = str(inputs.dtype).endswith("uint16")
    tensor = inputs.detach().cpu() if isinstance(inputs, Tensor) else torch.from_numpy(_plain(inputs))
    pictures = _as_pictures(tensor.float() if deep else tensor)
    if pictures is not None and pictures.dtype == torch.uint8:
        return lambda targets: Pictures(pictures, targets), []
    if tensor.is_floating_point():
        tensor = tensor.float()
        if not torch.isfinite(tensor).all():
            raise DataError("X holds values that are not finite")
    if pictures is not None and pictures.min() >= 0 and pictures.max() <= (65535 if deep else 255):
        white, notes = _white(float(pictures.max()))
        return lambda targets: Pictures(pictures.float() / white, targets), notes
    notes = []
    if pictures is not None and pictures.is_floating_point():
        span = f"{tensor.min():.3g} to {tensor.max():.3g}"
        notes.append(f"values from {span}: taken as normalised already, and not normalised again")
    return lambda targets: Rows(tensor, targets), notes


def _white(most: float) -> tuple[float, list[str]]:
    """The value of white in pictures that are not uint8, by the largest value in them, and a note."""
    if most <= 1:
        return 1.0, []
    # A dim set of 8-bit pictures may have no 255 in it; the 0..16 of scikit-learn's digits ends far below.
    # Cameras and scanners write 10, 12, 14 or 16 bits.
    white = next(float(top) for top in (255, 1023, 4095, 16383, 65535) if top >= most) if most > 64 else most
    return white, [f"values from 0 to {most:.5g}: taken as pixels in which {white:g} is white"]


def _plain(array: Any) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype.kind not in "biuf":
        raise DataError(f"X of type {array.dtype} cannot be learned from; numbers are needed")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    return np.ascontiguousarray(array)


def _as_pictures(tensor: Tensor) -> Tensor | None:
    """(N, C, H, W), or None where the shape or the type is not that of pictures."""
    if tensor.dtype != torch.uint8 and not tensor.is_floating_point():
        return None
    if tensor.dim() == 3 and (tensor.dtype == torch.uint8 or tensor.shape[1] == tensor.shape[2]):
        return tensor.unsqueeze(1)
    if tensor.dim() == 4 and tensor.shape[3] == 4 and tensor.dtype == torch.uint8:
        return _before_white(tensor)
    if tensor.dim() == 4 and tensor.shape[1] in (1, 3):
        return tensor
    if tensor.dim() == 4 and tensor.shape[3] in (1, 3):
        return tensor.permute(0, 3, 1, 2).contiguous()
    return None


def _before_white(pictures: Tensor) -> Tensor:
    """(N, 3, H, W) of red, green, blue and opacity (N, H, W, 4)."""
    opacity = pictures[..., 3:].float() / 255
    seen = pictures[..., :3] * opacity + 255 * (1 - opacity)
    return seen.round().to(torch.uint8).permute(0, 3, 1, 2).contiguous()
