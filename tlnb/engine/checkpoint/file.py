"""Files that are there as a whole or not at all, and the one of a checkpoint.

The file of a checkpoint: tensors as safetensors, all else as JSON in its header.

One file, so that one rename puts it in place. A file of safetensors holds names, shapes and bytes, and JSON
holds plain values: nothing in it can run. What is read is checked, in this order: that it is a plain file,
its header (by safetensors itself), our version, and a checksum over everything.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import stat
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tlnb.display.tables import printable
from tlnb.errors import CheckpointError, first_line

TEMPORARY = ".part"
"""Ending of a file that is being written; one that is left behind is of no use to anybody."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write to; when the block ends, its content stands under ``path``.

    The file is flushed to the disk before it takes the name, and the folder after it, so that neither a kill
    nor a power cut leaves half a file there: it is the old one or the new one. Where anything goes wrong,
    what was written is deleted and the old file stays. It has the rights of the old file, or those that any new
    file gets; a link stays a link, and what it points to is written.

    Raises:
        OSError: it cannot be written.
    """
    path = path.resolve() if path.is_symlink() else path
    # A name that nobody can have guessed or taken: another kernel may write to the same folder.
    part = path.with_name(f".{path.name[:80]}.{os.getpid()}.{secrets.token_hex(4)}{TEMPORARY}")
    try:
        part.touch()  # safetensors would make a file that its owner alone can read
        rights = (path if path.exists() else part).stat().st_mode
        yield part
        part.chmod(stat.S_IMODE(rights))
        flush(part)
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    flush(path.parent)


@contextmanager
def whole_files(folder: Path, first: str = "") -> Iterator[Path]:
    """A folder to write several files to; when the block ends, each of them stands in ``folder``.

    Where anything goes wrong before, what was written is deleted and the files of before stay.

    Args:
        folder: where the files belong; made where it is not there.
        first: the name of the file that takes its place before the others.

    Raises:
        OSError: they cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = Path(tempfile.mkdtemp(prefix=".tlnb-", suffix=TEMPORARY, dir=folder))
    try:
        yield parts
        files = [part for part in parts.iterdir() if part.is_file()]
        written = sorted(files, key=lambda part: (part.name != first, part.name))
        pairs = [(part, (folder / part.name).resolve()) for part in written]
        for part, place in pairs:
            rights = place.stat().st_mode if place.exists() else 0o666 & ~_umask()
            part.chmod(stat.S_IMODE(rights))
            flush(part)
        for part, place in pairs:
            os.replace(part, place)
    finally:
        shutil.rmtree(parts, ignore_errors=True)
    flush(folder)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk, where the system can flush them."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        if path.is_dir():  # Windows does not open folders
            return
        raise
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(handle)


FORMAT = 2
"""Version of the format; a file of a later one is refused, those of earlier ones are read."""
SUFFIX = ".safetensors"
ADAPTER = "adapter"  # the kind of a file that holds adapters alone
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
    try:
        about = json.dumps({"format": FORMAT, **checkpoint.about}, separators=(",", ":"))
        tensors = _apart(
            {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
        )
        meta = {_KEY: about, _SUM: checksum(about, tensors)}
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            save_file(tensors, part, meta)
        return path.stat().st_size
    except (OSError, SafetensorError, RuntimeError, ValueError, MemoryError) as error:
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
    return printable(first_line(error))[:200]
