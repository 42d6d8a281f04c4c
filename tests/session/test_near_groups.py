"""``--groups near`` by the magic: how pictures look before there is a network, its features after."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tlnb.engine.data.load import load_data
from tlnb.engine.data.near import from_ties, near_features, ties_of
from tlnb.errors import DataError
from tlnb.session import Session

SCENES = 40


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))


def twins() -> tuple[torch.Tensor, torch.Tensor]:
    """Scenes of coarse patches, each a second time with a little noise."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 200, (SCENES, 1, 7, 7), generator=generator).float()
    scenes = nn.functional.interpolate(coarse, (28, 28), mode="bilinear")
    noise = torch.randint(0, 6, scenes.shape, generator=generator)
    x = torch.cat([scenes, scenes + noise]).clamp(0, 255).to(torch.uint8)
    return x, torch.arange(2 * SCENES) % 2


def torn(session: Session) -> set[int]:
    places = session.split
    sides = [set((part % SCENES).tolist()) for part in (places.train, places.valid, places.test)]
    return (sides[0] & sides[1]) | (sides[0] & sides[2]) | (sides[1] & sides[2])


def test_by_how_pictures_look_before_there_is_a_network(shell):
    shell.run_line_magic("load_ext", "tlnb")
    shell.user_ns["share"] = twins()
    found = shell.run("%tl_data $share --groups near --test 0.2")
    assert not torn(shell.user_ns["tl"])
    assert "near duplicates are told by how pictures look" in repr(found)
    assert len(found.groups) == SCENES
    without = Session([])
    without.data(twins(), test=0.2)
    assert torn(without)


def test_by_features_where_there_is_a_network():
    session = Session([])
    session.load("convnet5")
    found = session.data(twins(), groups="near", test=0.2)
    assert not torn(session)
    assert "near duplicates are told by the network's features" in repr(found)
    session.freeze("body")
    session.train(epochs=1, lr=1e-2)
    again = session.data(twins(), groups="near", test=0.2)  # asks the network of before training
    assert again.groups.numbers.tolist() == found.groups.numbers.tolist()


def test_a_saved_session_ties_the_same_samples_without_the_network(tmp_path):
    from PIL import Image

    x, y = twins()
    for number, (picture, kind) in enumerate(zip(x, y.tolist(), strict=True)):
        place = tmp_path / "photos" / "ab"[kind]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture[0].numpy()).save(place / f"{number:03}.png")
    session = Session([])
    session.load("convnet5")
    found = session.data(str(tmp_path / "photos"), groups="near")
    assert found.asked["groups"].startswith("near:")
    session.freeze("body")
    session.train(epochs=1, lr=1e-2)
    session.save(str(tmp_path / "kept"))
    other = Session([])
    other.resume(str(tmp_path / "kept"))
    assert other.split.train.tolist() == session.split.train.tolist()
    assert load_data(**found.asked).split.valid.tolist() == session.split.valid.tolist()


def test_the_ties_are_told_and_read():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(50, 32, generator=generator)
    found = near_features(torch.cat([features, features[:9] + 1e-3]))
    assert ties_of(found) == "near:" + ",".join(f"{i}+{50 + i}" for i in range(9))
    assert from_ties(ties_of(found), 59).numbers.tolist() == found.numbers.tolist()
    for text in ("near:1+70", "near:a", "near:1+-2"):
        with pytest.raises(DataError, match="does not fit 59 samples"):
            from_ties(text, 59)


def test_samples_that_are_no_pictures_need_a_network():
    x = torch.randn(60, 5)
    data = torch.cat([x, x + 1e-4]), torch.arange(120) % 2
    with pytest.raises(DataError, match="compares pictures"):
        Session([]).data(data, groups="near")
    session = Session([])
    session.load(nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 2)), input=(5,))
    session.data(data, groups="near")
    assert not set((session.split.train % 60).tolist()) & set((session.split.valid % 60).tolist())
