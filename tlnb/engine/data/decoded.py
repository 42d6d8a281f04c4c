"""Samples that are decoded when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from tlnb.engine.data.images.headers import BadPicture
from tlnb.engine.data.images.scale import PLAIN, PixelScale
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.data.readers import Reader
from tlnb.engine.data.samples import PictureSamples
from tlnb.engine.data.store import PixelStore
from tlnb.engine.features.prefetch import ahead
from tlnb.engine.hashing import tensors_digest

WARM = 256  # pictures that are decoded before they are asked for: half a second's work


class DecodedSamples(PictureSamples):
    """Pictures from a reader, decoded in threads ahead of training, kept in memory where they fit.

    A picture that turns out broken only now is reported, and the next sound one with the same target stands
    in for it, so that a batch keeps its size and no target is wrong.

    Args:
        reader: gives the pictures.
        rows: number of each sample in the reader, int64 of shape (N,); a number may stand there twice.
        targets: of shape (N,) or (N, outputs).
        preprocess: size, colours and normalisation.
        budget: bytes that may be kept; None for a quarter of the free memory.
        on_broken: told name and reason of a broken picture, from a thread.
    """

    def __init__(
        self,
        reader: Reader,
        rows: Tensor,
        targets: Tensor,
        preprocess: Preprocess,
        *,
        budget: int | None = None,
        on_broken: Callable[[str, str], None] = lambda name, reason: None,
    ):
        self.reader, self.rows, self.targets, self.preprocess = reader, rows, targets, preprocess
        self._options = {"budget": budget, "on_broken": on_broken}
        self.store = self._new_store(whole=False)
        self.at_hand = self.store.keeps  # from the second time on
        self._whole: PixelStore | None = None

    @property
    def scale(self) -> PixelScale:
        """What is black and white in the pictures as they are read."""
        return getattr(self.reader, "scale", PLAIN)

    def _new_store(self, *, whole: bool) -> PixelStore:
        return PixelStore(self.reader, self.preprocess, whole=whole, **self._options)  # type: ignore[arg-type]

    def share(self, other: DecodedSamples) -> None:
        """Keep pictures together with samples of the same reader and size, so that the budget is one."""
        if other.reader is self.reader and other.preprocess == self.preprocess:
            self.store = other.store

    def pixels(self, indices: Tensor) -> Tensor:
        """Pictures at training size: (B, C, H, W)."""
        return self._sound(self.store, indices, self.store.stacked)

    def whole(self, indices: Tensor) -> list[Tensor]:
        """Pictures before the crop: B tensors (C, H, W)."""
        if self._whole is None:
            self._whole = self._new_store(whole=True)
        store = self._whole
        return self._sound(store, indices, lambda rows: store.get(rows.tolist()))

    def _sound(self, store: PixelStore, indices: Tensor, read: Callable[[Tensor], object]):  # type: ignore[no-untyped-def]
        while True:
            try:
                return read(self.rows[self._stand_ins(store, indices)])
            except BadPicture:
                continue  # the store knows it as broken now, so each round has one broken picture fewer

    def _stand_ins(self, store: PixelStore, indices: Tensor) -> Tensor:
        if not store.broken:
            return indices
        bad = torch.isin(self.rows[indices], torch.tensor(list(store.broken)))
        if not bad.any():
            return indices
        chosen = indices.clone()
        for place in torch.nonzero(bad).flatten().tolist():
            chosen[place] = self._stand_in(store, int(indices[place]))
        return chosen

    def _stand_in(self, store: PixelStore, index: int) -> int:
        same = (self.targets == self.targets[index]).reshape(len(self), -1).all(1)
        sound = ~torch.isin(self.rows, torch.tensor(list(store.broken)))
        for candidates in (same & sound, sound):
            if candidates.any():
                order = torch.arange(index, index + len(self)) % len(self)
                return int(order[candidates[order]][0])
        raise RuntimeError("every picture is broken")

    def stream(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """Batches decoded ahead of the one who trains on them."""
        # Once every picture is in memory there is nothing to do ahead; and another's data set is called in
        # the thread of the one who trains, as it would be without tlnb.
        if self.store.has(self.rows) or not self.reader.threads:
            return super().stream(batches)
        return ahead(self.batch, batches)

    def warm(self) -> None:
        """Begin to decode the first pictures."""
        self.store.warm(self.rows[:WARM].tolist())

    def fingerprint(self) -> str:
        """Over contents, targets and preprocessing; lets go of pictures that have changed."""
        for store in (self.store, self._whole):
            if store is not None:
                store.refresh()
        rows = self.rows.tolist()
        note = f"{self.reader.digest(rows)} {self.preprocess}"
        return tensors_digest([("targets", self.targets)], note=note)
