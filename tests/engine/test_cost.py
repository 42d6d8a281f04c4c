"""What an epoch costs, against counts by hand."""

from __future__ import annotations

import pytest
import torch
from networks import small

from tlnb.engine.features.cost import best_cut, forward_flops, relative_cost
from tlnb.engine.network.layers import find_layers

# Multiplications and additions of a 3×3 convolution on 8×8 pictures, and of the linear head.
BY_HAND = (2 * 9 * 1 * 4 * 64, 2 * 9 * 4 * 4 * 64, 2 * 9 * 4 * 8 * 64, 2 * 8 * 3)


def test_flops_are_those_counted_by_hand() -> None:
    model = small()
    model.train()
    layers = find_layers(model, torch.zeros(1, 1, 8, 8))
    assert forward_flops(model, layers, torch.zeros(1, 1, 8, 8)) == BY_HAND
    assert model.training


@pytest.mark.parametrize(
    ("frozen", "cut", "cost"),
    [
        ((False, False, False), 0, 1.0),
        ((True, True, False), 2, 60 / 170),  # two passes through the last alone: its input needs no gradient
        ((True, True, False), 0, (10 + 20 + 60) / 170),  # no cut: the frozen ones run forward each time
        ((False, True, False), 0, (20 + 40 + 90) / 170),  # frozen behind a trainable one: no weight gradient
        ((True, True, True), 3, 0.0),
    ],
)
def test_relative_cost(frozen: tuple[bool, ...], cut: int, cost: float) -> None:
    assert relative_cost((10, 20, 30), frozen, cut) == pytest.approx(cost)


def test_the_cut_is_the_end_of_the_frozen_prefix() -> None:
    layers = find_layers(small(), torch.zeros(1, 1, 8, 8))
    assert best_cut(layers, (True, True, False, True)) == 2
    assert best_cut(layers, (False, True, True, True)) == 0
