"""Telling whether samples are those of another time, at a bounded cost."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from tlnb.engine.core.fingerprint import tensors_digest
from tlnb.engine.core.seeds import own_random_state
from tlnb.engine.core.tree import named_parts

HASHED = 256 << 20  # bytes in all; up to this much, files are known by content, above it by size and time
LOOKED_AT = 32
"""Samples of another's data set, and files of a large folder, that are looked into."""
WHOLE = 64 << 20  # bytes; a tensor up to this size is hashed whole
START = 1 << 20  # bytes of a file of a large folder


class Digested(Protocol):
    """What a fingerprint is taken of: samples."""

    targets: Tensor

    def __len__(self) -> int: ...

    def inputs_digest(self) -> str:
        """Of the inputs, at a bounded cost."""


def data_fingerprint(*parts: Digested) -> str:
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
        sha.update(tensors_digest([("targets", part.targets)], note=str(len(part))).encode())
        sha.update(part.inputs_digest().encode())
    return sha.hexdigest()


def of_rows(tensor: Tensor) -> str:
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


def of_files(names: Sequence[str], paths: Sequence[Path], whole: Callable[[], str]) -> str:
    """Over files.

    Args:
        names: what they are called.
        paths: where they are.
        whole: gives a digest of all that is in them.
    """
    about = {path: _about(path) for path in dict.fromkeys(paths)}  # a file may stand there many times
    stamps = [about[path] for path in paths]
    if sum(size for size, _ in stamps) <= HASHED:
        return whole()
    sha = hashlib.sha256()
    for name, (size, seconds) in zip(names, stamps, strict=True):
        sha.update(os.fsencode(name) + f"\0{size} {seconds}\n".encode())
    for place in _spread(len(paths), LOOKED_AT).tolist():
        sha.update(_start(paths[place]))
    return sha.hexdigest()


def _about(path: Path) -> tuple[int, int]:
    """Size and time in whole seconds, which archives and other disks keep; zeros where the file has gone."""
    try:
        about = path.stat()
    except OSError:
        return 0, 0
    return about.st_size, int(about.st_mtime)


def _start(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read(START)).digest()
    except OSError:
        return b""


def of_some(count: int, batch: Callable[[Tensor], Any]) -> str:
    """Over some of ``count`` samples, as the network would see them."""
    if not count:
        return ""
    with own_random_state(0):
        return tensors_digest(named_parts(batch(_spread(count, LOOKED_AT)), "some"))


def _spread(count: int, most: int) -> Tensor:
    """At most so many of these indexes, evenly spaced."""
    return torch.linspace(0, count - 1, min(most, count), dtype=torch.float64).round().long()
