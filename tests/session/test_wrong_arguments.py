"""What is wrong is one line that says what is taken, and nothing has changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tlnb.errors import DataError, TlnbError
from tlnb.session import Session

LABELS = torch.arange(20) % 2
CALLS: dict[str, Callable[[Session], Any]] = {
    "data: a long name": lambda tl: tl.data("x" * 5000),
    "data: nobody's home": lambda tl: tl.data("~nosuch/x"),
    "data: no name": lambda tl: tl.data(""),
    "data: words for numbers": lambda tl: tl.data("photos", valid="0.3"),
    "data: batch": lambda tl: tl.data("photos", batch="x"),
    "data: size": lambda tl: tl.data("photos", size=2.5),
    "data: seed": lambda tl: tl.data("photos", seed="x"),
    "data: options alone": lambda tl: tl.data(batch=3),
    "data: a number": lambda tl: tl.data(3),
    "load: a long name": lambda tl: tl.load("y" * 5000),
    "load: nobody's home": lambda tl: tl.load("~nosuch/x"),
    "load: no name": lambda tl: tl.load(""),
    "load: a zero byte": lambda tl: tl.load("a\0b"),
    "load: a folder": lambda tl: tl.load("photos"),
    "load: an empty file": lambda tl: tl.load("empty.pth"),
    "load: no tensors": lambda tl: tl.load("odd.pth"),
    "load: larger than it is": lambda tl: tl.load("expanded.pth"),
    "load: a class": lambda tl: tl.load(nn.Linear),
    "head: no width": lambda tl: tl.head("mlp:00"),
    "head: too wide": lambda tl: tl.head("mlp:99999999999"),
    "head: a number": lambda tl: tl.head(5),
    "run: nothing": lambda tl: tl.run(None),
    "find_lr: a rule": lambda tl: tl.find_lr(rule="steep"),
    "find_lr: no steps": lambda tl: tl.find_lr(steps=0),
    "save: a long name": lambda tl: tl.save("z" * 300),
    "save: nothing": lambda tl: tl.save(None),
    "resume: a number": lambda tl: tl.resume(7),
    "save: no name": lambda tl: tl.save(""),
    "save: the folder above": lambda tl: tl.save("a/.."),
    "resume: no name": lambda tl: tl.resume(""),
    "script: no name": lambda tl: tl.script(""),
    "export: no name": lambda tl: tl.export(""),
    "predict: no name": lambda tl: tl.predict(""),
    "predict: no files": lambda tl: tl.predict([]),
    "predict: no samples": lambda tl: tl.predict(np.zeros((0, 8, 8))),
    "data: no marks": lambda tl: tl.data("photos", marks=""),
    "choose: nothing": lambda tl: tl.choose(),
    "choose: nobody": lambda tl: tl.choose("nosuch"),
    "map: no layer": lambda tl: tl.map("99"),
    "map: a way": lambda tl: tl.map(by="x"),
    "train: no time": lambda tl: tl.train_advised(budget="0s"),
    "train: no unit": lambda tl: tl.train_advised(budget="5x"),
    "cluster: nobody there": lambda tl: tl.cluster("127.0.0.1:1"),
    "cluster: no workers": lambda tl: tl.cluster("local", workers=0),
    "blend: a word": lambda tl: tl.blend("x"),
    "advise: no images": lambda tl: tl.advise(images=0),
    "sweep: no seeds": lambda tl: tl.sweep(seeds=0),
    "sweep: a word": lambda tl: tl.sweep(epochs="x"),
    "predict: words": lambda tl: tl.predict(np.array(["a"])),
    "predict: a row": lambda tl: tl.predict(torch.zeros(3)),
    "export: nothing": lambda tl: tl.export(None),
    "results: a word": lambda tl: tl.results(worst="x"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    for kind in ("a", "b"):
        (folder / "photos" / kind).mkdir(parents=True)
        for i in range(4):
            Image.new("L", (8, 8), 30 * i + len(kind)).save(folder / "photos" / kind / f"{i}.png")
    (folder / "empty.pth").touch()
    torch.save({"a": [1, 2], "b": None}, folder / "odd.pth")
    torch.save({"w": torch.zeros(1).expand(10**12)}, folder / "expanded.pth")
    return folder


@pytest.fixture(scope="module")
def session() -> Session:
    """A test must leave it as it is."""
    tl = Session([])
    tl.load("convnet5")
    tl.data("digits", per_class=2)
    return tl


def state(tl: Session) -> tuple[Any, ...]:
    weights = [p.detach().clone() for p in tl.model.parameters()]
    return tl._loaded, tl._data, tl._samples, tl.frozen, dict(tl.heads), len(tl.history.stages), weights


@pytest.mark.parametrize("call", CALLS)
def test_it_is_one_line_and_nothing_has_changed(
    call: str, session: Session, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    before = state(session)
    with pytest.raises(TlnbError) as caught:
        CALLS[call](session)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    after = state(session)
    assert all(a is b for a, b in zip(before[:3], after[:3], strict=True))
    assert before[3:6] == after[3:6]
    assert all(torch.equal(a, b) for a, b in zip(before[6], after[6], strict=True))


def test_one_hot_targets_are_classes(session: Session) -> None:
    tl = Session([])
    tl.load(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5)))
    inputs = torch.randn(20, 6)
    assert tl.data((inputs, np.eye(2)[LABELS])).classes == ("0", "1")
    assert "labels" in repr(tl.data((inputs, np.eye(2)[LABELS]), target="labels"))


def test_predictions_are_for_samples_as_they_were_learned() -> None:
    tl = Session([])
    tl.load(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)))
    inputs = torch.randn(20, 6)
    tl.data((inputs, LABELS))
    every = tl.predict(inputs).answers
    assert every.shape == (20, 2)
    assert np.allclose(tl.predict(inputs[3].numpy()).answers, every[3:4], atol=1e-6)
    assert np.allclose(tl.predict(inputs[:2].tolist()).answers, every[:2], atol=1e-6)
    with pytest.raises(
        DataError, match=r"a sample has the shape \(6,\), several \(N, 6\); this is \(20, 5\)"
    ):
        tl.predict(inputs[:, :5])


def test_tokens_stay_whole_numbers() -> None:
    tl = Session([])
    tl.load(nn.Sequential(nn.Embedding(30, 8), nn.Flatten(), nn.Linear(40, 2)), input="5")
    tokens = torch.randint(0, 30, (20, 5))
    tl.data((tokens, LABELS))
    assert tl.predict(tokens[:3]).answers.shape == (3, 2)


def test_three_grey_pictures_are_not_one_in_colour(session: Session) -> None:
    assert len(session.predict(torch.rand(3, 16, 16)).answers) == 3
    assert len(session.predict(torch.rand(1, 16, 16)).answers) == 1
    assert len(session.predict(torch.rand(16, 16, 3)).answers) == 1
