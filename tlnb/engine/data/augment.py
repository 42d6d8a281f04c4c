"""Random changes to training pictures: presets made of torchvision's v2 transforms, and one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import nn
from torchvision.transforms import v2

from tlnb.engine.data.preprocess import Preprocess
from tlnb.errors import DataError, did_you_mean

NONE = "none"


def _light(size: tuple[int, int]) -> list[nn.Module]:
    # No mirror image and little movement: right for letters, digits and scans too.
    move = v2.RandomAffine(
        8, translate=(0.06, 0.06), scale=(0.92, 1.08), interpolation=v2.InterpolationMode.BILINEAR
    )
    return [move, v2.CenterCrop(size)]


def _standard(size: tuple[int, int]) -> list[nn.Module]:
    # A crop of at least a third of the picture, as fastai fine-tunes; training from nothing takes 8 %.
    return [
        v2.RandomResizedCrop(size, scale=(0.35, 1.0), antialias=True),
        v2.RandomHorizontalFlip(),
        v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
    ]


def _strong(size: tuple[int, int]) -> list[nn.Module]:
    # TrivialAugment (Müller and Hutter 2021) and random erasing (Zhong et al. 2017).
    return [
        v2.RandomResizedCrop(size, scale=(0.2, 1.0), antialias=True),
        v2.RandomHorizontalFlip(),
        v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR),
        v2.RandomErasing(p=0.25),
    ]


PRESETS: dict[str, tuple[str, Callable[[tuple[int, int]], list[nn.Module]] | None]] = {
    NONE: ("the pictures as they are", None),
    "light": ("small turns, shifts and zooms; no mirror image, so right for letters too", _light),
    "standard": ("crops of a third or more, mirror images, small changes of light and colour", _standard),
    "strong": ("smaller crops, mirror images, one strong change each (TrivialAugment), erasing", _strong),
}
NAMES = tuple(PRESETS)


def check_augment(augment: object) -> None:
    """See whether this can be used as an augmentation.

    Raises:
        DataError: neither a preset nor a transform, or one that normalises, which tlnb does itself.
    """
    if isinstance(augment, str):
        if augment not in PRESETS:
            raise DataError(
                f"no augmentation {augment!r}{did_you_mean(augment, NAMES)}; there are {', '.join(NAMES)}, "
                "or $name for a v2 transform of your own"
            )
        return
    if not callable(augment):
        raise DataError(f"--augment takes {', '.join(NAMES)} or a transform, not a {type(augment).__name__}")
    if any(type(part).__name__ == "Normalize" for part in parts_of(augment)):
        raise DataError(
            "the transform holds a Normalize, and tlnb normalises by what the weights ask for; leave it out"
        )


def parts_of(transform: object) -> Iterator[object]:
    """A transform and all that it is composed of."""
    yield transform
    if isinstance(transform, nn.Module):
        yield from list(transform.modules())[1:]
    for inner in getattr(transform, "transforms", None) or ():
        yield from parts_of(inner)


def transform_for(augment: object, preprocess: Preprocess) -> Callable | None:
    """What is done to a whole picture, uint8 (C, H, W), before it is normalised; None for nothing.

    Raises:
        DataError: see ``check_augment``.
    """
    check_augment(augment)
    if not isinstance(augment, str):
        return augment  # type: ignore[return-value]
    make = PRESETS[augment][1]
    return v2.Compose(make(preprocess.size)) if make else None


def describe(augment: object) -> str:
    """An augmentation in a word: the preset's name, or the kind of the transform."""
    return augment if isinstance(augment, str) else f"your {type(augment).__name__}"
