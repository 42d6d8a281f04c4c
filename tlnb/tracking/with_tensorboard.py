"""TensorBoard: event files in a folder."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

USUAL = "runs"  # the folder of torch's own writer


class TensorBoard:
    """A run as an event file.

    Args:
        where: its folder; None for a new one in ``runs``.
        name: of that new one.
    """

    def __init__(self, where: str | None, name: str):
        from torch.utils.tensorboard import SummaryWriter

        folder = Path(where).expanduser() if where else Path(USUAL) / name
        self._writer = SummaryWriter(str(folder))
        above = folder if where else Path(USUAL)
        self.where = f"{folder}; tensorboard --logdir {above} shows it"

    def facts(self, values: Mapping[str, str]) -> None:
        """Each as a text, since this tracker has no settings that come one after the other."""
        for name, value in values.items():
            self._writer.add_text(name, value)

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Scalars, which it keeps as float32."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def text(self, name: str, text: str) -> None:
        """A text, set as code."""
        self._writer.add_text(name, "\n".join(f"    {line}" for line in text.splitlines()))
        self._writer.flush()

    def picture(self, name: str, png: bytes, step: int) -> None:
        """An image."""
        pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
        self._writer.add_image(name, pixels, step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
