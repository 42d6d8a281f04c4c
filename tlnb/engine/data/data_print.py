"""Telling whether samples are those of another time, without looking at all of them."""

from __future__ import annotations

import torch

from tlnb.engine.data.samples import Samples
from tlnb.engine.hashing import tensors_digest
from tlnb.engine.training.stage_run import own_random_state

LOOKED_AT = 8


def data_print(samples: Samples) -> str:
    """SHA-256 over all targets and eight of the samples, evenly spaced.

    It finds that files were added, removed, relabelled or exchanged, in the time of one small batch. A change
    of single pictures can go unseen; training goes on exactly but for them.
    """
    plain = getattr(samples, "plain", samples)  # augmentation is known by its seed, not by its pictures
    tensors = [("targets", samples.targets)]
    if not plain.random and len(samples):
        some = torch.linspace(0, len(samples) - 1, min(LOOKED_AT, len(samples))).long()
        with own_random_state(0):
            tensors.append(("some", plain.batch(some)))
    return tensors_digest(tensors, note=str(len(samples)))
