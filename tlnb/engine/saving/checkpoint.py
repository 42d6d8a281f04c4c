"""The file of a checkpoint: tensors as safetensors, all else as JSON in its header.

One file, so that one rename puts it in place. A file of safetensors holds names, shapes and bytes, and JSON
holds plain values: nothing in it can run. What is read is checked, in this order: that it is a plain file,
its header (by safetensors itself), our version, and a checksum over everything.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tlnb.engine.printable import printable
from tlnb.engine.saving.atomic import whole_file
from tlnb.errors import CheckpointError

FORMAT = 1
"""Version of the format; a file of a later one is refused, those of earlier ones are read."""
SUFFIX = ".safetensors"
LONGEST = 64 << 20  # bytes of JSON; a history of 100,000 epochs is 40 MB
_KEY, _SUM = "tlnb", "tlnb.crc32"


@dataclass
class Checkpoint:
    """What a file holds.

    Attributes:
        about: plain values.
        tensors: by name, in main memory.
    """

    about: dict[str, Any]
    tensors: dict[str, Tensor]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names start with ``prefix`` and a dot, without it."""
        start = f"{prefix}."
        return {name.removeprefix(start): t for name, t in self.tensors.items() if name.startswith(start)}


def write(path: Path, checkpoint: Checkpoint) -> int:
    """Write a checkpoint, atomically; its size in bytes.

    Raises:
        CheckpointError: it cannot be written; what stood there before still does.
    """
    about = json.dumps({"format": FORMAT, **checkpoint.about}, separators=(",", ":"))
    tensors = _apart(
        {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    )
    meta = {_KEY: about, _SUM: checksum(about, tensors)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            save_file(tensors, part, meta)
        return path.stat().st_size
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{printable(str(path))} cannot be written: {reason_of(error)}") from None


def read(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: no such file, damaged, not one of tlnb's, or of a later version.
    """
    shown = printable(str(path))
    try:
        if not path.is_file():  # a folder, a pipe or a device would be read for ever
            raise CheckpointError(f"no checkpoint {shown!r}")
        with safe_open(path, "pt") as file:
            meta = file.metadata() or {}
            about = _about(meta, shown)
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, RuntimeError, ValueError, MemoryError) as error:
        raise CheckpointError(f"{shown} is no sound checkpoint: {reason_of(error)}") from None
    if meta.get(_SUM) != checksum(meta[_KEY], tensors):
        raise CheckpointError(f"{shown} is damaged: its checksum does not agree")
    return Checkpoint(about, tensors)


def read_about(path: Path) -> dict[str, Any]:
    """The plain values of a checkpoint alone, unchecked but for their form.

    Raises:
        CheckpointError: as :func:`read`.
    """
    shown = printable(str(path))
    try:
        if not path.is_file():
            raise CheckpointError(f"no checkpoint {shown!r}")
        with safe_open(path, "pt") as file:
            return _about(file.metadata() or {}, shown)
    except (OSError, SafetensorError, RuntimeError, ValueError, MemoryError) as error:
        raise CheckpointError(f"{shown} is no sound checkpoint: {reason_of(error)}") from None


def is_checkpoint(path: Path) -> bool:
    """Whether a file says that it is a checkpoint of tlnb."""
    try:
        with safe_open(path, "pt") as file:
            return _KEY in (file.metadata() or {})
    except (OSError, SafetensorError, RuntimeError, ValueError):
        return False


def _about(meta: Mapping[str, str], shown: str) -> dict[str, Any]:
    text = meta.get(_KEY)
    if text is None:
        raise CheckpointError(f"{shown} is no checkpoint of tlnb; %tl_load reads plain weights")
    if len(text) > LONGEST:
        raise CheckpointError(f"{shown} says more about itself than any checkpoint of tlnb")
    try:
        about = json.loads(text)
    except (ValueError, RecursionError):
        raise CheckpointError(f"{shown} is damaged: what it says about itself is not JSON") from None
    version = about.get("format") if isinstance(about, dict) else None
    if not isinstance(version, int) or version < 1:
        raise CheckpointError(f"{shown} is damaged: it names no format")
    if version > FORMAT:
        writer = printable(str(about.get("tlnb", "a later version")))[:40]
        raise CheckpointError(
            f"{shown} has format {version}, written by tlnb {writer}; "
            f"this version reads up to {FORMAT}: update tlnb"
        )
    return about


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, those that share memory with one before them as copies: safetensors takes no others."""
    seen: set[int] = set()
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        if place in seen or tensor.untyped_storage().nbytes() != tensor.numel() * tensor.element_size():
            tensors[name] = tensor.clone()
        seen.add(place)
    return tensors


def checksum(about: str, tensors: Mapping[str, Tensor]) -> str:
    """CRC-32 over the JSON and the names and bytes of all tensors; finds damage, not forgery."""
    value = zlib.crc32(about.encode("utf-8", "surrogatepass"))
    for name in sorted(tensors):
        value = zlib.crc32(name.encode("utf-8", "surrogatepass"), value)
        flat = tensors[name].reshape(-1)
        value = zlib.crc32(flat.view(torch.uint8).numpy().data, value) if flat.numel() else value
    return f"{value:08x}"


def reason_of(error: BaseException) -> str:
    """An error in one line, without what could move a terminal."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).strip() or type(error).__name__
    return printable(text.splitlines()[0])[:200]
