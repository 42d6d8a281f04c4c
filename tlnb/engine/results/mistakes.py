"""The worst mistakes as a grid: predicted, true, loss, and where the network looked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tlnb.engine.figures import INK, VERMILION, new_figure, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 4
LONGEST = 18  # letters of a name


@dataclass(frozen=True)
class Mistake:
    """One sample that was taken for something else.

    Attributes:
        index: its number among the validation samples.
        name: of its file, or ``sample 7``.
        true: what it is.
        predicted: what it was taken for.
        loss: of this sample.
        sure: probability of what was predicted; None for measured values.
    """

    index: int
    name: str
    true: str
    predicted: str
    loss: float
    sure: float | None


class MistakeGrid:
    """Pictures of mistakes, each beside its heat map.

    Attributes:
        pixels: (N, C, H, W), uint8 in 0..255 or floating point in 0..1.
        maps: (N, H, W) in 0..1.
        method: how the maps were made.
    """

    def __init__(self, mistakes: Sequence[Mistake], pixels: Tensor, maps: Tensor, method: str):
        self.mistakes, self.pixels, self.maps, self.method = tuple(mistakes), pixels, maps, method

    @property
    def figure(self) -> Figure:
        """Two pictures a mistake: the sample, and the same in grey under its heat map."""
        columns = min(COLUMNS, len(self.mistakes))
        rows = -(-len(self.mistakes) // columns)
        figure = new_figure(2.7 * columns, 1.85 * rows)
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for ax in axes:
            ax.set_axis_off()
        for ax, mistake, pixels, heat in zip(axes, self.mistakes, self.pixels, self.maps, strict=False):
            ax.imshow(_side_by_side(pixels, heat), interpolation="nearest")
            sure = "" if mistake.sure is None else f" ({100 * mistake.sure:.0f} %)"
            words = {"fontsize": 9, "parse_math": False}
            ax.set_title(
                f"taken for {short(mistake.predicted, LONGEST)}{sure}", color=VERMILION, pad=4, **words
            )
            true = f"is {short(mistake.true, LONGEST)} · loss {mistake.loss:.2f}"
            ax.text(0.5, -0.04, true, transform=ax.transAxes, ha="center", va="top", color=INK, **words)
        return figure


def _side_by_side(pixels: Tensor, heat: Tensor) -> np.ndarray:
    """The picture (C, H, W), a white strip, and the picture in grey under the map (H, W): RGB in 0..1."""
    from matplotlib import colormaps

    image = pixels.float().numpy() / (1 if pixels.is_floating_point() else 255)
    colours = np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0)
    grey = np.repeat(image.mean(0)[..., None], 3, axis=2)
    # Where nothing speaks, the picture is seen; where much does, the colour.
    alpha = 0.7 * np.sqrt(heat.numpy())[..., None]
    hot = colormaps["inferno"](heat.numpy())[..., :3]
    strip = np.ones((image.shape[1], max(1, image.shape[2] // 24), 3))
    return np.clip(np.concatenate([colours, strip, (1 - alpha) * grey + alpha * hot], axis=1), 0, 1)


def ranked(losses: Tensor, wrong: Tensor, most: int) -> list[int]:
    """Numbers of the samples that are wrong, the largest loss first."""
    order = torch.argsort(losses, descending=True, stable=True)
    return [int(i) for i in order if wrong[i]][:most]
