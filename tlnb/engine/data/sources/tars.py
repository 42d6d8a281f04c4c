"""Pictures and labels in tar files, as WebDataset lays them out: ``1.jpg`` and ``1.cls`` or ``1.json`` side by side.

Nothing is unpacked: an index says where in which file each picture begins, so a sample is one read, in any order.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tlnb.display.tables import printable
from tlnb.engine.data.column import Builder, add_row
from tlnb.engine.data.images.check import Problem
from tlnb.engine.data.images.decode import decode_bytes
from tlnb.engine.data.images.headers import SUFFIXES, BadPicture
from tlnb.engine.data.images.scale import PixelScale
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.data.raw import ReadPictures
from tlnb.engine.data.readers import Reader
from tlnb.engine.data.request import REGRESSION, SourceRequest
from tlnb.engine.data.sources.cells import Columns
from tlnb.engine.data.sources.columns import label_columns
from tlnb.engine.data.sources.found import Found, shown_files
from tlnb.engine.data.sources.labels import encode
from tlnb.engine.data.sources.targets import is_hole, targets_of
from tlnb.errors import DataError

TAR = ".tar"
_CLASS = "cls"
_WORDS = (_CLASS, "txt")  # endings of members that are one word or text
_LARGEST = 1 << 20  # bytes of a label, or of what is said of a picture
_TOLD = 2000  # members after which it is told how far reading is


def read_tars(files: Sequence[Path], request: SourceRequest) -> Found:
    """Pictures with the labels beside them: ``.cls``, or a key of ``.json`` that is told as a table's column is.

    Pictures are looked at when they are first needed; one that turns out broken is left out then.

    Args:
        files: the shards.
        request: how they are read.

    Raises:
        DataError: one is no plain tar, or there is no picture with a label.
    """
    request.refuse(
        ("text", "path", "split", "folder", "suffix"), "the pictures of a tar stand beside their labels"
    )
    index = _Index()
    for number, file in enumerate(files):
        for sample in _samples(file):
            index.add(number, sample)
            if len(index) % _TOLD == 0:
                request.progress(number, len(files))
        request.progress(number + 1, len(files))
    shown, notes = shown_files(files), list[str]()
    if not len(index):
        raise DataError(
            f"{shown} holds no pictures; a picture and its label have one name, such as 1.jpg and 1.cls"
        )
    columns = index.columns()
    labels = [_CLASS] if request.label is None and _CLASS in columns else label_columns(
        columns, request, (), notes, shown
    )  # fmt: skip
    holes = np.zeros(len(index), bool)
    if len(labels) == 1:
        holes = columns[labels[0]].where(is_hole)
    kept = np.flatnonzero(~holes)
    names = index.names.column()
    problems = [Problem(printable(names[row]), "no label") for row in np.flatnonzero(holes).tolist()]
    if not len(kept):
        raise DataError(f"no picture in {shown} has a label")
    targets = targets_of([columns[name].take(kept) for name in labels], request, notes, "picture")
    encoded = encode([targets], request, labels if request.target == REGRESSION else None)
    rows = kept if encoded.kept[0] is None else kept[encoded.kept[0].numpy()]
    reader = MemberReader(files, *index.places(), names, request.scale)
    return Found(
        ReadPictures(reader, encoded.parts[0], torch.from_numpy(rows)), None, encoded.classes, encoded.kind,
        problems, [*notes, *encoded.notes], scale=request.scale,
        columns={name: cells.take(rows) for name, cells in columns.items()}, paths=names.take(rows),
    )  # fmt: skip


class MemberReader(Reader):
    """Pictures in tar files.

    Args:
        files: the tars.
        shards: number of the file of each picture, int32 of shape (N,).
        starts: where in it the picture begins, in bytes: int64 of shape (N,).
        sizes: of each picture in bytes, int64 of shape (N,).
        names: of the pictures.
        scale: of their pixels.
    """

    def __init__(
        self, files: Sequence[Path], shards: np.ndarray, starts: np.ndarray, sizes: np.ndarray,
        names: Sequence[str], scale: PixelScale,
    ):  # fmt: skip
        self.files, self.names, self.scale = list(files), names, scale
        self._shards, self._starts, self._sizes = shards, starts, sizes

    def __len__(self) -> int:
        return len(self._shards)

    def name(self, number: int) -> str:
        """The name in the tar, behind that of the tar."""
        return self.names[number]

    def content(self, number: int) -> bytes:
        """The bytes of a picture.

        Raises:
            OSError: the tar cannot be read.
        """
        with open(self.files[self._shards[number]], "rb") as file:
            file.seek(int(self._starts[number]))
            return file.read(int(self._sizes[number]))

    def read(self, number: int, preprocess: Preprocess, *, whole: bool = False) -> Tensor:
        """The decoded member."""
        try:
            content = self.content(number)
        except OSError as error:
            raise BadPicture(f"cannot be read: {error.strerror}") from None
        return decode_bytes(content, preprocess, whole=whole, scale=self.scale)

    def stamps(self, numbers: Sequence[int]) -> list[object]:
        """Size and times of the tar that each is in."""
        known = {shard: self._stamp(shard) for shard in set(self._shards[list(numbers)].tolist())}
        return [known[int(self._shards[number])] for number in numbers]

    def digest(self, numbers: Sequence[int]) -> str:
        """Over places in the tars, and the tars' names, sizes and times."""
        rows = np.array(numbers, np.int64)
        sha = hashlib.sha256(b"" if self.scale.is_plain else repr(self.scale).encode())
        for shard in np.unique(self._shards[rows]).tolist():
            sha.update(os.fsencode(self.files[shard].name) + repr(self._stamp(shard)).encode())
        for part in (self._shards, self._starts, self._sizes):
            sha.update(np.ascontiguousarray(part[rows]).tobytes())
        return sha.hexdigest()

    def digest_of(self, number: int) -> bytes | None:
        """Over the bytes of the picture."""
        try:
            return hashlib.blake2b(self.content(number), digest_size=16).digest()
        except OSError:
            return None

    def _stamp(self, shard: int) -> tuple[int, ...] | None:
        try:
            about = self.files[shard].stat()
        except OSError:
            return None
        return about.st_size, about.st_mtime_ns


class _Index:
    """Where the pictures are, and what stands beside them."""

    def __init__(self) -> None:
        self.names = Builder()
        self._shards, self._starts, self._sizes = array("i"), array("q"), array("q")
        self._said: dict[str, Builder] = {}

    def __len__(self) -> int:
        return len(self._shards)

    def add(self, shard: int, sample: dict[str, Any]) -> None:
        """A picture more, with what is said of it."""
        name, start, size = sample.pop("")
        add_row(self._said, sample, len(self))
        self.names.append(name)
        self._shards.append(shard)
        self._starts.append(start)
        self._sizes.append(size)

    def columns(self) -> Columns:
        """What is said of the pictures."""
        return {key: builder.column() for key, builder in sorted(self._said.items())}

    def places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tar, first byte and size of each picture."""
        return np.array(self._shards), np.array(self._starts), np.array(self._sizes)


def _samples(file: Path) -> Iterator[dict[str, Any]]:
    """The samples of a tar that have a picture: what is said of each by its key, its place under the empty one.

    Raises:
        DataError: it is no plain tar.
    """
    held: dict[str, Any] = {}
    held_key: str | None = None
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # else it keeps them all
                if not member.isreg():
                    continue
                folder, _, last = member.name.rpartition("/")
                key, _, ending = last.partition(".")
                key, ending = f"{folder}/{key}", ending.lower()
                if key != held_key:
                    if "" in held:
                        yield held
                    held, held_key = {}, key
                if f".{ending}" in SUFFIXES and "" not in held:
                    held[""] = f"{file.name}/{member.name}", member.offset_data, member.size
                elif ending in (*_WORDS, "json") and member.size <= _LARGEST:
                    content = tar.extractfile(member)
                    assert content is not None
                    held |= _said(ending, content.read())
    except (tarfile.TarError, EOFError) as error:
        raise DataError(
            f"{printable(file.name)!r} cannot be read as a plain tar ({error}); one that is packed is unpacked first: "
            "gunzip"
        ) from None
    if "" in held:
        yield held


def _said(ending: str, content: bytes) -> dict[str, Any]:
    """What a member says of a picture; nothing where it cannot be read."""
    try:
        told = content.decode("utf-8-sig").strip()
        if ending in _WORDS:
            return {ending: told}
        found = json.loads(told)
    except (ValueError, RecursionError):
        return {}
    return {str(key): value for key, value in found.items() if key} if isinstance(found, dict) else {}
