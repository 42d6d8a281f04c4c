"""Pictures at training size, decoded once and kept as bytes where they fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait

import torch
from torch import Tensor

from tlnb.engine.data.images.headers import BadPicture
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.data.readers import Reader
from tlnb.engine.memory import free_bytes
from tlnb.engine.threads import pool

SHARE = 0.25  # of the free memory


def picture_budget() -> int:
    """Bytes that decoded pictures may take: a quarter of what is free."""
    return int(SHARE * free_bytes())


class PixelStore:
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
        self.on_broken = on_broken
        self.broken: dict[int, str] = {}
        shape = self._shape()
        self.keeps = len(reader) * shape.numel() <= (picture_budget() if budget is None else budget)
        # The system hands out memory when a page is first written, so an unused row costs nothing.
        fixed = self.keeps and not whole
        self._block = torch.empty((len(reader), *shape), dtype=reader.dtype) if fixed else None
        self._kept: dict[int, Tensor] = {}
        self._coming: dict[int, Future[Tensor | None]] = {}
        self._stamps: dict[int, object] = {}

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
