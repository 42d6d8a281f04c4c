"""Columns of a table by their names, and files by names that are not quite theirs."""

from __future__ import annotations

import os
import unicodedata

import numpy as np
import pytest
from PIL import Image
from refusals import refusal

from tlnb.engine.core.objectives import Classification, MultiLabel, Regression
from tlnb.engine.data.load import load_data
from tlnb.errors import DataError

COUNT = 24


@pytest.fixture
def root(tmp_path):
    """A folder with 24 pictures of different grey, ``im/0.png`` on."""
    return pictures(tmp_path / "data", [f"im/{i}.png" for i in range(COUNT)])


def pictures(root, names):
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 10 * (number % 25), np.uint8)).save(root / name)
    return root


def table(root, header, row, name="t.csv"):
    lines = ([header] if header else []) + [row(i) for i in range(COUNT)]
    (root / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root / name


def number_of(data, index=0, part="train"):
    """Which of the pictures a sample is, by its grey."""
    samples = getattr(data, part)
    with Image.open(samples.path(index)) as picture:
        return np.asarray(picture)[0, 0, 0] // 10


BESIDE = {
    "an unnamed index": (",image,label", lambda i: f"{i},im/{i}.png,{i % 2}"),
    "pandas' index": ("Unnamed: 0,image,label", lambda i: f"{i},im/{i}.png,{i % 2}"),
    "ids": ("image,label,patient_id", lambda i: f"im/{i}.png,{i % 2},{i // 4}"),
    "an age": ("image,label,age,sex", lambda i: f"im/{i}.png,{i % 2},{20 + i},{'mf'[i % 2]}"),
    "sizes": ("file_name,width,height,class", lambda i: f"im/{i}.png,{100 + i},200,{i % 2}"),
    "the label first": ("label,path", lambda i: f"{i % 2},im/{i}.png"),
    "other words for both": ("Image Index,Finding Labels", lambda i: f"im/{i}.png,{i % 2}"),
    "ids and no known name": ("id,grade,picture", lambda i: f"{i},{i % 2},im/{i}.png"),
    "a path that is no known name": ("grade,where", lambda i: f"{i % 2},im/{i}.png"),
    "no header, an index first": ("", lambda i: f"{i},im/{i}.png,{i % 2}"),
}


@pytest.mark.parametrize("name", BESIDE)
def test_the_label_is_told_from_what_stands_beside_it(root, name):
    data = load_data(table(root, *BESIDE[name]))
    assert data.classes == ("0", "1")
    assert isinstance(data.task, Classification)
    assert len(data.train) + len(data.valid) == COUNT
    assert all(int(data.train.targets[i]) == number_of(data, i) % 2 for i in range(8))


def test_what_is_not_used_is_said_with_the_option(root):
    data = load_data(table(root, "image,label,age", lambda i: f"im/{i}.png,{i % 2},{i}"))
    assert "the label is the column label; not used: age (--label COLUMN[,COLUMN] changes it)" in data.notes


@pytest.mark.parametrize(
    ("option", "classes", "task"),
    [
        ({"label": "sex"}, ("f", "m"), Classification),
        ({"label": "Age"}, ("Age",), Regression),
        ({"label": "sick,smokes"}, ("sick", "smokes"), MultiLabel),
        ({"label": ["sick", "smokes"]}, ("sick", "smokes"), MultiLabel),
        ({"label": "4"}, ("0", "1"), Classification),
        ({"label": "Age", "target": "classes"}, tuple(map(str, range(20, 32))), Classification),
    ],
)
def test_the_column_that_is_named(root, option, classes, task):
    file = table(
        root,
        "scan,Age,sex,sick,smokes",
        lambda i: f"im/{i}.png,{20 + i % 12},{'mf'[i % 2]},{i % 2},{i % 3 % 2}",
    )
    data = load_data(file, **option)
    assert data.classes == classes
    assert isinstance(data.task, task)
    assert {"label": data.asked["label"]}.keys() <= data.asked.keys()
    assert load_data(**{k: v for k, v in data.asked.items() if v is not None}).classes == classes


WHICH = [
    (
        "scan,sex,town",
        lambda i: f"im/{i}.png,{'mf'[i % 2]},{'abc'[i % 3]}",
        "several columns could be the label: sex, town",
    ),
    (
        "scan,sick,age",
        lambda i: f"im/{i}.png,{i % 2},{20 + i}",
        "several columns could be the label: sick, age",
    ),
    (
        "scan,patient_id,fold_id2",
        lambda i: f"im/{i}.png,{i % 3},{i % 2}",
        "several columns could be the label",
    ),
]


@pytest.mark.parametrize(("header", "row", "message"), WHICH)
def test_what_cannot_be_told_is_asked(root, header, row, message):
    with pytest.raises(DataError, match=message + ".*--label"):
        load_data(table(root, header, row))


def test_a_wrong_name_gets_the_nearest(root):
    file = table(root, "image,label,age", lambda i: f"im/{i}.png,{i % 2},{i}")
    with pytest.raises(
        DataError, match=r"no column 'lable'; did you mean 'label'.*--label takes one of image, label, age"
    ):
        load_data(file, label="lable")
    with pytest.raises(DataError, match="--path takes one of"):
        load_data(file, path="pictures")


SPLITS = {
    "is_valid": ("name,label,is_valid", lambda i: f"im/{i}.png,{i % 2},{i >= 18}", range(18, 24)),
    "is_valid as numbers": ("name,label,is_valid", lambda i: f"im/{i}.png,{i % 2},{int(i >= 18)}", range(18, 24)),
    "is_train": ("name,label,is_train", lambda i: f"im/{i}.png,{i % 2},{int(i < 18)}", range(18, 24)),
    "kfold": ("image,label,kfold", lambda i: f"im/{i}.png,{i % 2},{i // 2 % 4}", [*range(0, 24, 8), *range(1, 24, 8)]),
    "fold from 1": ("image,label,fold", lambda i: f"im/{i}.png,{i % 2},{i // 2 % 4 + 1}",
    [*range(0, 24, 8), *range(1, 24, 8)]),
    "words": ("image,label,split", lambda i: f"im/{i}.png,{i % 2},{'train' if i < 18 else 'dev'}", range(18, 24)),
}  # fmt: skip


@pytest.mark.parametrize("name", SPLITS)
def test_columns_that_say_the_split(root, name):
    header, row, held = SPLITS[name]
    file = table(root, header, row)
    data = load_data(file)
    assert data.classes == ("0", "1")
    assert sorted(number_of(data, i, "valid") for i in range(len(data.valid))) == sorted(held)
    assert name == "words" or any("--split none" in note for note in data.notes)
    assert len(load_data(file, split="none", valid=0.5).valid) == COUNT // 2


def test_another_fold_and_another_column(root):
    file = table(
        root, "image,label,kfold,hospital", lambda i: f"im/{i}.png,{i % 2},{i // 2 % 4},{'abc'[i // 8]}"
    )
    data = load_data(file, split="kfold=2")
    assert {number_of(data, i, "valid") // 2 % 4 for i in range(len(data.valid))} == {2}
    data = load_data(file, split="hospital=c")
    assert sorted(number_of(data, i, "valid") for i in range(len(data.valid))) == list(range(16, 24))
    for split, message in (
        ("hospital", "--split hospital=VALUE"),
        ("hospital=d", "no row has 'd'"),
        ("nothing", "no column"),
    ):
        with pytest.raises(DataError, match=message):
            load_data(file, split=split)


def test_a_split_of_one_part_is_said(root):
    data = load_data(table(root, "image,label,split", lambda i: f"im/{i}.png,{i % 2},train"))
    assert "the column split holds train alone: split by --valid" in data.notes


SETS = ["Mass", "Nodule", "Mass{}Nodule", "Effusion{}Mass", "Effusion", "Effusion{}Mass{}Nodule"]


@pytest.mark.parametrize("sign", ["|", ";", ",", " "])
@pytest.mark.parametrize("target", [None, "labels"])
def test_joined_labels_are_taken_apart(root, sign, target):
    file = table(root, "image,label", lambda i: f'im/{i}.png,"{SETS[i % 6].replace("{}", sign)}"')
    data = load_data(file, target=target)
    assert data.classes == ("Effusion", "Mass", "Nodule")
    assert isinstance(data.task, MultiLabel)
    assert sign == ";" or any("--delimiter" in note for note in data.notes)


def test_the_delimiter_that_is_named(root):
    file = table(root, "image,label", lambda i: f"im/{i}.png,{SETS[i % 6].replace('{}', '/')}")
    assert len(load_data(file).classes) == 6
    assert load_data(file, delimiter="/").classes == ("Effusion", "Mass", "Nodule")
    with pytest.raises(DataError, match="no label holds the delimiter"):
        load_data(file, delimiter="+")


@pytest.mark.parametrize(
    "names",
    [("red car", "blue car", "red bus", "blue bus"), ("golden retriever", "tabby cat"), ("a,b", "c,d")],
)
def test_names_of_several_words_stay_whole(root, names):
    data = load_data(table(root, "image,label", lambda i: f'im/{i}.png,"{names[i % len(names)]}"'))
    assert data.classes == tuple(sorted(names))
    assert isinstance(data.task, Classification)


def test_columns_with_signs_for_unknown_are_labels(root):
    file = table(
        root,
        "Path,Edema,Pneumonia,Mass",
        lambda i: f"im/{i}.png,{(1.0, 0.0, -1.0)[i % 3]},{i % 2}.0,{('', '1.0')[i % 2]}",
    )
    data = load_data(file)
    assert data.classes == ("Edema", "Pneumonia", "Mass")
    assert isinstance(data.task, MultiLabel)
    assert any("12 empty cells" in note for note in data.notes)
    assert any("8 labels are -1" in note for note in data.notes)


@pytest.mark.parametrize("name", ["age", "score", "count"])
def test_measured_values_by_their_name(root, name):
    file = table(root, f"path,{name}", lambda i: f"im/{i}.png,{20 + i}")
    data = load_data(file)
    assert isinstance(data.task, Regression)
    assert any(f"{name} is learned as a measured value (--target classes" in note for note in data.notes)
    with pytest.raises(DataError, match="--target regression"):
        load_data(file, target="classes")


@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
def test_cells_between_other_signs(root, separator):
    file = table(
        root, separator.join(("image", "label")), lambda i: separator.join((f"im/{i}.png", "ab"[i % 2]))
    )
    assert load_data(file).classes == ("a", "b")


NFD, NFC = (unicodedata.normalize(form, "bär/zoë") for form in ("NFD", "NFC"))
PLACES = {
    "without an ending": ("{i}.png", "{i}", "without an ending"),
    "with other endings": ("{i}.jpg", "{i}", "found with .jpg"),
    "in a folder beside": ("images/{i}.png", "{i}.png", "looked for in images"),
    "in a folder beside, without an ending": ("train/jpeg/{i}.png", "{i}", "--folder"),
    "in folders below a folder beside": ("images/a/{i}.png", "a/{i}.png", "looked for in images"),
    "backslashes": ("im/a/{i}.png", "im\\a\\{i}.png", "backslashes"),
    "another computer's Windows": (
        "im/a/{i}.png",
        "C:\\Users\\anna\\set\\im\\a\\{i}.png",
        "of another computer",
    ),
    "another computer's home": ("im/a/{i}.png", "/home/anna/set/im/a/{i}.png", "of another computer"),
    "accents apart": (NFC + "{i}.png", NFD + "{i}.png", "another spelling"),
    "accents composed": (NFD + "{i}.png", NFC + "{i}.png", "another spelling"),
    "large letters": ("IM/{i}.PNG", "im/{i}.png", "another spelling"),
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("header", ["image,label", ""])
def test_files_by_names_that_are_not_quite_theirs(tmp_path, name, header):
    place, word, said = PLACES[name]
    root = pictures(tmp_path / "data", [place.format(i=i) for i in range(COUNT)])
    data = load_data(table(root, header, lambda i: f"{word.format(i=i)},{'ab'[i % 2]}"))
    assert len(data.train) + len(data.valid) == COUNT
    assert all(int(data.train.targets[i]) == number_of(data, i) % 2 for i in range(8))
    assert any(said in note for note in data.notes)


def test_the_folder_and_the_ending_that_are_named(tmp_path):
    root = pictures(tmp_path / "store", [f"{i}{suffix}" for i in range(COUNT) for suffix in (".png", ".jpg")])
    (tmp_path / "tables").mkdir()
    file = table(tmp_path / "tables", "image,label", lambda i: f"{i},{'ab'[i % 2]}")
    data = load_data(file, folder=root, suffix="jpg")
    assert data.train.name(0).endswith(".jpg")
    absolute = table(tmp_path / "tables", "image,label", lambda i: f"{root}/{i}.png,{'ab'[i % 2]}")
    with pytest.raises(DataError, match=r"leads out of the folder .*--folder"):
        load_data(absolute)
    # Other pictures of those names, beside the table, are not taken for them.
    pictures(tmp_path / "tables" / root.name, [f"{i}.png" for i in range(COUNT)])
    with pytest.raises(DataError, match=r"leads out of the folder .*--folder"):
        load_data(absolute)
    assert len(load_data(absolute, folder=str(root)).train) == 19
    assert len(load_data(absolute, folder="../store").train) == 19
    with pytest.raises(DataError, match="--folder 'nowhere' is no folder"):
        load_data(file, folder="nowhere")


def test_a_table_cannot_name_files_elsewhere(tmp_path):
    pictures(tmp_path, [f"secret/{i}.png" for i in range(COUNT)])
    (tmp_path / "data").mkdir()
    for word in ("../secret/{i}.png", str(tmp_path / "secret/{i}.png"), "x/../../secret/{i}.png"):
        with pytest.raises(DataError, match="leads out of the folder"):
            load_data(
                table(tmp_path / "data", "image,label", lambda i, w=word: f"{w.format(i=i)},{'ab'[i % 2]}")
            )


@pytest.mark.parametrize("kind", ["files of a table", "files of folders", "class folders"])
def test_links_into_a_store_are_followed_where_that_is_said(tmp_path, kind):
    store = pictures(tmp_path / "store", [f"{'ab'[i % 2]}/{i}.png" for i in range(COUNT)])
    root = tmp_path / "data"
    root.mkdir()
    for i in range(COUNT):
        label = "ab"[i % 2]
        if kind == "class folders":
            if i < 2:
                os.symlink(store / label, root / label)
            continue
        (root / label).mkdir(exist_ok=True)
        os.symlink(store / label / f"{i}.png", root / label / f"{i}.png")
    source = (
        table(root, "image,label", lambda i: f"{'ab'[i % 2]}/{i}.png,{'ab'[i % 2]}")
        if "table" in kind
        else root
    )
    with pytest.raises(DataError, match="--links"):
        load_data(source)
    data = load_data(source, links=True)
    assert len(data.train) + len(data.valid) == COUNT
    assert data.asked["links"] is True


CLASSES_OF = {
    "a class called train": (["bus", "car", "train"], ("bus", "car", "train")),
    "classes called train and test": (["bus", "test", "train"], ("bus", "test", "train")),
    "parts": (["train/bus", "train/car", "val/bus", "val/car"], ("bus", "car")),
    "parts, an unlabelled test": (["train/bus", "train/car", "test"], ("bus", "car")),
    "parts beside other folders": (["train/bus", "train/car", "val/bus", "val/car", "extra"], ("bus", "car")),
    "train alone": (["train/bus", "train/car"], ("bus", "car")),
}


@pytest.mark.parametrize("name", CLASSES_OF)
def test_a_folder_called_train_is_a_part_or_a_class(tmp_path, name):
    folders, classes = CLASSES_OF[name]
    pictures(tmp_path, [f"{folder}/{i}.png" for i in range(6) for folder in folders])
    data = load_data(tmp_path, valid=0.5)
    assert data.classes == classes
    assert any("holds no class folders: not used" in note for note in data.notes) == ("unlabelled" in name)
    assert any("is taken as a class" in note for note in data.notes) == ("called" in name)


def test_columns_with_a_single_one_can_be_classes(root):
    file = table(root, "image,red,blue", lambda i: f"im/{i}.png,{i % 2},{1 - i % 2}")
    assert any("--target classes" in note for note in load_data(file).notes)
    data = load_data(file, target="classes")
    assert data.classes == ("red", "blue")
    assert isinstance(data.task, Classification)
    assert all(int(data.train.targets[i]) != number_of(data, i) % 2 for i in range(8))


def test_folders_are_classes_where_that_is_said(tmp_path):
    pictures(
        tmp_path,
        [f"{folder}/{i}.png" for i in range(6) for folder in ("train/a", "train/b", "val/a", "val/b")],
    )
    assert load_data(tmp_path, split="none", valid=0.5).classes == ("train", "val")
    with pytest.raises(DataError, match="class folders have no columns; --label means nothing here"):
        load_data(tmp_path, label="x")


def test_class_folders_with_accents_are_one_class(tmp_path):
    names = [unicodedata.normalize("NFC", "zoë"), unicodedata.normalize("NFD", "zoë")]
    folders = [f"train/{names[0]}", "train/bee", f"val/{names[1]}", "val/Bee"]
    pictures(tmp_path, [f"{folder}/{i}.png" for i in range(6) for folder in folders])
    data = load_data(tmp_path)
    assert data.classes == ("bee", names[0])
    assert len(data.valid) == 12
    assert any("the validation folder Bee is taken for bee" in note for note in data.notes)


def test_an_empty_class_folder_is_said(tmp_path):
    pictures(tmp_path, [f"{folder}/{i}.png" for i in range(6) for folder in ("a", "b")])
    (tmp_path / "c").mkdir()
    assert any("no usable training picture: c" in note for note in load_data(tmp_path).notes)


CELLS = [
    "im/{}.png", "{}", "im\\{}.png", "/x/im/{}.png", "C:\\a\\im\\{}.png", "a",
    "a|b", "a;b", "", "nan", "-1", "1", "0", "1.5", "1e400",
    "-100", "train", "valid", "True", "\x1b[2J", "=cmd()", "../../etc/passwd", "im", ".", "~", "x" * 5000, "１",
]  # fmt: skip
HEADS = ["path", "label", "is_valid", "fold", "split", "", "id", "age", "x", "Unnamed: 0", "class", "\u202e"]
ODD = [
    {}, {"label": "label"}, {"label": "1,2"}, {"path": "2"}, {"split": "fold=1"}, {"split": "="}, {"delimiter": "|"},
    {"folder": "im"}, {"suffix": "png"}, {"range": "0,5"}, {"bands": "1"},
    {"target": "labels"}, {"target": "regression"},
]  # fmt: skip


def test_odd_tables_are_taken_or_refused_in_one_line(root):
    rng = np.random.default_rng(0)
    for number in range(150):
        width = rng.integers(1, 5)
        kinds = [[CELLS[i] for i in rng.integers(0, len(CELLS), 2)] for _ in range(width)]
        lines = [
            ",".join(kind[rng.integers(2)].format(i) for kind in kinds) for i in range(rng.integers(0, 14))
        ]
        if rng.random() < 0.7:
            lines.insert(0, ",".join(HEADS[i] for i in rng.integers(0, len(HEADS), width)))
        (root / "odd.csv").write_text("\n".join(lines), encoding="utf-8")
        message = refusal(root / "odd.csv", **ODD[number % len(ODD)])
        assert "\n" not in message
