"""Inputs in memory: pictures on any scale, or rows that go to the network as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tlnb.engine.core.machine import free_bytes
from tlnb.engine.data.images.headers import BadPicture
from tlnb.engine.data.images.scale import MOST, PixelScale, common_white, scale_note
from tlnb.engine.data.raw import Pictures, RawDataset, Rows
from tlnb.engine.data.readers import are_opacity, is_channels_first
from tlnb.engine.data.request import USUAL, SourceRequest
from tlnb.errors import DataError

Made = tuple[Callable[[Tensor], RawDataset], PixelScale, list[str]]


def collection_of(inputs: Any, request: SourceRequest = USUAL) -> Made:
    """How inputs in memory are taken: as pictures, or just as they are.

    Pictures are uint8, other whole numbers or floating-point numbers from 0 to 65535, of shape (N, H, W),
    (N, C, H, W) or (N, H, W, C) with 1 or 3 channels, or as many as ``request.bands`` chooses; uint8 also of shape
    (N, H, W, 4), with what is transparent shown white. Anything else goes to the network as it is.

    Returns:
        What makes a collection once the targets are known, the scale of the pixels, and notes for the user.

    Raises:
        DataError: no numbers, or not finite, or more than memory holds.
    """
    tensor = _tensor(inputs)
    scale = request.scale
    notes: list[str] = []
    pictures = _as_pictures(tensor, scale, notes)
    if pictures is None:
        request.refuse(("range", "bands"), f"X of shape {tuple(tensor.shape)} holds no pictures")
        return _rows(tensor), scale, notes
    if pictures.dtype == torch.uint8 and not scale.given:
        return lambda targets: Pictures(pictures, targets), scale, notes
    if scale.white is None:
        low, high = float(pictures.min()), float(pictures.max())
        if low < 0 or high > MOST:
            if pictures.is_floating_point():
                span = f"{low:.3g} to {high:.3g}"
                notes.append(
                    f"values from {span}: taken as normalised already, and not normalised again "
                    "(--range says what is black and white)"
                )
            return _rows(tensor), scale, notes
        maxima = pictures.amax((1, 2, 3)).tolist()
        white, brighter = common_white(maxima)
        notes += scale_note(maxima, white, brighter)
        scale = PixelScale(0.0, white, scale.bands)
    assert scale.white is not None
    scaled = (pictures.float() - scale.low).div_(scale.white - scale.low).clamp_(0, 1)
    return lambda targets: Pictures(scaled, targets), scale, notes


def _rows(tensor: Tensor) -> Callable[[Tensor], RawDataset]:
    return lambda targets: Rows(tensor, targets)


def _tensor(inputs: Any) -> Tensor:
    if isinstance(inputs, Tensor):
        if inputs.is_complex() or inputs.layout is not torch.strided or inputs.is_meta:
            raise DataError(
                f"X of type {inputs.dtype}, {inputs.layout} cannot be learned from; plain numbers are needed"
            )
        _check_memory(inputs.numel() * max(inputs.element_size(), 4))
        tensor = inputs.detach().cpu()
        if str(tensor.dtype).startswith(("torch.uint1", "torch.uint3", "torch.uint6")):
            tensor = tensor.to(torch.int64)
    else:
        if isinstance(inputs, np.ma.MaskedArray) and np.ma.is_masked(inputs):
            raise DataError("X holds masked values; fill them first: X.filled(value)")
        array = np.asarray(inputs)
        if array.dtype.kind not in "biuf":
            raise DataError(f"X of type {array.dtype} cannot be learned from; numbers are needed")
        _check_memory(array.size * max(array.dtype.itemsize, 4))
        if array.dtype.kind == "u" and array.dtype.itemsize > 1:
            array = array.astype(np.int64)
        native = array.dtype.newbyteorder("=")
        tensor = torch.from_numpy(np.require(array, native, ["C", "W"]))
    if not tensor.numel():
        raise DataError(f"X of shape {tuple(tensor.shape)} holds no values")
    if tensor.is_floating_point():
        tensor = tensor.float()
        if not torch.isfinite(tensor).all():
            raise DataError("X holds values that are not finite")
    return tensor


def _check_memory(size: int) -> None:
    """Refuse what only looks small, such as one value that is repeated without being there."""
    free = free_bytes()
    if size > free:
        raise DataError(
            f"X takes {size / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; give a Dataset, which is read in parts"
        )


def _as_pictures(tensor: Tensor, scale: PixelScale, notes: list[str]) -> Tensor | None:
    """(N, C, H, W), or None where the shape or the type is not that of pictures."""
    if tensor.dtype == torch.bool or not len(tensor):
        return None
    byte = tensor.dtype == torch.uint8
    if tensor.dim() == 3 and (byte or tensor.shape[1] == tensor.shape[2] or scale.given):
        tensor = tensor.unsqueeze(1)
    if tensor.dim() != 4:
        return None
    if (
        not tensor.is_floating_point()
        and not byte
        and not {1, 3} & {tensor.shape[1], tensor.shape[3]}
        and not scale.bands
    ):
        return None
    if scale.bands:
        first = is_channels_first(tuple(tensor.shape[1:]))
        try:
            scale.chosen(np.empty((0, 0, tensor.shape[1 if first else 3]), np.uint8))
        except BadPicture as trouble:
            raise DataError(f"the pictures have {trouble}") from None
        chosen = torch.tensor(scale.bands) - 1
        return (
            tensor.index_select(1, chosen)
            if first
            else tensor.index_select(3, chosen).permute(0, 3, 1, 2).contiguous()
        )
    if tensor.shape[3] == 4 and byte:
        if are_opacity(tensor[..., 3].numpy()):
            return _before_white(tensor)
        notes.append("a fourth band that is no opacity: not used (--bands chooses, such as --bands 4,2,1)")
        return tensor[..., :3].permute(0, 3, 1, 2).contiguous()
    if tensor.shape[1] in (1, 3):
        return tensor
    if tensor.shape[3] in (1, 3):
        return tensor.permute(0, 3, 1, 2).contiguous()
    return None


def _before_white(pictures: Tensor) -> Tensor:
    """(N, 3, H, W) of red, green, blue and opacity (N, H, W, 4)."""
    opacity = pictures[..., 3:].float() / 255
    seen = pictures[..., :3] * opacity + 255 * (1 - opacity)
    return seen.round().to(torch.uint8).permute(0, 3, 1, 2).contiguous()
