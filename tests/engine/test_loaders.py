"""What a DataLoader does is kept, or named and refused; what changes what was asked for is said."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)
from torchvision.transforms import v2

from tlnb.engine.data.load import load_data
from tlnb.errors import DataError

X, Y = torch.rand(24, 3, 8, 8), torch.arange(24) % 2
SET = TensorDataset(X, Y)


class Pairs(Dataset):
    """The same as items of a class of one's own."""

    def __len__(self):
        return 24

    def __getitem__(self, index):
        return X[index], int(Y[index])


class Chosen(Sampler):
    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)

    def __len__(self):
        return len(self.rows)


class Buckets(BatchSampler):
    pass


class Fast(DataLoader):
    def __iter__(self):
        for x, y in super().__iter__():
            yield x.flip(-1), y


def rows_of(data):
    inputs = [
        x for part in (data.train, data.valid) for x in (part.images if hasattr(part, "images") else [])
    ]
    return sorted(int((x == X).flatten(1).all(1).nonzero()) for x in inputs)


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(SET, batch_size=4, sampler=SubsetRandomSampler(range(3, 19))),
        DataLoader(SET, batch_size=4, sampler=Chosen(list(range(18, 2, -1)))),
        DataLoader(SET, batch_sampler=BatchSampler(SubsetRandomSampler(list(range(3, 19))), 4, False)),
    ],
)
def test_the_samples_that_a_sampler_takes_are_kept(loader):
    data = load_data(loader)
    assert data.batch == 4
    assert len(data.train) + len(data.valid) == 16
    found = sorted(row for part in (data.train, data.valid) for row in _places(part))
    assert found == list(range(3, 19))
    assert any("16 of 24 samples" in note for note in data.notes)


def _places(part):
    samples = part.prepare(_small())
    every = samples.batch(torch.arange(len(samples)))
    return [int(((X - x).abs().flatten(1).amax(1) < 0.01).nonzero()) for x in every]


def _small():
    from tlnb.engine.data.preprocess import Preprocess

    return Preprocess(3, (8, 8), None, (0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize(
    "loader",
    [DataLoader(SET, shuffle=True), DataLoader(SET), DataLoader(SET, sampler=SequentialSampler(SET))],
)
def test_an_order_is_nothing_to_say(loader):
    assert load_data(loader).notes == []


REFUSED = {
    "weights": (lambda: DataLoader(SET, sampler=WeightedRandomSampler(torch.ones(24), 24)), "draws.*--balance"),
    "replacement": (lambda: DataLoader(SET, sampler=RandomSampler(SET, replacement=True)), "RandomSampler draws"),
    "some each epoch": (lambda: DataLoader(SET, sampler=RandomSampler(SET, num_samples=8)), "RandomSampler draws"),
    "twice": (lambda: DataLoader(SET, sampler=Chosen([0, 0, 1, 2])), "Chosen draws"),
    "batches of its own": (
        lambda: DataLoader(SET, batch_sampler=Buckets(SequentialSampler(SET), 4, False)), "Buckets chooses"
    ),
    "weights in batches": (
        lambda: DataLoader(SET, batch_sampler=BatchSampler(WeightedRandomSampler(torch.ones(24), 24), 4, False)),
        "WeightedRandomSampler draws",
    ),
    "a loader of its own": (lambda: Fast(SET, batch_size=4), "the Fast makes its batches in a way of its own"),
    "no batches": (lambda: DataLoader(SET, batch_size=None), "batch_size=None"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_lost_is_named_and_refused(name):
    make, message = REFUSED[name]
    with pytest.raises(DataError, match=message) as caught:
        load_data(make())
    assert "\n" not in str(caught.value)


def mixed(kind):
    mix = getattr(v2, kind)(num_classes=2, alpha=5.0)
    return lambda items: mix(*default_collate(items))


def noisy(items):
    x, y = default_collate(items)
    return x + torch.randn(x.shape), y


def centred(items):
    x, y = default_collate(items)
    return x - x.mean(0), y


def smoothed(items):
    x, y = default_collate(items)
    return x, torch.eye(2)[y].roll(1, 0) * 0.1 + torch.eye(2)[y] * 0.9


COLLATES = {
    "MixUp": mixed("MixUp"),
    "CutMix": mixed("CutMix"),
    "noise": noisy,
    "means of a batch": centred,
    "soft": smoothed,
}


@pytest.mark.parametrize("name", COLLATES)
@pytest.mark.parametrize("source", [SET, Pairs()])
@pytest.mark.parametrize("part", ["train", "valid"])
def test_a_collate_function_that_mixes_or_draws_is_refused(name, source, part):
    loaders = [DataLoader(source, batch_size=4), DataLoader(source, batch_size=4)]
    loaders[part == "valid"].collate_fn = COLLATES[name]
    with pytest.raises(DataError, match="depends on the others in its batch or on chance"):
        load_data(tuple(loaders))


def test_the_targets_that_a_collate_function_makes_are_learned():
    def collate(items):
        x, y = default_collate(items)
        return x * 2 - 1, 1 - y

    data = load_data(DataLoader(Pairs(), batch_size=4, collate_fn=collate))
    train = data.train.prepare(_small())
    assert torch.equal(train.batch(torch.arange(4)), X[data.train.rows[:4]] * 2 - 1)
    assert torch.equal(data.train.targets, 1 - Y[data.train.rows])


@pytest.mark.parametrize(
    ("collate", "message"),
    [
        (
            lambda items: {"x": default_collate(items)[0]},
            "must give a tensor of inputs, or .inputs, targets., not a dict",
        ),
        (lambda items: ([x for x, _ in items], torch.tensor([y for _, y in items])), "not a list"),
        (lambda items: items[99], "the collate function fails on 1 of the items: IndexError"),
    ],
)
def test_what_a_collate_function_may_not_give(collate, message):
    with pytest.raises(DataError, match=message):
        load_data(DataLoader(Pairs(), batch_size=4, collate_fn=collate))


def test_a_last_batch_that_would_be_dropped_counts():
    assert any("drop_last" in note for note in load_data(DataLoader(SET, batch_size=5, drop_last=True)).notes)


# ---------------------------------------------------------------- what was asked for and cannot be


def test_classes_without_validation_samples_are_said():
    x, y = torch.rand(500, 3, 8, 8), torch.zeros(500, dtype=torch.int64)
    y[:2], y[2:4] = 1, 2
    data = load_data((x, y))
    lacking = [i for i in range(3) if not (data.valid.targets == i).any()]
    assert lacking
    assert any(
        note.startswith("no validation sample has the class") and "--valid" in note for note in data.notes
    )


def test_another_share_than_was_asked_is_said():
    data = load_data((torch.rand(60, 3, 8, 8), torch.arange(60) % 30))
    assert len(data.valid) == 30
    assert any("50% of the samples validate, not 20%" in note for note in data.notes)
    assert load_data((torch.rand(60, 3, 8, 8), torch.arange(60) % 3)).notes == []


def test_labels_that_no_sample_has_are_said():
    rows = np.zeros((20, 3))
    rows[::2, 0] = rows[:1, 1] = 1
    notes = " ".join(load_data((torch.rand(20, 3, 8, 8), rows)).notes)
    assert "no training sample has the label 2" in notes
    assert "the label 1" in notes


def test_fewer_of_a_class_than_were_asked_are_said():
    data = load_data((torch.rand(40, 3, 8, 8), (torch.arange(40) < 8).long()), per_class=10)
    assert any("fewer than --per-class 10 training samples: 1 6" in note for note in data.notes)
