"""The tasks of the benchmark: a known amount of data, and a similarity that is graded by construction.

Domains in TUNE are those the advisor's rule was chosen on; those in HELD_OUT were not looked at before the
rule was fixed. Photos are read where ``TLNB_PHOTOS`` names a folder with ``mnist``, ``flowers`` and
``hymenoptera``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from tlnb.engine.data import glyphs

LETTERS = ("A", "B", "E", "G", "R", "a", "e", "g", "t", "Ss")
VALID = 400
Images = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class TaskSet:
    """A few classes of 32×32 grey pictures.

    Attributes:
        train: uint8 images (n, 1, 32, 32) and their classes.
        valid: the same, to measure on.
        classes: how many there are.
    """

    train: Images
    valid: Images
    classes: int


def _letters(
    change: Callable[[Tensor], Tensor], fonts: tuple[str, ...] | None = None
) -> Callable[[int, int], TaskSet]:
    def make(per_class: int, seed: int) -> TaskSet:
        count = per_class * len(LETTERS)
        images, targets = glyphs.draw(
            3 * count + VALID + 200, seed=900_000 + seed, fonts=fonts, classes=LETTERS
        )
        return _divided(change(images), targets, per_class, len(LETTERS))

    return make


def _divided(images: Tensor, targets: Tensor, per_class: int, classes: int) -> TaskSet:
    """The last VALID images to measure on, the first of each class before them to learn from."""
    valid = (images[-VALID:], targets[-VALID:])
    rest = targets[:-VALID]
    rows = torch.cat([(rest == c).nonzero().flatten()[:per_class] for c in range(classes)])
    return TaskSet((images[rows], targets[rows]), valid, classes)


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


def _digits(per_class: int, seed: int) -> TaskSet:
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.from_numpy(found.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
    images = functional.interpolate(images.float(), size=(32, 32), mode="bilinear").round().to(torch.uint8)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return _divided(images[order], torch.from_numpy(found.target).long()[order], per_class, 10)


def _photos(name: str) -> Callable[[int, int], TaskSet]:
    def make(per_class: int, seed: int) -> TaskSet:
        train, valid = (_folder(Path(os.environ["TLNB_PHOTOS"]) / name / part) for part in ("train", "val"))
        order = torch.randperm(len(train[1]), generator=torch.Generator().manual_seed(seed))
        images, targets = train[0][order], train[1][order]
        classes = int(targets.max()) + 1
        rows = torch.cat([(targets == c).nonzero().flatten()[:per_class] for c in range(classes)])
        few = torch.randperm(len(valid[1]), generator=torch.Generator().manual_seed(0))[:VALID]
        return TaskSet((images[rows], targets[rows]), (valid[0][few], valid[1][few]), classes)

    return make


def _folder(path: Path) -> Images:
    from PIL import Image
    from torchvision.transforms.v2.functional import pil_to_tensor

    images, targets = [], []
    for number, folder in enumerate(sorted(p for p in path.iterdir() if p.is_dir())):
        for file in sorted(folder.iterdir()):
            with Image.open(file) as picture:
                images.append(pil_to_tensor(picture.convert("L").resize((32, 32), Image.Resampling.BILINEAR)))
            targets.append(number)
    return torch.stack(images), torch.tensor(targets)


TUNE: dict[str, Callable[[int, int], TaskSet]] = {
    "letters": _letters(_same),
    "inverted": _letters(_inverted),
    "textured": _letters(_textured),
    "blocks": _letters(_blocks),
    "digits": _digits,
    "flowers": _photos("flowers"),
}
HELD_OUT: dict[str, Callable[[int, int], TaskSet]] = {
    "new fonts": _letters(_same, glyphs.HELD_OUT_FONTS),
    "turned": _letters(_turned, glyphs.HELD_OUT_FONTS),
    "blurred": _letters(_blurred, glyphs.HELD_OUT_FONTS),
    "edges": _letters(_edges, glyphs.HELD_OUT_FONTS),
    "shuffled": _letters(_shuffled, glyphs.HELD_OUT_FONTS),
    "mnist": _photos("mnist"),
    "hymenoptera": _photos("hymenoptera"),
}
AMOUNTS = (5, 20, 100)
