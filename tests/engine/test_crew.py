"""Several processes that train a stage together take the steps of one."""

from __future__ import annotations

import crews
import pytest
import torch

from tlnb.engine.core.interrupts import StopRequest

NEAR = 1e-5
SETTINGS = {
    "batch": 5,
    "micro": 2,
    "weights": (1.0, 2.0, 0.5),
}  # shares of two or three, in pieces, and of classes


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> list[dict[str, object]]:
    return crews.together(2, tmp_path_factory.mktemp("crew"), **SETTINGS)


def test_they_take_the_steps_of_one(pair) -> None:
    one = crews.stage_trainer(**SETTINGS)
    start = {name: tensor.clone() for name, tensor in one.model.state_dict().items()}
    losses, state = crews.train(one, StopRequest()), one.model.state_dict()
    assert max(float((state[n] - start[n]).abs().max()) for n in state) > 100 * NEAR  # it has learned
    for found in pair:
        assert found["losses"] == pytest.approx(losses, abs=NEAR)
        for name, tensor in found["state"].items():
            assert torch.allclose(tensor, state[name], atol=NEAR, rtol=0), name


def test_frozen_layers_are_those_of_before_bit_for_bit(pair) -> None:
    before = crews.stage_trainer().model.state_dict()
    for found in pair:
        for name in ("body.0.weight", "body.1.running_mean", "body.4.weight"):
            assert torch.equal(found["state"][name], before[name])


def test_both_end_with_the_same_bits(pair) -> None:
    first, second = pair
    assert all(torch.equal(first["state"][name], second["state"][name]) for name in first["state"])
