"""Data out of variables: tensors, arrays, Datasets, DataLoaders, Hugging Face sets, torchvision sets."""

from __future__ import annotations

import copy
import gzip
import struct

import numpy as np
import pytest
import torch
from pictures import drawing
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
    random_split,
)
from torchvision.transforms import v2

from tlnb.engine.core.fingerprint import item_digest
from tlnb.engine.core.objectives import Classification, MultiLabel, Regression
from tlnb.engine.data import split
from tlnb.engine.data.load import load_data
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.data.sources import named
from tlnb.errors import DataError

SMALL = Preprocess(3, (8, 8), None, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
PIXELS = torch.arange(20 * 3 * 8 * 8).reshape(20, 3, 8, 8).remainder(251).to(torch.uint8)
CLASSES = torch.arange(20) % 2


def everything(data, preprocess=SMALL):
    train, valid = data.samples(preprocess)
    parts = [(part.batch(torch.arange(len(part))), part.targets) for part in (train, valid)]
    return tuple(torch.cat(both) for both in zip(*parts, strict=True))


@pytest.mark.parametrize(
    "pictures",
    [
        PIXELS, PIXELS.numpy(), PIXELS.permute(0, 2, 3, 1).contiguous(), PIXELS.permute(0, 2, 3, 1).numpy(),
        PIXELS.float() / 255, PIXELS.double().numpy() / 255,
    ],
    ids=["tensor", "array", "tensor NHWC", "array NHWC", "float", "double"],
)  # fmt: skip
def test_pictures_in_memory(pictures):
    inputs, targets = everything(load_data((pictures, CLASSES)))
    expected = (PIXELS.float() / 255).sum((1, 2, 3)).sort().values
    torch.testing.assert_close(inputs.sum((1, 2, 3)).sort().values, expected)
    assert torch.bincount(targets).tolist() == [10, 10]


def test_grey_arrays_and_words():
    data = load_data((PIXELS[:, 0].numpy(), np.array(["cat", "dog"] * 10)))
    assert data.classes == ("cat", "dog")
    assert everything(data)[0].shape == (20, 3, 8, 8)


def test_normalised_pictures_are_not_normalised_twice():
    inputs = torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    data = load_data((inputs, CLASSES))
    assert "taken as normalised already" in repr(data)
    found, _ = everything(data, Preprocess(3, (8, 8), None))
    assert torch.equal(found.sum((1, 2, 3)).sort().values, inputs.sum((1, 2, 3)).sort().values)


def test_rows_of_numbers_go_to_the_network_as_they_are():
    tokens = torch.arange(200).reshape(20, 10)
    found, _ = everything(load_data((tokens, CLASSES)))
    assert found.dtype == torch.int64
    assert sorted(found[:, 0].tolist()) == tokens[:, 0].tolist()


def test_targets_of_all_kinds():
    assert isinstance(load_data((PIXELS, CLASSES)).task, Classification)
    assert isinstance(load_data((PIXELS, torch.rand(20))).task, Regression)
    several = torch.stack([CLASSES, 1 - CLASSES, CLASSES], 1)
    assert isinstance(load_data((PIXELS, several)).task, MultiLabel)
    assert load_data((PIXELS, CLASSES), target="regression").classes == ("value",)
    assert load_data((PIXELS, several[:, :2]), target="classes").classes == ("0", "1")
    assert load_data((PIXELS, CLASSES * 7 + 3)).classes == ("3", "10")
    assert load_data((PIXELS, CLASSES.float())).classes == ("0", "1")


def test_equal_rows_stay_on_one_side():
    twice = torch.cat([PIXELS, PIXELS])
    data = load_data((twice, torch.cat([CLASSES, CLASSES])))
    sides = [{p.numpy().tobytes() for p in part.images} for part in (data.train, data.valid)]
    assert not sides[0] & sides[1]


def test_deep_pictures_are_taken_as_pixels():
    for most, white in ((4000, 4095), (65000, 65535)):
        deep = np.linspace(0, most, 20 * 64).astype(np.uint16).reshape(20, 8, 8)
        for source in (deep, torch.from_numpy(deep.astype(np.int32)).to(torch.uint16)):
            data = load_data((source, CLASSES))
            assert any(f"to {most}: taken as pixels in which {white} is white" in note for note in data.notes)
            assert data.train.images.shape == (16, 1, 8, 8)
            assert max(part.images.max() for part in (data.train, data.valid)) == pytest.approx(most / white)


def test_what_is_transparent_shows_white():
    drawn = np.zeros((20, 8, 8, 4), np.uint8)
    drawn[..., 0], drawn[:, :4, :, 3] = 200, 255
    drawn[:, 0, 1, 1] = range(20)  # no two alike
    images = load_data((drawn, CLASSES)).train.images
    assert images.shape == (16, 3, 8, 8)
    assert images[:, :, 0, 0].unique(dim=0).tolist() == [[200, 0, 0]]
    assert images[:, :, 7, 0].unique(dim=0).tolist() == [[255, 255, 255]]


def test_a_list_of_pictures_of_any_size():
    pictures = [drawing(index) for index in range(10)] + [np.zeros((5, 4, 3), np.uint8)] * 2
    data = load_data((pictures, ["a", "b"] * 6))
    assert data.classes == ("a", "b")
    assert everything(data)[0].shape == (12, 3, 8, 8)
    assert "1 sample is byte-equal to others" in repr(data)
    with pytest.raises(DataError, match="X has 12 samples and y has 2"):
        load_data((pictures, ["a", "b"]))


def test_columns_of_pandas():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"x": range(20), "y": range(20)}, dtype="float32")
    data = load_data((table, pandas.Series(["a", "b"] * 10)))
    assert data.classes == ("a", "b")
    assert data.train.inputs.shape == (16, 2)


@pytest.mark.parametrize("hole", [None, float("nan")])
def test_missing_targets_are_counted(hole):
    with pytest.raises(DataError, match="2 targets are missing; leave those samples out"):
        load_data((PIXELS, [hole, hole, *[0.0, 1.0] * 9]))


def test_pairs_are_training_and_validation():
    pair = ((PIXELS[:12], CLASSES[:12]), (PIXELS[12:], CLASSES[12:]))
    sets = tuple(TensorDataset(*part) for part in pair)
    loaders = tuple(DataLoader(part, batch_size=5) for part in sets)
    for source in (pair, sets, loaders, {"train": sets[0], "valid": sets[1]}):
        data = load_data(source)
        assert (len(data.train), len(data.valid)) == (12, 8)
        assert torch.equal(data.train.targets, CLASSES[:12])
    assert load_data(loaders).batch == 5
    assert load_data(loaders, batch=3).batch == 3
    assert load_data(sets).batch == 16


@pytest.mark.parametrize(("count", "batch"), [(12, 16), (400, 16), (401, 32), (1000, 32), (1001, 64)])
def test_few_samples_come_in_small_batches(count, batch):
    many = torch.zeros(count, 2), torch.arange(count) % 2
    assert load_data((many, (many[0][:4], many[1][:4]))).batch == batch


def test_a_sampler_that_draws_is_named_and_refused():
    sampler = WeightedRandomSampler(torch.ones(20), 5)
    with pytest.raises(DataError, match="WeightedRandomSampler draws samples in a way that would be lost"):
        load_data(DataLoader(TensorDataset(PIXELS, CLASSES), sampler=sampler))
    shuffled = load_data(DataLoader(TensorDataset(PIXELS, CLASSES), shuffle=True))
    assert "sampler" not in repr(shuffled).lower()


class Drawings(Dataset):
    """Pillow pictures, optionally transformed."""

    classes = ("plain", "fancy")

    def __init__(self, transform=None, count=12):
        self.transform, self.count = transform, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        picture = drawing(index)
        return (self.transform(picture) if self.transform else picture), index % 2


def test_a_dataset_of_pictures_is_prepared_for_the_network():
    for transform in (None, v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])):
        data = load_data(Drawings(transform))
        assert data.classes == ("plain", "fancy")
        inputs, targets = everything(data, Preprocess(3, (16, 16), None))
        assert inputs.shape == (12, 3, 16, 16)
        assert inputs.min() < 0
        assert torch.bincount(targets).tolist() == [6, 6]


def test_parts_of_a_dataset_keep_its_classes():
    parts = random_split(Drawings(), [8, 4], torch.Generator().manual_seed(0))
    data = load_data(tuple(parts))
    assert data.classes == ("plain", "fancy")
    assert data.valid.targets.tolist() == [i % 2 for i in parts[1].indices]
    assert len(load_data(Subset(Drawings(), range(8))).train) == 6


NORMALISED = v2.Compose(
    [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.1] * 3)]
)


@pytest.mark.parametrize("transform", [None, NORMALISED], ids=["pictures", "tensors"])
def test_equal_items_on_both_sides_are_reported(transform):
    train, valid = Drawings(transform), Subset(Drawings(transform), [3, 5])
    for pair in ((train, valid), (DataLoader(train), DataLoader(valid))):
        notes = load_data(pair).notes
        assert any(
            note.startswith("2 validation samples are byte-equal to training samples") for note in notes
        )
        assert "sample 0 = sample 3 in training, sample 1 = sample 5 in training" in " ".join(notes)
    apart = load_data(tuple(Subset(Drawings(transform), part) for part in ([0, 1, 2, 3], [4, 5, 6, 7])))
    assert "equal" not in " ".join(apart.notes)
    twice = Subset(Drawings(transform), [*range(12)] * 2)
    assert "validation samples are byte-equal" in repr(load_data(twice))


def test_what_was_not_compared_is_said(monkeypatch):
    monkeypatch.setattr(split, "MOST", 5)
    only = "among the first 5 of 12 training and 2 of 2 validation samples only"
    pair = (Drawings(), Subset(Drawings(), [3, 11]))
    assert only in repr(load_data(pair))
    assert "1 validation sample is byte-equal" in repr(load_data(pair))
    monkeypatch.setattr(split, "SECONDS", 0.0)
    assert "among the first 1 of 12 training and 1 of 2" in repr(load_data(pair))
    random = Drawings(v2.Compose([v2.ToImage(), v2.RandomCrop(16), v2.ToDtype(torch.float32, scale=True)]))
    assert "equal samples in training and validation are not looked for" in repr(load_data(random))


ITEMS = [
    torch.zeros(3), torch.zeros(3, dtype=torch.bfloat16), torch.zeros(1, 3), torch.ones(3), torch.tensor(0.0),
    np.zeros(3), np.zeros(3, np.int8), "0", 0, 0.0, None, b"0", [0, 0], [[0], 0], {"a": 0}, {"b": 0}, drawing(1),
    drawing(2), {"bytes": b"1", "path": "a"}, {"bytes": b"2", "path": "a"},
]  # fmt: skip


def test_items_are_told_apart_by_their_content():
    digests = [item_digest(lambda item=item: copy.deepcopy(item)) for item in ITEMS]
    assert None not in digests
    assert len(set(digests)) == len(ITEMS)
    assert digests == [item_digest(lambda item=item: item) for item in ITEMS]
    assert item_digest(lambda: {"bytes": b"1", "path": "b"}) == digests[-2]
    assert item_digest(object) is None
    assert item_digest(lambda: 1 / 0) is None


def test_a_pipeline_that_normalises_is_taken_as_it_is():
    pipeline = v2.Compose(
        [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.1] * 3)]
    )
    data = load_data(Drawings(pipeline))
    assert "its own pipeline makes the inputs" in repr(data)
    inputs, _ = everything(data, Preprocess(3, (16, 16), None))
    assert inputs.shape == (12, 3, 32, 40)
    expected = sorted(float(pipeline(drawing(i)).sum()) for i in range(12))
    assert sorted(inputs.sum((1, 2, 3)).tolist()) == pytest.approx(expected, rel=1e-4)


def test_a_random_pipeline_follows_seed_view_and_index():
    pipeline = v2.Compose([v2.ToImage(), v2.RandomCrop(16), v2.ToDtype(torch.float32, scale=True)])
    train, _ = load_data(Drawings(pipeline), seed=1).samples(SMALL)
    assert train.random
    some = torch.tensor([3, 1])
    first = train.view(1, 0).batch(some)
    torch.manual_seed(99)
    assert torch.equal(first, train.view(1, 0).batch(some))
    assert torch.equal(first.flip(0), train.view(1, 0).batch(some.flip(0)))
    assert not torch.equal(first, train.view(1, 1).batch(some))


def test_a_loader_of_texts_of_different_length():
    class Texts(Dataset):
        def __len__(self):
            return 10

        def __getitem__(self, index):
            return list(range(index % 4 + 1)), index % 2

    def collate(items):
        width = max(len(tokens) for tokens, _ in items)
        tokens = torch.tensor([row + [0] * (width - len(row)) for row, _ in items])
        return tokens, torch.tensor([target for _, target in items])

    train, _ = load_data(DataLoader(Texts(), batch_size=4, collate_fn=collate)).samples(SMALL)
    batch = train.batch(torch.arange(len(train)))
    assert batch.shape == (8, 4)
    assert train.fingerprint() == train.fingerprint()


class Endless(IterableDataset):
    """No numbers."""

    def __iter__(self):
        return iter(())


class Nameless(Dataset):
    """Items without targets."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.zeros(3)


ERRORS = [
    (Endless(), "has no numbered samples"),
    (DataLoader(Endless()), "has no numbered samples"),
    (Nameless(), r"must be \(input, target\), not Tensor"),
    ((PIXELS, CLASSES[:5]), "X has 20 samples and y has 5"),
    ((PIXELS[:0], CLASSES[:0]), "hold no samples"),
    ((torch.full((20, 3), float("nan")), CLASSES), "not finite"),
    ((np.array([["a", "b"]] * 20), CLASSES), "numbers are needed"),
    (42, "data cannot be a int"),
    ((1, 2, 3), "data cannot be a tuple of 3"),
    ((PIXELS, ["ham"] * 20), "every sample is of the class 'ham'; two classes are needed"),
    (None, "data cannot be a NoneType"),
    (torch.nn.Linear(2, 2), "data cannot be a Linear"),
]


@pytest.mark.parametrize(("source", "message"), ERRORS, ids=lambda v: v if isinstance(v, str) else "")
def test_what_is_no_data_is_one_line(source, message):
    with pytest.raises(DataError, match=message) as caught:
        load_data(source)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- Hugging Face, by its looks


class Image:
    """A feature of that name."""


class ClassLabel:
    """A feature of that name."""

    names = ("ham", "egg")


class HubSet:
    """What a Hugging Face data set can do."""

    def __init__(self, count, **features):
        self.count, self.features = count, features or {"image": Image(), "label": ClassLabel()}
        self.column_names = list(self.features)

    def __len__(self):
        return self.count

    def __getitem__(self, key):
        if isinstance(key, str):
            return [row % 2 for row in range(self.count)]
        return {"image": drawing(key), "label": key % 2}


def test_a_hugging_face_set_by_its_columns():
    data = load_data(HubSet(10))
    assert data.classes == ("ham", "egg")
    assert everything(data)[0].shape == (10, 3, 8, 8)
    data = load_data({"train": HubSet(8), "test": HubSet(4)})
    assert (len(data.train), len(data.valid)) == (8, 4)
    assert "measured on test" in repr(data)


class List:
    """A feature of that name."""

    feature = ClassLabel()


class Several(HubSet):
    """Any number of labels a sample, as class numbers."""

    ROWS = ([], [0], [1], [0, 1])

    def __init__(self, count):
        super().__init__(count, image=Image(), tags=List())

    def __getitem__(self, key):
        rows = [self.ROWS[number % len(self.ROWS)] for number in range(self.count)]
        return rows if key == "tags" else {"image": drawing(key), "tags": rows[key]}


def test_a_hugging_face_set_with_lists_of_classes_has_several_labels():
    data = load_data({"train": Several(8), "validation": Several(4)})
    assert isinstance(data.task, MultiLabel)
    assert data.classes == ("ham", "egg")
    assert data.valid.targets.tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]
    pairs = Several(8)
    pairs.ROWS = ([1, 0],)
    assert load_data(pairs).train.targets.unique().tolist() == [1]


def test_a_hugging_face_set_without_pictures_says_what_it_has():
    with pytest.raises(DataError, match=r"no column with a picture \(type Image\); it has label: ClassLabel"):
        load_data(HubSet(4, label=ClassLabel()))
    with pytest.raises(DataError, match="splits dev, but none called train"):
        load_data({"dev": HubSet(4)})


# ---------------------------------------------------------------- torchvision


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TLNB_HOME", str(tmp_path))
    return tmp_path / "datasets"


def small_mnist(folder, count):
    """A copy of MNIST's files with few pictures, in its own format."""
    folder.mkdir(parents=True)
    for part, some in (("train", count), ("t10k", count // 2)):
        pixels = (np.arange(some * 784) % 256).astype(np.uint8)
        heads = {
            "images-idx3-ubyte": struct.pack(">IIII", 2051, some, 28, 28) + pixels.tobytes(),
            "labels-idx1-ubyte": struct.pack(">II", 2049, some) + bytes(i % 10 for i in range(some)),
        }
        for name, content in heads.items():
            (folder / f"{part}-{name}").write_bytes(content)
            (folder / f"{part}-{name}.gz").write_bytes(gzip.compress(content))


def test_a_copy_that_is_there_needs_no_network(cache):
    small_mnist(cache / "MNIST" / "raw", 40)
    data = load_data("torchvision/MNIST")
    assert (len(data.train), len(data.valid)) == (40, 20)
    assert data.classes[3] == "3 - three"
    assert everything(data)[0].shape == (60, 3, 8, 8)


def test_a_download_that_fails_names_what_is_missing_and_where(cache, monkeypatch):
    def refuse(*anything, **options):
        raise OSError("no network here")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    for name, file in (("CIFAR10", "cifar-10-python.tar.gz"), ("MNIST", "train-images-idx3-ubyte.gz")):
        with pytest.raises(DataError) as caught:
            load_data(f"torchvision/{name}")
        text = str(caught.value)
        assert f"torchvision/{name} is not in {cache}" in text
        assert file in text
        assert "\n" not in text


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(DataError, match="did you mean 'torchvision/CIFAR10'"):
        load_data("torchvision/CIFAR1O")


@pytest.mark.parametrize("name", named.NAMES)
def test_every_name_can_be_asked_for_its_parts(name, cache):
    maker = getattr(named.datasets, name)
    for _, choice in named._choices(maker):
        with pytest.raises((RuntimeError, FileNotFoundError)):  # not there; anything else is a wrong argument
            maker(root=str(cache), download=False, **choice)


@pytest.mark.parametrize(
    ("scale", "white"), [(1.0, None), (16.0, "16 is white"), (200.0, "255 is white"), (255.0, "255 is white")]
)
def test_pictures_on_any_scale_are_taken_as_pixels(scale: float, white: str | None) -> None:
    pixels = torch.linspace(0, 1, 20 * 64).view(20, 1, 8, 8)
    data = load_data((pixels * scale, torch.arange(20) % 2))
    assert (white is None and not data.notes) or any(white in note for note in data.notes)
    plain = Preprocess(channels=1, size=(8, 8), resize=None, mean=(0.0,), std=(1.0,))
    most = max(part.batch(torch.arange(len(part))).max().item() for part in data.samples(plain))
    assert most == pytest.approx(200 / 255 if scale == 200.0 else 1.0)
