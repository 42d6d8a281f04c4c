"""Options of the data through a session: they are told, saved, resumed, and hold for predictions and exports."""

from __future__ import annotations

import sys

import forked
import numpy as np
import pytest
from PIL import Image
from torch import nn

from tlnb import Session
from tlnb.errors import DataError, TlnbError


def small(outputs=2, channels=1):
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, outputs),
    )


@pytest.fixture
def tl(tmp_path, monkeypatch):
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))
    return Session([])


@pytest.fixture
def scans(tmp_path, monkeypatch):
    """Two classes of 12-bit pictures in files of 16 bits, and a table beside."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows = ["id,image,sick,kfold"]
    for number in range(24):
        label = "ab"[number % 2]
        (tmp_path / "scans" / label).mkdir(parents=True, exist_ok=True)
        values = rng.integers(0, 2000, (16, 16)) + 2000 * (number % 2)
        Image.fromarray(values.astype(np.uint16)).save(tmp_path / "scans" / label / f"{number}.png")
        rows.append(f"{number},scans/{label}/{number}.png,{number % 2},{number // 2 % 4}")
    (tmp_path / "scans.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_predictions_see_the_pixels_that_training_saw(tl, scans):
    tl.load(small(), input="1,16,16")
    tl.data("scans", valid=0.5)
    tl.train(epochs=80, lr=3e-2)
    told = tl.predict("scans")
    assert [name.split("/")[1] for name in told.names] == list(told.labels)
    opened = tl.predict(Image.open(scans / told.names[0]))
    assert np.allclose(opened.answers[0], told.answers[0], atol=1e-6)


def test_options_are_saved_and_resumed(tl, scans):
    tl.load(small(), input="1,16,16")
    data = tl.data("scans.csv", label="sick", split="kfold=2", range=(0, 4095))
    assert (len(data.train), len(data.valid)) == (18, 6)
    tl.train(epochs=1, lr=1e-2)
    tl.save("run.ckpt")
    asked, told = dict(data.asked), tl.predict("scans").answers
    tl.data("scans", valid=0.5)
    tl.resume("run.ckpt")
    assert tl.data().asked == asked
    assert tl.data().scale.white == 4095
    assert np.array_equal(tl.predict("scans").answers, told)


def test_the_exported_loader_reads_the_same_pixels(tl, scans):
    tl.load("convnet5")
    tl.data("scans", valid=0.5)
    tl.freeze("body")
    tl.train(epochs=3, lr=1e-2)
    tl.export("net.safetensors")
    assert "4095 (white)" in (scans / "net.md").read_text()
    name = "scans/a/0.png"
    run = forked.run([sys.executable, "net.py", name], tlnb=False, cwd=scans)
    told = tl.predict(name)
    assert run.stdout.splitlines()[0] == f"{name}: {told.labels[0]} ({told.answers.max():.3f})"


@pytest.mark.parametrize(
    "wrong",
    [
        {"label": "nothing"},
        {"bands": "9"},
        {"range": "a"},
        {"lable": "x"},
        {"folder": "gone"},
        {"size": 10**5},
    ],
)
def test_a_wrong_option_is_one_line_and_changes_nothing(tl, scans, wrong):
    tl.load(small(), input="1,16,16")
    before = tl.data("scans.csv", label="sick")
    with pytest.raises(TlnbError) as caught:
        tl.data("scans.csv", **wrong)
    assert "\n" not in str(caught.value)
    assert tl.data() is before


def test_more_bands_than_the_network_takes_are_refused(tl, scans):
    tl.load(small(channels=3), input="3,16,16")
    with pytest.raises((DataError, TlnbError), match="--bands"):
        tl.data(
            (np.random.default_rng(0).integers(0, 255, (20, 16, 16, 6)).astype(np.uint8), [0, 1] * 10),
            bands="1,2,3,4",
        )
