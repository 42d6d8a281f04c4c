"""Near duplicates are found among pictures and features; what is different stays apart."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tlnb.engine.data import near
from tlnb.engine.data.near import close_hashes, near_features, near_pictures
from tlnb.engine.data.partition import partition
from tlnb.errors import DataError


def scene(seed: int) -> Image.Image:
    """A picture of soft random shapes."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 7, 9, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (120, 160), mode="bicubic").clamp(0, 1)[0]
    return Image.fromarray((fine.permute(1, 2, 0) * 255).byte().numpy())


def again(picture: Image.Image, how: str) -> Image.Image:
    if how == "compressed":
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=30)
        return Image.open(file).convert("RGB")
    if how == "half":
        return picture.resize((80, 60))
    return picture.point(lambda value: min(255, int(value * 1.1)))


def tensor(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def test_pictures_that_were_scaled_compressed_or_brightened_are_the_same():
    scenes = [scene(seed) for seed in range(30)]
    copies = [again(scenes[i], how) for i, how in enumerate(("compressed", "half", "brighter"))]
    found = near_pictures(map(tensor, [*scenes, *copies]))
    assert found.numbers.tolist() == [*range(30), 0, 1, 2]
    assert found.by == "near duplicates"


def test_blank_pictures_are_like_no_other():
    found = near_pictures(torch.full((1, 20, 20), value, dtype=torch.uint8) for value in (0, 0, 9, 255))
    assert len(found) == 4
    assert len(near_pictures(iter(()))) == 0


def test_no_pair_of_like_hashes_is_missed():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, 300, dtype=np.uint64)
    flips = [sum(1 << int(b) for b in rng.choice(63, 6, replace=False)) for _ in range(40)]
    table = np.concatenate([hashes, hashes[:40] ^ np.array(flips, np.uint64)])
    pairs = {tuple(pair) for pair in close_hashes(table, near.BITS, near.CROWD).tolist()}
    assert {(i, 300 + i) for i in range(40)} <= pairs


def test_a_crowd_of_one_hash_is_not_compared_each_with_each():
    pairs = close_hashes(np.zeros(40, np.uint64), near.BITS, 5)
    assert (np.diff(pairs, axis=1) < 5).all()
    assert {tuple(pair) for pair in pairs.tolist()} >= {(i, i + 1) for i in range(39)}


def test_features_that_point_the_same_way_are_the_same():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 64, generator=generator) + 5
    copies = features[:10] + 0.05 * torch.randn(10, 64, generator=generator)
    found = near_features(torch.cat([features, copies]))
    assert found.numbers.tolist() == [*range(200), *range(10)]


def test_features_that_cannot_tell_samples_apart_are_not_believed():
    classes = torch.eye(3)[torch.arange(90) % 3] + 1e-2 * torch.randn(90, 3)
    with pytest.raises(DataError, match="30 of 90 samples have nearly the same features"):
        near_features(classes)


def test_near_duplicates_stay_on_one_side():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 64, generator=generator)
    twins = near_features(torch.cat([features, features + 1e-3]))
    found = partition(torch.arange(120) % 2, near=twins, valid=0.2)
    assert not set((found.train % 60).tolist()) & set((found.valid % 60).tolist())
    assert found.notes[0].startswith("60 groups by near duplicates, none on two sides: 48 in training")
