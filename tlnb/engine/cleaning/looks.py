"""Samples that show little: dark, blurred and empty pictures, and those that are far from everything."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

THUMB = 64  # pixels a side of the small grey pictures
FLAT = 2.0  # steps of grey of 255: a picture that varies less is empty
DARK = 0.3  # of white: a picture of which 99 % is darker is dark, where others are not
LIGHT = 0.6  # what the middle picture of a set has to reach for that
READABLE = 64  # pixels a side from which on blur can be told
BLURRED = 4.0  # deviations below the middle of the set, on a logarithmic scale
BLUR = 3e-3  # of a picture's own contrast; above it nothing is blurred, however sharp the others are
NEAREST = 10  # neighbours by which it is told how far a sample is from the others
FAR = 3.0  # deviations above the middle of the set
MOST_ODD = 0.02  # share of the samples that may be odd
ENOUGH = 20  # samples from which on a set has a middle


@dataclass(frozen=True)
class Looks:
    """What pictures look like.

    Attributes:
        thumbs: grey, uint8 (N, 64, 64).
        bright: of white, the grey that 99 % of the picture is not brighter than, (N,).
        spread: standard deviation of the greys, in steps of 255, (N,).
        sharp: variance of the Laplacian against that of the greys (Pech-Pacheco et al. 2000), (N,).
        side: of the pictures in pixels.
    """

    thumbs: Tensor
    bright: Tensor
    spread: Tensor
    sharp: Tensor
    side: int

    @property
    def empty(self) -> Tensor:
        """Which show nothing: bool (N,)."""
        return self.spread < FLAT

    @property
    def dark(self) -> Tensor:
        """Which are dark in a set that is not: bool (N,)."""
        usual = bool(len(self.bright)) and float(self.bright.median()) >= LIGHT
        return (self.bright < DARK) & ~self.empty if usual else torch.zeros_like(self.empty)

    @property
    def blurred(self) -> Tensor:
        """Which are much less sharp than the others: bool (N,)."""
        none = torch.zeros_like(self.empty)
        there = ~self.empty & ~self.dark
        if self.side < READABLE or int(there.sum()) < ENOUGH:
            return none
        height = self.sharp.clamp(min=1e-9).log()
        return there & (deviations(height, height[there]) < -BLURRED) & (self.sharp < BLUR)


def looks_of(batches: Iterable[Tensor]) -> Looks:
    """What pictures look like, each batch of shape (B, C, H, W), uint8 or floating point in 0..1."""
    thumbs, bright, spread, sharp, side = [], [], [], [], 0
    for batch in batches:
        grey = batch.float().mean(1, keepdim=True) * (255.0 if batch.is_floating_point() else 1.0)
        side = min(grey.shape[-2:])
        small = functional.interpolate(grey, (THUMB, THUMB), mode="area" if side >= THUMB else "bilinear")
        thumbs.append(small[:, 0].round().clamp(0, 255).byte())
        flat = grey.flatten(1)
        spread.append(flat.std(1, correction=0))
        bright.append(flat.kthvalue(max(round(0.99 * flat.shape[1]), 1), dim=1).values / 255)
        kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]).reshape(1, 1, 3, 3)
        edges = functional.conv2d(grey, kernel).flatten(1) if side >= 3 else flat
        sharp.append(edges.var(1, correction=0) / flat.var(1, correction=0).clamp(min=1e-6))
    if not thumbs:
        none = torch.zeros(0)
        return Looks(torch.zeros(0, THUMB, THUMB, dtype=torch.uint8), none, none, none, 0)
    return Looks(torch.cat(thumbs), torch.cat(bright), torch.cat(spread), torch.cat(sharp), side)


def deviations(values: Tensor, usual: Tensor) -> Tensor:
    """How far values (N,) are from the middle of the usual ones, in robust deviations (median and its own median)."""
    middle = usual.median()
    return (values - middle) / (1.4826 * (usual - middle).abs().median()).clamp(min=1e-6)


def oddness(features: Tensor) -> Tensor:
    """How far each sample is from its nearest others, in robust deviations: (N,); zeros for few samples.

    The mean distance to the ten nearest by the angle between features (Kuan and Mueller 2022), as they come: seen from
    their mean, a few samples of another kind look as far from each other as all do.

    Args:
        features: float (N, D).
    """
    if len(features) < ENOUGH:
        return torch.zeros(len(features))
    ways = functional.normalize(features.float(), dim=1)
    found = []
    for rows in torch.arange(len(ways)).split(1024):
        close = ways[rows] @ ways.T
        close[torch.arange(len(rows)), rows] = -2.0
        found.append(1 - close.topk(NEAREST, dim=1).values.mean(1))
    far = torch.cat(found)
    return deviations(far, far)


def odd(far: Tensor) -> Tensor:
    """Which samples are far from everything: bool (N,); at most a fiftieth of them."""
    there = far > FAR
    most = int(MOST_ODD * len(far))
    if int(there.sum()) > most:
        there &= far >= far.topk(max(most, 1)).values[-1]
    return there
