"""Near duplicates: pictures that show the same thing again, a little cropped, scaled or compressed.

Without a network each picture is known by a difference hash (Krawetz 2013), 64 bits that say where it gets
brighter from left to right, and two of like hash are compared as small grey pictures, since blank or tiny ones
share hashes by chance. With a network it is the angle between features, seen from their mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tlnb.engine.data.groups import Groups, components, in_order
from tlnb.errors import DataError

BITS = 6  # of 64 in which two hashes may differ
ALIKE = 0.95  # correlation of small grey pictures from which they are the same
COSINE = 0.9  # of features from which they are the same
SMALL = 32  # side of these pictures
CROWD = 512  # pictures of one band that are compared with all others of it; of more, with the next ones
LITTLE = 20  # samples that may always be tied to one another
CROWDED = 0.2  # share of the samples that may be tied to one another before features are not believed
TIES = "near:"
BLOCK = 1 << 22  # similarities that are worked out at once


def near_pictures(pictures: Iterator[Tensor], check: Callable[[], None] = lambda: None) -> Groups:
    """Groups of pictures that are nearly the same; most pictures stand alone.

    Args:
        pictures: each (C, H, W), uint8 or floating point, of any size; read once.
        check: called after each; what it raises ends the pass.
    """
    hashes, thumbs = [], []
    for picture in pictures:
        grey = picture.float().mean(0, keepdim=True)[None]
        hashes.append(difference_hashes(grey[0]))
        thumbs.append(functional.interpolate(grey, (SMALL, SMALL), mode="area").flatten())
        check()
    if not hashes:
        return Groups(np.zeros(0, np.int64), (), "near duplicates")
    table = torch.stack(thumbs)
    # Of a blank picture nothing is left, and it is like no other.
    table = functional.normalize(table - table.mean(1, keepdim=True), dim=1)
    found = np.concatenate(hashes)
    pairs = close_hashes(found, BITS, CROWD)
    alike = [
        ((table[a] * table[b]).sum(1) >= ALIKE).numpy()
        for a, b in (map(torch.from_numpy, part.T) for part in np.array_split(pairs, len(pairs) // 4096 + 1))
    ]
    return _tied(len(found), pairs[np.concatenate(alike)])


def near_features(features: Tensor) -> Groups:
    """Groups of samples whose features nearly point the same way; most samples stand alone.

    Args:
        features: float of shape (N, D), of a network that was trained on something else: one that was trained
            on these classes makes all samples of a class alike.

    Raises:
        DataError: the features tie so many samples together that they cannot tell them apart.
    """
    ways = features.detach().float().cpu().flatten(1)
    ways = functional.normalize(ways - ways.mean(0), dim=1)
    pairs = []
    rows = max(BLOCK // max(len(ways), 1), 1)
    for at in range(0, len(ways), rows):
        close = ways[at : at + rows] @ ways.T >= COSINE
        a, b = close.nonzero().T
        pairs.append(torch.stack([a + at, b], 1)[a + at < b].numpy())
    groups = _tied(len(ways), np.concatenate(pairs) if pairs else np.zeros((0, 2), np.int64))
    largest = int(np.bincount(groups.numbers).max(initial=0))
    if largest > max(CROWDED * len(ways), LITTLE):
        raise DataError(
            f"--groups near: {largest:,} of {len(ways):,} samples have nearly the same features, so these do not tell "
            "them apart; take the network as it was before it was trained on these classes"
        )
    return groups


def ties_of(groups: Groups) -> str:
    """Groups as a text by which they can be had again without the network: ``near:3+17,5+9+12``."""
    order = np.argsort(groups.numbers, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(groups.numbers[order])) + 1)
    return TIES + ",".join("+".join(map(str, part.tolist())) for part in parts if len(part) > 1)


def from_ties(told: str, count: int) -> Groups:
    """The way back.

    Raises:
        DataError: the text is of other samples, or is none.
    """
    try:
        parts = [list(map(int, part.split("+"))) for part in told.removeprefix(TIES).split(",") if part]
    except ValueError:
        parts = [[-1]]
    if any(not 0 <= place < count for part in parts for place in part):
        raise DataError(f"--groups near: what was tied together does not fit {count:,} samples")
    pairs = [pair for part in parts for pair in pairwise(part)]
    return _tied(count, np.array(pairs, np.int64).reshape(-1, 2))


def difference_hashes(grey: Tensor) -> np.ndarray:
    """Difference hash of each picture (Krawetz 2013): uint64 (N,), of (N, H, W)."""
    small = functional.interpolate(grey.float()[:, None], (8, 9), mode="area")[:, 0]
    bits = (small[:, :, 1:] > small[:, :, :-1]).flatten(1).numpy().astype(np.uint64)
    return (bits << np.arange(64, dtype=np.uint64)).sum(1, dtype=np.uint64)


def close_hashes(hashes: np.ndarray, bits: int, crowd: int) -> np.ndarray:
    """Pairs whose hashes differ in few bits: int64 of shape (M, 2), the smaller place first.

    Args:
        hashes: uint64 (N,).
        bits: of 64 in which they may differ; two such hashes agree wholly in one of ``bits`` + 1 bands.
        crowd: hashes of one band that are compared with all others of it; of more, with the next ones.
    """
    found = []
    for low, high in pairwise(np.linspace(0, 64, bits + 2).round().astype(int)):
        band = (hashes >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(band, kind="stable")
        ends = np.searchsorted(band[order], band[order], side="right")
        for step in range(1, crowd):
            first = np.flatnonzero(np.arange(len(order)) + step < ends)
            if not len(first):
                break
            pairs = np.stack([order[first], order[first + step]], 1)
            apart = hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]]
            near = np.unpackbits(apart[:, None].view(np.uint8), axis=1).sum(1) <= bits
            found.append(np.sort(pairs[near], axis=1))
    return np.unique(np.concatenate(found), axis=0) if found else np.zeros((0, 2), np.int64)


def _tied(count: int, pairs: np.ndarray) -> Groups:
    numbers = in_order(components(count, *pairs.T))
    names = tuple(f"near {number}" for number in range(int(numbers.max(initial=-1)) + 1))
    return Groups(numbers, names, "near duplicates")
