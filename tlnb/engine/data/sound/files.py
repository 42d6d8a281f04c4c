"""Sound files: every one is looked at when data is named, and opened by libsndfile through ``soundfile``."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tlnb.display.tables import printable
from tlnb.engine.data.images import headers
from tlnb.engine.data.images.check import SECONDS, SMALL, Verdict, ends_of, in_chunks, refusal_of
from tlnb.engine.data.images.headers import BadPicture
from tlnb.errors import DataError

SUFFIXES = {".wav": "WAV", ".wave": "WAV", ".flac": "FLAC"}
LONGEST = 24 * 3600  # seconds of a clip
RATES = (1000, 768_000)  # samples a second
CHANNELS = 64
WHOLE = 1 << 22  # numbers; a clip of no more is decoded when it is looked at
END = 1024  # samples at the end of a longer one that are decoded then
MISSING = 'sounds need one more package: pip install "tlnb[sound]"'
_OTHERS = {
    b"ID3": "an MP3", b"\xff\xfb": "an MP3", b"\xff\xf3": "an MP3", b"OggS": "an Ogg file", b"FORM": "an AIFF",
    b".snd": "an AU file", b"MThd": "a MIDI file",
}  # fmt: skip


def soundfile() -> Any:
    """The package that reads sounds.

    Raises:
        DataError: it is not installed; says how to get it.
    """
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: the package is there and libsndfile is not
        raise DataError(MISSING) from None
    return soundfile


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A sound file, open.

    Raises:
        BadPicture: it cannot be read; the reason in a few words.
    """
    package = soundfile()
    try:
        with package.SoundFile(path) as file:
            yield file
    except BadPicture:
        raise
    except (package.LibsndfileError, RuntimeError, ValueError, MemoryError) as error:
        if not path.exists():
            raise BadPicture("the file is gone") from None
        text = str(getattr(error, "error_string", error)).strip().rstrip(".")
        raise BadPicture(f"damaged: {text[:100] or type(error).__name__}") from None
    except OSError as error:
        raise BadPicture(f"cannot be read: {error.strerror}") from None


def check_sounds(
    paths: Sequence[Path], progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Verdict]:
    """A verdict on each file, in the order given; ``seconds`` and ``rate`` are set where it can be used.

    Args:
        paths: files.
        progress: told how many of how many are done, in the caller's thread.

    Raises:
        DataError: ``soundfile`` is not installed.
    """
    soundfile()
    deadline = time.monotonic() + SECONDS
    return in_chunks(paths, lambda path: check_sound(path, deadline), progress)


def check_sound(path: Path, deadline: float = float("inf")) -> Verdict:
    """A verdict on one file; nothing is raised.

    Args:
        path: a file.
        deadline: in ``time.monotonic`` seconds; after it, only the end of each file is decoded.
    """
    try:
        size, head, _ = ends_of(path)
        if size == 0:
            raise BadPicture("empty: 0 bytes")
        kind = _kind(head)
        if kind == "WAV":
            _check_wav(head, size)
        if SUFFIXES.get(path.suffix.lower()) != kind:
            right = next(suffix for suffix, of in SUFFIXES.items() if of == kind)
            raise BadPicture(f"a {kind} file named {printable(path.suffix)}; rename it to {right}")
        seconds, rate, remark = _listened(path, whole=time.monotonic() < deadline)
    except (BadPicture, OSError) as trouble:
        return refusal_of(trouble)
    digest = hashlib.blake2b(head, digest_size=16).digest() if size <= SMALL else None
    return Verdict("", remark, size, digest, seconds=seconds, rate=rate)


def _kind(head: bytes) -> str:
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return "WAV"
    if head.startswith(b"fLaC"):
        return "FLAC"
    for sign, what in _OTHERS.items():
        if head.startswith(sign):
            raise BadPicture(f"{what}; wav and flac are read: convert it")
    if head[4:8] == b"ftyp":
        raise BadPicture("an MP4 or M4A file; wav and flac are read: convert it")
    try:
        raise BadPicture(f"a {headers.kind_of(head)} picture, not a sound")
    except BadPicture as trouble:
        words = str(trouble).replace("not a picture", "not a sound")
        raise BadPicture(
            words.replace("not a kind of picture that can be read", "not a WAV or FLAC file")
        ) from None


def _check_wav(head: bytes, size: int) -> None:
    """Walk the chunks of a WAV to its samples, and see that they are all there.

    libsndfile reads what is left of a file that was cut off, and says nothing.

    Raises:
        BadPicture: cut off, or without samples. What lies beyond ``head`` is not looked for.
    """
    at = 12
    while at + 8 <= len(head):
        name, length = head[at : at + 4], int.from_bytes(head[at + 4 : at + 8], "little")
        if name == b"data":
            # Recorders that stream leave 0 or the largest number; RF64 has its length elsewhere.
            if head[:4] == b"RIFF" and 0 < length < 0xFFFFFF00 and at + 8 + length > size:
                raise BadPicture(
                    f"cut off: {length:,} bytes of samples are announced, {size - at - 8:,} are there"
                )
            return
        at += 8 + length + length % 2
    if at >= size or size <= len(head):
        raise BadPicture("cut off in its header: it holds no samples")


def _listened(path: Path, *, whole: bool) -> tuple[float, int, str]:
    """Seconds, rate and a remark on a file that can be used."""
    with opened(path) as file:
        frames, rate, channels = file.frames, file.samplerate, file.channels
        if frames < 1:
            raise BadPicture("empty: no samples")
        if not RATES[0] <= rate <= RATES[1]:
            raise BadPicture(f"a rate of {rate:,} Hz; {RATES[0]:,} to {RATES[1]:,} are read")
        if channels > CHANNELS:
            raise BadPicture(f"{channels} channels; at most {CHANNELS} are read")
        if frames > LONGEST * rate:
            raise BadPicture(f"{frames / rate / 3600:,.0f} hours long; cut it into clips of a day or less")
        whole = whole and frames * channels <= WHOLE
        if not whole:
            file.seek(max(frames - END, 0))
        wanted = frames if whole else min(frames, END)
        wave = file.read(wanted, dtype="float32", always_2d=True)
        if len(wave) < wanted:
            raise BadPicture(f"cut off: {frames:,} samples are announced, fewer are there")
        if not np.isfinite(wave).all():
            raise BadPicture("values that are not finite")
        remarks = []
        if channels > 1:
            remarks.append("several channels: their mean is used")
        if whole and (wave == wave[0]).all():
            remarks.append("silence alone")
        return frames / rate, rate, "; ".join(remarks)
