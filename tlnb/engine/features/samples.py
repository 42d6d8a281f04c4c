"""What crosses a cut, as samples that training asks for by index."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tlnb.engine.core.tree import CROSSING, Batch, Tree, width_of
from tlnb.engine.data.samples import Samples


def pack(features: Tensor, channels_last: bool) -> Tensor:
    """Rows for storage: images (B, C, H, W) as (B, H, W, C), which convolutions read fastest."""
    return features.permute(0, 2, 3, 1) if channels_last and features.dim() == 4 else features


def unpack(rows: Tensor, channels_last: bool) -> Tensor:
    """The way back; images come out as (B, C, H, W), channels last in memory."""
    return rows.permute(0, 3, 1, 2) if channels_last and rows.dim() == 4 else rows


class Places:
    """Where the tokens of each sample stand among rows that have one for each token of all samples.

    Args:
        lengths: tokens of each sample, int64 of shape (N,).
    """

    def __init__(self, lengths: Tensor):
        self.lengths = lengths
        self.starts = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])

    @property
    def total(self) -> int:
        """Tokens of all samples."""
        return int(self.starts[-1])

    def rows(self, indices: Tensor) -> Tensor:
        """The rows of these samples' tokens, one sample after another."""
        counts = self.lengths[indices]
        before = counts.cumsum(0) - counts
        return torch.arange(int(counts.sum())) + (self.starts[indices] - before).repeat_interleave(counts)

    def mask(self, indices: Tensor, width: int) -> Tensor:
        """Which places of a padded batch (B, width) hold a token."""
        return torch.arange(width) < self.lengths[indices][:, None]


def crossing_of(x: Batch) -> Tensor:
    """What crosses a cut, out of a batch as it is there."""
    found: Tensor = x[CROSSING] if isinstance(x, Tree) else x
    return found


@dataclass
class Features:
    """What crosses one cut for every sample of a set, computed once.

    Attributes:
        key: SHA-256 of all that it follows from.
        rows: (N, ...), see :func:`pack`; of texts (T, ...), a row for each token of all samples.
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
        source: what the network itself takes, where the part behind the cut looks at that too.
        places: of each sample's rows, where it has one for each token.
        wholes: of the samples, where they are pieces.
    """

    at_hand = True
    RELEASE_AFTER = 64 << 20  # bytes read from a file before its pages are let go

    def __init__(
        self, features: Features, targets: Tensor, device: torch.device, *, channels_last: bool = True,
        source: Samples | None = None, places: Places | None = None, wholes: Tensor | None = None,
    ):  # fmt: skip
        self.features, self.targets, self.device, self.wholes = features, targets, device, wholes
        self.channels_last, self.source, self.places = channels_last, source, places
        self.lengths = None if source is None else source.lengths
        self._read = 0

    def batch(self, indices: Tensor) -> Any:
        """What crosses the cut for these samples: float32 (B, ...); in a tree, where the network takes one."""
        if self.source is None:
            return self._rows(indices)
        inputs = self.source.batch(indices)
        assert isinstance(inputs, Tree)
        if self.places is None:
            return inputs.with_part(CROSSING, self._rows(indices))
        rows, width = self._rows(self.places.rows(indices)), width_of(inputs)
        mask = self.places.mask(indices, width or 0).to(rows.device)
        padded = rows.new_zeros((*mask.shape, *rows.shape[1:]))
        padded[mask] = rows
        return inputs.to(rows.device).with_part(CROSSING, padded)

    def _rows(self, indices: Tensor) -> Tensor:
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
