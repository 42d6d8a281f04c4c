"""``--test``, ``--groups`` and ``--time`` for sources that come in parts: pairs, dicts, Hugging Face, torchvision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset
from torchvision import datasets

from tlnb.engine.core.tree import Tree
from tlnb.engine.data.joined import joined
from tlnb.engine.data.load import load_data
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.data.raw import Several
from tlnb.engine.data.samples import Samples
from tlnb.engine.data.sources import named
from tlnb.errors import DataError
from tlnb.session import Session


def table(start: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows whose first number says which they are."""
    x = torch.arange(start, start + count).float()[:, None] * torch.tensor([1.0, 0.5, 0.1])
    return x, torch.arange(start, start + count) % 2


def which(part: Any) -> list[int]:
    return part.inputs[:, 0].long().tolist()


def held(data: Any) -> list[int]:
    with data.test.opened() as opened:
        return which(opened.samples.subset(torch.arange(len(data.test))))


def sides(data: Any) -> list[set[int]]:
    found = [which(data.train), which(data.valid), *([held(data)] if data.test is not None else [])]
    return [set(side) for side in found]


PAIRS = {
    "arrays": lambda: (table(0, 60), table(60, 20)),
    "sets": lambda: (TensorDataset(*table(0, 60)), TensorDataset(*table(60, 20))),
    "dict": lambda: {"train": table(0, 60), "val": table(60, 20)},
}


@pytest.mark.parametrize("source", PAIRS)
def test_a_pair_keeps_its_validation_part_and_gives_a_test_part(source):
    data = load_data(PAIRS[source](), test=0.2)
    train, valid, test = sides(data)
    assert valid == set(range(60, 80))
    assert (len(train), len(test)) == (48, 12)
    assert train | test == set(range(60))
    assert data.split.valid.tolist() == list(range(60, 80))
    assert load_data(PAIRS[source]()).split is None  # nothing is asked: the parts are apart, as they came


@pytest.mark.parametrize("source", PAIRS)
def test_groups_hold_over_both_parts_of_a_pair(source):
    told = np.arange(80) // 4
    told[2] = told[70]  # one sample to learn from is of a group that validates
    data = load_data(PAIRS[source](), test=0.2, groups=told)
    train, valid, test = sides(data)
    assert valid == set(range(60, 80))
    assert 2 not in train | test
    assert "left out" in repr(data)
    groups = [set(told[sorted(side)]) for side in (train, valid, test)]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]


def test_times_and_arrays_of_one_set():
    day = np.random.default_rng(0).permutation(60)
    data = load_data(TensorDataset(*table(0, 60)), time=day, test=0.2)
    train, valid, test = (day[sorted(side)] for side in sides(data))
    assert train.max() < valid.min() <= valid.max() < test.min()
    loader = torch.utils.data.DataLoader(TensorDataset(*table(0, 60)), batch_size=4)
    assert len(load_data(loader, groups=np.arange(60) // 3).groups) == 20


def test_a_dict_has_a_test_part_of_its_own():
    source = {"train": table(0, 60), "valid": table(60, 20), "test": table(80, 10)}
    assert len(load_data(source).valid) == 20  # without --test it is left aside, as it was
    data = load_data(source, test=True)
    assert sides(data) == [set(range(60)), set(range(60, 80)), set(range(80, 90))]
    alone = load_data({"train": table(0, 60), "test": table(80, 10)}, test=True)
    assert [len(side) for side in sides(alone)] == [48, 12, 10]
    assert sides(alone)[2] == set(range(80, 90))
    with pytest.raises(DataError, match="no test part of its own"):
        load_data({"train": table(0, 60), "valid": table(60, 20)}, test=True)


def test_entries_of_samples_without_a_label_are_left_out_too():
    y = np.arange(60) % 3
    y[5] = -1  # as torchvision marks samples that nobody labelled
    told = np.arange(60) // 3
    data = load_data((torch.randn(60, 3), y), groups=told)
    assert len(data.train) + len(data.valid) == 59
    expected = np.delete(told, 5)
    assert data.groups.numbers.tolist() == np.unique(expected, return_inverse=True)[1].tolist()


def test_folds_of_a_pair_have_places_in_both_parts(tmp_path, monkeypatch):
    monkeypatch.setenv("TLNB_HOME", str(tmp_path))
    session = Session([])
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    session.load(net, input=(3,))
    for options in ({}, {"groups": np.arange(80) // 4}):
        session.data(PAIRS["arrays"](), **options)
        cv = session.cross_validate(4, "train all  epochs 1  lr 1e-2")
        assert cv.positions.tolist() == list(range(80))
        assert np.array_equal(cv.targets, np.arange(80) % 2)
    assert all(len(set((cv.fold[i : i + 4]).tolist())) == 1 for i in range(0, 80, 4))


def test_collections_in_a_row_are_one():
    first, second = (load_data(table(start, 40)).train for start in (0, 40))
    both = Several([first, second])
    assert which(both.subset(torch.tensor([1, 0]))) == [which(first)[1], which(first)[0]]
    mixed = both.subset(torch.tensor([len(first), 0]))
    samples = mixed.prepare(Preprocess())
    assert samples.batch(torch.tensor([0, 1]))[:, 0].long().tolist() == [which(second)[0], which(first)[0]]
    assert mixed.targets.tolist() == [int(second.targets[0]), int(first.targets[0])]
    assert mixed.digests() == [second.digests()[0], first.digests()[0]]


def test_batches_of_several_tensors_are_put_together():
    class Trees(Samples):
        def __init__(self, start: int):
            self.targets, self.start = torch.zeros(4, dtype=torch.int64), start

        def batch(self, indices: torch.Tensor) -> Tree:
            rows = indices + self.start
            return Tree({"a": rows[:, None], "b": rows.float()[:, None, None]})

        def fingerprint(self) -> str:
            return str(self.start)

    batch = joined([Trees(0), Trees(10)]).batch(torch.tensor([5, 0, 7, 3]))
    assert batch["a"].flatten().tolist() == [11, 0, 13, 3]
    assert batch["b"].shape == (4, 1, 1)


# -------------------------------------------------------------------- Hugging Face


def hugging(count: int, start: int = 0, names: tuple[str, ...] = ("a", "b")) -> Any:
    library = pytest.importorskip("datasets")
    features = library.Features({
        "image": library.Image(), "label": library.ClassLabel(names=list(names)), "patient": library.Value("string"),
    })  # fmt: skip
    rng = np.random.default_rng(start)
    rows = {
        "image": [Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)) for _ in range(count)],
        "label": [i % 2 for i in range(count)],
        "patient": [f"p{(start + i) // 4}" for i in range(count)],
    }
    return library.Dataset.from_dict(rows, features=features)


def test_a_data_set_of_hugging_face_by_a_column_and_by_its_own_test_part():
    library = pytest.importorskip("datasets")
    one = load_data(hugging(40), groups="patient", test=0.2)
    assert len(one.groups) == 10
    assert one.groups.by == "column 'patient'"
    parts = library.DatasetDict({
        "train": hugging(40), "validation": hugging(12, 100), "test": hugging(8, 200, ("b", "a"))
    })  # fmt: skip
    data = load_data(parts, test=True, groups="patient")
    assert (len(data.train), len(data.valid), len(data.test)) == (40, 12, 8)
    with data.test.opened() as opened:
        assert opened.samples.targets.tolist() == [1, 0] * 4  # by name
    assert (len(load_data(parts, test=0.2).test), len(load_data(parts).valid)) == (8, 12)
    with pytest.raises(DataError, match="no column 'patiant'; did you mean 'patient'"):
        load_data(hugging(40), groups="patiant")
    with pytest.raises(DataError, match="entries for 40 samples"):
        load_data(hugging(40), groups=np.arange(12))


# -------------------------------------------------------------------- torchvision


class FakeCIFAR10(datasets.CIFAR10):
    """Fifty pictures to learn from, twenty for the end, and no download."""

    def __init__(self, root: str, train: bool = True, download: bool = False):
        count = 50 if train else 20
        self.data = np.random.default_rng(train).integers(0, 255, (count, 32, 32, 3), dtype=np.uint8)
        self.targets = [i % 5 for i in range(count)]
        self.classes = list("abcde")

    def __len__(self) -> int:
        return len(self.data)


class FakeDTD(FakeCIFAR10):
    """The same with three splits."""

    def __init__(self, root: str, split: str = "train", download: bool = False):
        super().__init__(root, split == "train")
        self.data = np.roll(self.data, len(split), axis=1)


FakeDTD.__name__ = "DTD"


def test_data_sets_of_torchvision(monkeypatch):
    monkeypatch.setattr(named.datasets, "CIFAR10", FakeCIFAR10)
    monkeypatch.setattr(named.datasets, "DTD", FakeDTD)
    plain = load_data("torchvision/CIFAR10")
    assert (len(plain.train), len(plain.valid)) == (50, 20)
    own = load_data("torchvision/CIFAR10", test=True)
    assert (len(own.train), len(own.valid), len(own.test)) == (40, 10, 20)
    assert own.asked["test"] == "own"
    share = load_data("torchvision/CIFAR10", test=0.2, groups=np.arange(70) // 2)
    assert (len(share.train), len(share.valid), len(share.test)) == (40, 20, 10)
    three = load_data("torchvision/DTD", test=True)
    assert (len(three.train), len(three.valid), len(three.test)) == (50, 20, 20)
