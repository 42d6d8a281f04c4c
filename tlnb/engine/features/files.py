"""Features in files that are mapped into memory: raw rows, and a small JSON file beside them that names them.

The rows are complete on the disk before the JSON file appears, so a file that a killed kernel left behind is
never taken for a whole one. A checksum over the rows and what is said of them finds bytes that have changed since.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import shutil
import time
import zlib
from pathlib import Path
from uuid import uuid4

import torch
from torch import Tensor

CAP = 8 << 30  # bytes that the folder may hold, and never more than a quarter of the free disk
_BLOCK = 16 << 20  # bytes of a file that are looked at at a time
SHARDS = ".shards"  # how a folder ends that holds slices of a pass under way
ABANDONED = 24 * 3600.0  # seconds after which an unfinished file belongs to nobody
DTYPES = {str(d).removeprefix("torch."): d for d in (torch.float32, torch.bfloat16, torch.float16)}


class MappedRows:
    """A tensor whose bytes are those of a file.

    Args:
        path: the file.
        shape: of the tensor.
        dtype: of the tensor.
        create: make the file, full of zeros.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: torch.dtype, *, create: bool = False):
        self.path, self.shape, self.dtype = path, shape, dtype
        size = dtype.itemsize * int(torch.Size(shape).numel())
        with open(path, "w+b" if create else "r+b") as file:
            if create:
                file.truncate(size)
            elif os.fstat(file.fileno()).st_size != size:
                raise OSError(f"{path} has another size than its description says")
            self._map = mmap.mmap(file.fileno(), size)
        self.rows: Tensor = torch.frombuffer(self._map, dtype=dtype).view(shape)

    def release(self) -> None:
        """Let go of the pages that were read or written; they stay in the file and in the system's cache."""
        if hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def checksum(self, about: str) -> str:
        """CRC-32 over a text and the bytes of the rows, in hex; finds damage, not forgery."""
        value, view = zlib.crc32(about.encode()), memoryview(self._map)
        for start in range(0, len(view), _BLOCK):
            value = zlib.crc32(view[start : start + _BLOCK], value)
        self.release()
        return f"{value:08x}"

    def flush(self) -> None:
        """Write everything to the disk."""
        self._map.flush()


class FeatureFolder:
    """Files of features, the oldest of which go when there are too many bytes.

    Args:
        folder: where they are; made when the first one is written.
        cap: bytes that it may hold; None for 8 GiB, and never more than a quarter of the free disk.
    """

    def __init__(self, folder: Path, cap: int | None = None):
        self.folder = Path(folder)
        self._cap = cap
        self._speed = 0.0

    @property
    def cap(self) -> int:
        """Bytes that the folder may hold now."""
        if self._cap is not None:
            return self._cap
        place = next(p for p in (self.folder, *self.folder.absolute().parents) if p.exists())
        return min(CAP, (shutil.disk_usage(place).free + self.bytes) // 4)

    @property
    def bytes(self) -> int:
        """What the files take."""
        files = (*self.folder.glob("*.rows"), *self.folder.glob(f"*{SHARDS}/*"))
        return sum(path.stat().st_size for path in files if path.exists())

    @property
    def speed(self) -> float:
        """Bytes a second that reach the disk, measured once."""
        if not self._speed:
            block = os.urandom(8 << 20)
            path = self._temporary()
            began = time.perf_counter()
            with open(path, "wb") as file:
                file.write(block)
                file.flush()
                os.fsync(file.fileno())
            self._speed = len(block) / (time.perf_counter() - began)
            path.unlink()
        return self._speed

    def find(self, key: str) -> tuple[MappedRows, dict[str, object]] | None:
        """The rows of that key and their description, or None where there are none that are whole."""
        try:
            about = json.loads(self._about(key).read_text(encoding="utf-8"))
            rows = MappedRows(self._rows(key), tuple(about["shape"]), DTYPES[about["dtype"]])
            known, told = about.pop("crc32"), json.dumps(about)
            about = {"seconds": float(about["seconds"]), "channels_last": bool(about["channels_last"])}
            if rows.checksum(told) != known:
                raise ValueError("bytes have changed")
            os.utime(self._about(key))  # used now: the last to be pruned
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return rows, about

    def room(self, size: int) -> bool:
        """Whether that many bytes fit, after the oldest files have gone."""
        if size > self.cap:
            return False
        self._prune(self.cap - size)
        return True

    def create(self, shape: tuple[int, ...], dtype: torch.dtype) -> MappedRows:
        """A new file without a name, to be filled and then given to :meth:`keep`.

        Raises:
            OSError: it cannot be written.
        """
        return MappedRows(self._temporary(), shape, dtype, create=True)

    def keep(self, key: str, mapped: MappedRows, *, seconds: float, channels_last: bool) -> None:
        """Give a filled file its name.

        Args:
            key: of its features.
            mapped: what :meth:`create` gave.
            seconds: what it takes to compute them.
            channels_last: how the rows are packed.

        Raises:
            OSError: it cannot be written.
        """
        mapped.flush()
        os.replace(mapped.path, self._rows(key))
        mapped.path = self._rows(key)
        about = {
            "key": key, "shape": list(mapped.shape), "dtype": str(mapped.dtype).removeprefix("torch."),
            "seconds": seconds, "channels_last": channels_last,
        }  # fmt: skip
        draft = self._temporary()
        about["crc32"] = mapped.checksum(json.dumps(about))
        draft.write_text(json.dumps(about), encoding="utf-8")
        os.replace(draft, self._about(key))

    def discard(self, mapped: MappedRows) -> None:
        """Throw a file away that was not kept."""
        with contextlib.suppress(OSError):
            mapped.path.unlink()

    def forget(self, key: str) -> None:
        """Remove the rows of that key, if there are any."""
        # The description first: without it the rows are nobody's. Maps that are open stay readable.
        for path in (self._about(key), self._rows(key)):
            with contextlib.suppress(OSError):
                path.unlink()

    def _prune(self, limit: int) -> None:
        for path in self.folder.glob("*.part"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > ABANDONED:
                    path.unlink()
        for path in self.folder.glob(f"*{SHARDS}"):
            if time.time() - _last_used(path) > ABANDONED:
                shutil.rmtree(path, ignore_errors=True)
        named = sorted(self.folder.glob("*.json"), key=_last_used)
        while named and self.bytes > limit:
            about = named.pop(0)
            self.forget(about.stem)

    def _about(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def _rows(self, key: str) -> Path:
        return self.folder / f"{key}.rows"

    def _temporary(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{uuid4().hex}.part"


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
