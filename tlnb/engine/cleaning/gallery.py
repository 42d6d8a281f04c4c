"""What samples look and sound like, to be shown: one at a time, read when it is asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from tlnb.display.pictures import image_uri, uint8_of
from tlnb.display.tables import printable
from tlnb.engine.data.images.headers import BadPicture
from tlnb.engine.data.marks import Numbers
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.data.raw import Pictures, RawDataset, ReadPictures
from tlnb.engine.data.samples import PictureSamples, Samples
from tlnb.engine.data.sound.clips import Clips
from tlnb.engine.data.sound.players import players_of
from tlnb.engine.data.texts import Texts, shown
from tlnb.engine.data.wholes import pieces_of

SIDE = 160  # pixels of the shorter side
LONGEST = 600  # letters of a text


class Gallery:
    """Shows the samples of a data set.

    Args:
        numbers: of the data as it was read.
        samples: the same, fitted to the network, without random changes and each once.
    """

    def __init__(self, numbers: Numbers, samples: tuple[Samples, Samples]):
        self._numbers, self._samples = numbers, samples

    @property
    def kind(self) -> str:
        """``text``, ``sound``, ``picture``, or empty where there is nothing to be seen."""
        part = self._numbers.parts[0]
        if isinstance(part, Texts):
            return "text"
        if isinstance(part, Clips):
            return "sound"
        return "picture" if self.picture(int(self._numbers.all[0])) is not None else ""

    def text(self, sample: int) -> str:
        """A text in one line, its end left out where it is long; empty for other samples."""
        part, index = self._numbers.place(sample)
        found = self._numbers.parts[part]
        if not isinstance(found, Texts):
            return ""
        words = printable(shown(found.texts[int(found.rows[index])]))
        return words if len(words) <= LONGEST else words[: LONGEST - 1] + "…"

    def picture(self, sample: int, side: int = SIDE) -> np.ndarray | None:
        """A picture: uint8 (H, W, 3) or (H, W); None where there is none, or it cannot be read.

        Args:
            sample: its number.
            side: of the shorter side in pixels, at most; small pictures stay as they are.
        """
        part, index = self._numbers.place(sample)
        found = self._whole(self._numbers.parts[part], index, side)
        if found is None:
            found = self._fitted(part, index)
        return None if found is None else uint8_of(found)

    def uri(self, sample: int) -> str:
        """The picture as a data address; empty where there is none."""
        pixels = self.picture(sample)
        return "" if pixels is None else image_uri(pixels)

    def sound(self, sample: int) -> str:
        """The beginning of a sound as a data address of a WAV; empty for other samples."""
        part, index = self._numbers.place(sample)
        if not isinstance(self._numbers.parts[part], Clips):
            return ""
        played = players_of(self._samples[part], self._pieces(part, index)[:1], ("",))
        return "" if played is None else played.uri(0)

    def _whole(self, found: RawDataset, index: int, side: int) -> Tensor | None:
        """A picture as it came, all of it."""
        if isinstance(found, Pictures):
            picture = found.images[index]
            if min(picture.shape[-2:]) <= side:
                return picture if len(picture) in (1, 3) else None
            return replace(Preprocess(), resize=side).scale(picture[None])[0]
        if isinstance(found, ReadPictures):
            try:
                small = Preprocess(size=(side, side), resize=side)
                return found.reader.read(int(found.rows[index]), small, whole=True)
            except BadPicture:
                return None
        return None

    def _fitted(self, part: int, index: int) -> Tensor | None:
        """As the network is shown it."""
        samples = self._samples[part]
        if not isinstance(samples, PictureSamples):
            return None
        picture = samples.pixels(self._pieces(part, index)[:1])[0]
        return picture if len(picture) in (1, 3) else None

    def _pieces(self, part: int, index: int) -> Tensor:
        return pieces_of(self._samples[part].wholes, torch.tensor([index]))[0]
