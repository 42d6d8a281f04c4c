"""Several tasks on one body: each keeps its head, its classes and its data."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tlnb.errors import ModelError, NotReady
from tlnb.session import Session


@pytest.fixture
def tl() -> Session:
    tl = Session([])
    tl.load("convnet5")
    return tl


def test_the_head_that_came_with_the_weights_is_kept_under_its_task(tl: Session) -> None:
    came = tl.model.get_submodule("classifier.7")
    assert tl.task == "glyphs"
    assert tl.heads == {"glyphs": came}
    assert tl.old_head is None
    tl.data("digits", per_class=5)
    assert tl.task == "digits"
    assert list(tl.heads) == ["glyphs", "digits"]
    assert tl.old_head is came
    assert tl.model.get_submodule("classifier.7") is tl.heads["digits"]


def test_train_one_measure_both(tl: Session) -> None:
    tl.data("glyphs")
    tl.data("digits", per_class=20)
    tl.freeze("body")
    body = tl.model.get_submodule("features.0").weight.clone()
    before = {row[0]: row for row in tl.tasks().rows}
    tl.train(epochs=5, lr=1e-3)
    after = {row[0]: row for row in tl.tasks().rows}
    assert after["glyphs"] == (*before["glyphs"][:-1], after["glyphs"][-1])
    assert float(after["digits"][3]) < float(before["digits"][3])
    assert float(after["glyphs"][4].split()[1]) > 0.8
    assert after["digits"][-1] == "on the network"
    assert torch.equal(tl.model.get_submodule("features.0").weight, body)
    assert tl.task == "digits"


def test_a_task_comes_back_with_head_classes_and_data(tl: Session) -> None:
    data = tl.data("digits", per_class=5)
    digits = tl.heads["digits"]
    tl.freeze("0:3")
    tl.head("mlp:16", task="parity")
    assert tl.task == "parity"
    assert len(tl.layers) == 9
    assert tl.frozen[:3] == (True, True, True)
    said = tl.head(task="digits")
    assert "task digits" in repr(said)
    assert tl.model.get_submodule("classifier.7") is digits
    assert tl.view.need_data() is data
    assert len(tl.layers) == 8
    assert tl.frozen == (True,) * 3 + (False,) * 5
    assert tl.train(epochs=1, lr=1e-3).stages[0].records


def test_a_task_without_data_says_so(tl: Session) -> None:
    tl.data("digits", per_class=5)
    assert "no data named" in repr(tl.head(task="glyphs"))
    with pytest.raises(NotReady, match="no data yet"):
        tl.train(lr=1e-3)
    tl.data("glyphs")
    assert tl.task == "glyphs"
    assert list(tl.heads) == ["glyphs", "digits"]


def test_an_unknown_task_without_data_names_the_nearest(tl: Session) -> None:
    with pytest.raises(ModelError, match="did you mean 'glyphs'"):
        tl.head(task="glyph")
    assert tl.task == "glyphs"


def test_a_new_network_forgets_the_tasks_of_the_old_one(tl: Session) -> None:
    tl.data("digits", per_class=5)
    tl.load("convnet5", weights="none")
    assert list(tl.heads) == ["convnet5", "digits"]
    assert isinstance(tl.old_head, nn.Linear)
    assert tl.old_head.out_features == 41
