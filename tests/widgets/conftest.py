"""A session with a small network and small data."""

from __future__ import annotations

import pytest
import torch
from networks import blobs, small

from tlnb.session import Session


@pytest.fixture
def session() -> Session:
    """Four layers, the first three frozen; 72 samples to train on, in batches of eight."""
    made = Session(listeners=[])
    made.load(small())
    samples = blobs()
    made.data((samples.batch(torch.arange(len(samples))), samples.targets), batch=8)
    made.freeze("body")
    made.unfreeze("-1:")
    return made
