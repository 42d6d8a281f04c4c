"""Letters of matplotlib's fonts as distance fields, from which a glyph is drawn thin, fat or as a pen line.

The idea of drawing letters from a distance field is that of Green 2007 (SIGGRAPH courses).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FIELD = 64
"""Side of a distance field in pixels."""
BOX = 48
"""Longer side of the letter inside the field; the rest is margin for fat strokes."""
_FONT_PIXELS = 96
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Face:
    """Where the letters of one font are: a file of matplotlib's and, for mathematical alphabets, their A."""

    file: str
    first: int | None = None

    def character(self, letter: str) -> str:
        """The character that draws ``letter``; a mathematical alphabet is A to Z, then a to z."""
        return letter if self.first is None else chr(self.first + _LETTERS.index(letter))


@dataclass(frozen=True)
class Shapes:
    """The letters A-Z, a-z of one font.

    Attributes:
        edge: (52, FIELD, FIELD) float, distance to the outline in field pixels, positive inside.
        bone: (52, FIELD, FIELD) float, distance to the middle line of the strokes.
        extent: (52, 2) float, width and height of the letter in field pixels.
    """

    edge: Tensor
    bone: Tensor
    extent: Tensor


def _bitmap(face: Face, letter: str) -> tuple[np.ndarray, tuple[int, int]]:
    """The letter as a boolean (FIELD, FIELD) picture, centred, its longer side BOX pixels; and its size."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    path = Path(matplotlib.get_data_path(), "fonts", "ttf", face.file)
    font = ImageFont.truetype(str(path), _FONT_PIXELS, layout_engine=ImageFont.Layout.BASIC)
    canvas = Image.new("L", (3 * _FONT_PIXELS, 3 * _FONT_PIXELS))
    ImageDraw.Draw(canvas).text((_FONT_PIXELS, _FONT_PIXELS), face.character(letter), fill=255, font=font)
    cropped = canvas.crop(canvas.getbbox())
    scale = BOX / max(cropped.size)
    width, height = (max(1, round(side * scale)) for side in cropped.size)
    field = Image.new("L", (FIELD, FIELD))
    small = cropped.resize((width, height), Image.Resampling.BILINEAR)
    field.paste(small, ((FIELD - width) // 2, (FIELD - height) // 2))
    return np.asarray(field) > 100, (width, height)


def thin(ink: np.ndarray) -> np.ndarray:
    """Strokes of a boolean (N, H, W) array thinned to lines one pixel wide (Zhang and Suen 1984).

    The outermost rows and columns must be empty.
    """
    ink = ink.copy()
    while True:
        changed = False
        for first in (True, False):
            drop = _removable(ink, first)
            changed |= bool(drop.any())
            ink &= ~drop
        if not changed:
            return ink


def _removable(ink: np.ndarray, first: bool) -> np.ndarray:
    """Pixels that one of the two passes of Zhang and Suen takes away."""
    # Neighbours p2..p9 of the paper: clockwise from north; rolling is safe because the border is empty.
    offsets = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
    around = [np.roll(ink, (-dy, -dx), axis=(1, 2)) for dy, dx in offsets]
    count = sum(p.astype(np.uint8) for p in around)
    rises = sum((~a & b).astype(np.uint8) for a, b in zip(around, around[1:] + around[:1], strict=True))
    north, east, south, west = around[0], around[2], around[4], around[6]
    edge = ~(north & east & south) & ~(east & south & west)
    if not first:
        edge = ~(north & east & west) & ~(north & south & west)
    return ink & (count >= 2) & (count <= 6) & (rises == 1) & edge


@lru_cache(maxsize=64)
def shapes(face: Face) -> Shapes:
    """The distance fields of one font; drawn at the first call (about 0.2 s), then kept."""
    from scipy.ndimage import distance_transform_edt as distance

    drawn = [_bitmap(face, letter) for letter in _LETTERS]
    ink = np.stack([picture for picture, _ in drawn])
    # Half a pixel each way: the outline runs between the last pixel inside and the first outside.
    edge = np.stack([np.where(p, distance(p) - 0.5, 0.5 - distance(~p)) for p in ink])
    bone = np.stack([distance(~line) for line in thin(ink)])
    return Shapes(
        edge=torch.from_numpy(edge).float(),
        bone=torch.from_numpy(bone).float(),
        extent=torch.tensor([size for _, size in drawn], dtype=torch.float32),
    )


def letter_index(letter: str) -> int:
    """Place of a letter in the fields of ``Shapes``."""
    return _LETTERS.index(letter)
