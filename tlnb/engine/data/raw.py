"""Samples as they were found, before they are fitted to a network."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tlnb.engine.core.fingerprint import item_digest
from tlnb.engine.core.tree import Batch, Tree
from tlnb.engine.data.image_cache import DecodedSamples, picture_budget
from tlnb.engine.data.joined import joined
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.data.readers import Reader, TensorReader
from tlnb.engine.data.samples import (
    DatasetSamples,
    ImageSamples,
    Pipeline,
    Samples,
    TensorSamples,
    with_targets,
)
from tlnb.errors import DataError

OnBroken = Callable[[str, str], None]


def _silent(name: str, reason: str) -> None:
    """Tell nobody."""


class RawDataset(ABC):
    """Samples with their targets.

    Attributes:
        targets: int64 of shape (N,) for classes; float32 of shape (N, outputs) otherwise.
        same_twice: whether a sample is the same whenever it is asked for.
        equal: what samples of the same digest are to each other, in words.
        kind: what they are: ``pictures``, ``texts``, ``sounds``, ``rows`` of numbers, or ``items`` of another's.
    """

    kind: str
    targets: Tensor
    same_twice: bool = True
    equal: str = "byte-equal"

    def __len__(self) -> int:
        return len(self.targets)

    @abstractmethod
    def subset(self, indices: Tensor) -> RawDataset:
        """These samples only, in this order; an index may stand there twice."""

    @abstractmethod
    def prepare(self, preprocess: Any, on_broken: OnBroken = _silent) -> Samples:
        """Samples at the size and in the colours that the network takes.

        Args:
            preprocess: of the network.
            on_broken: told name and reason where a picture turns out broken later.

        Raises:
            DataError: the network takes something else.
        """

    def digests(self) -> list[bytes | None] | None:
        """For each sample a digest of its bytes, None for one with a content of its own; None: not known."""
        return None

    def digest_of(self, index: int) -> bytes | None:
        """A digest of one sample, which is read for that; None where it has none."""
        return None

    def content(self, index: int) -> bytes | None:
        """A digest of what one sample holds, by which it is known again under another name; None: it has none.

        Unlike those of ``digests`` it is taken of every sample that can be read, and costs a look into that one only.
        """
        return self.digest_of(index)

    def name(self, index: int) -> str:
        """What a sample is called."""
        return f"sample {index}"

    def path(self, index: int) -> Path | None:
        """The file of a sample; None where it is none."""
        return None

    def pictures(self) -> Iterator[Tensor]:
        """Each picture as it is, before it is fitted to a network: (C, H, W).

        Raises:
            DataError: these are no pictures at hand.
        """
        raise DataError(
            "--groups near compares pictures, and these samples are none; give a column or $array"
        )


class Pictures(RawDataset):
    """Images in memory.

    Args:
        images: uint8 in 0..255, or floating point in 0..1, of shape (N, C, H, W).
        targets: of shape (N,) or (N, outputs).
    """

    kind = "pictures"

    def __init__(self, images: Tensor, targets: Tensor):
        self.images, self.targets = images, targets

    def pictures(self) -> Iterator[Tensor]:
        """As they are in memory."""
        yield from self.images

    def subset(self, indices: Tensor) -> Pictures:
        """These images only."""
        return Pictures(self.images[indices], self.targets[indices])

    def prepare(self, preprocess: Any, on_broken: OnBroken = _silent) -> Samples:
        """Fitted at once where that takes little memory, batch by batch otherwise."""
        _check_pictures(preprocess)
        size = len(self) * preprocess.channels * preprocess.size[0] * preprocess.size[1]
        if size * self.images.element_size() > picture_budget():
            return DecodedSamples(
                TensorReader(self.images), torch.arange(len(self)), self.targets, preprocess
            )
        fitted = preprocess.fit(self.images).contiguous()
        return ImageSamples(fitted, self.targets, preprocess, self.images)

    def digests(self) -> list[bytes | None]:
        """Over the pixels of each image."""
        return _row_digests(self.images)

    def content(self, index: int) -> bytes | None:
        """Over the pixels."""
        return _row_digests(self.images[index : index + 1])[0]


class ReadPictures(RawDataset):
    """Pictures that are read when they are needed.

    Args:
        reader: gives the pictures.
        targets: of shape (N,) or (N, outputs).
        rows: number of each sample in the reader; None for the reader's own order.
        known: digest of each of the reader's pictures, as far as it was taken; None: of none.
    """

    kind = "pictures"

    def __init__(
        self,
        reader: Reader,
        targets: Tensor,
        rows: Tensor | None = None,
        known: list[bytes | None] | None = None,
    ):
        self.reader, self.targets, self.known = reader, targets, known
        self.rows = torch.arange(len(reader)) if rows is None else rows

    def subset(self, indices: Tensor) -> ReadPictures:
        """These pictures only."""
        return ReadPictures(self.reader, self.targets[indices], self.rows[indices], self.known)

    def prepare(self, preprocess: Any, on_broken: OnBroken = _silent) -> Samples:
        """Decoded when they are first needed."""
        _check_pictures(preprocess)
        made = DecodedSamples(self.reader, self.rows, self.targets, preprocess, on_broken=on_broken)
        made.fold()
        return made

    def digests(self) -> list[bytes | None] | None:
        """Of the files; None where the pictures are no files."""
        if self.known is None:
            return None
        return [self.known[row] for row in self.rows.tolist()]

    def digest_of(self, index: int) -> bytes | None:
        """Of an item as it comes, before it is fitted to a network."""
        return self.reader.digest_of(int(self.rows[index]))

    def content(self, index: int) -> bytes | None:
        """Of the bytes of a file; of other items as they come."""
        path = self.path(index)
        return self.digest_of(index) if path is None else file_digest(path)

    def name(self, index: int) -> str:
        """The name that the reader has for it."""
        return self.reader.name(int(self.rows[index]))

    def path(self, index: int) -> Path | None:
        """The file of a sample, where it is one."""
        return self.reader.path(int(self.rows[index]))

    def pictures(self) -> Iterator[Tensor]:
        """Each file, decoded; of items that somebody else makes, none."""
        if len(self) and self.path(0) is None:
            yield from super().pictures()
        for row in self.rows.tolist():
            yield self.reader.read(row, Preprocess(), whole=True)


def _check_pictures(preprocess: object) -> None:
    if not isinstance(preprocess, Preprocess):
        raise DataError("the data holds pictures, and the network takes texts")


class Rows(RawDataset):
    """Inputs in memory, just as the network takes them.

    Args:
        inputs: shape (N, ...), any dtype; or a tree of such.
        targets: of shape (N,) or (N, outputs).
    """

    kind = "rows"

    def __init__(self, inputs: Batch, targets: Tensor):
        self.inputs, self.targets = inputs, targets

    def subset(self, indices: Tensor) -> Rows:
        """These rows only."""
        return Rows(self.inputs[indices], self.targets[indices])

    def prepare(self, preprocess: Any, on_broken: OnBroken = _silent) -> Samples:
        """As they are."""
        return TensorSamples(self.inputs, self.targets)

    def digests(self) -> list[bytes | None]:
        """Over the bytes of each row."""
        if isinstance(self.inputs, Tree):
            parts = [_row_digests(part) for part in self.inputs.values()]
            return [b"".join(part or b"" for part in row) for row in zip(*parts, strict=True)]
        return _row_digests(self.inputs)

    def content(self, index: int) -> bytes | None:
        """Over the bytes of the row."""
        return self.subset(torch.tensor([index])).digests()[0]


class Items(RawDataset):
    """Items of a data set that gives inputs just as the network takes them.

    Args:
        pipeline: makes them.
        targets: of shape (N,) or (N, outputs).
        rows: number of each sample; None for the data set's own order.
    """

    kind = "items"

    def __init__(self, pipeline: Pipeline, targets: Tensor, rows: Tensor | None = None):
        self.pipeline, self.targets = pipeline, targets
        self.rows = torch.arange(len(targets)) if rows is None else rows
        self.same_twice = not pipeline.random

    def subset(self, indices: Tensor) -> Items:
        """These items only."""
        return Items(self.pipeline, self.targets[indices], self.rows[indices])

    def prepare(self, preprocess: Any, on_broken: OnBroken = _silent) -> Samples:
        """Asked for and collated batch by batch."""
        return DatasetSamples(self.pipeline, self.rows, self.targets)

    def digest_of(self, index: int) -> bytes | None:
        """Of an item's input."""
        return item_digest(lambda: self.pipeline.item(int(self.rows[index]))[0])


class Several(RawDataset):
    """Collections in a row, such as the parts that a source has: samples are numbered through.

    Args:
        parts: of one form of input, and with targets of one meaning.
        rows: number of each sample; None for all in order.
    """

    def __init__(self, parts: Sequence[RawDataset], rows: Tensor | None = None):
        self.parts = tuple(parts)
        ends = torch.tensor([len(part) for part in parts]).cumsum(0)
        self._starts = torch.cat([torch.zeros(1, dtype=torch.int64), ends])
        self.rows = torch.arange(int(ends[-1])) if rows is None else rows
        self.targets = torch.cat([part.targets for part in parts])[self.rows]
        self.same_twice = all(part.same_twice for part in parts)
        self.kind = self.parts[0].kind

    def pictures(self) -> Iterator[Tensor]:
        """Of all parts, in their order."""
        for part in self.parts:
            yield from part.pictures()

    def subset(self, indices: Tensor) -> RawDataset:
        """These samples only; those of one part alone are of that part's own kind."""
        rows = self.rows[indices]
        of = self._part_of(rows)
        if len(rows) and bool((of == of[0]).all()):
            found = self.parts[int(of[0])].subset(rows - self._starts[of[0]])
        else:
            found = Several(self.parts, rows)
        found.targets = self.targets[indices]
        return found

    def _part_of(self, rows: Tensor) -> Tensor:
        return torch.searchsorted(self._starts, rows, right=True) - 1

    def _at(self, index: int) -> tuple[RawDataset, int]:
        row = self.rows[index]
        part = self._part_of(row)
        return self.parts[int(part)], int(row - self._starts[part])

    def prepare(self, preprocess: Preprocess, on_broken: OnBroken = _silent) -> Samples:
        """Each part fitted by itself."""
        made = joined([part.prepare(preprocess, on_broken) for part in self.parts])
        return with_targets(made.portion(self.rows), self.targets)

    def digests(self) -> list[bytes | None] | None:
        """Of all parts; None where one of them does not know."""
        known = [part.digests() for part in self.parts]
        every = [digest for digests in known if digests is not None for digest in digests]
        return None if None in known else [every[row] for row in self.rows.tolist()]

    def digest_of(self, index: int) -> bytes | None:
        """A digest of one sample."""
        part, place = self._at(index)
        return part.digest_of(place)

    def content(self, index: int) -> bytes | None:
        """What the part knows it by."""
        part, place = self._at(index)
        return part.content(place)

    def name(self, index: int) -> str:
        """What the part calls it."""
        part, place = self._at(index)
        return part.name(place)

    def path(self, index: int) -> Path | None:
        """The file of a sample, where it is one."""
        part, place = self._at(index)
        return part.path(place)


def file_digest(path: Path) -> bytes | None:
    """Of the bytes of a file; None where it cannot be read."""
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=16).digest()
    except OSError:
        return None


def _row_digests(tensor: Tensor) -> list[bytes | None]:
    flat = tensor.contiguous().reshape(len(tensor), -1).view(torch.uint8).numpy()
    return [hashlib.blake2b(row, digest_size=16).digest() for row in flat]
