"""Copies: samples that show the same thing again, also re-encoded, resized, cropped a little or mirrored.

Which pairs are looked at is told by the angle between features and by difference hashes (Krawetz 2013), of a picture
and of its mirror image. A pair is a copy where one picture, or its mirror image, correlates with a part of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tlnb.engine.data.near import close_hashes, difference_hashes

NEIGHBOURS = 6  # nearest by features that are looked at
COSINE = 0.6  # of features, seen from their mean, from which on a pair is looked at
BITS = 8  # of 64 in which hashes may differ
SIDE = 32  # of the pictures that are compared
ROUGHLY = 0.6  # correlation at half that side from which on they are compared well
ALIKE = 0.94  # correlation from which on two pictures are copies
ALIKE_TOO = 0.88  # likewise where their features agree too
TINY = 48  # pixels a side; smaller pictures differ in so few that only equal ones are copies
SAME = 0.995  # correlation of tiny ones
CHUNK = 128  # pairs at a time
CROWD = 256  # pictures of one band of hashes that are compared with all others of it
WORDS = 0.85  # of the runs of three letters of two texts, that both share


@dataclass(frozen=True)
class Copies:
    """Pairs of samples that are copies of each other.

    Attributes:
        pairs: int64 of shape (M, 2), the smaller place first.
        alike: how much, 1 for the same, (M,).
        mirrored: whether one is the mirror image of the other, bool (M,).
    """

    pairs: Tensor
    alike: Tensor
    mirrored: Tensor

    @classmethod
    def none(cls) -> Copies:
        """No pairs."""
        return cls(torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0), torch.zeros(0, dtype=torch.bool))


def near_pairs(features: Tensor, neighbours: int = NEIGHBOURS, cosine: float = COSINE) -> Tensor:
    """Pairs of samples of which one is among the nearest of the other: int64 (M, 2), the smaller place first.

    Args:
        features: float (N, D).
        neighbours: how many of the nearest.
        cosine: of the angle between features, seen from their mean, from which on they count.
    """
    ways = features.float() - features.float().mean(0)
    ways = functional.normalize(ways, dim=1)
    found = []
    for rows in torch.arange(len(ways)).split(1024):
        close = ways[rows] @ ways.T
        close[torch.arange(len(rows)), rows] = -2.0
        value, place = close.topk(min(neighbours, len(ways) - 1), dim=1)
        first = rows[:, None].expand_as(place)
        found.append(torch.stack([first[value >= cosine], place[value >= cosine]], 1))
    pairs = torch.cat(found) if found else torch.zeros(0, 2, dtype=torch.int64)
    return pairs.sort(1).values.unique(dim=0)


def picture_copies(
    thumbs: Tensor,
    features: Tensor | None,
    tiny: bool = False,
    on_progress: Callable[[], None] = lambda: None,
) -> Copies:
    """Pictures that are copies of others.

    Args:
        thumbs: grey, uint8 (N, 64, 64).
        features: of a network, (N, D); None where there are none.
        tiny: whether the pictures are smaller than ``TINY`` pixels a side.
        on_progress: called now and then; what it raises ends the work.
    """
    if len(thumbs) < 2:
        return Copies.none()
    hashes = np.concatenate([difference_hashes(thumbs), difference_hashes(thumbs.flip(2))])
    # A place behind the first N is a mirror image.
    crossed = torch.from_numpy(close_hashes(hashes, BITS, CROWD)) % len(thumbs)
    found = [crossed[crossed[:, 0] != crossed[:, 1]].sort(1).values]
    if features is not None:
        found.append(near_pairs(features))
    pairs = torch.cat(found).unique(dim=0)
    if tiny:
        straight, turned = _compared(thumbs, pairs, _WHOLE, SIDE, on_progress)
        there = straight >= SAME
        return Copies(pairs[there], straight[there], torch.zeros(int(there.sum()), dtype=torch.bool))
    first = torch.maximum(*_compared(thumbs, pairs, _COARSE, SIDE // 2, on_progress))
    pairs = pairs[first >= ROUGHLY]
    straight, turned = _compared(thumbs, pairs, _FINE, SIDE, on_progress)
    alike = torch.maximum(straight, turned)
    there = alike >= ALIKE
    if features is not None:
        ways = functional.normalize(features.float() - features.float().mean(0), dim=1)
        there |= (alike >= ALIKE_TOO) & ((ways[pairs[:, 0]] * ways[pairs[:, 1]]).sum(1) >= COSINE)
    return Copies(pairs[there], alike[there], (turned > straight)[there])


def _places(scale: float, steps: int) -> list[tuple[float, float, float]]:
    """Scale and centre, in -1..1, of parts of a picture at so many places along each side."""
    room = [(1 - scale) * (2 * step / (steps - 1) - 1) for step in range(steps)]
    return [(scale, x, y) for y in room for x in room]


_WHOLE = [(1.0, 0.0, 0.0)]
_COARSE = [*_WHOLE, *(part for scale in (0.9, 0.8) for part in _places(scale, 3))]
_FINE = [*_WHOLE, *_places(0.95, 3), *(part for scale in (0.9, 0.85, 0.8) for part in _places(scale, 5))]


def _compared(
    thumbs: Tensor,
    pairs: Tensor,
    parts: Sequence[tuple[float, float, float]],
    side: int,
    on_progress: Callable[[], None],
) -> tuple[Tensor, Tensor]:
    """For each pair how well one picture fits a part of the other, as it is and mirrored: correlations (M,)."""
    best = torch.zeros(2, len(pairs))
    for at in range(0, len(pairs), CHUNK):
        on_progress()
        some = pairs[at : at + CHUNK]
        places, inside = some.unique(return_inverse=True)
        pictures = functional.avg_pool2d(thumbs[places].float()[:, None], 3, 1, 1, count_include_pad=False)
        bank = _standard(_sampled(pictures, parts, side))  # (n, K, side * side)
        wholes = bank[:, 0], _standard(_sampled(pictures.flip(3), _WHOLE, side))[:, 0]
        a, b = inside.T
        for number, whole in enumerate(wholes):
            one = torch.bmm(bank[a], whole[b][:, :, None])[:, :, 0].amax(1)
            two = torch.bmm(bank[b], whole[a][:, :, None])[:, :, 0].amax(1)
            best[number, at : at + CHUNK] = torch.maximum(one, two)
    return best[0], best[1]


def _sampled(pictures: Tensor, parts: Sequence[tuple[float, float, float]], side: int) -> Tensor:
    """Parts of each picture (n, 1, H, W) at one size: (n, K, side * side)."""
    steps = (torch.arange(side) + 0.5) * 2 / side - 1
    grids = []
    for scale, x, y in parts:
        row, column = torch.meshgrid(scale * steps + y, scale * steps + x, indexing="ij")
        grids.append(torch.stack([column, row], -1))
    grid = torch.cat(grids)[None].expand(len(pictures), -1, -1, -1)  # the parts below each other
    found = functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    return found.reshape(len(pictures), len(parts), side * side)


def _standard(rows: Tensor) -> Tensor:
    """Rows with mean 0 and length 1; those of blank pictures are 0, and like no other."""
    rows = rows - rows.mean(-1, keepdim=True)
    length = rows.norm(dim=-1, keepdim=True)
    blank = length < rows.shape[-1] ** 0.5  # spread of less than one step of grey
    return torch.where(blank, torch.zeros_like(rows), rows / length.clamp(min=1e-9))


def text_copies(texts: Sequence[str], features: Tensor | None) -> Copies:
    """Texts that are copies of others but for a few letters.

    Equal ones always are; of those near by features the share of runs of three letters that both have decides.

    Args:
        texts: without regard to case, space and signs, see :func:`normal`.
        features: of a network, (N, D); None for equal texts alone.
    """
    same: dict[str, int] = {}
    pairs: dict[tuple[int, int], float] = {}
    for place, text in enumerate(texts):
        first = same.setdefault(text, place)
        if first != place:
            pairs[first, place] = 1.0
    if features is not None and len(texts) > 1:
        runs = [{text[i : i + 3] for i in range(max(len(text) - 2, 1))} for text in texts]
        for a, b in near_pairs(features).tolist():
            shared = len(runs[a] & runs[b]) / max(len(runs[a] | runs[b]), 1)
            if shared >= WORDS:
                pairs.setdefault((a, b), shared)
    if not pairs:
        return Copies.none()
    return Copies(
        torch.tensor(sorted(pairs)), torch.tensor([pairs[key] for key in sorted(pairs)]),
        torch.zeros(len(pairs), dtype=torch.bool),
    )  # fmt: skip


def normal(text: str) -> str:
    """A text without regard to case, space and signs; as it is where nothing else is in it."""
    words = "".join(c if c.isalnum() else " " for c in text.casefold()).split()
    return " ".join(words) or text.strip()


def same_content(digests: Sequence[str]) -> Copies:
    """Samples with the same digest; an empty one is like no other."""
    first: dict[str, int] = {}
    pairs = [
        (first[digest], place)
        for place, digest in enumerate(digests)
        if digest and first.setdefault(digest, place) != place
    ]
    if not pairs:
        return Copies.none()
    return Copies(torch.tensor(pairs), torch.ones(len(pairs)), torch.zeros(len(pairs), dtype=torch.bool))
