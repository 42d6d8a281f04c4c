"""Training pictures as the network sees them, in a grid."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tlnb.display.figures import INK
from tlnb.display.pictures import SMALL, figure_html, grid_html, image_uri, uint8_of
from tlnb.display.tables import Table, printable
from tlnb.engine.core.objectives import Classification, MultiLabel
from tlnb.engine.core.seeds import batches
from tlnb.engine.data.dataset import Data
from tlnb.engine.data.samples import PictureSamples, Samples
from tlnb.engine.data.sound.clips import FrameSamples
from tlnb.engine.data.sound.players import Players, drawn, players_of
from tlnb.engine.data.text_samples import TextSamples
from tlnb.engine.data.texts import TextTable
from tlnb.errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 6
_TITLE = 22  # characters that fit over a picture
_BOUND = 0.5  # from this probability on, a label is shown


class PictureGrid:
    """Pictures with their classes.

    Attributes:
        pixels: (N, C, H, W), uint8 in 0..255 or floating point in 0..1, after augmentation.
        titles: class, labels or values of each picture.
        text: what is said above them.
        players: plays the sounds that the pictures are of; None where they are of none.
    """

    def __init__(self, pixels: Tensor, titles: Sequence[str], text: str, players: Players | None = None):
        self.pixels, self.titles, self.text, self.players = pixels, tuple(titles), text, players

    @property
    def figure(self) -> Figure:
        """A new matplotlib figure; it belongs to no window and need not be closed."""
        from matplotlib.figure import Figure

        columns = min(COLUMNS, len(self.titles))
        rows = -(-len(self.titles) // columns)
        figure = Figure(figsize=(1.75 * columns, 1.95 * rows), facecolor="none", layout="constrained")
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axis in axes:
            axis.axis("off")
        for axis, picture, title in zip(axes, self.pixels, self.titles, strict=False):
            shown = picture.permute(1, 2, 0) if len(picture) == 3 else picture[0]
            top = 1 if picture.is_floating_point() else 255
            axis.imshow(shown.numpy(), cmap="gray", vmin=0, vmax=top, interpolation="nearest")
            # A class may be called $x$: a name is never read as a formula.
            axis.set_title(_cut(title), fontsize=9, color=INK, parse_math=False)
        return figure

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.figure.savefig(file, format="png", dpi=90)
        return file.getvalue()

    @property
    def table(self) -> Table:
        """The titles in the grid's rows."""
        columns = min(COLUMNS, len(self.titles))
        padded = [*self.titles, *[""] * (-len(self.titles) % columns)]
        rows = [padded[at : at + columns] for at in range(0, len(padded), columns)]
        return Table([""] * columns, rows, align="<" * columns)

    def __repr__(self) -> str:
        return f"{self.text}\n" + "\n".join(repr(self.table).splitlines()[1:])

    def _repr_html_(self) -> str:
        """The text and the pictures, each with its title as real text."""
        text = "<br>".join(escape(line) for line in self.text.splitlines())
        small = max(self.pixels.shape[-2:]) <= SMALL
        figures = (
            figure_html(image_uri(uint8_of(pixels)), title, escape(title), small=small)
            for pixels, title in zip(self.pixels, self.titles, strict=True)
        )
        sounds = self.players.html if self.players else ""
        return f"<div>{text}</div>{grid_html(figures, 96 if small else 130)}{sounds}"


def text_table(data: Data, samples: TextSamples, count: int = 12, epoch: int = 0) -> TextTable:
    """Training texts as an epoch would see them, and what of them is cut off.

    Args:
        data: the data set.
        samples: its training samples, fitted to the network.
        count: how many texts.
        epoch: whose order is shown.
    """
    if count < 1:
        raise DataError(f"a table needs one text or more, not {count}")
    indices = torch.cat(batches(len(samples), len(samples), data.seed, 1, epoch))[:count]
    preprocess, chosen = samples.preprocess, indices.tolist()
    shown = [preprocess.tokens(samples.texts[number]) for number in chosen]
    rows = [
        (printable(title), list(map(printable, seen)), list(map(printable, cut)))
        for title, (seen, cut) in zip(titles(data, samples.targets[indices]), shown, strict=True)
    ]
    cut = sum(bool(gone) for _, _, gone in rows)
    what = f"; {cut} of these are longer, and cut at ✂" if cut else ""
    head = f"{len(rows)} of {len(samples):,} training texts of {data.name}, up to {preprocess.length} tokens{what}"
    return TextTable(rows, head)


def picture_grid(data: Data, samples: Samples, count: int = 12, epoch: int = 0) -> PictureGrid:
    """Training pictures as an epoch would see them.

    Args:
        data: the data set.
        samples: its training samples, fitted to the network.
        count: how many pictures.
        epoch: whose order and random changes are shown.

    Raises:
        DataError: the samples are no pictures.
    """
    if count < 1:
        raise DataError(f"a grid needs one picture or more, not {count}")
    if not isinstance(samples, PictureSamples | FrameSamples):
        raise DataError("this data holds no pictures that could be shown; it goes to the network as it is")
    indices = torch.cat(batches(len(samples), len(samples), data.seed, 1, epoch))[:count]
    classes = titles(data, samples.targets[indices])
    players = players_of(samples, indices, classes)
    if isinstance(samples, FrameSamples):
        text = f"{len(indices)} of {len(samples):,} training frames of {data.name}; {samples.preprocess.describe()}"
        return PictureGrid(drawn(samples, indices), classes, text, players)
    view = samples.view(1, epoch)
    assert isinstance(view, PictureSamples)
    size = "×".join(map(str, samples.preprocess.size))
    what = "under random changes" if samples.random else "as they are"
    text = f"{len(indices)} of {len(samples):,} training pictures of {data.name}, {what}, at {size} pixels"
    return PictureGrid(view.pixels(indices), classes, text, players)


def titles(data: Data, targets: Tensor) -> list[str]:
    """Targets in words: (B,) or (B, outputs) gives B texts."""
    if isinstance(data.task, Classification):
        return [data.classes[int(number)] for number in targets]
    if isinstance(data.task, MultiLabel):
        rows = [[n for n, on in zip(data.classes, row, strict=True) if on >= _BOUND] for row in targets]
        return [", ".join(row) or "-" for row in rows]
    values = data.task.answers(targets)
    return [", ".join(f"{value:.4g}" for value in row) for row in values.tolist()]


def _cut(title: str) -> str:
    return title if len(title) <= _TITLE else title[: _TITLE - 1] + "…"
