"""Folders of class folders: what is found, how it is split, and what hostile names do."""

from __future__ import annotations

import shutil

import pytest
import torch
from pictures import JPEG, class_folders, drawing, encoded

from tlnb.engine.core.objectives import Classification
from tlnb.engine.data.load import load_data
from tlnb.engine.data.preprocess import Preprocess
from tlnb.errors import DataError

SMALL = Preprocess(3, (16, 16), None)


def names(part):
    return [part.name(i) for i in range(len(part))]


def test_class_folders_are_split_in_proportion_and_the_same_next_time(tmp_path):
    root = class_folders(tmp_path / "data", ("a", "b", "c"), each=10)
    one, same, other = load_data(root, seed=1), load_data(root, seed=1), load_data(root, seed=2)
    assert one.classes == ("a", "b", "c")
    assert torch.bincount(one.valid.targets).tolist() == [2, 2, 2]
    assert names(one.valid) == names(same.valid) != names(other.valid)
    assert sorted(names(one.train) + names(one.valid)) == sorted(
        f"{c}/{i}.jpg" for c in "abc" for i in range(10)
    )
    for part in (one.train, one.valid):
        assert all(name.startswith(one.classes[t]) for name, t in zip(names(part), part.targets, strict=True))


@pytest.mark.parametrize("held", ["val", "valid", "validation", "test", "Val"])
def test_a_split_of_the_folder_is_kept(tmp_path, held):
    class_folders(tmp_path / "data" / "train", each=5)
    class_folders(tmp_path / "data" / held, each=2)
    data = load_data(tmp_path / "data")
    assert {name.split("/")[0] for name in names(data.train)} == {"train"}
    assert {name.split("/")[0] for name in names(data.valid)} == {held}
    assert (len(data.train), len(data.valid)) == (10, 4)


def test_test_is_left_aside_where_there_is_a_val(tmp_path):
    for part in ("train", "val", "test"):
        class_folders(tmp_path / "data" / part, each=3)
    data = load_data(tmp_path / "data")
    assert len(data.valid) == 6
    assert "test is left aside" in repr(data)


def test_pictures_in_folders_below_a_class_belong_to_it(tmp_path):
    root = class_folders(tmp_path / "data")
    (root / "cats" / "more" / "deep").mkdir(parents=True)
    (root / "cats" / "more" / "deep" / "x.jpg").write_bytes(JPEG)
    data = load_data(root)
    assert "cats/more/deep/x.jpg" in names(data.train) + names(data.valid)


def test_byte_equal_files_stay_on_one_side(tmp_path):
    root = class_folders(tmp_path / "data", each=12)
    for index in range(6):
        for copy in range(3):
            shutil.copy(root / "cats" / f"{index}.jpg", root / "cats" / f"copy{copy}_{index}.jpg")
    shutil.copy(root / "cats" / "0.jpg", root / "dogs" / "also_a_cat.jpg")
    for seed in range(8):
        data = load_data(root, seed=seed)
        train, valid = ({(root / n).read_bytes() for n in names(part)} for part in (data.train, data.valid))
        assert not train & valid
    assert "19 samples are byte-equal to others" in repr(data)
    assert "1 pair of equal samples has different targets, such as cats/" in repr(data)


def test_large_equal_files_are_found_too(tmp_path):
    root = class_folders(tmp_path / "data")
    large = JPEG + bytes(300 << 10) + b"\xff\xd9"
    for name in ("x.jpg", "y.jpg"):
        (root / "cats" / name).write_bytes(large)
    assert "1 sample is byte-equal" in repr(load_data(root))


def test_a_leak_in_the_folders_own_split_is_reported(tmp_path):
    class_folders(tmp_path / "data" / "train", each=5)
    class_folders(tmp_path / "data" / "val", ("cats", "dogs"), each=5)
    (tmp_path / "data" / "val" / "cats" / "0.jpg").write_bytes(encoded(drawing(99)))
    text = repr(load_data(tmp_path / "data"))
    assert "9 validation samples are byte-equal to training samples, so the figure is too good" in text
    assert "val/cats/1.jpg = train/cats/1.jpg" in text


def test_uneven_classes_are_said_and_balance_evens_them(tmp_path):
    root = class_folders(tmp_path / "data", ("few", "many"), each=5)
    for index in range(5, 25):
        (root / "many" / f"{index}.jpg").write_bytes(encoded(drawing(index)))
    assert "uneven classes: 4 of few, 20 of many" in repr(load_data(root))
    weighted = load_data(root, balance="weights")
    assert weighted.task == Classification(weights=(3.0, 0.6000000238418579))
    repeated, _ = load_data(root, balance="samples").samples(SMALL)
    assert torch.bincount(repeated.targets).tolist() == [20, 20]
    assert len(repeated.rows.unique()) == 24
    assert repeated.batch(torch.arange(40)).shape == (40, 3, 16, 16)


def test_hostile_names_are_shown_as_codes(tmp_path):
    hostile = ["<img src=x onerror=alert(1)>", "\x1b[2J\x1b[31mred", "new\nline", "a\u202egnp.exe", "$x^2$"]
    root = class_folders(tmp_path / "data", tuple(hostile), each=3)
    (root / hostile[1] / "\x1b]0;title\x07.jpg").write_bytes(b"")
    data = load_data(root)
    page, text = data._repr_html_(), repr(data)
    assert "<img" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    for shown in (page, text, *data.classes, *(part for row in data.problems for part in row)):
        assert not {"\x1b", "\x07", "\u202e"} & set(shown)
    assert "\\x1b[2J\\x1b[31mred" in data.classes
    assert "new\\nline" in data.classes
    assert data.samples(SMALL)[0].batch(torch.arange(len(data.train))).shape[0] == len(data.train)


def test_a_name_that_is_no_text_is_read(tmp_path):
    root = class_folders(tmp_path / "data")
    with open(bytes(root / "cats") + b"/\xff\xfe.jpg", "wb") as file:
        file.write(JPEG)
    data = load_data(root)
    assert len(data.train) + len(data.valid) == 13
    data.samples(SMALL)[0].fingerprint()
    repr(data).encode()


ERRORS = [
    ([], "no pictures in"),
    (["0.jpg", "1.jpg"], "holds 2 pictures but no class folders"),
    (["cats/0.jpg", "cats/1.jpg"], "two classes or more are needed"),
    (
        ["cats/0.jpg", "cats/1.jpg", "dogs/0.jpg"],
        "class 'dogs' has one sample; a split needs two in each class",
    ),
]


@pytest.mark.parametrize(("files", "message"), ERRORS)
def test_a_folder_without_classes_is_one_line(tmp_path, files, message):
    for number, name in enumerate(files):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encoded(drawing(number)))
    with pytest.raises(DataError, match=message) as caught:
        load_data(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_class_of_equal_pictures_cannot_be_split(tmp_path):
    root = class_folders(tmp_path / "data")
    for name in ("x.jpg", "y.jpg"):
        (root / "same").mkdir(exist_ok=True)
        (root / "same" / name).write_bytes(JPEG)
    with pytest.raises(DataError, match="class 'same' has 2 samples that are all equal"):
        load_data(root)


def test_a_class_without_training_pictures_is_left_out_and_said(tmp_path):
    root = class_folders(tmp_path / "data")
    (root / "broken").mkdir()
    (root / "broken" / "x.jpg").write_bytes(b"")
    data = load_data(root)
    assert data.classes == ("cats", "dogs")
    assert "left out, as there is no usable training picture: broken" in repr(data)


def test_a_misspelt_path_gets_the_nearest(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(DataError, match=r"did you mean '.*/pictures'"):
        load_data(tmp_path / "pictres")
    with pytest.raises(DataError, match="did you mean 'digits'"):
        load_data("digit")
    (tmp_path / "data.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="unpack it first"):
        load_data(tmp_path / "data.zip")


@pytest.mark.parametrize("parts", [("",), ("train", "val")])
def test_a_folder_unpacked_into_one_more_is_read_from_within(tmp_path, parts):
    for part in parts:
        class_folders(tmp_path / "data" / "photos" / part, ("a", "b"), each=5)
    (tmp_path / "data" / "README.txt").write_text("about")
    outer, inner = load_data(tmp_path / "data"), load_data(tmp_path / "data" / "photos")
    assert outer.classes == inner.classes == ("a", "b")
    assert names(outer.train) == names(inner.train)
    assert "read from photos, the only folder in it" in outer.notes
    assert not any("read from" in note for note in inner.notes)


def test_a_single_class_is_no_folder_to_read_from(tmp_path):
    class_folders(tmp_path / "data", ("a",), each=5)
    with pytest.raises(DataError, match="only 'a' has usable training pictures"):
        load_data(tmp_path / "data")
