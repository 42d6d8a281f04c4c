"""Several tasks on one body after a resume: heads are back, data is read again or asked for in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from networks import blobs, small
from pictures import class_folders

from tlnb.session import Session


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def two_folders(tmp_path: Path) -> Session:
    """Trained on pets, then on birds; the head of birds is on the network."""
    class_folders(tmp_path / "pets", ("cats", "dogs"))
    class_folders(tmp_path / "birds", ("crow", "gull", "wren"))
    first = Session([])
    first.load(small(4), input="1,8,8")
    for source in ("pets", "birds"):
        first.data(source, batch=4)
        first.train(1, 0.01)
    return first


def resumed(first: Session) -> tuple[Session, str]:
    first.save("both")
    second = Session([])
    second.load(small(4, seed=5), input="1,8,8")
    return second, str(second.resume("both"))


def test_the_other_tasks_data_is_read_again_when_its_head_is_put_back(tmp_path: Path) -> None:
    first = two_folders(tmp_path)
    second, said = resumed(first)
    assert "other tasks: pets; %tl_head --task NAME puts the head back and reads its data again" in said
    assert str(second.tasks()).count("accuracy") == 1  # of birds; pets is not read yet
    first.head(task="pets")
    assert "(2 classes), data pets is read again" in str(second.head(task="pets"))
    assert str(second.tasks()) == str(first.tasks())
    for each in (first, second):
        each.train(1, 0.01)
    ours, theirs = (each.model.state_dict().values() for each in (first, second))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert str(second.head(task="birds")) == str(first.head(task="birds"))


@pytest.mark.parametrize("change", ["moved", "another class"])
def test_data_that_has_gone_or_changed_is_said_and_the_head_is_on_all_the_same(
    tmp_path: Path, change: str
) -> None:
    second, _ = resumed(two_folders(tmp_path))
    if change == "moved":
        (tmp_path / "pets").rename(tmp_path / "animals")
    else:
        (tmp_path / "pets" / "cats").rename(tmp_path / "pets" / "lions")
    said = str(second.head(task="pets"))
    assert "is not there any more" in said
    assert "name it again (%tl_data)" in said
    assert "\n" not in said
    assert second.task == "pets"
    assert second.model.head.out_features == 2
    if change == "moved":
        head = second.model.head
        second.data("animals", batch=4)
        assert second.model.head is head
        second.train(1, 0.01)


def test_an_object_is_asked_for_by_name() -> None:
    first = Session([])
    first.load(small(), input="1,8,8")
    one, other = blobs(60), blobs(60, classes=2)
    first.data((one.inputs, one.targets), batch=16)
    first.head("linear", task="three")
    first.data((other.inputs, other.targets), batch=16)
    first.head("linear", task="two")
    second, _ = resumed(first)
    said = str(second.head(task="three"))
    assert "its data was an object, (Tensor, Tensor); name it again (%tl_data); the head stays" in said
    head = second.model.head
    second.data((one.inputs, one.targets), batch=16)
    assert second.model.head is head
    assert second.task == "three"
