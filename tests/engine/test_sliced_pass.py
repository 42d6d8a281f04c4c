"""A pass of frozen layers in slices: the rows of one pass, and what is left of one that was broken off."""

from __future__ import annotations

from collections.abc import Generator
from itertools import pairwise

import networks
import pytest
import torch

from tlnb.engine.core.interrupts import Stopped
from tlnb.engine.features.prefix import run_pass, try_out
from tlnb.engine.features.shards import Shards
from tlnb.engine.features.spread import spread_pass
from tlnb.engine.network.layers import find_layers

CPU = torch.device("cpu")


class Backwards:
    """Workers of this process that end their pieces in another order than they were given."""

    count = 2

    def __init__(self, most: int = 1000):
        self.most, self.items = most, []

    def each(self, job, items, check) -> Generator:
        job.arrive(CPU, None)
        for number in reversed(range(len(items))):
            check()
            if len(self.items) == self.most:
                raise Stopped
            self.items.append(items[number])
            yield number, job.run(items[number])


@pytest.fixture
def ground():
    model, samples = networks.small(), networks.blobs(300)
    layers = find_layers(model, samples.batch(torch.arange(3)))
    trial = try_out(layers.graph, 0, [1, 3], samples, CPU, "fp32")
    rows = []
    for shape in trial.shapes:
        packed = (shape[1], shape[2], shape[0]) if len(shape) == 3 else shape
        rows.append(torch.zeros((300, *packed)))
    return trial, samples, rows


def spread(ground, workers, shards=None, rows=None):
    trial, samples, like = ground
    rows = [torch.zeros_like(each) for each in like] if rows is None else rows
    told = []
    spread_pass(
        workers, trial.parts, samples, rows, 1e-3, lambda *done: told.append(done), [None, None], shards
    )
    return rows, told


def test_the_rows_are_those_of_one_pass(ground) -> None:
    trial, samples, wanted = ground
    run_pass(trial.parts, samples, wanted, CPU)
    rows, told = spread(ground, Backwards())
    assert all(torch.equal(a, b) for a, b in zip(rows, wanted, strict=True))
    assert wanted[0].abs().sum() > 0
    assert told[-1] == (300, 300)


def test_a_pass_that_was_broken_off_goes_on_where_it_was(ground, tmp_path) -> None:
    first, shards = Backwards(most=2), Shards(tmp_path / "here")
    with pytest.raises(Stopped):
        spread(ground, first, shards)
    assert len(shards.find()) == 2
    second = Backwards()
    rows, _ = spread(ground, second, Shards(tmp_path / "here"))
    wanted, _ = spread(ground, Backwards())
    assert all(torch.equal(a, b) for a, b in zip(rows, wanted, strict=True))
    covered = sorted(first.items + second.items)
    assert covered[0][0] == 0
    assert covered[-1][1] == 300
    assert all(a[1] == b[0] for a, b in pairwise(covered))
    assert not (tmp_path / "here").exists()  # nothing is left once all rows are there


def test_a_slice_that_is_damaged_is_computed_again(ground, tmp_path) -> None:
    with pytest.raises(Stopped):
        spread(ground, Backwards(most=2), Shards(tmp_path))
    damaged = min(tmp_path.glob("*.safetensors"))
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    rows, _ = spread(ground, Backwards(), Shards(tmp_path))
    wanted, _ = spread(ground, Backwards())
    assert all(torch.equal(a, b) for a, b in zip(rows, wanted, strict=True))


def test_a_slice_without_its_last_bytes_is_computed_again(ground, tmp_path) -> None:
    with pytest.raises(Stopped):
        spread(ground, Backwards(most=1), Shards(tmp_path))
    path = next(tmp_path.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-9])
    assert Shards(tmp_path).find() == {}
    assert not path.exists()
