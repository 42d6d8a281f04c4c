"""What a label means: by what items say, with which the attributes of a data set are compared."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refusal
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from tlnb.engine.data.load import load_data
from tlnb.errors import DataError
from tlnb.session import Session

COLOURS = {"ant": 40, "bee": 120, "cat": 200}


class Animals(Dataset):
    """Pictures whose brightness is that of their class by name.

    Args:
        names: class of each picture.
        numbers: of each class, as the items give it.
        listed: list of targets; None for the items' own.
    """

    def __init__(self, names, numbers, listed=None, **attributes):
        self.words, self.numbers = names, numbers
        if listed is not False:
            self.targets = [numbers[name] for name in names] if listed is None else listed
        for name, value in attributes.items():
            setattr(self, name, value)

    def __len__(self):
        return len(self.words)

    def __getitem__(self, index):
        value = COLOURS[self.words[index]] + index % 7
        return Image.fromarray(np.full((8, 8, 3), value, np.uint8)), self.numbers[self.words[index]]


def names_of(data, *, part="train"):
    """The names that samples have, and those that their pictures show."""
    samples = getattr(data, part)
    told = [data.classes[int(target)] for target in samples.targets]
    shown = []
    for row in samples.rows.tolist():
        value = np.asarray(samples.reader.item(row))[0, 0, 0]
        shown.append(next(name for name, colour in COLOURS.items() if colour <= value < colour + 7))
    return told, shown


WORDS = ["ant", "bee", "cat"] * 8
UP, DOWN = {"ant": 0, "bee": 1, "cat": 2}, {"ant": 2, "bee": 1, "cat": 0}
SETS = {
    "class_to_idx against classes": Animals(WORDS, DOWN, classes=["ant", "bee", "cat"], class_to_idx=DOWN),
    "class_to_idx alone": Animals(WORDS, DOWN, class_to_idx=DOWN),
    "idx_to_class": Animals(WORDS, DOWN, idx_to_class={number: name for name, number in DOWN.items()}),
    "classes as a dict": Animals(WORDS, DOWN, classes=dict(DOWN)),
    "numbers with gaps": Animals(WORDS, {"ant": 7, "bee": 3, "cat": 5}, class_to_idx={"ant": 7, "bee": 3, "cat": 5}),
    "words beside numbers": Animals(WORDS, DOWN, WORDS, class_to_idx=DOWN),
    "words beside numbers without names": Animals(WORDS, DOWN, WORDS),
    "a part": Subset(Animals(WORDS, DOWN, class_to_idx=DOWN), torch.arange(3, 24)),
    "a part of a part": Subset(Subset(Animals(WORDS, DOWN, class_to_idx=DOWN), range(1, 24)), np.arange(2, 23)),
    "joined": ConcatDataset([Animals(WORDS, UP, classes=list(UP)), Animals(WORDS, UP, classes=list(UP))]),
    "joined, numbered differently": ConcatDataset(
        [Animals(WORDS, UP, classes=list(UP)), Animals(WORDS, DOWN, class_to_idx=DOWN)]
    ),
    "joined, other classes": ConcatDataset(
        [
            Animals(["ant", "bee"] * 6, UP, classes=["ant", "bee"]),
            Animals(["bee", "cat"] * 6, {"bee": 0, "cat": 1}, classes=["bee", "cat"]),
        ]
    ),
    "a mixed part of joined ones": Subset(
        ConcatDataset([Animals(WORDS, UP, classes=list(UP)), Animals(WORDS, DOWN, class_to_idx=DOWN)]),
        [*range(40, 10, -1)],
    ),
    "no list of targets": Animals(WORDS, DOWN, False, class_to_idx=DOWN),
}  # fmt: skip


@pytest.mark.parametrize("source", SETS.values(), ids=SETS)
def test_names_are_those_of_the_pictures(source):
    data = load_data(source)
    for part in ("train", "valid"):
        told, shown = names_of(data, part=part)
        assert told == shown


@pytest.mark.parametrize("wrong", [[0, 1, 2] * 8, [*[2, 1, 0] * 7, 0, 1, 1]])
def test_a_list_that_differs_from_the_items_is_not_believed(wrong):
    source = Animals(WORDS, DOWN, wrong)
    data = load_data(source)
    assert all(
        int(t) == source[int(row)][1] for row, t in zip(data.train.rows, data.train.targets, strict=True)
    )
    assert any("differs from its items" in note for note in data.notes)


def test_one_class_that_items_change_is_found():
    class Merged(Animals):
        def __getitem__(self, index):
            picture, number = super().__getitem__(index)
            return picture, 1 if number == 2 else number

    words = ["ant", "bee"] * 300 + ["cat"] * 3
    data = load_data(Merged(words, UP, classes=list(UP)))
    assert data.classes == ("0", "1")  # the names of the list mean other numbers
    assert any("differs from its items" in note for note in data.notes)


def test_a_column_of_pandas_is_taken_by_place():
    pandas = pytest.importorskip("pandas")
    targets = pandas.Series([DOWN[word] for word in WORDS], index=range(100, 124))
    source = Subset(Animals(WORDS, DOWN, targets, class_to_idx=DOWN), range(2, 20))
    told, shown = names_of(load_data(source))
    assert told == shown


def test_columns_with_the_same_index_in_another_order_are_refused():
    pandas = pytest.importorskip("pandas")
    x = pandas.DataFrame(np.random.default_rng(0).random((20, 3)))
    y = pandas.Series([0, 1] * 10)
    with pytest.raises(DataError, match=r"same index in different orders.*y\.loc\[X\.index\]"):
        load_data((x, y.sample(frac=1, random_state=0)))
    assert any("by place" in note for note in load_data((x, y.set_axis(range(50, 70)))).notes)
    assert load_data((x, y)).notes == []


def test_columns_of_a_table_of_targets_name_the_labels():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"red": [0, 1] * 10, "blue": [1, 1, 0, 0] * 5})
    assert load_data((np.random.default_rng(0).random((20, 3)), table)).classes == ("red", "blue")


@pytest.mark.parametrize("missing", ["NA", "NaT", "None", "nan"])
def test_missing_words_are_one_line(missing):
    pandas = pytest.importorskip("pandas")
    hole = {"NA": pandas.NA, "NaT": pandas.NaT, "None": None, "nan": float("nan")}[missing]
    with pytest.raises(DataError, match="1 targets are missing"):
        load_data((torch.rand(20, 3, 8, 8), pandas.Series(["a", "b"] * 9 + [hole, "b"], dtype="object")))


PAIRS = {
    "another order": (Animals(WORDS, UP, classes=list(UP)), Animals(WORDS, DOWN, class_to_idx=DOWN)),
    "a class less": (
        Animals(WORDS, UP, classes=list(UP)),
        Animals(["ant", "cat"] * 4, {"ant": 0, "cat": 1}, classes=["ant", "cat"]),
    ),
    "a dict with dev": (Animals(WORDS, UP, classes=list(UP)), Animals(WORDS, DOWN, class_to_idx=DOWN)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_parts_are_matched_by_name(name):
    train, valid = PAIRS[name]
    data = load_data({"train": train, "dev": valid} if "dict" in name else (train, valid))
    for part in ("train", "valid"):
        told, shown = names_of(data, part=part)
        assert told == shown
    assert any("matched by name" in note for note in data.notes)


def test_a_validation_class_that_training_lacks_is_said():
    train = Animals(["ant", "bee"] * 6, UP, classes=["ant", "bee"])
    valid = Animals(WORDS, {"ant": 0, "bee": 1, "cat": 2}, classes=list(UP))
    data = load_data((train, valid))
    assert names_of(data, part="valid")[0] == names_of(data, part="valid")[1]
    assert any("no training sample has the class cat" in note for note in data.notes)


def test_parts_of_which_some_are_named_otherwise_are_refused():
    unnamed = Animals(WORDS, UP)
    both = [Animals(WORDS, UP, classes=list(UP)), Animals(WORDS, DOWN, class_to_idx=DOWN)]
    with pytest.raises(DataError, match="name their classes differently and some only number them"):
        load_data(ConcatDataset([*both, unnamed]))


@pytest.mark.parametrize(
    ("targets", "left", "said"),
    [
        ([0, 1, -100] * 20, 40, "20 samples have the target -100"),
        ([0, 1, 2, -1] * 15, 45, "15 samples have the target -1"),
        (["0", "1", "-100"] * 20, 40, "20 samples have the target -100"),
        ([0, 1, -1] * 20, 60, "-1, taken as a class of its own"),
        ([1, -1] * 30, 60, ""),
        ([0.0, 1.0, -100.0] * 20, 40, "the target -100"),
    ],
)
def test_signs_for_no_label_are_left_out_and_said(targets, left, said):
    for source in (
        (torch.rand(60, 3, 8, 8), targets),
        TensorDataset(torch.rand(60, 3, 8, 8), torch.tensor([float(t) for t in targets])),
    ):
        data = load_data(source)
        assert len(data.train) + len(data.valid) == left
        assert said in " ".join(data.notes)
    everything = load_data((torch.rand(60, 3, 8, 8), targets), target="classes")
    assert len(everything.train) + len(everything.valid) == 60


def test_pictures_stay_with_their_labels_where_some_have_none():
    pictures = torch.arange(60).float().div(100).reshape(60, 1, 1, 1).expand(60, 3, 8, 8)
    targets = torch.tensor([0, 1, -100] * 20)
    data = load_data((pictures, targets))
    for part in (data.train, data.valid):
        assert [int(x[0, 0, 0] * 100 + 0.5) % 3 for x in part.images] == part.targets.tolist()


def test_unknown_among_labels_counts_as_absent():
    rows = [[1, 0, float("nan")], [0, -1, 1]] * 10
    data = load_data((torch.rand(20, 3, 8, 8), np.array(rows)))
    assert sorted(set(data.train.targets.flatten().tolist())) == [0, 1]
    assert any("-1 (uncertain" in note for note in data.notes)


def test_whole_measured_values_are_said():
    data = load_data((torch.rand(300, 3, 8, 8), torch.arange(300) % 60 + 20))
    assert any("--target regression" in note for note in data.notes)
    assert not any(
        "regression" in note for note in load_data((torch.rand(300, 3, 8, 8), torch.arange(300) % 10)).notes
    )
    with pytest.raises(DataError, match="--target regression"):
        load_data((torch.rand(60, 3, 8, 8), torch.arange(60) + 20))


class Items(Dataset):
    def __init__(self, make):
        self.make = make

    def __len__(self):
        return 24

    def __getitem__(self, index):
        return self.make(index)


FORMS = [
    (lambda i: {"image": torch.rand(3, 8, 8), "label": i % 2}, "keys image, label"),
    (lambda i: (torch.rand(3, 8, 8), torch.rand(3, 8, 8), i % 2), "the second looks like an input"),
    (lambda i: (torch.full((3, 20 + i % 3, 30), i / 24 - 0.5), i % 2), "several sizes"),
    (lambda i: ("some words", i % 2), "have a str as input"),
    (lambda i: torch.rand(3, 8, 8), "must be .input, target., not Tensor"),
]


@pytest.mark.parametrize(("make", "message"), FORMS, ids=[message for _, message in FORMS])
def test_items_of_other_forms_are_one_line(make, message):
    with pytest.raises(DataError, match=message) as caught:
        load_data(Items(make))
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- Hugging Face, by its looks


def feature(kind, **attributes):
    return type(kind, (), attributes)()


class Hub:
    """What a split of a Hugging Face data set can do: pictures as bright as their class."""

    def __init__(self, words, names, *, transform=None, **features):
        self.words, self.names, self.transform = words, names, transform
        self.features = {"image": feature("Image"), "label": feature("ClassLabel", names=names), **features}
        self.column_names = list(self.features)

    def __len__(self):
        return len(self.words)

    def __getitem__(self, key):
        numbers = [self.names.index(word) if word else -1 for word in self.words]
        if isinstance(key, str):
            return numbers
        value = COLOURS.get(self.words[key], 0) + key % 7
        item = {
            "image": Image.fromarray(np.full((8, 8, 3), value, np.uint8)),
            "label": numbers[key],
            "coarse": 0,
        }
        return self.transform(item) if self.transform else item


ABC, CBA = ["ant", "bee", "cat"], ["cat", "bee", "ant"]


@pytest.mark.parametrize("held", ["validation", "dev", "test", "Valid"])
@pytest.mark.parametrize("names", [ABC, CBA, ["cat", "ant"]])
def test_splits_of_a_hugging_face_set_are_matched_by_name(held, names):
    words = [word for word in WORDS if word in names]
    data = load_data({"train": Hub(WORDS, ABC), held: Hub(words, names)})
    for part in ("train", "valid"):
        told, shown = names_of(data, part=part)
        assert told == shown
    assert (names == ABC) != any("matched by name" in note for note in data.notes)


def test_which_columns_of_a_hugging_face_set_are_taken_is_said():
    source = Hub(WORDS, ABC, coarse=feature("ClassLabel", names=["animal"]), mask=feature("Image"))
    notes = load_data(source).notes
    assert "the label is the column label, not coarse (--label changes it)" in notes
    assert "the picture is the column image, not mask (--path changes it)" in notes
    with pytest.raises(DataError, match="no column 'lable'; did you mean 'label'"):
        load_data(source, label="lable")


def test_samples_without_a_label_in_a_hugging_face_set_are_left_out():
    data = load_data(Hub([*WORDS, None, None], ABC))
    assert len(data.train) + len(data.valid) == 24
    assert any("2 samples have the target -1, the sign for no label" in note for note in data.notes)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (
            lambda item: {"pixel_values": item["image"], "labels": item["label"]},
            "has no 'label' as its column has",
        ),
        (
            lambda item: {"pixel_values": item["image"], "label": item["label"]},
            "have no 'image' but pixel_values",
        ),
        (lambda item: item | {"label": 2 - item["label"]}, "and its column"),
    ],
)
def test_a_transform_that_changes_the_columns_is_refused(transform, message):
    with pytest.raises(DataError, match=message):
        load_data(Hub(WORDS, ABC, transform=transform))


VALUES = [
    0,
    1,
    2,
    -1,
    -100,
    1.5,
    "a",
    "a|b",
    None,
    float("nan"),
    float("inf"),
    True,
    np.int64(3),
    "",
    b"x",
    10**25,
    [0, 1],
    (1,),
    {},
]


def test_odd_targets_are_taken_or_refused_in_one_line():
    rng = np.random.default_rng(0)
    pictures = torch.rand(12, 3, 8, 8)
    for _ in range(400):
        chosen = rng.integers(0, len(VALUES), rng.integers(1, 4))
        targets = [VALUES[chosen[i]] for i in rng.integers(0, len(chosen), 12)]
        assert "\n" not in refusal((pictures, targets), valid=0.5)


@pytest.mark.parametrize("label", [0.9, 1.0])
def test_shares_of_classes_are_said(label):
    """Soft labels, as smoothing and mixing give them, become values; those of one class alone become its number."""
    numbers = torch.arange(60) % 3
    targets = torch.full((60, 3), (1 - label) / 2).scatter_(1, numbers[:, None], label)
    data = load_data((torch.randn(60, 1, 8, 8), targets))
    shares = any("sum to 1, as shares of classes do" in note for note in data.notes)
    assert (type(data.task).__name__, shares) == (
        ("Classification", False) if label == 1 else ("Regression", True)
    )


def test_places_are_counted_without_the_samples_that_have_no_label_and_that_is_said():
    targets = np.tile([0, 1, -100], 20)
    session = Session([])
    session.data((torch.rand(60, 3, 8, 8), targets), test=0.2)
    places, labelled = session.split, targets[targets >= 0]
    assert sorted(torch.cat([places.train, places.valid, places.test]).tolist()) == list(range(40))
    assert labelled[places.train].tolist() == session.view.data.train.targets.tolist()
    assert labelled[places.valid].tolist() == session.view.data.valid.targets.tolist()
    assert any("left out, and tl.split counts without them" in note for note in session.view.data.notes)


def test_masked_values_are_missing():
    mask = [index == 3 for index in range(20)]
    with pytest.raises(DataError, match="1 targets are missing"):
        load_data((torch.rand(20, 4), np.ma.masked_array([0, 1] * 10, mask)))
    with pytest.raises(DataError, match="X holds masked values"):
        load_data(
            (np.ma.masked_array(np.random.default_rng(0).random((20, 4)), np.ones((20, 4))), [0, 1] * 10)
        )
    data = load_data((torch.rand(20, 4), np.ma.masked_array([0, 1] * 10, False)))
    assert len(data.train) + len(data.valid) == 20


def test_nested_tensors_are_one_line():
    nested = torch.nested.nested_tensor([torch.rand(3, 4), torch.rand(5, 4)])
    with pytest.raises(DataError, match="X is a nested tensor"):
        load_data((nested, torch.tensor([0, 1])))
