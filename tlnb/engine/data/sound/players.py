"""Sounds that can be heard in a notebook, also in one that was saved: a player for each, with the sound in it."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
import torch
from torch import Tensor

from tlnb.engine.data.images.headers import BadPicture
from tlnb.engine.data.samples import Samples
from tlnb.engine.data.sound.clips import FrameSamples, PieceReader
from tlnb.engine.data.sound.files import soundfile

ROOM = 3 << 20  # bytes of sound in one answer; notebooks are saved with it


@dataclass(frozen=True)
class Players:
    """Sounds with their names.

    Attributes:
        names: of the sounds.
        waves: float32 (samples,) each, in -1..1.
        rate: samples a second.
    """

    names: tuple[str, ...]
    waves: tuple[np.ndarray, ...] = field(repr=False)
    rate: int

    @property
    def html(self) -> str:
        """A player for each sound, as many as there is room for."""
        parts, room = [], ROOM
        for name, wave in zip(self.names, self.waves, strict=True):
            content = wav_of(wave, self.rate)
            room -= len(content)
            if room < 0:
                break
            source = _uri(content)
            parts.append(
                '<figure style="display:inline-block;margin:2px 6px">'
                f'<figcaption style="font-size:small">{escape(name)}</figcaption>'
                f'<audio controls preload="none" style="width:200px;height:32px" src="{source}"></audio></figure>'
            )
        return f"<div>{''.join(parts)}</div>"

    def uri(self, number: int) -> str:
        """One of the sounds as a data address; empty where it is too long for a page."""
        content = wav_of(self.waves[number], self.rate)
        return _uri(content) if len(content) <= ROOM else ""


def _uri(content: bytes) -> str:
    return f"data:audio/wav;base64,{b64encode(content).decode()}"


def wav_of(wave: np.ndarray, rate: int) -> bytes:
    """A sound (samples,), in -1..1, as the bytes of a WAV file."""
    file = io.BytesIO()
    soundfile().write(file, wave.clip(-1, 1), rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def players_of(samples: Samples, indices: Tensor, names: Sequence[str]) -> Players | None:
    """The sounds of these samples; None where they are of none.

    Args:
        samples: any; sounds under random changes are heard as they were.
        indices: places among them.
        names: what each is called.
    """
    reader, rows = _pieces(samples)
    if reader is None:
        return None
    waves = tuple(_wave(reader, number) for number in rows[indices].tolist())
    return Players(tuple(names), waves, reader.rate)


def drawn(samples: FrameSamples, indices: Tensor) -> Tensor:
    """Log-mel pictures of raw frames, to be looked at: uint8 (B, 1, bands, frames)."""
    reader, rows = _pieces(samples)
    assert reader is not None
    return torch.stack([reader.front.picture(_wave(reader, number)) for number in rows[indices].tolist()])


def _pieces(samples: Samples) -> tuple[PieceReader | None, Tensor]:
    plain = getattr(samples, "plain", samples)
    reader, rows = getattr(plain, "reader", None), getattr(plain, "rows", samples.targets)
    return (reader, rows) if isinstance(reader, PieceReader) else (None, rows)


def _wave(reader: PieceReader, number: int) -> np.ndarray:
    try:
        return reader.wave(number)
    except BadPicture:  # it is told where it is trained on
        return np.zeros(1, np.float32)
