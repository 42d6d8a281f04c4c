"""What black and white are in the pictures of a data set, and which of their bands are shown.

Eight bits are 0 to 255. More than eight say nothing of the kind: cameras and scanners write 10, 12 or 14
bits into files of 16. So one white is found for a whole data set, by the largest values of its pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tlnb.engine.data.images.headers import BadPicture

LEVELS = (255, 1023, 4095, 16383, 65535)
MOST = LEVELS[-1]
DARK = 64  # a set whose largest value is below is on a scale of its own, such as the 0..16 of scikit-learn's digits
OUTLIERS = 8  # one picture in so many may be brighter than the rest by a step of ``LEVELS``


@dataclass(frozen=True)
class PixelScale:
    """How the numbers in pictures become 0..255.

    Args:
        low: what is black.
        white: what is white; None: 255 where a picture has eight bits, else the step of ``LEVELS`` above its own
            largest value.
        bands: those that are used, numbered from 1; empty for all.
        given: whether a user named ``low`` and ``white``, so that they hold for pictures of eight bits too.
    """

    low: float = 0.0
    white: float | None = None
    bands: tuple[int, ...] = ()
    given: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether every picture is taken as it comes."""
        return self.white is None and not self.bands

    def chosen(self, values: np.ndarray) -> np.ndarray:
        """The bands that are used, of (H, W, bands).

        Raises:
            BadPicture: there are fewer.
        """
        if not self.bands:
            return values
        if max(self.bands) > values.shape[-1]:
            have = values.shape[-1]
            raise BadPicture(f"{have} band{'s' * (have != 1)}; --bands names band {max(self.bands)}")
        return values[..., [band - 1 for band in self.bands]]

    def to_bytes(self, values: np.ndarray) -> np.ndarray:
        """Values on this scale as uint8 of the same shape; those beyond it are black or white.

        Raises:
            BadPicture: without ``white``: values below zero, above 65535 or not finite.
        """
        if self.white is None:
            check_values(values)
            white: float = white_above(float(values.max(initial=0)))
        else:
            white = self.white
        scaled = (values.astype(np.float64) - self.low) * (255.0 / (white - self.low))
        return np.round(np.clip(np.nan_to_num(scaled), 0, 255)).astype(np.uint8)


PLAIN = PixelScale()
"""Every picture as it comes."""


def check_values(values: np.ndarray) -> None:
    """Refuse values that no scale is known for.

    Raises:
        BadPicture: values below zero, above 65535 or not finite.
    """
    what = "floating-point values" if values.dtype.kind == "f" else "values"
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise BadPicture(f"{what} that are not finite")
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if low < 0 or high > MOST:
        raise BadPicture(
            f"{what} from {low:.6g} to {high:.6g}; 0 to {MOST} is read, other values with "
            f"--range {low:.6g},{high:.6g}"
        )


def white_above(most: float) -> float:
    """The value of white in pictures whose largest value is ``most``."""
    if most <= 1:
        return 1.0
    return next(float(level) for level in LEVELS if level >= most) if most > DARK else most


def common_white(maxima: Sequence[float]) -> tuple[float, int]:
    """One white for pictures with these largest values, and how many of them have brighter values.

    The few that are brighter than all the others by a step of ``LEVELS`` do not decide: with them, all others would
    be nearly black.
    """
    ordered = np.sort(np.asarray(maxima, dtype=np.float64))
    most = float(ordered[len(ordered) - 1 - len(ordered) // OUTLIERS])
    white, whole = white_above(most), white_above(float(ordered[-1]))
    if whole < 2 * max(white, 1.0):  # a dim set: the brightest picture has a little more
        return whole, 0
    return white, int((ordered > white).sum())


def scale_note(maxima: Sequence[float], white: float, brighter: int, of: str = "values") -> list[str]:
    """What to say about a white that was found; nothing where it is 1 or 255 for all.

    Args:
        maxima: the largest value of each picture that was looked at.
        white: what is taken for white.
        brighter: how many pictures have values above it.
        of: what the values are called.
    """
    most = max((value for value in maxima if value <= white), default=white)
    if white <= 1 and not brighter:
        return []
    line = f"{of} from 0 to {most:.5g}: taken as pixels in which {white:g} is white (--range 0,{white:g})"
    if brighter:
        top = max(maxima)
        are = "pictures has" if brighter == 1 else "pictures have"
        line += f"; {brighter} of {len(maxima)} {are} brighter values, cut off there (--range 0,{top:.6g} keeps them)"
    return [line]
