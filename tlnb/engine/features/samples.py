"""What crosses a cut, as samples that training asks for by index."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tlnb.engine.data.samples import Samples


def pack(features: Tensor, channels_last: bool) -> Tensor:
    """Rows for storage: images (B, C, H, W) as (B, H, W, C), which convolutions read fastest."""
    return features.permute(0, 2, 3, 1) if channels_last and features.dim() == 4 else features


def unpack(rows: Tensor, channels_last: bool) -> Tensor:
    """The way back; images come out as (B, C, H, W), channels last in memory."""
    return rows.permute(0, 3, 1, 2) if channels_last and rows.dim() == 4 else rows


@dataclass
class Features:
    """What crosses one cut for every sample of a set, computed once.

    Attributes:
        key: SHA-256 of all that it follows from.
        rows: (N, ...), see :func:`pack`.
        seconds: what it takes to compute it from the images.
        place: ``memory``, ``device`` or ``file``.
        channels_last: how the rows are packed.
        release: lets go of file pages that are mapped; None where there is no file.
        served: how many rows were asked for.
    """

    key: str
    rows: Tensor
    seconds: float
    place: str
    channels_last: bool
    release: Callable[[], None] | None = None
    served: int = field(default=0)

    @property
    def bytes(self) -> int:
        """Size of the rows."""
        return self.rows.numel() * self.rows.element_size()

    @property
    def saved(self) -> float:
        """Seconds that it would have taken to compute what was asked for."""
        return self.seconds * self.served / max(len(self.rows), 1)


class FeatureSamples(Samples):
    """Samples that enter a network at a cut.

    Args:
        features: what crosses there.
        targets: int64 of shape (N,).
        device: where the tail runs; rows in main memory are pinned on the way to an accelerator.
        channels_last: give images as they are stored; False for (B, C, H, W) in memory as well.
        wholes: of the samples, where they are pieces.
    """

    at_hand = True
    RELEASE_AFTER = 64 << 20  # bytes read from a file before its pages are let go

    def __init__(
        self, features: Features, targets: Tensor, device: torch.device, *, channels_last: bool = True,
        wholes: Tensor | None = None,
    ):  # fmt: skip
        self.features, self.targets, self.device, self.wholes = features, targets, device, wholes
        self.channels_last = channels_last
        self._read = 0

    def batch(self, indices: Tensor) -> Tensor:
        """What crosses the cut for these samples: float32 (B, ...)."""
        features = self.features
        rows = features.rows.index_select(0, indices.to(features.rows.device))
        features.served += len(indices)
        if features.release is not None:
            self._read += rows.numel() * rows.element_size()
            if self._read > self.RELEASE_AFTER:
                features.release()
                self._read = 0
        if self.device.type == "cuda" and rows.device.type == "cpu":
            rows = rows.pin_memory().to(self.device, non_blocking=True)
        if rows.dtype == torch.bfloat16:
            rows = rows.float()
        images = unpack(rows, features.channels_last)
        return images if self.channels_last else images.contiguous()

    def fingerprint(self) -> str:
        """The key of the features."""
        return self.features.key


def show_bytes(count: int) -> str:
    """``1.5 MB``."""
    size: float = count
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("the last unit takes any size")
