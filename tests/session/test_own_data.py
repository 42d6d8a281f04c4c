"""A session on one's own pictures and numbers, from naming the data to a trained network."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import broken_folder, class_folders, drawing, encoded
from PIL import Image
from torch import nn

from tlnb import Session
from tlnb.engine.data.grid import PictureGrid
from tlnb.engine.data.request import BALANCES, TARGETS
from tlnb.errors import DataError, NotReady
from tlnb.magics import network_and_data as commands

PHOTOS = Path(os.environ.get("TLNB_PHOTOS") or Path(__file__).parents[3] / "shared" / "data")


def convnet(inputs=3, outputs=2):
    """A small network for pictures."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(inputs, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU())
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, outputs))


@pytest.fixture
def tl(tmp_path, monkeypatch):
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))
    session = Session([])
    session.load("convnet5")
    return session


def test_the_words_of_the_magic_are_those_of_the_engine():
    assert (commands.BALANCES, commands.TARGETS) == (BALANCES, TARGETS)


def test_a_folder_with_forty_kinds_of_broken_files_trains(tl, tmp_path):
    data = tl.data(broken_folder(tmp_path / "pictures"), batch=8)
    assert len(data.problems) >= 40
    run = tl.train(epochs=3, lr=3e-3)
    assert run.records[-1].train_loss < run.records[0].train_loss
    assert run.accuracy is not None


def test_one_s_own_photos_are_learned(tl, tmp_path):
    tl.data(class_folders(tmp_path / "pictures", ("dark", "light"), each=20), batch=8)
    assert tl.run("freeze body epochs 10 lr 1e-2").accuracy >= 0.95


@pytest.mark.parametrize("preset", ["light", "standard"])
def test_small_pictures_fill_the_frame_under_random_changes_too(tl, preset):
    plain, changed = (tl.data("digits", augment=name, show=True).pixels.float() for name in ("none", preset))
    assert changed.shape == plain.shape == (12, 1, 32, 32)
    assert 0.75 < changed.mean() / plain.mean() < 1.3
    rows_with_ink = (changed.amax(-1) > 60).float().mean()
    assert rows_with_ink > 0.9


def test_a_wrong_source_changes_nothing(tl):
    named = tl.data("digits", per_class=5)
    layers = repr(tl.layers)
    with pytest.raises(DataError):
        tl.data("/no/such/folder")
    with pytest.raises(DataError, match="augmentation needs pictures"):
        tl.data((torch.randn(20, 5), torch.arange(20) % 2), augment="light")
    assert tl.data() is named
    assert repr(tl.layers) == layers
    tl.train(lr=1e-3)


def labelled(folder, label, header="path,label", count=60):
    """A CSV of pictures whose brightness says what is to be learned."""
    folder.mkdir()
    lines = [header]
    for index in range(count):
        level = index * 255 // count
        picture = Image.fromarray(np.full((20, 20, 3), level, np.uint8))
        (folder / f"{index}.png").write_bytes(encoded(picture, "PNG"))
        lines.append(f"{index}.png,{label(level)}")
    (folder / "table.csv").write_text("\n".join(lines))
    return folder / "table.csv"


def test_several_labels_are_learned(tl, tmp_path):
    table = labelled(tmp_path / "pictures", lambda v: f"{int(v > 80)},{int(v > 170)}", "path,dim,bright")
    data = tl.data(table, batch=16, balance="weights")
    assert data.classes == ("dim", "bright")
    run = tl.train(epochs=25, lr=3e-3)
    assert run.records[-1].metric_name == "mAP"
    assert run.accuracy > 0.95
    assert "mAP" in repr(tl.history)
    assert "accuracy" not in repr(run)


def test_measured_values_are_learned(tl, tmp_path):
    table = labelled(tmp_path / "pictures", lambda v: 1000 + 7.5 * v, "path,price")
    data = tl.data(table, batch=16)
    run = tl.train(epochs=40, lr=3e-3)
    assert run.records[-1].metric_name == "R²"
    assert run.accuracy > 0.9
    train = tl._samples[0]
    with torch.no_grad():
        scores = tl.model.eval()(train.batch(torch.arange(len(train))))
    prices = data.task.answers(scores)
    assert 900 < float(prices.mean()) < 3000


def test_rows_of_numbers_with_a_network_of_ones_own(tl):
    tl.load(nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 2)))
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 5, generator=generator)
    tl.data((inputs, (inputs[:, 0] > 0).long()))
    assert tl.train(epochs=15, lr=2e-2).accuracy > 0.9
    with pytest.raises(DataError, match="holds no pictures that could be shown"):
        tl.show_batch()


def test_training_under_augmentation_can_be_repeated(tmp_path, monkeypatch):
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))
    root = class_folders(tmp_path / "pictures")
    weights = []
    for _ in range(2):
        session = Session([])
        session.load("convnet5")
        session.data(root, augment="standard", batch=4)
        torch.rand(7)  # the user's own use of torch's random numbers
        session.train(epochs=2, lr=1e-3)
        weights.append({name: value.clone() for name, value in session.model.state_dict().items()})
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_a_stage_can_have_an_augmentation_of_its_own(tl, tmp_path):
    tl.data(class_folders(tmp_path / "pictures"), batch=4)
    plain = tl.train(epochs=1, lr=1e-4).records[-1].train_loss
    tl.load("convnet5")
    changed = tl.train(epochs=1, lr=1e-4, augment="strong").records[-1].train_loss
    assert plain != changed
    tl.run("train all lr 1e-4 augment none")


def test_the_grid_shows_the_pictures_that_are_trained_on(tl, tmp_path):
    with pytest.raises(NotReady):
        tl.show_batch()
    hostile = "<script>$x^2$"
    grid = tl.data(class_folders(tmp_path / "pictures", (hostile, "dogs")), augment="light", show=True)
    assert isinstance(grid, PictureGrid)
    assert repr(grid).startswith(str(tmp_path))
    assert "9 of 9 training pictures" in repr(grid)
    assert "<script>" not in grid._repr_html_()
    assert {axis.get_title() for axis in grid.figure.axes if axis.get_title()} == {hostile, "dogs"}
    again = tl.data(show=True)
    assert torch.equal(again.pixels, grid.pixels)
    assert not torch.equal(tl.show_batch(epoch=1).pixels, grid.pixels)
    with Image.open(io.BytesIO(tl.show_batch(4)._repr_png_())) as picture:
        pixels = np.asarray(picture.convert("L"))
    assert (pixels < 200).mean() > 0.2  # the pictures are there, not an empty page
    with pytest.raises(DataError, match="one picture or more"):
        tl.show_batch(0)


def test_the_first_training_batch_is_what_the_grid_shows(tl, tmp_path):
    tl.data(class_folders(tmp_path / "pictures"), augment="standard", batch=4)
    grid = tl.show_batch(4)
    seen = []
    tl.step = lambda model, x, y: seen.append(x.clone()) or nn.functional.cross_entropy(model(x), y)
    tl.train(lr=1e-3)
    train = tl._samples[0]
    torch.testing.assert_close(train.preprocess.normalise(grid.pixels)[0], seen[0][0])


def test_the_check_tells_how_far_it_is(tmp_path):
    told = []

    class Ear:
        def on_check(self, done, total):
            told.append((done, total))

    Session([Ear()]).data(class_folders(tmp_path / "pictures"))
    assert told == [(12, 12)]


def test_a_file_that_breaks_later_is_told(tl, tmp_path):
    root = class_folders(tmp_path / "pictures")
    said = []
    tl.listeners.append(type("Ear", (), {"on_message": lambda self, text: said.append(text)})())
    data = tl.data(root, batch=4)
    data.train.path(5).write_bytes(encoded(drawing(3))[:200])
    tl.load("convnet5")  # decodes the pictures anew
    tl.train(lr=1e-3)
    assert len(data.problems) == 1
    assert [text for text in said if "is left out" in text]


@pytest.mark.skipif(not (PHOTOS / "weights").is_dir(), reason="needs the real photos and weights")
def test_ants_and_bees(tmp_path, monkeypatch):
    monkeypatch.setenv("TLNB_HOME", str(tmp_path))
    session = Session([])
    session.load("mobilenet_v2", weights=str(PHOTOS / "weights" / "mobilenet_v2.pth"))
    session.data(PHOTOS / "hymenoptera", batch=32)
    assert session.run("freeze body epochs 3").accuracy > 0.88
