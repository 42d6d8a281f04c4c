"""What of a sound a network is shown, as constants that are saved: log-mel pictures, or frames of raw samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tlnb.engine.core.arguments import number_between, whole_number
from tlnb.errors import DataError

FRAME, HOP = (
    0.025,
    0.010,
)  # seconds under the window, and from frame to frame; usual since Davis and Mermelstein 1980
SHORTEST, LONGEST = 0.02, 600.0  # seconds of a piece


@dataclass(frozen=True)
class LogMel:
    """How a piece of a clip becomes a picture, see :func:`tlnb.engine.data.sound.front.mel_picture`.

    Args:
        window: seconds of a piece; longer clips are cut, shorter ones end in silence.
        bands: height of the picture before it is brought to the network's size.
        rate: samples a second; clips of another rate are brought to it.

    Raises:
        DataError: a number that no sound can be drawn by.
    """

    window: float = 1.0
    bands: int = 64
    rate: int = 16000

    def __post_init__(self) -> None:
        number_between(self.window, "--window", 0, LONGEST, DataError)
        if self.window < SHORTEST:
            raise DataError(f"--window takes seconds, {SHORTEST} or more, not {self.window}")
        whole_number(self.bands, "--bands", 1, DataError)
        whole_number(self.rate, "--rate", 1, DataError)
        if not 8 <= self.bands <= 512:
            raise DataError(f"--bands takes a number of mel bands from 8 to 512, not {self.bands}")
        if not 1000 <= self.rate <= 192000:
            raise DataError(f"--rate takes samples a second, 1000 to 192000, not {self.rate}")

    @property
    def frame(self) -> int:
        """Samples under the window."""
        return round(FRAME * self.rate)

    @property
    def hop(self) -> int:
        """Samples from frame to frame."""
        return round(HOP * self.rate)

    @property
    def transform(self) -> int:
        """Samples of the Fourier transform: twice the power of two above a frame, so that low bands are not empty."""
        return 2 << (self.frame - 1).bit_length()

    def picture(self, wave: np.ndarray) -> Tensor:
        """A piece as a picture: uint8 (1, bands, frames).

        Args:
            wave: float32 of shape (samples,), in -1..1, at ``rate``.
        """
        from tlnb.engine.data.sound.front import mel_picture  # it imports scipy.signal, which takes a while

        return torch.from_numpy(
            mel_picture(wave, self.rate, self.bands, self.frame, self.hop, self.transform)
        )

    def describe(self) -> str:
        """One line for people."""
        return f"log-mel pictures of {self.window:g} s, {self.bands} bands, at {self.rate:,} Hz"

    def to_dict(self) -> dict[str, Any]:
        """The constants as plain values, for an export."""
        from tlnb.engine.data.sound.front import DEPTH

        return {
            "kind": "log-mel", **asdict(self), "frame": self.frame, "hop": self.hop, "transform": self.transform,
            "depth_db": DEPTH, "mel": "2595 log10(1 + f / 700), triangles with the peak 1, 0 Hz to rate / 2",
        }  # fmt: skip

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> LogMel | None:
        """The front end that data was read with, by the arguments that a checkpoint holds; None for none.

        Raises:
            DataError: numbers that cannot be.
        """
        if asked.get("window") is None or asked.get("rate") is None:
            return None
        try:
            return cls(float(asked["window"]), int(asked["bands"]), int(asked["rate"]))
        except (TypeError, ValueError, KeyError):
            raise DataError("the numbers of the sounds' front end make no sense") from None


@dataclass(frozen=True)
class RawFrames:
    """How a piece of a clip goes to a network that takes sound itself: mean 0, standard deviation 1.

    It stands where a picture network has its preprocessing; ``channels``, ``size`` and ``resize`` are what a store of
    decoded samples asks for.

    Args:
        length: samples of a piece.
        rate: samples a second.
        shape: of a sample of the network's input: (length,) or (1, length).
    """

    length: int
    rate: int
    shape: tuple[int, ...]
    channels = 1
    resize = None

    @property
    def size(self) -> tuple[int, int]:
        """One row of samples."""
        return 1, self.length

    @property
    def window(self) -> float:
        """Seconds of a piece."""
        return self.length / self.rate

    def check_bands(self, frames: Tensor) -> None:
        """Nothing to refuse: every clip is mixed down to the one row that the network takes."""

    def frame(self, wave: np.ndarray) -> Tensor:
        """A piece as the network takes it: float32 (1, 1, length)."""
        from tlnb.engine.data.sound.front import plain_frame

        return torch.from_numpy(np.ascontiguousarray(plain_frame(wave))).reshape(1, 1, -1)

    def describe(self) -> str:
        """One line for people."""
        return f"frames of {self.length:,} samples at {self.rate:,} Hz, mean 0 and standard deviation 1"

    def to_dict(self) -> dict[str, Any]:
        """The constants as plain values, for an export."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return {"kind": "raw", **plain, "shape": list(self.shape), "window": self.window}


def piece_starts(seconds: float, window: float) -> list[float]:
    """Where the pieces of a clip begin: evenly spread, so that the last one ends where the clip ends.

    Args:
        seconds: how long the clip is.
        window: seconds of a piece.

    Returns:
        Seconds; one piece for a clip that is not longer than the window by more than a fiftieth.
    """
    count = max(math.ceil(seconds / window - 0.02), 1)
    return [(seconds - window) * number / (count - 1) for number in range(count)] if count > 1 else [0.0]
