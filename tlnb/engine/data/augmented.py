"""Pictures under random changes, each change a function of seed, stage, epoch and picture."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from tlnb.engine.core.arguments import others_code
from tlnb.engine.core.machine import ahead, pool
from tlnb.engine.core.seeds import own_stream, seed_for
from tlnb.engine.data.augment import transform_for
from tlnb.engine.data.readers import fit_tensor
from tlnb.engine.data.samples import PictureSamples, Samples
from tlnb.errors import DataError


class AugmentedSamples(PictureSamples):
    """Training pictures under random changes.

    Args:
        plain: the pictures.
        transform: takes and gives a picture (C, H, W), uint8 or floating point in 0..1; any size may come
            out, it is resized and cropped where it is not that of the network.
        seed: of the changes.
        name: of the augmentation, for the fingerprint.
    """

    random = True

    def __init__(
        self, plain: PictureSamples, transform: Callable[[Tensor], Tensor], seed: int, name: str = ""
    ):
        self.plain, self.transform, self.seed, self.name = plain, transform, seed, name
        self.targets, self.preprocess, self.wholes = plain.targets, plain.preprocess, plain.wholes
        self._numbers: tuple[int, ...] = ()

    def view(self, *numbers: int) -> Samples:
        """The changes of a certain stage and epoch."""
        other = copy.copy(self)
        other._numbers = numbers
        return other

    def pixels(self, indices: Tensor) -> Tensor:
        """Changed pictures at training size: (B, C, H, W)."""
        pictures = self.plain.whole(indices)
        return torch.stack(list(pool().map(self._changed, pictures, indices.tolist())))

    def whole(self, indices: Tensor) -> list[Tensor]:
        """The pictures before any change."""
        return self.plain.whole(indices)

    def _changed(self, picture: Tensor, index: int) -> Tensor:
        with own_stream(seed_for(self.seed, *self._numbers, index)), others_code(self.transform, DataError):
            changed = self.transform(picture)
        if not isinstance(changed, Tensor) or changed.dim() != 3:
            raise DataError(
                f"the augmentation made a {type(changed).__name__} of a picture; "
                "it must give a tensor (C, H, W)"
            )
        if not changed.is_floating_point() and changed.dtype != torch.uint8:
            raise DataError(f"the augmentation gives {changed.dtype}; uint8 or floating point is needed")
        if changed.shape[-2:] != self.preprocess.size or changed.shape[0] != self.preprocess.channels:
            changed = fit_tensor(changed, self.preprocess)
        return changed.as_subclass(Tensor)

    def stream(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """Batches changed ahead of the one who trains on them."""
        return ahead(self.batch, batches)

    def inputs_digest(self) -> str:
        """Of the pictures: changes are known by their seed and play no part."""
        return self.plain.inputs_digest()

    def fingerprint(self) -> str:
        """Over the pictures, the transform, the seed and the view."""
        note = f"{self.plain.fingerprint()} {self.name} {self.transform!r} {self.seed} {self._numbers}"
        return hashlib.sha256(note.encode()).hexdigest()


def augmented(samples: Samples, augment: object, seed: int) -> Samples:
    """The samples under an augmentation, in place of the one that they have.

    Args:
        samples: pictures.
        augment: a preset's name, or a v2 transform.
        seed: of the changes.

    Raises:
        DataError: an unknown preset, or samples that are no pictures.
    """
    plain = samples.plain if isinstance(samples, AugmentedSamples) else samples
    if isinstance(augment, str) and augment == "none":
        return plain
    if not isinstance(plain, PictureSamples):
        raise DataError("augmentation needs pictures, and this data holds none")
    transform = transform_for(augment, plain.preprocess)
    assert transform is not None
    return AugmentedSamples(plain, transform, seed, augment if isinstance(augment, str) else "")
