"""Glyphs: letters drawn on the fly, the task that ``convnet5`` was trained on.

A letter of matplotlib's fonts is a distance field, from which it is drawn thin, fat or as a pen line (Green 2007).

A letter of a random font is warped (affine and elastic, as in Simard et al. 2003), inked as its outline,
thinner or fatter, or as a pen line along the middle of its strokes, seen through a coarse grid, and made
noisy. Bright strokes on a dark ground, like scikit-learn's digits. There are no digits among them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tlnb.errors import DataError, did_you_mean

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


CLASSES: tuple[str, ...] = tuple("ABDEFGHJLMNQRTY") + tuple("abdefghijmnqrty") + (
    "Cc", "Il", "Kk", "Oo", "Pp", "Ss", "Uu", "Vv", "Ww", "Xx", "Zz",
)  # fmt: skip
"""The 41 classes, each named by its letters. Every glyph is scaled to fill its image, so a pair that differs
by size alone (``Cc``) is one class, and so are capital I and small l, one bar in most fonts."""

TRAIN_FONTS: tuple[str, ...] = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique",
    "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique",
    "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta", "STIXScript",
    "cmr10", "cmb10", "cmti10", "cmmi10",
)  # fmt: skip
HELD_OUT_FONTS: tuple[str, ...] = (
    "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic", "cmss10", "cmtt10",
)  # fmt: skip
"""Whole families that training never sees: what accuracy on unseen fonts is measured on."""

_SCRIPT = Face("STIXGeneral.ttf", first=0x1D4D0)  # Mathematical Bold Script Capital A
_CHUNK = 2048
_CELLS = (8, 8, 8, 10, 12, 16, 0, 0, 0)
"""Coarse grids, equally likely; 8 is that of scikit-learn's digits, 0 means none."""


@dataclass(frozen=True)
class _Batch:
    """Warped distance fields, in thirty-seconds of the image side, and the room strokes have."""

    edge: Tensor
    bone: Tensor


def fonts() -> tuple[str, ...]:
    """Names of all fonts, the held-out ones last."""
    return TRAIN_FONTS + HELD_OUT_FONTS


def draw(
    n: int,
    *,
    seed: int,
    fonts: Sequence[str] | None = None,
    size: int = 32,
    classes: Sequence[str] = CLASSES,
) -> tuple[Tensor, Tensor]:
    """Draw ``n`` glyphs.

    The same arguments give the same images; torch's global random state is neither read nor changed.

    Args:
        n: number of images.
        seed: of the generator that everything random comes from.
        fonts: names out of ``fonts()``; by default ``TRAIN_FONTS``.
        size: side of the images in pixels, at least 16.
        classes: names out of ``CLASSES``; a label is a place in this list.

    Returns:
        Images (n, 1, size, size) uint8, and labels (n,) int64.

    Raises:
        DataError: an unknown font or class, or a size under 16.
    """
    faces = [face(name) for name in (TRAIN_FONTS if fonts is None else fonts)]
    _check(n, size, faces, classes)
    generator = torch.Generator().manual_seed(seed)
    images = torch.empty(n, 1, size, size, dtype=torch.uint8)
    labels = torch.randint(len(classes), (n,), generator=generator)
    for start in range(0, n, _CHUNK):
        part = slice(start, start + _CHUNK)
        batch = _warp(_letters(labels[part], classes, generator), faces, size, generator)
        images[part] = _expose(_coarsen(_ink(batch, generator), generator), generator)
    return images, labels


def face(name: str) -> Face:
    """Where the letters of the font ``name`` are; DataError where there is none of that name."""
    if name not in fonts():
        raise DataError(f"no font {name!r} among the glyphs{did_you_mean(name, fonts())}")
    return _SCRIPT if name == "STIXScript" else Face(f"{name}.ttf")


def _check(n: int, size: int, faces: Sequence[Face], classes: Sequence[str]) -> None:
    for name in classes:
        if name not in CLASSES:
            raise DataError(f"no class {name!r} among the glyphs{did_you_mean(name, CLASSES)}")
    if n < 0 or size < 16 or not faces or not classes:
        raise DataError("glyphs need n >= 0, a size of at least 16, and at least one font and one class")


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """(n, 1, 1) numbers between ``low`` and ``high``."""
    return torch.rand(n, 1, 1, generator=generator) * (high - low) + low


def _letters(labels: Tensor, classes: Sequence[str], generator: torch.Generator) -> Tensor:
    """(n,) index of a letter of each label's class."""
    table = torch.tensor([[letter_index(name[0]), letter_index(name[-1])] for name in classes])
    return table[labels, torch.randint(2, labels.shape, generator=generator)]


def _warp(letters: Tensor, faces: Sequence[Face], size: int, generator: torch.Generator) -> _Batch:
    """Distance fields of letters in random fonts, under random affine and elastic maps."""
    n = len(letters)
    used = [shapes(face) for face in faces]
    which = torch.randint(len(used), (n,), generator=generator).tolist()
    picks = list(zip(which, letters.tolist(), strict=True))
    fields = torch.stack([torch.stack((used[f].edge[i], used[f].bone[i])) for f, i in picks])
    extent = torch.stack([used[f].extent[i] for f, i in picks])
    matrix, scale = _affine(extent, generator)
    grid = functional.affine_grid(matrix, [n, 1, size, size], align_corners=False)
    grid = grid + _elastic(n, size, generator)
    edge, bone = functional.grid_sample(fields, grid, padding_mode="border", align_corners=False).unbind(1)
    return _Batch(edge / scale, bone / scale)


def _affine(extent: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Maps (n, 2, 3) from image to field, and (n, 1, 1) field pixels in a thirty-second of the image.

    The letter comes out 78 to 104 % of the image high and, as handwriting is, rather narrow.
    """
    n = len(extent)
    width, height = extent[:, 0].view(n, 1, 1), extent[:, 1].view(n, 1, 1)
    tall = _uniform(n, 0.78, 1.04, generator)
    wide = (tall * width / height * _uniform(n, 0.55, 1.15, generator)).clamp(max=0.98)
    turn = _uniform(n, -0.22, 0.22, generator)
    slant = _uniform(n, -0.35, 0.35, generator)
    moved = torch.cat([_uniform(n, -0.08, 0.08, generator) for _ in "xy"], dim=1)
    cos, sin = turn.cos(), turn.sin()
    # Inverse of turn * slant * stretch: what affine_grid wants is the way from the image to the letter.
    unturn = torch.cat([torch.cat([cos, sin], 2), torch.cat([-sin, cos], 2)], 1)
    one, zero = torch.ones_like(cos), torch.zeros_like(cos)
    unslant = torch.cat([torch.cat([one, -slant], 2), torch.cat([zero, one], 2)], 1)
    across, down = width / FIELD / wide, height / FIELD / tall
    shrink = torch.cat([torch.cat([across, zero], 2), torch.cat([zero, down], 2)], 1)
    linear = shrink @ unslant @ unturn
    return torch.cat([linear, linear @ moved], 2), (across * down).sqrt() * FIELD / 32


def _elastic(n: int, size: int, generator: torch.Generator) -> Tensor:
    """Smooth random displacements (n, size, size, 2), as a fraction of half the field."""
    strength = _uniform(n, 0.0, 0.09, generator).unsqueeze(-1)
    coarse = torch.randn(n, 2, 5, 5, generator=generator) * strength
    smooth = functional.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True)
    return smooth.permute(0, 2, 3, 1)


def _ink(batch: _Batch, generator: torch.Generator) -> Tensor:
    """Ink (n, 1, H, W) between 0 and 1: half of the letters as outlines, half as pen lines."""
    n = len(batch.edge)
    pen = torch.rand(n, 1, 1, generator=generator) < 0.5
    fatter = _uniform(n, -0.6, 1.0, generator)
    # The pen also goes over an outline, lightly, so that hairlines do not vanish.
    radius = torch.where(pen, _uniform(n, 1.0, 3.0, generator), _uniform(n, 0.5, 1.2, generator))
    inside = torch.where(pen, -math.inf, batch.edge + fatter).maximum(radius - batch.bone)
    softness = _uniform(n, 0.8, 2.0, generator)
    return (inside / softness + 0.5).clamp(0, 1).unsqueeze(1)


def _coarsen(ink: Tensor, generator: torch.Generator) -> Tensor:
    """Two in three images averaged over a coarse grid and enlarged again, as small pictures are."""
    n, size = len(ink), ink.shape[-1]
    cells = torch.tensor(_CELLS)[torch.randint(len(_CELLS), (n,), generator=generator)]
    smooth = torch.rand(n, generator=generator) < 0.5
    brightened = _uniform(n, 0.5, 1.0, generator).unsqueeze(1)
    out = ink.clone()
    for count in sorted(set(_CELLS) - {0}):
        for mode, wanted in (("bilinear", smooth), ("bicubic", ~smooth)):
            chosen = ((cells == count) & wanted).nonzero().squeeze(1)
            small = functional.adaptive_avg_pool2d(ink[chosen], count)
            # Averaging makes thin strokes pale; a scanner's range is set so that the brightest cell is white.
            small = small / small.amax((2, 3), keepdim=True).clamp(min=0.2) ** brightened[chosen]
            out[chosen] = functional.interpolate(small, size=(size, size), mode=mode, align_corners=False)
    return out.clamp(0, 1)


def _expose(ink: Tensor, generator: torch.Generator) -> Tensor:
    """uint8 images of ink: contrast, brightness of the ground, and noise."""
    n = len(ink)
    lit = torch.rand(n, 1, 1, 1, generator=generator) < 0.3
    ground = _uniform(n, 0.0, 0.1, generator).unsqueeze(1) * lit
    bright = _uniform(n, 0.75, 1.05, generator).unsqueeze(1)
    noise = _uniform(n, 0.0, 0.06, generator).unsqueeze(1) * torch.randn(ink.shape, generator=generator)
    grey = ground + ink * (bright - ground) + noise
    return (grey * 255).round().clamp(0, 255).to(torch.uint8)
