"""Pictures that are decoded when they are needed, in threads, and kept as bytes where they fit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tlnb.engine.core.fingerprint import tensors_digest
from tlnb.engine.core.machine import ahead, free_bytes, pool
from tlnb.engine.data.images.headers import BadPicture
from tlnb.engine.data.images.scale import PLAIN, PixelScale
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.data.readers import Reader
from tlnb.engine.data.samples import PictureSamples
from tlnb.errors import DataError

SHARE = 0.25  # of the free memory


def picture_budget() -> int:
    """Bytes that decoded pictures may take: a quarter of what is free."""
    return int(SHARE * free_bytes())


def _unreadable(name: str, reason: str) -> None:
    """What a process elsewhere does in place of telling the user: no other picture may stand in for this one there.

    Raises:
        DataError: always.
    """
    raise DataError(f"{name} cannot be read: {reason}")


class ImageCache:
    """Decodes the pictures that are asked for, in threads, and keeps them if all of them fit.

    Args:
        reader: where they come from.
        preprocess: their size.
        whole: keep them before the crop.
        budget: bytes that may be kept; None for ``picture_budget()``.
        on_broken: told the name and the reason where a picture turns out broken.

    Attributes:
        keeps: whether what was decoded stays in memory.
        broken: number and reason of the pictures that could not be decoded.
    """

    def __init__(
        self,
        reader: Reader,
        preprocess: Preprocess,
        *,
        whole: bool = False,
        budget: int | None = None,
        on_broken: Callable[[str, str], None] = lambda name, reason: None,
    ):
        self.reader, self.preprocess, self.whole = reader, preprocess, whole
        self.on_broken, self._budget = on_broken, budget
        self.broken: dict[int, str] = {}
        self._stamps: dict[int, object] = {}
        self._make_room()

    def _make_room(self) -> None:
        reader, shape, budget = self.reader, self._shape(), self._budget
        self.keeps = len(reader) * shape.numel() <= (picture_budget() if budget is None else budget)
        # The system hands out memory when a page is first written, so an unused row costs nothing.
        fixed = self.keeps and not self.whole
        self._block = torch.empty((len(reader), *shape), dtype=reader.dtype) if fixed else None
        self._kept: dict[int, Tensor] = {}
        self._coming: dict[int, Future[Tensor | None]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs: where pictures come from and which are broken, none that are decoded."""
        there = vars(self).copy()
        for name in ("keeps", "_block", "_kept", "_coming", "on_broken"):
            del there[name]
        return there | {"_stamps": {n: self._stamps[n] for n in self.broken}}

    def __setstate__(self, there: dict[str, Any]) -> None:
        vars(self).update(there, on_broken=_unreadable)
        self._make_room()

    def _shape(self) -> torch.Size:
        channels, (height, width) = self.preprocess.channels, self.preprocess.size
        if self.whole and self.preprocess.resize:
            # Photos are mostly 4:3, some wider.
            height, width = self.preprocess.resize, self.preprocess.resize * 3 // 2
        return torch.Size((channels, height, width))

    def has(self, numbers: Tensor) -> bool:
        """Whether all of these are in memory."""
        return len(self._kept) > 0 and all(number in self._kept for number in numbers.tolist())

    @property
    def held(self) -> int:
        """Bytes of pictures in memory."""
        return sum(picture.nbytes for picture in self._kept.values())

    def stacked(self, numbers: Tensor) -> Tensor:
        """Pictures of one size as a batch: a fresh (B, C, H, W)."""
        pictures = self.get(numbers.tolist())
        return self._block[numbers] if self._block is not None else torch.stack(pictures)

    def get(self, numbers: Sequence[int]) -> list[Tensor]:
        """The pictures of these numbers: (C, H, W) each, not to be written to.

        Raises:
            BadPicture: one is broken; ``broken`` says which.
        """
        fresh = dict.fromkeys(n for n in numbers if n not in self._kept)
        found = dict(zip(fresh, self._read_all(fresh), strict=True))
        if self.broken and (bad := [n for n in fresh if n in self.broken]):
            raise BadPicture(self.broken[bad[0]])
        return [found[n] if n in found else self._kept[n] for n in numbers]  # type: ignore[misc]

    def warm(self, numbers: Sequence[int]) -> None:
        """Begin to decode pictures that will be asked for soon, where decoded ones are kept."""
        if self.keeps and self.reader.threads:
            for number in numbers:
                if number not in self._kept and number not in self._coming:
                    self._coming[number] = pool().submit(self._read, number)

    def _read_all(self, numbers: Iterable[int]) -> Iterable[Tensor | None]:
        if not self.reader.threads:
            return map(self._read, numbers)
        under_way = [
            self._coming.pop(n) if n in self._coming else pool().submit(self._read, n) for n in numbers
        ]
        return (work.result() for work in under_way)

    def _read(self, number: int) -> Tensor | None:
        if number in self.broken:
            return None
        stamp = self.reader.stamps([number])[0]
        try:
            picture = self.reader.read(number, self.preprocess, whole=self.whole)
        except BadPicture as trouble:
            self.broken[number], self._stamps[number] = str(trouble), stamp
            self.on_broken(self.reader.name(number), str(trouble))
            return None
        self.preprocess.check_bands(picture)
        if self.keeps:
            self._stamps[number] = stamp
            if self._block is not None:
                picture = self._block[number].copy_(picture)
            self._kept[number] = picture
        return picture

    def refresh(self) -> None:
        """Let go of pictures that have changed where they come from since they were decoded."""
        wait(list(self._coming.values()))
        self._coming.clear()
        numbers = list(self._kept)
        for number, stamp in zip(numbers, self.reader.stamps(numbers), strict=True):
            if stamp != self._stamps[number]:
                del self._kept[number]
        mended = list(self.broken)
        for number, stamp in zip(mended, self.reader.stamps(mended), strict=True):
            if stamp != self._stamps[number]:
                del self.broken[number]


WORTH_FOLDING = 2  # samples of a picture, from which on what is computed for it is shared by them
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
        self._whole: ImageCache | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs."""
        options = {"budget": self._options["budget"], "on_broken": _unreadable}
        return vars(self) | {"_options": options, "_whole": None}

    def __copy__(self) -> DecodedSamples:
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        return other

    @property
    def scale(self) -> PixelScale:
        """What is black and white in the pictures as they are read."""
        return getattr(self.reader, "scale", PLAIN)

    def _new_store(self, *, whole: bool) -> ImageCache:
        return ImageCache(self.reader, self.preprocess, whole=whole, **self._options)  # type: ignore[arg-type]

    def share(self, other: DecodedSamples) -> None:
        """Keep pictures together with samples of the same reader and size, so that the budget is one."""
        if other.reader is self.reader and other.preprocess == self.preprocess:
            self.store = other.store
            if self.origin is not None and isinstance(self.origin[0], DecodedSamples):
                self.origin[0].share(other)

    def fold(self) -> None:
        """Let what is computed once for a sample be computed once for a picture, where many samples are of the same.

        A picture has the target of its first sample there, by which another one is found for it where it is broken.
        """
        different, first, places = np.unique(self.rows.numpy(), return_index=True, return_inverse=True)
        if len(different) * WORTH_FOLDING <= len(self.rows):
            once = copy.copy(self)
            once.rows, once.targets = torch.from_numpy(different), self.targets[torch.from_numpy(first)]
            self.origin = once, torch.from_numpy(places)

    def pixels(self, indices: Tensor) -> Tensor:
        """Pictures at training size: (B, C, H, W)."""
        return self._sound(self.store, indices, self.store.stacked)

    def whole(self, indices: Tensor) -> list[Tensor]:
        """Pictures before the crop: B tensors (C, H, W)."""
        if self._whole is None:
            self._whole = self._new_store(whole=True)
        store = self._whole
        return self._sound(store, indices, lambda rows: store.get(rows.tolist()))

    def _sound(self, store: ImageCache, indices: Tensor, read: Callable[[Tensor], object]):  # type: ignore[no-untyped-def]
        while True:
            try:
                return read(self.rows[self._stand_ins(store, indices)])
            except BadPicture:
                continue  # the store knows it as broken now, so each round has one broken picture fewer

    def _stand_ins(self, store: ImageCache, indices: Tensor) -> Tensor:
        if not store.broken:
            return indices
        bad = torch.isin(self.rows[indices], torch.tensor(list(store.broken)))
        if not bad.any():
            return indices
        chosen = indices.clone()
        for place in torch.nonzero(bad).flatten().tolist():
            chosen[place] = self._stand_in(store, int(indices[place]))
        return chosen

    def _stand_in(self, store: ImageCache, index: int) -> int:
        same = (self.targets == self.targets[index]).reshape(len(self), -1).all(1)
        sound = ~torch.isin(self.rows, torch.tensor(list(store.broken)))
        for candidates in (same & sound, sound):
            if candidates.any():
                order = torch.arange(index, index + len(self)) % len(self)
                return int(order[candidates[order]][0])
        first = next(iter(store.broken.values()), "")
        raise DataError(f"no sample can be read any more; the first: {first}")

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

    def inputs_digest(self) -> str:
        """What the reader knows them by."""
        return self.reader.quick_digest(self.rows.tolist()) or super().inputs_digest()

    def some(self, rows: Tensor) -> DecodedSamples:
        """Some of the pictures, decoded and kept together with all."""
        made = copy.copy(self)
        made.rows, made.targets = self.rows[rows], self.targets[rows]
        return made

    def fingerprint(self) -> str:
        """Over contents, targets and preprocessing; lets go of pictures that have changed."""
        for store in (self.store, self._whole):
            if store is not None:
                store.refresh()
        rows = self.rows.tolist()
        note = f"{self.reader.digest(rows)} {self.preprocess}"
        return tensors_digest([("targets", self.targets)], note=note)
