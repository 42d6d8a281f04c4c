"""Predictions for sounds: files, folders, and samples with their rate; a clip's answer is the mean over its pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tlnb.engine.data.images.check import Problem, readable
from tlnb.engine.data.images.headers import BadPicture
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.data.readers import fit_tensor
from tlnb.engine.data.sound.files import RATES, SUFFIXES, check_sound, opened, soundfile
from tlnb.engine.data.sound.front_end import LogMel, RawFrames, piece_starts
from tlnb.engine.data.tokens import AnyPreprocess
from tlnb.errors import DataError

BATCH = 32  # pieces at a time


class Predictor(Protocol):
    """What is asked of a network for inference, see :class:`tlnb.engine.results.predict.Predictor`.

    Attributes:
        preprocess: what its input must look like.
        seen: what answers are judged by, a pair a batch.
    """

    preprocess: Any
    seen: Any

    def show(self, pixels: Tensor) -> None:
        """Show these pictures, one a sample."""

    def pictures(self, pixels: Tensor, views: int = 1, *, show: bool = True) -> Tensor:
        """Answers (B, outputs) for pictures at training size."""

    def inputs(self, x: Tensor) -> Tensor:
        """Answers (B, outputs) for what the network takes."""

    def join_seen(self, since: int, wholes: Tensor) -> None:
        """Take what was seen from a place on as that of pieces of wholes."""


class Ear:
    """Makes network input of clips, as the samples of the data were made.

    Args:
        front: of the data.
        preprocess: of the network.
    """

    def __init__(self, front: LogMel, preprocess: AnyPreprocess | RawFrames):
        assert isinstance(preprocess, Preprocess | RawFrames)  # of a network that takes pictures or sound
        self.front, self.preprocess = front, preprocess
        raw = preprocess if isinstance(preprocess, RawFrames) else None
        self.window, self.rate = (front.window, front.rate) if raw is None else (raw.window, raw.rate)

    def of_file(self, path: Path) -> Tensor:
        """The pieces of a clip, one after the other: pixels (P, C, H, W) or frames (P, *shape).

        Raises:
            BadPicture: it cannot be used; the reason in a few words.
        """
        from tlnb.engine.data.sound.front import read_piece

        verdict = check_sound(path)
        if verdict.reason:
            raise BadPicture(verdict.reason)
        with opened(path) as file:
            starts = piece_starts(verdict.seconds, self.window)
            return self._of_waves(read_piece(file, start, self.window, self.rate) for start in starts)

    def of_wave(self, wave: np.ndarray, rate: int) -> Tensor:
        """The same of samples: float32 (samples, channels), in -1..1."""
        from tlnb.engine.data.sound.front import at_rate

        length = int(np.ceil(self.window * rate))
        begins = [round(start * rate) for start in piece_starts(len(wave) / rate, self.window)]
        return self._of_waves(at_rate(wave[at : at + length], rate, self.window, self.rate) for at in begins)

    def _of_waves(self, waves: Iterator[np.ndarray]) -> Tensor:
        preprocess = self.preprocess
        if isinstance(preprocess, RawFrames):
            return torch.stack([preprocess.frame(wave).reshape(preprocess.shape) for wave in waves])
        return torch.stack([fit_tensor(self.front.picture(wave), preprocess) for wave in waves])


def of_sound_files(
    predictor: Predictor, ear: Ear, paths: Sequence[Path], views: int, check: Callable[[], None]
) -> tuple[list[str], list[Tensor], list[Problem]]:
    """Names, answers (1, outputs) each, and what could not be read."""
    soundfile()
    names: list[str] = []
    answers: list[Tensor] = []
    problems: list[Problem] = []
    for good, clips, bad in readable(paths, ear.of_file, BATCH, lambda done: check()):
        names += good
        problems += bad
        answers += _answers(predictor, clips, views, check)
    return names, answers, problems


def of_waves(
    predictor: Predictor, ear: Ear, source: object, views: int, check: Callable[[], None]
) -> tuple[list[str], list[Tensor]]:
    """Names and answers (1, outputs) of samples with their rate.

    Args:
        predictor: the network.
        ear: makes its input.
        source: ``(samples, rate)``, or a list of such; samples are (N,), or (N, channels) as ``soundfile`` gives them,
            floating point in -1..1, or whole numbers of 8, 16 or 32 bits.
        views: how many views are averaged.
        check: called before each batch.

    Raises:
        DataError: something else.
    """
    several = [source] if _is_wave(source) else source
    if not isinstance(several, list | tuple) or not several or not all(map(_is_wave, several)):
        raise DataError("sounds are files, folders, or $name for (samples, rate) or a list of such")
    for _, rate in several:
        if not RATES[0] <= rate <= RATES[1]:
            raise DataError(f"a rate of {rate:,} Hz; {RATES[0]:,} to {RATES[1]:,} are heard")
    clips = [ear.of_wave(_samples(wave), int(rate)) for wave, rate in several]
    return [f"sample {number}" for number in range(len(clips))], _answers(predictor, clips, views, check)


def _is_wave(item: object) -> bool:
    return (
        isinstance(item, tuple | list)
        and len(item) == 2
        and isinstance(item[1], int | np.integer)
        and not isinstance(item[1], bool)
        and np.ndim(item[0]) in (1, 2)
    )


def _samples(wave: Any) -> np.ndarray:
    """Samples as float32 (N, channels) in -1..1."""
    values = wave.detach().cpu().numpy() if isinstance(wave, Tensor) else np.asarray(wave)
    values = values[:, None] if values.ndim == 1 else values
    if values.dtype.kind not in "iuf" or not values.size:
        raise DataError(f"an array of {values.dtype} and shape {values.shape} is no sound")
    if values.shape[0] < values.shape[1] <= values.size:
        raise DataError(
            f"samples of shape {values.shape}: channels come second, (samples, channels); turn it: .T"
        )
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise DataError("the samples hold values that are not finite")
        return values.astype(np.float32)
    top = 2.0 ** (8 * values.dtype.itemsize - 1)
    offset = top if values.dtype.kind == "u" else 0.0
    return ((values.astype(np.float64) - offset) / top).astype(np.float32)


def _answers(
    predictor: Predictor, clips: Sequence[Tensor], views: int, check: Callable[[], None]
) -> list[Tensor]:
    """The mean answer over the pieces of each clip, (1, outputs) each."""
    if not clips:
        return []
    found, since = [], len(predictor.seen)
    raw = isinstance(predictor.preprocess, RawFrames)
    if not raw:  # of each clip its beginning
        predictor.show(torch.cat([pieces[:1] for pieces in clips]))
    for part in torch.cat(list(clips)).split(BATCH):
        check()
        found.append(predictor.inputs(part) if raw else predictor.pictures(part, views, show=False))
    counts = torch.tensor([len(pieces) for pieces in clips])
    if views == 1:
        predictor.join_seen(since, torch.arange(len(clips)).repeat_interleave(counts))
    each = torch.cat(found).split(counts.tolist())
    return [answers.double().mean(0, keepdim=True).float() for answers in each]


def is_sound(path: Path) -> bool:
    """Whether a file is a sound by its name."""
    return path.suffix.lower() in SUFFIXES
