"""Slices of features as files with checksums: what is left of a pass that was broken off, for any later session."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


class Shards:
    """Slices of a pass that ended, as files with checksums; any later session goes on with them.

    Args:
        folder: where they are; made when the first one is written.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def find(self) -> dict[tuple[int, int], list[Tensor]]:
        """The slices that are whole, by their first and last row; what is damaged is removed."""
        found = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            match = re.fullmatch(r"(\d+)-(\d+)", path.stem)
            rows = _read(path) if match else None
            if match is None or rows is None:
                with contextlib.suppress(OSError):
                    path.unlink()
                continue
            found[int(match[1]), int(match[2])] = rows
        return found

    def add(self, slice_: tuple[int, int], rows: Sequence[Tensor]) -> None:
        """Write a slice: whole, or not at all. A disk that is full costs nothing but the way back to here."""
        named = {str(i): tensor.contiguous() for i, tensor in enumerate(rows)}
        path, draft = (
            self.folder / f"{slice_[0]:09d}-{slice_[1]:09d}.safetensors",
            self.folder / f"{uuid4().hex}.part",
        )
        with contextlib.suppress(OSError, SafetensorError):
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file(named, draft, metadata={"crc32": _checksum(list(named.values()))})
            os.replace(draft, path)

    def remove(self) -> None:
        """Remove all: the pass has ended."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _read(path: Path) -> list[Tensor] | None:
    try:
        with safe_open(path, "pt") as file:
            rows = [file.get_tensor(str(i)) for i in range(len(file.keys()))]
            known = (file.metadata() or {}).get("crc32")
    except (OSError, SafetensorError, KeyError):
        return None
    return rows if known == _checksum(rows) else None


def _checksum(rows: Sequence[Tensor]) -> str:
    value = 0
    for tensor in rows:
        value = zlib.crc32(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes(), value)
    return f"{value:08x}"
