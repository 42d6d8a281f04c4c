"""Clips with their targets: split and counted as clips, learned from and answered for in pieces."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tlnb.engine.core.machine import ahead
from tlnb.engine.data.image_cache import DecodedSamples
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.data.raw import OnBroken, RawDataset, file_digest
from tlnb.engine.data.readers import FileReader, Reader, fit_tensor
from tlnb.engine.data.samples import Samples
from tlnb.engine.data.sound.files import opened
from tlnb.engine.data.sound.front_end import LogMel, RawFrames, piece_starts


class PieceReader(Reader):
    """Pieces of clips by number, as log-mel pictures or as raw frames.

    Args:
        files: the clips.
        seconds: how long each is.
        front: how they are drawn.
        raw: what a network of raw sound takes, in place of pictures.

    Attributes:
        clips: number of the clip of each piece, int64 of shape (pieces,), rising.
        starts: second at which each piece begins in its clip.
    """

    def __init__(
        self, files: FileReader, seconds: Sequence[float], front: LogMel, raw: RawFrames | None = None
    ):
        self.files, self.front, self.raw = files, front, raw
        self.window, self.rate = (front.window, front.rate) if raw is None else (raw.window, raw.rate)
        self.dtype = torch.uint8 if raw is None else torch.float32
        begins = [piece_starts(length, self.window) for length in seconds]
        self.starts = [start for part in begins for start in part]
        self.counts = torch.tensor([len(part) for part in begins])
        self.clips = torch.arange(len(begins)).repeat_interleave(self.counts)
        self._first = (self.counts.cumsum(0) - self.counts).tolist()

    def __len__(self) -> int:
        return len(self.starts)

    def pieces_of(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """The pieces of these clips, and for each the place of its clip among them: int64 of shape (pieces,)."""
        parts = [
            torch.arange(self._first[c], self._first[c] + n)
            for c, n in zip(clips.tolist(), self.counts[clips].tolist(), strict=True)
        ]
        rows = torch.cat(parts) if parts else clips
        return rows, torch.arange(len(clips)).repeat_interleave(self.counts[clips])

    def wave(self, number: int) -> np.ndarray:
        """The sound of a piece: float32 (samples,), in -1..1, at ``rate``.

        Raises:
            BadPicture: the file is damaged.
        """
        from tlnb.engine.data.sound.front import read_piece  # it imports scipy.signal, which takes a while

        with opened(self.files.path(int(self.clips[number]))) as file:
            return read_piece(file, self.starts[number], self.window, self.rate)

    def read(self, number: int, preprocess: Preprocess, *, whole: bool = False) -> Tensor:
        """A piece as a picture at the network's size, uint8 (C, H, W); or as a frame, float32 (1, 1, length)."""
        wave = self.wave(number)
        return (
            self.raw.frame(wave)
            if self.raw
            else fit_tensor(self.front.picture(wave), preprocess, whole=whole)
        )

    def stamps(self, numbers: Sequence[int]) -> list[object]:
        """Of the files."""
        return self.files.stamps(self.clips[list(numbers)].tolist())

    def digest(self, numbers: Sequence[int]) -> str:
        """Over the files and the front end."""
        clips = self.clips[list(numbers)].unique().tolist()
        return hashlib.sha256(f"{self.files.digest(clips)} {self.note(numbers)}".encode()).hexdigest()

    def quick_digest(self, numbers: Sequence[int]) -> str:
        """Over the files at a bounded cost, and the front end."""
        clips = self.clips[list(numbers)].unique().tolist()
        return f"{self.files.quick_digest(clips)} {self.note(numbers)}"

    def note(self, numbers: Sequence[int]) -> str:
        """What beside the files decides about these pieces."""
        starts = hashlib.sha256(repr([(n, self.starts[n]) for n in numbers]).encode()).hexdigest()
        return f"{self.raw or self.front!r} {starts}"

    def name(self, number: int) -> str:
        """The file; a later piece is told by its second."""
        start = self.starts[number]
        name = self.files.name(int(self.clips[number]))
        return f"{name} at {start:.1f} s" if start else name


class ClipLibrary:
    """Clips with their lengths, from which readers of pieces are made once.

    Args:
        files: the clips.
        seconds: how long each is.
        front: how they are drawn.
    """

    def __init__(self, files: FileReader, seconds: Sequence[float], front: LogMel):
        self.files, self.seconds, self.front = files, list(seconds), front
        self._readers: dict[RawFrames | None, PieceReader] = {}

    def reader(self, raw: RawFrames | None = None) -> PieceReader:
        """The pieces, as pictures or as raw frames; the same object for all parts of the data."""
        if raw not in self._readers:
            self._readers[raw] = PieceReader(self.files, self.seconds, self.front, raw)
        return self._readers[raw]


class Clips(RawDataset):
    """Sound files with their targets, one a clip.

    Args:
        library: the files.
        targets: of shape (N,) or (N, outputs).
        rows: number of each clip in the library; None for its own order.
        known: digest of each of the library's files, as far as it was taken.
    """

    kind = "sounds"

    def __init__(
        self, library: ClipLibrary, targets: Tensor, rows: Tensor | None = None,
        known: list[bytes | None] | None = None,
    ):  # fmt: skip
        self.library, self.targets, self.known = library, targets, known
        self.rows = torch.arange(len(library.seconds)) if rows is None else rows

    def subset(self, indices: Tensor) -> Clips:
        """These clips only."""
        return Clips(self.library, self.targets[indices], self.rows[indices], self.known)

    def prepare(
        self, preprocess: Preprocess | RawFrames, on_broken: OnBroken = lambda name, reason: None
    ) -> Samples:
        """The pieces of the clips, each with its clip's target; drawn when they are first needed."""
        raw = preprocess if isinstance(preprocess, RawFrames) else None
        reader = self.library.reader(raw)
        pieces, places = reader.pieces_of(self.rows)
        decoded = DecodedSamples(reader, pieces, self.targets[places], preprocess, on_broken=on_broken)  # type: ignore[arg-type]
        several = places if len(pieces) > len(self.rows) else None
        if raw is not None:
            return FrameSamples(decoded, raw, several)
        decoded.wholes = several
        return decoded

    def digests(self) -> list[bytes | None] | None:
        """Of the files."""
        return None if self.known is None else [self.known[row] for row in self.rows.tolist()]

    def content(self, index: int) -> bytes | None:
        """Of the bytes of the file."""
        return file_digest(self.path(index))

    def name(self, index: int) -> str:
        """The path below the folder."""
        return self.library.files.name(int(self.rows[index]))

    def path(self, index: int) -> Path:
        """The file of a clip."""
        return self.library.files.path(int(self.rows[index]))


class FrameSamples(Samples):
    """Pieces of clips for a network that takes raw sound.

    Args:
        plain: reads and keeps them, as (B, 1, 1, length).
        preprocess: what the network takes.
        wholes: number of the clip of each; None where each clip is one piece.
    """

    def __init__(self, plain: DecodedSamples, preprocess: RawFrames, wholes: Tensor | None):
        self.plain, self.preprocess, self.wholes = plain, preprocess, wholes
        self.targets, self.at_hand = plain.targets, plain.at_hand

    def batch(self, indices: Tensor) -> Tensor:
        """Frames with mean 0 and standard deviation 1: float32 of shape (B, *shape)."""
        return self.plain.pixels(indices).reshape(len(indices), *self.preprocess.shape).clone()

    def stream(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """Batches read ahead of the one who trains on them."""
        return (
            super().stream(batches) if self.plain.store.has(self.plain.rows) else ahead(self.batch, batches)
        )

    def warm(self) -> None:
        """Begin to read the first frames."""
        self.plain.warm()

    def fingerprint(self) -> str:
        """Over contents, targets and front end."""
        return self.plain.fingerprint()

    def inputs_digest(self) -> str:
        """Of the clips and the front end."""
        return self.plain.inputs_digest()

    def some(self, rows: Tensor) -> FrameSamples:
        """Some of the frames, read and kept together with all."""
        made = copy.copy(self)
        made.plain, made.targets = self.plain.some(rows), self.targets[rows]
        return made

    def under(self, targets: Tensor) -> FrameSamples:
        """The same frames under other targets."""
        made = copy.copy(self)
        made.plain, made.targets = copy.copy(self.plain), targets
        made.plain.targets = targets
        return made
