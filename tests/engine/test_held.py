"""Batches of the range test are made once, within a budget, and the curve is the same."""

from __future__ import annotations

import pytest
import torch

from tlnb import Session
from tlnb.engine.data.augmented import AugmentedSamples
from tlnb.engine.data.samples import TensorSamples
from tlnb.engine.features import cache
from tlnb.engine.features.cache import BatchCache

ORDER = torch.arange(12).split(4)


class Costly(TensorSamples):
    at_hand = False
    made = 0

    def batch(self, indices):
        self.made += 1
        return super().batch(indices)


@pytest.fixture
def samples():
    return Costly(torch.rand(12, 5), torch.zeros(12))


def goes_through(batches, samples):
    for given, indices in zip(batches, ORDER, strict=True):
        assert torch.equal(given, samples.inputs[indices])
        given.zero_()  # as a layer that works in place may do


@pytest.mark.parametrize(("room", "made"), [(3, 3), (2, 5), (0, 9)])
def test_batches_are_made_once_as_far_as_there_is_room(samples, room, made):
    batches = BatchCache(samples, ORDER, budget=room * 4 * 5 * 4)
    goes_through(batches.stream(), samples)
    for _ in range(2):
        goes_through([batches[at] for at in range(3)], samples)
    assert samples.made == made


def test_what_is_at_hand_is_not_kept_twice(samples):
    samples.at_hand = True
    batches = BatchCache(samples, ORDER)
    goes_through(batches.stream(), samples)
    goes_through([batches[at] for at in range(3)], samples)
    assert samples.made == 6


@pytest.mark.parametrize("frozen", ["body", "none"])
def test_a_range_test_under_random_changes_makes_each_picture_once(monkeypatch, frozen):
    drawn = []
    plain = AugmentedSamples._changed
    monkeypatch.setattr(
        AugmentedSamples, "_changed", lambda self, x, i: (drawn.append(i), plain(self, x, i))[1]
    )
    curves, counts = [], []
    for room in (1 << 30, 0):
        tl = Session([])
        tl.load("convnet5")
        tl.data("digits", per_class=6, batch=16, augment="light")
        tl.freeze(frozen)
        monkeypatch.setattr(cache, "room", lambda device, room=room: room)
        drawn.clear()
        curves.append(tl.find_lr(steps=20))
        counts.append(len(drawn))
    once, each_time = counts
    assert curves[0].losses == pytest.approx(curves[1].losses, abs=1e-5)
    assert once <= 60 + 4  # the probe of the frozen part sees four
    assert each_time > 4 * 60
