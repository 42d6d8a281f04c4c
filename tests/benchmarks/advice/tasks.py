"""The tasks of the benchmark: a known amount of data, and a similarity that is graded by construction.

The advisor's rule was chosen on the domains in TUNE. Those in HELD_OUT were looked at once before, at one seed;
those in FRESH never. Photos are read where ``TLNB_PHOTOS`` names a folder with ``mnist``, ``flowers`` and
``hymenoptera``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from tlnb.engine.data import glyphs

LETTERS = ("A", "B", "E", "G", "R", "a", "e", "g", "t", "Ss")
THIRD = ("J", "L", "N", "T", "i", "j", "m", "y")
OTHERS = ("D", "F", "H", "M", "Q", "b", "d", "f", "h", "n", "q", "Kk", "Oo", "Vv")
TEST = 2000  # images that are measured on, where there are as many
POOL = 130  # images a class that are drawn to learn from; chance leaves some classes fewer
Images = tuple[Tensor, Tensor]
Make = Callable[[int, int], "TaskSet"]


@dataclass(frozen=True)
class TaskSet:
    """A few classes of 32×32 grey pictures.

    Attributes:
        train: uint8 images (n, 1, 32, 32) and their classes.
        test: the same, to measure on; nothing is chosen by them.
        classes: how many there are.
    """

    train: Images
    test: Images
    classes: int


def _divided(images: Tensor, targets: Tensor, per_class: int, classes: int) -> TaskSet:
    """The first of each class to learn from; of the rest at most TEST, from the end, to measure on."""
    rows = torch.cat([(targets == c).nonzero().flatten()[:per_class] for c in range(classes)])
    free = torch.ones(len(targets), dtype=torch.bool)
    free[rows] = False
    test = free.nonzero().flatten()[-TEST:]
    return TaskSet((images[rows], targets[rows]), (images[test], targets[test]), classes)


# ---------------------------------------------------------------- drawn letters


@lru_cache(maxsize=4)
def _drawn(seed: int, fonts: tuple[str, ...] | None, classes: tuple[str, ...]) -> Images:
    return glyphs.draw(POOL * len(classes) + TEST, seed=900_000 + seed, fonts=fonts, classes=classes)


def _letters(
    change: Callable[[Tensor], Tensor],
    fonts: tuple[str, ...] | None = None,
    classes: tuple[str, ...] = LETTERS,
) -> Make:
    def make(per_class: int, seed: int) -> TaskSet:
        images, targets = _drawn(seed, fonts, classes)
        return _divided(change(images), targets, per_class, len(classes))

    return make


@lru_cache(maxsize=1)
def _by_font(seed: int) -> Images:
    """Letters of the held-out fonts, of which the class is the font."""
    count = POOL + TEST // len(glyphs.HELD_OUT_FONTS) + 1
    parts = [
        glyphs.draw(count, seed=900_000 + 10 * seed + k, fonts=(font,), classes=LETTERS)[0]
        for k, font in enumerate(glyphs.HELD_OUT_FONTS)
    ]
    targets = torch.arange(len(parts)).repeat_interleave(count)
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
    return torch.cat(parts)[order], targets[order]


def _which_font(per_class: int, seed: int) -> TaskSet:
    images, targets = _by_font(seed)
    return _divided(images, targets, per_class, len(glyphs.HELD_OUT_FONTS))


def _which_way_up(per_class: int, seed: int) -> TaskSet:
    """Each letter turned by 0, 90, 180 or 270 degrees, which is its class."""
    images, _ = _drawn(seed, glyphs.HELD_OUT_FONTS, LETTERS)
    targets = torch.arange(len(images)) % 4
    turned = torch.empty_like(images)
    for quarter in range(4):
        turned[targets == quarter] = images[targets == quarter].rot90(quarter, (2, 3))
    return _divided(turned, targets, per_class, 4)


def _same(images: Tensor) -> Tensor:
    return images


def _inverted(images: Tensor) -> Tensor:
    return 255 - images


def _textured(images: Tensor) -> Tensor:
    """Strokes on a ground of coarse noise of nearly their own brightness."""
    generator = torch.Generator().manual_seed(7)
    coarse = torch.rand(len(images), 1, 9, 9, generator=generator) * 170
    ground = functional.interpolate(coarse, size=images.shape[-2:], mode="bilinear", align_corners=False)
    return images.float().maximum(ground).round().to(torch.uint8)


def _turned(images: Tensor) -> Tensor:
    return images.rot90(1, (2, 3)).contiguous()


def _mirrored(images: Tensor) -> Tensor:
    return images.flip(3)


def _blurred(images: Tensor) -> Tensor:
    small = functional.interpolate(images.float(), size=(6, 6), mode="area")
    return functional.interpolate(small, size=images.shape[-2:], mode="nearest").round().to(torch.uint8)


def _blocks(images: Tensor) -> Tensor:
    """The sixteen 8×8 blocks of each picture in another, fixed order: strokes stay, shapes do not."""
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    blocks = images.unfold(2, 8, 8).unfold(3, 8, 8).flatten(2, 3)[:, :, order]
    return blocks.unflatten(2, (4, 4)).permute(0, 1, 2, 4, 3, 5).reshape(images.shape).contiguous()


def _edges(images: Tensor) -> Tensor:
    """Brightness steps in place of strokes."""
    x = images.float()
    change = (x - x.roll(1, 3)).abs() + (x - x.roll(1, 2)).abs()
    return change.clamp(max=255).round().to(torch.uint8)


def _shuffled(images: Tensor) -> Tensor:
    """The pixels in another, fixed order: nothing local is left."""
    order = torch.randperm(images[0].numel(), generator=torch.Generator().manual_seed(5))
    return images.flatten(1)[:, order].view_as(images)


def _thick(images: Tensor) -> Tensor:
    """Strokes four pixels fatter."""
    return functional.max_pool2d(images.float(), 5, stride=1, padding=2).to(torch.uint8)


def _outlined(images: Tensor) -> Tensor:
    """Two thin lines in place of each stroke."""
    x = images.float()
    fat = functional.max_pool2d(x, 3, stride=1, padding=1)
    thin = -functional.max_pool2d(-x, 3, stride=1, padding=1)
    return (fat - thin).round().to(torch.uint8)


def _upside_down(images: Tensor) -> Tensor:
    return images.flip(2)


def _faint(images: Tensor) -> Tensor:
    """A quarter of the contrast, on a grey ground."""
    return (images.float() / 4 + 60).round().to(torch.uint8)


def _cut(images: Tensor) -> Tensor:
    """Without the left third."""
    out = images.clone()
    out[..., :11] = 0
    return out


def _barred(images: Tensor) -> Tensor:
    """A third of the rows of each picture, anywhere, covered by a grey bar."""
    generator = torch.Generator().manual_seed(11)
    first = torch.randint(4, 18, (len(images), 1, 1, 1), generator=generator)
    row = torch.arange(images.shape[2]).view(1, 1, -1, 1)
    return torch.where((row >= first) & (row < first + 10), torch.full_like(images, 120), images)


def _noisy(images: Tensor) -> Tensor:
    """Under noise of a quarter of the range."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(13)) * 64
    return (images.float() + noise).round().clamp(0, 255).to(torch.uint8)


def _small(images: Tensor) -> Tensor:
    """Half as large, anywhere in the picture."""
    half = functional.avg_pool2d(images.float(), 2).round().to(torch.uint8)
    out = torch.zeros_like(images)
    corners = torch.randint(0, 17, (len(images), 2), generator=torch.Generator().manual_seed(17))
    for picture, small, (top, left) in zip(out, half, corners.tolist(), strict=True):
        picture[:, top : top + 16, left : left + 16] = small
    return out


# ---------------------------------------------------------------- handwriting and photos


def _digits(change: Callable[[Tensor], Tensor], classes: Sequence[int] = tuple(range(10))) -> Make:
    def make(per_class: int, seed: int) -> TaskSet:
        images, found = _digit_images()
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
        place = torch.full((10,), -1)
        place[list(classes)] = torch.arange(len(classes))
        targets = place[found[order]]
        of_these = targets >= 0
        return _divided(change(images[order][of_these]), targets[of_these], per_class, len(classes))

    return make


@lru_cache(maxsize=1)
def _digit_images() -> Images:
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.from_numpy(found.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
    images = functional.interpolate(images.float(), size=(32, 32), mode="bilinear").round().to(torch.uint8)
    return images, torch.from_numpy(found.target).long()


def _photos(name: str, change: Callable[[Tensor], Tensor] = _same) -> Make:
    def make(per_class: int, seed: int) -> TaskSet:
        images, targets = _folders(Path(os.environ["TLNB_PHOTOS"]) / name)
        order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
        return _divided(change(images[order]), targets[order], per_class, int(targets.max()) + 1)

    return make


@lru_cache(maxsize=3)
def _folders(path: Path) -> Images:
    """Every picture below ``train`` and ``val``, grey and 32 pixels a side."""
    from PIL import Image
    from torchvision.transforms.v2.functional import pil_to_tensor

    images, targets = [], []
    for part in ("train", "val"):
        for number, folder in enumerate(sorted(p for p in (path / part).iterdir() if p.is_dir())):
            for file in sorted(folder.iterdir()):
                with Image.open(file) as picture:
                    grey = picture.convert("L").resize((32, 32), Image.Resampling.BILINEAR)
                images.append(pil_to_tensor(grey))
                targets.append(number)
    return torch.stack(images), torch.tensor(targets)


TUNE: dict[str, Make] = {
    "letters": _letters(_same),
    "inverted": _letters(_inverted),
    "textured": _letters(_textured),
    "blocks": _letters(_blocks),
    "noisy": _letters(_noisy),
    "small": _letters(_small),
    "digits": _digits(_same),
    "flowers": _photos("flowers"),
}
HELD_OUT: dict[str, Make] = {
    "new fonts": _letters(_same, glyphs.HELD_OUT_FONTS),
    "turned": _letters(_turned, glyphs.HELD_OUT_FONTS),
    "blurred": _letters(_blurred, glyphs.HELD_OUT_FONTS),
    "edges": _letters(_edges, glyphs.HELD_OUT_FONTS),
    "shuffled": _letters(_shuffled, glyphs.HELD_OUT_FONTS),
    "mnist": _photos("mnist"),
    "hymenoptera": _photos("hymenoptera"),
}
FRESH: dict[str, Make] = {
    "mirrored": _letters(_mirrored, glyphs.HELD_OUT_FONTS, OTHERS),
    "thick": _letters(_thick, glyphs.HELD_OUT_FONTS, OTHERS),
    "barred": _letters(_barred, glyphs.HELD_OUT_FONTS, OTHERS),
    "which font": _which_font,
    "which way up": _which_way_up,
    "negative digits": _digits(_inverted),
    "four digits": _digits(_same, (3, 5, 8, 9)),
    "turned mnist": _photos("mnist", _turned),
}
LAST: dict[str, Make] = {
    "outlined": _letters(_outlined, glyphs.HELD_OUT_FONTS, THIRD),
    "upside down": _letters(_upside_down, glyphs.HELD_OUT_FONTS, THIRD),
    "faint": _letters(_faint, glyphs.HELD_OUT_FONTS, THIRD),
    "cut": _letters(_cut, glyphs.HELD_OUT_FONTS, THIRD),
    "textured digits": _digits(_textured),
    "mirrored mnist": _photos("mnist", _mirrored),
}
SETS = {"tune": TUNE, "held-out": HELD_OUT, "fresh": FRESH, "last": LAST}
AMOUNTS = (5, 20, 100)
LARGEST = {"flowers": 40, "hymenoptera": 60}
"""Images a class that are learned from at most, so that enough are left to measure on."""
