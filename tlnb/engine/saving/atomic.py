"""Files that are there as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
