"""What the files of a folder or a table are, pictures or sounds: their endings, how they are checked and collected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from tlnb.engine.data.images import headers
from tlnb.engine.data.images.check import Verdict, check_files
from tlnb.engine.data.images.scale import PLAIN, PixelScale
from tlnb.engine.data.raw import RawDataset, ReadPictures
from tlnb.engine.data.readers import FileReader
from tlnb.engine.data.request import SourceRequest
from tlnb.engine.data.sound import files as sounds
from tlnb.engine.data.sound.clips import ClipLibrary, Clips
from tlnb.engine.data.sound.front_end import LogMel, piece_starts
from tlnb.engine.data.sources.found import common_scale, known_digests
from tlnb.errors import DataError

TOP_RATE = 16000  # samples a second that are guessed at most: what speech and most networks of sound are content with
LONGEST = 5.0  # seconds of a window that is guessed at most
MOST_CLIPS = 95  # in a hundred that a guessed window holds whole
LOOKED_AT = 200  # files by whose endings a folder is judged


class Collected(NamedTuple):
    """Files as samples.

    Attributes:
        samples: all of them.
        notes: what the user should know.
        scale: of the pixels of pictures.
        sound: how sounds are drawn; None for pictures.
    """

    samples: RawDataset
    notes: list[str]
    scale: PixelScale = PLAIN
    sound: LogMel | None = None


@dataclass(frozen=True)
class Media:
    """A kind of file that samples are read from.

    Attributes:
        one: what one is called.
        suffixes: endings of their names, in small letters.
        check: a verdict on each of some files.
        collect: makes samples of files that can be used. It takes their folder, their names below it, their
            verdicts, targets for the rows, the rows (None for all files in order), and the request.
    """

    one: str
    suffixes: Container[str]
    check: Callable[[Sequence[Path], SourceRequest], list[Verdict]]
    collect: Callable[[Path, list[str], list[Verdict], Tensor, Tensor | None, SourceRequest], Collected]


def media_of(names: Iterable[str]) -> Media:
    """What most of the first files are by their endings; pictures where there is neither."""
    kinds = Counter(media.one for media in islice(filter(None, map(_by_ending, names)), LOOKED_AT))
    return SOUNDS if kinds[SOUNDS.one] > kinds[PICTURES.one] else PICTURES


def _by_ending(name: str) -> Media | None:
    suffix = Path(name).suffix.lower()
    return next((media for media in (PICTURES, SOUNDS) if suffix in media.suffixes), None)


def _check_pictures(paths: Sequence[Path], request: SourceRequest) -> list[Verdict]:
    return check_files(paths, request.progress, request.scale)


def _pictures(
    root: Path, names: list[str], verdicts: list[Verdict], targets: Tensor, rows: Tensor | None,
    request: SourceRequest,
) -> Collected:  # fmt: skip
    scale, said = common_scale([root / name for name in names], verdicts, request)
    reader = FileReader(root, names, scale)
    return Collected(ReadPictures(reader, targets, rows, known_digests(reader, verdicts, rows)), said, scale)


def _check_sounds(paths: Sequence[Path], request: SourceRequest) -> list[Verdict]:
    return sounds.check_sounds(paths, request.progress)


def _clips(
    root: Path, names: list[str], verdicts: list[Verdict], targets: Tensor, rows: Tensor | None,
    request: SourceRequest,
) -> Collected:  # fmt: skip
    request.refuse(("range",), "sounds have no black and white")
    front, said = front_end_for(verdicts, request)
    if request.augment in ("standard", "strong"):
        said.append(f"--augment {request.augment} mirrors pictures, so sounds run backwards; light does not")
    reader = FileReader(root, names)
    library = ClipLibrary(reader, [verdict.seconds for verdict in verdicts], front)
    return Collected(Clips(library, targets, rows, known_digests(reader, verdicts, rows)), said, sound=front)


def front_end_for(verdicts: Sequence[Verdict], request: SourceRequest) -> tuple[LogMel, list[str]]:
    """How sounds are drawn: as the user says, as the network learned, or by what the clips are; what to say of it.

    Args:
        verdicts: on clips that can be used, one or more.
        request: what the user says.

    Raises:
        DataError: a number that cannot be.
    """
    lengths, heard = np.array([verdict.seconds for verdict in verdicts]), request.heard
    own = Counter(verdict.rate for verdict in verdicts).most_common(1)[0][0]
    bands = _bands(request.bands)
    guessed = LogMel(_window(lengths), rate=min(own, TOP_RATE)) if heard is None else heard
    front = LogMel(
        guessed.window if request.window is None else request.window,
        guessed.bands if bands is None else bands,
        guessed.rate if request.rate is None else request.rate,
    )
    whose = "as clips are long" if heard is None else "as the network learned"
    of = (
        "as the network learned"
        if heard is not None
        else f"of {own:,}"
        if own > front.rate
        else "as they are"
    )
    told = [
        f"{front.window:g} s" + (f" ({whose}; --window)" if request.window is None else ""),
        f"{front.bands} bands" + (" (--bands)" if bands is None else ""),
        f"{front.rate:,} Hz" + (f" ({of}; --rate)" if request.rate is None else ""),
    ]
    notes = [f"sounds are drawn as log-mel pictures: {', '.join(told)}"]
    counts = np.array([len(piece_starts(length, front.window)) for length in lengths])
    if (counts > 1).any():
        longer = int((counts > 1).sum())
        are = "clip is longer and is" if longer == 1 else "clips are longer and are"
        notes.append(
            f"{longer:,} {are} cut into {int(counts[counts > 1].sum()):,} pieces, which stay together; the answers "
            "of a clip's pieces are averaged"
        )
    return front, notes


def _window(lengths: np.ndarray) -> float:
    """Seconds that hold most clips whole, rounded up."""
    most = float(np.percentile(lengths, MOST_CLIPS))
    step = 0.05 if most <= 1 else 0.5
    return float(np.clip(round(np.ceil(most / step - 1e-9) * step, 2), 0.1, LONGEST))


def _bands(told: str | None) -> int | None:
    if told is None:
        return None
    if not told.strip().isdecimal():
        raise DataError(f"--bands takes one number for sounds, how many mel bands, such as 64, not {told!r}")
    return int(told)


PICTURES = Media("picture", headers.SUFFIXES, _check_pictures, _pictures)
SOUNDS = Media("sound", sounds.SUFFIXES, _check_sounds, _clips)
