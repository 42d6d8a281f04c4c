"""The order of the samples: a function of seed, stage and epoch, so any place in it can be found again."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def seed_for(*numbers: int) -> int:
    """One seed from several numbers (session seed, stage, epoch); neighbours give unrelated seeds."""
    digest = hashlib.sha256(",".join(map(str, numbers)).encode()).digest()
    return int.from_bytes(digest[:6], "big")


def count_batches(samples: int, size: int) -> int:
    """How many batches ``batches`` makes."""
    parts = -(-samples // size)
    alone = samples - (parts - 1) * size == 1
    return parts - (alone and parts > 1)


def batches(samples: int, size: int, *seeds: int) -> tuple[Tensor, ...]:
    """A random order of all samples, cut into batches.

    Args:
        samples: how many there are.
        size: samples in a batch; the last one may be smaller.
        seeds: session seed, stage number and epoch.

    Returns:
        int64 tensors. A last batch of a single sample joins the one before it, since BatchNorm needs two.
    """
    generator = torch.Generator().manual_seed(seed_for(*seeds))
    parts = list(torch.randperm(samples, generator=generator).split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        last = parts.pop()
        parts[-1] = torch.cat([parts[-1], last])
    return tuple(parts)
