"""Predictions show what spoke for them: a heat map beside a picture, the words of a text."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from texts import BAD, GOOD, network_folder, rows, table
from torch import nn

from tlnb.engine.results.spoken import under_heat
from tlnb.session import Session


class Corner(nn.Module):
    """The score of class 1 is the brightness of the upper left quarter of a picture of 16 by 16."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.ones_(self.convolution.weight)
        self.relu = nn.ReLU()
        self.head = nn.Linear(256, 2, bias=False)
        weights = torch.zeros(2, 16, 16)
        weights[1, :8, :8] = 1
        self.head.weight.data = weights.flatten(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.relu(self.convolution(x)).flatten(1))


@pytest.fixture
def corner(tmp_path: Path) -> Session:
    for name, value in (("dark", 10), ("light", 200)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(10):
            Image.new("L", (16, 16), value + i).save(tmp_path / "data" / name / f"{i}.png")
    session = Session(listeners=[])
    session.load(Corner(), input="1,16,16")
    session.data(str(tmp_path / "data"))
    return session


def opened(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_a_picture_stands_beside_what_spoke_for_its_answer(corner: Session) -> None:
    found = corner.predict(Image.new("L", (16, 16), 180))
    assert found.labels == ("light",)
    shown = opened(found.spoken[0])
    left, right = shown[:, :16], shown[:, -16:]
    assert (left == 180).all()
    # The quarter that makes the score is coloured, the others stay grey.
    assert (right[:8, :8, 0] != right[:8, :8, 2]).all()
    assert (right[8:, :, 0] == right[8:, :, 2]).all()
    assert found.spoken[0] in found._repr_html_()
    assert "Grad-CAM by place" in found._repr_html_()
    assert all(parameter.grad is None for parameter in corner.model.parameters())


def test_many_pictures_stand_alone(corner: Session) -> None:
    found = corner.predict([Image.new("L", (16, 16), 20 * i) for i in range(9)])
    assert len(found.pictures) == 9
    assert found.spoken == ()
    assert len(corner.predict([Image.new("L", (16, 16), 20 * i) for i in range(8)]).spoken) == 8


def test_a_forward_without_a_gradient_still_answers(corner: Session) -> None:
    class Blind(Corner):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.detach()).detach()

    corner.load(Blind(), input="1,16,16")
    found = corner.predict(Image.new("L", (16, 16), 180))
    assert len(found) == 1
    assert found.spoken == ()


def test_the_heat_map_keeps_the_picture_where_nothing_speaks() -> None:
    pixels = torch.full((1, 4, 4), 0.5)
    heat = torch.zeros(4, 4)
    heat[0, 0] = 1
    shown = under_heat(pixels, heat)
    assert shown.shape == (4, 9, 3)
    assert np.allclose(shown[1:, 5:], 0.5)
    assert not np.allclose(shown[0, 5], 0.5)


def test_the_words_of_a_text_speak_for_its_class(tmp_path: Path) -> None:
    session = Session(listeners=[])
    session.load(str(network_folder(tmp_path / "net")))
    session.data(str(table(tmp_path / "texts.csv", rows(200))), text="text", label="label")
    session.train(epochs=6, lr=3e-3)
    texts = [f"w1 w2 {word} w3 w4" for word in (*GOOD, *BAD)]
    found = session.predict(texts)
    assert found.labels == ("praise",) * 3 + ("blame",) * 3
    assert [[word for word, _ in words] for words in found.words] == [text.split() for text in texts]
    most = [max(words, key=lambda pair: pair[1])[0] for words in found.words]
    assert sum(word in (*GOOD, *BAD) for word in most) >= 5
    html = session.predict("<b>w1</b> good w2")._repr_html_()
    assert "<mark" in html
    assert "<b>w1" not in html


def test_what_is_none_of_the_classes_is_said_with_its_set(corner: Session) -> None:
    corner.train(epochs=1, lr=1e-4)
    found = corner.predict(Image.new("L", (16, 16), 180), sure=0.6)
    assert "60 % sure: " in found._repr_html_()
    assert found.spoken
