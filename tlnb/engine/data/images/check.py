"""Every picture is looked at when data is named: in threads, in seconds.

What is looked at, and when:

* all files: kind, size, name; a JPEG's headers and its end; a small PNG's checksums. That finds what is
  empty, cut off, not a picture or misnamed, at some 30 µs a file.
* other kinds (GIF, WebP, TIFF, BMP …): decoded whole by Pillow, until ``SECONDS`` have gone by; after that
  only opened.
* what only shows when it is decoded is found then (``decoded``): the file is reported and left out.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import NamedTuple, TypeVar

from PIL import Image

from tlnb.display.tables import printable
from tlnb.engine.core.machine import pool
from tlnb.engine.data.images import headers
from tlnb.engine.data.images.decode import in_colour, not_opaque, own_header, reason_of
from tlnb.engine.data.images.headers import SUFFIXES, BadPicture
from tlnb.engine.data.images.scale import PLAIN, PixelScale, check_values
from tlnb.engine.data.images.tiff import tiff_values

SECONDS = 10.0
SMALL = 256 << 10  # bytes; smaller files are read whole
FOURTH = "a fourth band that is no opacity: not used; --bands chooses, such as --bands 4,2,1"
_HEAD, _TAIL, _CHUNK = 64 << 10, 64 << 10, 128

Progress = Callable[[int, int], None]
P = TypeVar("P")
T = TypeVar("T")


class Problem(NamedTuple):
    """A file that is not used, or not as it is."""

    path: str
    reason: str


class Verdict(NamedTuple):
    """What was found out about one file.

    Attributes:
        reason: why it cannot be used; empty where it can.
        remark: what the user should know all the same.
        size: bytes.
        digest: of the whole content; None for a large file.
        deep: whether a value has more than eight bits.
        seconds: how long it is, where it is a sound.
        rate: its samples a second, where it is a sound.
    """

    reason: str
    remark: str = ""
    size: int = 0
    digest: bytes | None = None
    deep: bool = False
    seconds: float = 0.0
    rate: int = 0


def check_files(
    paths: Sequence[Path],
    progress: Progress = lambda done, total: None,
    scale: PixelScale = PLAIN,
) -> list[Verdict]:
    """A verdict on each file, in the order given.

    Args:
        paths: files.
        progress: told how many of how many are done, in the caller's thread.
        scale: what a user says of their pixels.
    """
    deadline = time.monotonic() + SECONDS
    return in_chunks(paths, lambda path: check_file(path, deadline, scale), progress)


def in_chunks(
    paths: Sequence[Path], check: Callable[[Path], Verdict], progress: Progress = lambda done, total: None
) -> list[Verdict]:
    """A verdict on each file, in the order given, from threads.

    Args:
        paths: files.
        check: gives a verdict on one of them.
        progress: told how many of how many are done, in the caller's thread.
    """

    def check_all(part: Sequence[Path]) -> list[Verdict]:
        return list(map(check, part))

    verdicts: list[Verdict] = [Verdict("")] * len(paths)
    chunks = {
        pool().submit(check_all, paths[start : start + _CHUNK]): start
        for start in range(0, len(paths), _CHUNK)
    }
    done = 0
    try:
        for future in as_completed(chunks):
            found, start = future.result(), chunks[future]
            verdicts[start : start + len(found)] = found
            done += len(found)
            progress(done, len(paths))
    finally:
        for future in chunks:
            future.cancel()
    return verdicts


def check_file(path: Path, deadline: float = float("inf"), scale: PixelScale = PLAIN) -> Verdict:
    """A verdict on one file; nothing is raised.

    Args:
        path: a file.
        deadline: in ``time.monotonic`` seconds; after it, kinds other than JPEG and PNG are opened only.
        scale: what a user says of the pixels.
    """
    try:
        size, head, tail = ends_of(path)
        if size == 0:
            raise BadPicture("empty: 0 bytes")
        kind = headers.kind_of(head)
        if kind in ("JPEG", "PNG"):
            remark, deep = _check_head(kind, size, head, tail, scale)
        else:
            remark, deep = _open(path, kind, scale, decode=time.monotonic() < deadline)
        _check_name(path, kind)
    except (BadPicture, OSError) as trouble:
        return refusal_of(trouble)
    digest = hashlib.blake2b(head, digest_size=16).digest() if size == len(head) else None
    return Verdict("", remark, size, digest, deep)


def readable(
    paths: Sequence[P], read: Callable[[P], T], size: int, before: Callable[[int], None]
) -> Iterator[tuple[list[str], list[T], list[Problem]]]:
    """Read files in threads, a batch at a time: names and contents of those that can be read, and the others.

    Args:
        paths: what is read; its text is the name.
        read: raises :class:`BadPicture` where it cannot.
        size: files in a batch.
        before: called with the number of files that are done before each batch; what it raises ends the work.
    """

    def tried(path: P) -> T | Problem:
        try:
            return read(path)
        except BadPicture as trouble:
            return Problem(printable(str(path)), str(trouble))

    for at in range(0, len(paths), size):
        before(at)
        part = paths[at : at + size]
        made = list(zip(part, pool().map(tried, part), strict=True))
        good = [(printable(str(path)), found) for path, found in made if not isinstance(found, Problem)]
        bad = [found for _, found in made if isinstance(found, Problem)]
        yield [name for name, _ in good], [found for _, found in good], bad


def refusal_of(trouble: BadPicture | OSError) -> Verdict:
    """The verdict on a file that is no good, or that cannot be read."""
    if isinstance(trouble, BadPicture):
        return Verdict(str(trouble))
    if isinstance(trouble, FileNotFoundError):
        return Verdict("no such file")
    if isinstance(trouble, PermissionError):
        return Verdict("not allowed to read it")
    return Verdict(f"cannot be read: {trouble.strerror}")


def ends_of(path: Path) -> tuple[int, bytes, bytes]:
    """Size, first bytes and last bytes; of a small file all bytes, twice."""
    # Opening a pipe would wait for a writer for ever.
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        about = os.fstat(file)
        if not stat.S_ISREG(about.st_mode):
            raise BadPicture("not a regular file")
        if about.st_size <= SMALL:
            content = os.read(file, SMALL)
            return len(content), content, content
        head = os.read(file, _HEAD)
        os.lseek(file, -_TAIL, os.SEEK_END)
        return about.st_size, head, os.read(file, _TAIL)
    finally:
        os.close(file)


def _check_head(kind: str, size: int, head: bytes, tail: bytes, scale: PixelScale) -> tuple[str, bool]:
    """A remark on a JPEG or PNG, and whether it has more than eight bits."""
    if kind == "JPEG":
        headers.check_jpeg(head, tail)
        remark, deep, bands = "", False, 3
    else:
        remark = headers.check_png(head) if size == len(head) else headers.check_png_ends(head, tail)
        deep, bands = head[24] == 16, {0: 1, 4: 2, 6: 4}.get(head[25], 3)
    if scale.bands and max(scale.bands) > bands and (kind == "PNG" or max(scale.bands) > 3):
        raise BadPicture(f"{bands} bands; --bands names band {max(scale.bands)}")
    return remark, deep


def _open(path: Path, kind: str, scale: PixelScale, *, decode: bool) -> tuple[str, bool]:
    """Let Pillow open the file, and decode it too; a remark, and whether it has more than eight bits."""
    try:
        if kind == "TIFF" and (found := _check_tiff(path, scale, decode=decode)) is not None:
            return found
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                headers.check_size(*image.size)
                frames, deep = getattr(image, "n_frames", 1), image.mode.startswith(("I", "F"))
                if decode:
                    image.seek(0)
                    image.load()
                    in_colour(image, 3, scale)
                remark = FOURTH if not scale.bands and not_opaque(image) else ""
    except BadPicture:
        raise
    except Exception as error:  # decoders meet damaged files with almost any exception
        raise BadPicture(reason_of(error)) from None
    return (f"{frames} frames or pages: the first is used" if frames > 1 else remark), deep


def _check_tiff(path: Path, scale: PixelScale, *, decode: bool) -> tuple[str, bool] | None:
    """The same for a TIFF that Pillow does not read as it is; None for others."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        header = own_header(content)  # type: ignore[arg-type]
        if header is None:
            return None
        colours = (3 if header.colours else 1) + (header.opacity is not None)
        fourth = header.colours and header.bands == 4 and header.opacity is None
        if not scale.bands and header.bands != colours and not fourth:
            raise BadPicture(f"{header.bands} bands; say which are red, green and blue: --bands 1,2,3")
        if decode:
            values = scale.chosen(tiff_values(content, header))  # type: ignore[arg-type]
            if scale.white is None and header.is_deep:
                check_values(values)
        return (FOURTH if fourth and not scale.bands else ""), header.is_deep


def _check_name(path: Path, kind: str) -> None:
    suffix = path.suffix.lower()
    if SUFFIXES.get(suffix) != kind:
        right = headers.KINDS[kind][0]
        what = f"named {printable(path.suffix)}" if suffix else "without an ending to its name"
        raise BadPicture(f"a {kind} picture {what}; rename it to {right}")
