"""Telling whether samples are those of another time, at a bounded cost."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

import torch
from torch import Tensor

from tlnb.engine.core.fingerprint import tensors_digest
from tlnb.engine.core.seeds import own_random_state
from tlnb.engine.core.tree import named_parts
from tlnb.engine.data.image_cache import DecodedSamples
from tlnb.engine.data.joined import Portion
from tlnb.engine.data.readers import HASHED, FileReader, TensorReader
from tlnb.engine.data.samples import ImageSamples, Samples, TensorSamples
from tlnb.engine.data.sound.clips import PieceReader
from tlnb.engine.data.text_samples import TextSamples

LOOKED_AT = 32
"""Samples of another's data set, and files of a large folder, that are looked into."""
WHOLE = 64 << 20  # bytes; a tensor up to this size is hashed whole
START = 1 << 20  # bytes of a file of a large folder


def data_print(*parts: Samples) -> str:
    """SHA-256 over samples: all their targets, and of the inputs what can be had in about a second.

    * in memory: every byte up to 64 MiB; of more, evenly spaced samples of 64 MiB, and the sum of all bytes,
      eight at a time, so that a change of one value shows;
    * files of 256 MiB in all: every byte;
    * more files: name, size and time of each, and the first MiB of 32 of them. Files that were copied without
      their times pass for others then;
    * items of another's data set: 32, evenly spaced, as each call of its code may take long. A change of
      others goes unseen, and so does one of items that are random by themselves.

    Args:
        parts: such as training and validation samples. Augmentation is known by its seed and plays no part.
    """
    sha = hashlib.sha256()
    for part in parts:
        plain = getattr(part, "plain", part)
        sha.update(tensors_digest([("targets", part.targets)], note=str(len(part))).encode())
        sha.update(_inputs(plain).encode())
    return sha.hexdigest()


def _inputs(samples: Samples) -> str:
    if isinstance(samples, ImageSamples):
        more = samples.originals
        return _rows(samples.images) + (
            _rows(more) if more is not None and more is not samples.images else ""
        )
    if isinstance(samples, TensorSamples):
        return "".join(_rows(part) for _, part in named_parts(samples.inputs))
    if isinstance(samples, TextSamples):
        return samples.fingerprint()
    if isinstance(samples, DecodedSamples):
        reader, rows = samples.reader, samples.rows
        if isinstance(reader, TensorReader):
            return _rows(reader.images) + tensors_digest([("rows", rows)])
        if isinstance(reader, FileReader):
            return _files(reader, rows.tolist())
        if isinstance(reader, PieceReader):
            clips = reader.clips[rows].unique().tolist()
            return f"{_files(reader.files, clips)} {reader.note(rows.tolist())}"
    if isinstance(samples, Portion):
        return tensors_digest([("places", samples.rows)], note=_inputs(samples.source))
    return _some(samples)


def _rows(tensor: Tensor) -> str:
    """Over a tensor of samples."""
    size = tensor.numel() * tensor.element_size()
    note = str(tuple(tensor.shape))
    if size <= WHOLE:
        return tensors_digest([("rows", tensor)], note=note)
    count = max(WHOLE * len(tensor) // size, 1)
    return tensors_digest([("some", tensor[_spread(len(tensor), count)])], note=f"{note} {_sum(tensor)}")


def _sum(tensor: Tensor) -> int:
    """The sum of the bytes, eight at a time, modulo 2**64; as fast as memory is read."""
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    whole = flat[: len(flat) // 8 * 8]
    rest = flat[len(whole) :]
    return int(whole.view(torch.int64).sum()) + int(rest.sum())


def _files(reader: FileReader, rows: Sequence[int]) -> str:
    about = {row: _about(reader, row) for row in dict.fromkeys(rows)}  # a file may stand there many times
    if sum(about[row][0] for row in rows) <= HASHED:
        return reader.digest(rows)
    told = {
        row: os.fsencode(reader.names[row]) + f"\0{size} {seconds}\n".encode()
        for row, (size, seconds) in about.items()
    }
    sha = hashlib.sha256()
    for row in rows:
        sha.update(told[row])
    for place in _spread(len(rows), LOOKED_AT).tolist():
        sha.update(_start(reader, rows[place]))
    return sha.hexdigest()


def _about(reader: FileReader, row: int) -> tuple[int, int]:
    """Size and time in whole seconds, which archives and other disks keep; zeros where the file has gone."""
    try:
        about = reader.path(row).stat()
    except OSError:
        return 0, 0
    return about.st_size, int(about.st_mtime)


def _start(reader: FileReader, row: int) -> bytes:
    try:
        with open(reader.path(row), "rb") as file:
            return hashlib.sha256(file.read(START)).digest()
    except OSError:
        return b""


def _some(samples: Samples) -> str:
    """Over some of them, as the network would see them."""
    if samples.random or not len(samples):
        return ""
    with own_random_state(0):
        return tensors_digest(named_parts(samples.batch(_spread(len(samples), LOOKED_AT)), "some"))


def _spread(count: int, most: int) -> Tensor:
    """At most so many of these indexes, evenly spaced."""
    return torch.linspace(0, count - 1, min(most, count), dtype=torch.float64).round().long()
