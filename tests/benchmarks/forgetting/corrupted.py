"""Fifteen kinds of damage to a picture, in three strengths, after Hendrycks and Dietterich 2019 (ImageNet-C).

The kinds are theirs; they are drawn anew by numpy, SciPy and Pillow for small pictures, so figures are not theirs.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy import ndimage

Picture = np.ndarray
"""float64 of shape (height, width, 3), in 0..1."""
STRENGTHS = (1, 2, 3)


def _gaussian(x: Picture, k: int, draw: np.random.Generator) -> Picture:
    return x + draw.normal(0, (0.06, 0.12, 0.2)[k], x.shape)


def _shot(x: Picture, k: int, draw: np.random.Generator) -> Picture:
    light = (60, 20, 8)[k]
    return draw.poisson(np.clip(x, 0, 1) * light) / light


def _impulse(x: Picture, k: int, draw: np.random.Generator) -> Picture:
    hit = draw.random(x.shape)
    share = (0.03, 0.08, 0.15)[k]
    return np.where(hit < share / 2, 0.0, np.where(hit > 1 - share / 2, 1.0, x))


def _defocus(x: Picture, k: int, draw: np.random.Generator) -> Picture:
    radius = (1, 2, 3)[k]
    grid = np.arange(-radius, radius + 1)
    disk = (grid[:, None] ** 2 + grid[None] ** 2 <= radius**2).astype(float)
    return ndimage.convolve(x, (disk / disk.sum())[..., None], mode="reflect")


def _glass(x: Picture, k: int, draw: np.random.Generator) -> Picture:
    height, width = x.shape[:2]
    reach = (1, 2, 3)[k]
    rows, columns = np.mgrid[:height, :width]
    rows = np.clip(rows + draw.integers(-reach, reach + 1, rows.shape), 0, height - 1)
    columns = np.clip(columns + draw.integers(-reach, reach + 1, columns.shape), 0, width - 1)
    return ndimage.gaussian_filter(x[rows, columns], (0.5, 0.5, 0))


def _motion(x: Picture, k: int, draw: np.random.Generator) -> Picture:
    length = (3, 6, 10)[k]
    slope = draw.uniform(-1, 1)
    steps = np.linspace(-length / 2, length / 2, length + 1)
    moved = [ndimage.shift(x, (slope * step, step, 0), order=1, mode="reflect") for step in steps]
    return np.mean(moved, 0)


def _zoom(x: Picture, k: int, draw: np.random.Generator) -> Picture:
    most = (1.08, 1.18, 1.3)[k]
    return np.mean([_enlarged(x, by) for by in np.linspace(1, most, 6)], 0)


def _enlarged(x: Picture, by: float) -> Picture:
    height, width = x.shape[:2]
    middle = np.array([(height - 1) / 2, (width - 1) / 2, 1.0])
    matrix = np.array([1 / by, 1 / by, 1.0])
    return ndimage.affine_transform(x, matrix, offset=middle - middle * matrix, order=1, mode="reflect")


def _snow(x: Picture, k: int, draw: np.random.Generator) -> Picture:
    flakes = (draw.random(x.shape[:2]) > (0.985, 0.97, 0.94)[k]).astype(float)
    streaks = np.mean([ndimage.shift(flakes, (step, step / 2), order=1) for step in range(5)], 0) * 4
    return np.maximum(x * 0.9 + 0.08, np.clip(streaks, 0, 1)[..., None])


def _frost(x: Picture, k: int, draw: np.random.Generator) -> Picture:
    cover = _clouds(x.shape[:2], draw, sharpness=1.0)
    share = (0.25, 0.4, 0.55)[k]
    ice = np.stack([cover * 0.85, cover * 0.95, cover], -1)
    return (1 - share * cover[..., None]) * x + share * ice


def _fog(x: Picture, k: int, draw: np.random.Generator) -> Picture:
    share = (0.3, 0.5, 0.7)[k]
    cover = 0.6 + 0.4 * _clouds(x.shape[:2], draw, sharpness=2.0)[..., None]
    return (1 - share) * x + share * cover


def _clouds(size: tuple[int, ...], draw: np.random.Generator, sharpness: float) -> Picture:
    """Noise whose spectrum falls with frequency, in 0..1."""
    height, width = size
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    frequency[0, 0] = 1
    spectrum = np.fft.fft2(draw.normal(size=size)) / frequency**sharpness
    spectrum[0, 0] = 0
    found = np.fft.ifft2(spectrum).real
    return (found - found.min()) / (found.max() - found.min())


def _brightness(x: Picture, k: int, draw: np.random.Generator) -> Picture:
    return x + (0.15, 0.3, 0.45)[k]


def _contrast(x: Picture, k: int, draw: np.random.Generator) -> Picture:
    middle = x.mean((0, 1), keepdims=True)
    return middle + (x - middle) * (0.5, 0.3, 0.15)[k]


def _elastic(x: Picture, k: int, draw: np.random.Generator) -> Picture:
    size, reach = x.shape[:2], (1.5, 3.0, 5.0)[k]
    rows, columns = np.mgrid[: size[0], : size[1]].astype(float)
    for axis in (rows, columns):
        bend = ndimage.gaussian_filter(draw.uniform(-1, 1, size), 4)
        axis += reach * bend / np.abs(bend).max()
    bands = [ndimage.map_coordinates(x[..., c], (rows, columns), order=1, mode="reflect") for c in range(3)]
    return np.stack(bands, -1)


def _pixelate(x: Picture, k: int, draw: np.random.Generator) -> Picture:
    picture, share = _image(x), (0.6, 0.4, 0.25)[k]
    small = [max(1, round(side * share)) for side in picture.size]
    coarse = picture.resize((small[0], small[1]), Image.Resampling.BOX)
    return np.asarray(coarse.resize(picture.size, Image.Resampling.NEAREST)) / 255


def _jpeg(x: Picture, k: int, draw: np.random.Generator) -> Picture:
    kept = io.BytesIO()
    _image(x).save(kept, "JPEG", quality=(25, 12, 6)[k])
    return np.asarray(Image.open(kept)) / 255


KINDS: dict[str, Callable[[Picture, int, np.random.Generator], Picture]] = {
    "gaussian noise": _gaussian, "shot noise": _shot, "impulse noise": _impulse, "defocus blur": _defocus,
    "glass blur": _glass, "motion blur": _motion, "zoom blur": _zoom, "snow": _snow, "frost": _frost, "fog": _fog,
    "brightness": _brightness, "contrast": _contrast, "elastic": _elastic, "pixelate": _pixelate, "jpeg": _jpeg,
}  # fmt: skip


def corrupted(picture: Image.Image, kind: str, strength: int, seed: int = 0) -> Image.Image:
    """A damaged copy of a picture.

    Args:
        picture: RGB.
        kind: a name of ``KINDS``.
        strength: one of ``STRENGTHS``.
        seed: of what is drawn.
    """
    x = np.asarray(picture.convert("RGB")) / 255
    return _image(KINDS[kind](x, strength - 1, np.random.default_rng([seed, strength])))


def _image(x: Picture) -> Image.Image:
    return Image.fromarray((np.clip(x, 0, 1) * 255).round().astype(np.uint8))
