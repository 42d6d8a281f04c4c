"""Tables of path and label: classes, several labels, measured values, and paths that go astray."""

from __future__ import annotations

import io

import pytest
import torch
from pictures import JPEG, drawing, encoded
from PIL import Image

from tlnb.engine.core.objectives import MultiLabel, Regression
from tlnb.engine.data.load import load_data
from tlnb.engine.data.preprocess import Preprocess
from tlnb.errors import DataError


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "data"
    (root / "pictures").mkdir(parents=True)
    for index in range(20):
        (root / "pictures" / f"{index}.jpg").write_bytes(encoded(drawing(index)))
    return root


def table(folder, rows, header=None, name="table.csv", separator=","):
    lines = [separator.join(map(str, row)) for row in ([header] if header else []) + rows]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / name


def rows(*labels):
    return [(f"pictures/{i}.jpg", *(label(i) for label in labels)) for i in range(20)]


def word(index):
    return ("wren", "owl")[index % 2]


@pytest.mark.parametrize("header", [None, ("path", "label"), ("picture", "kind"), ("filename", "species")])
@pytest.mark.parametrize(("name", "separator"), [("t.csv", ","), ("t.tsv", "\t"), ("t.csv", ";")])
def test_words_are_classes(folder, header, name, separator):
    data = load_data(table(folder, rows(word), header, name, separator))
    assert data.classes == ("owl", "wren")
    assert (len(data.train), len(data.valid)) == (16, 4)
    number = int(data.train.name(0).removeprefix("pictures/").removesuffix(".jpg"))
    assert data.classes[data.train.targets[0]] == word(number)


def test_whole_numbers_are_classes_in_order_of_size(folder):
    data = load_data(table(folder, rows(lambda i: (2, 10, 9)[i % 3])))
    assert data.classes == ("2", "9", "10")


def test_the_same_numbers_are_measured_values_where_that_is_said(folder):
    data = load_data(table(folder, rows(lambda i: 100 + 3 * i), ("path", "weight")), target="regression")
    assert data.classes == ("weight",)
    assert isinstance(data.task, Regression)
    assert data.train.targets.shape == (16, 1)
    assert abs(float(data.train.targets.mean())) < 1e-5
    values = torch.cat([data.task.answers(part.targets) for part in (data.train, data.valid)]).flatten()
    assert values.round().sort().values.tolist() == [100 + 3 * i for i in range(20)]
    assert "regression: weight from" in repr(data)


def test_numbers_that_are_not_whole_are_measured_values(folder):
    data = load_data(table(folder, rows(lambda i: i / 4, lambda i: -i / 3), ("path", "x", "y")))
    assert data.classes == ("x", "y")
    assert data.train.targets.shape == (16, 2)


@pytest.mark.parametrize("several_columns", [True, False])
def test_several_labels(folder, several_columns):
    def holds(i, label):
        return int(i % label == 0)

    if several_columns:
        listed = rows(lambda i: holds(i, 2), lambda i: holds(i, 3), lambda i: holds(i, 5))
        data = load_data(table(folder, listed, ("path", "two", "three", "five")))
        place = {"two": 2, "three": 3, "five": 5}
    else:
        words = {2: "two", 3: "three", 5: "five"}
        listed = rows(lambda i: ";".join(w for n, w in words.items() if holds(i, n)))
        data = load_data(table(folder, listed, ("path", "labels")), target="labels")
        place = {w: n for n, w in words.items()}
    assert isinstance(data.task, MultiLabel)
    assert set(data.classes) == set(place)
    assert len(data.train) + len(data.valid) == 20
    for index in range(len(data.train)):
        number = int(data.train.name(index).removeprefix("pictures/").removesuffix(".jpg"))
        assert data.train.targets[index].tolist() == [holds(number, place[name]) for name in data.classes]


def test_a_split_column_is_the_split(folder):
    listed = rows(word, lambda i: "train" if i < 15 else "valid")
    data = load_data(table(folder, listed, ("path", "label", "split")))
    assert (len(data.train), len(data.valid)) == (15, 5)
    assert [data.valid.name(i) for i in range(5)] == [f"pictures/{i}.jpg" for i in range(15, 20)]


def test_paths_that_lead_nowhere_or_out_are_listed(folder):
    (folder.parent / "secret.jpg").write_bytes(JPEG)
    (folder / "link.jpg").symlink_to(folder.parent / "secret.jpg")
    astray = ["../secret.jpg", str(folder.parent / "secret.jpg"), "link.jpg", "pictures/none.jpg", "pictures"]
    data = load_data(
        table(folder, rows(word) + [(path, "owl") for path in astray] + [("pictures/1.jpg", "")])
    )
    reasons = dict(data.problems)
    assert all("leads out of the folder" in reasons[path] for path in astray[:3])
    assert reasons["pictures/none.jpg"] == "no such file"
    assert reasons["pictures"] == "not a regular file"
    assert reasons["pictures/1.jpg"] == "no label"
    assert len(data.train) + len(data.valid) == 20


ERRORS = [
    ("", "needs two columns or more"),
    ("pictures/0.jpg\npictures/1.jpg\n", "needs two columns or more"),
    ("pictures/0.jpg,a\npictures/1.jpg,b,c\n", "row 2 has 3 cells, not 2"),
    ("path,label\n", "holds no labels"),
    ("none.jpg,a\nnothing.jpg,b\n", "no usable picture in 'bad.csv'; the first: none.jpg: no such file"),
    ("pictures/0.jpg,a,b\npictures/1.jpg,b,c\n", "several columns could be the label: 2, 3; name it"),
]


@pytest.mark.parametrize(("text", "message"), ERRORS)
def test_a_wrong_table_is_one_line(folder, text, message):
    (folder / "bad.csv").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        load_data(folder / "bad.csv")
    assert "\n" not in str(caught.value)


def test_a_table_that_is_no_text_is_one_line_that_says_what_to_do(folder):
    (folder / "bad.csv").write_bytes("path,label\npictures/0.jpg,fraîche".encode("latin-1"))
    with pytest.raises(DataError, match="it is not UTF-8 text; save it as UTF-8"):
        load_data(folder / "bad.csv")


def test_options_that_mean_nothing_for_the_targets_are_refused(folder):
    values, labels = rows(lambda i: i / 3), rows(lambda i: i % 2, lambda i: 1 - i % 2)
    with pytest.raises(DataError, match="--balance needs classes"):
        load_data(table(folder, values), balance="weights")
    with pytest.raises(DataError, match="--per-class needs one class a sample"):
        load_data(table(folder, labels), per_class=2)
    with pytest.raises(DataError, match="--balance weights works for labels"):
        load_data(table(folder, labels), balance="samples")
    with pytest.raises(DataError, match="needs numbers, not 'owl'"):
        load_data(table(folder, rows(lambda i: "owl")), target="regression")
    assert load_data(table(folder, labels), balance="weights").task.weights is not None


def test_pictures_come_out_under_their_own_targets(folder):
    data = load_data(table(folder, rows(word)))
    train, _ = data.samples(Preprocess(3, (8, 8), None))
    batch = train.pixels(torch.arange(len(train)))
    for index in range(len(train)):
        assert (batch[index] == train.reader.read(int(train.rows[index]), train.preprocess)).all()


def told(folder, write, name):
    """What is learned of a table that pandas writes: the classes, and those of the training samples in order."""
    import pandas as pd

    frame = pd.DataFrame(
        {"image": [f"pictures/{i}.jpg" for i in range(20)], "label": list(map(word, range(20)))}
    )
    write(frame, folder / name)
    data = load_data(folder / name)
    return (
        data.classes,
        [data.classes[t] for t in data.train.targets],
        [data.train.name(i) for i in range(16)],
    )


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("t.parquet", lambda frame, path: frame.to_parquet(path)),
        ("t.jsonl", lambda frame, path: frame.to_json(path, orient="records", lines=True)),
        ("t.csv", lambda frame, path: frame.to_csv(path, index=False, encoding="utf-16")),
        ("t.tsv", lambda frame, path: frame.to_csv(path, index=False, sep="\t", encoding="utf-16")),
    ],
)
def test_a_table_of_pictures_may_be_of_any_kind(folder, name, write):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    usual = told(folder, lambda frame, path: frame.to_csv(path, index=False), "usual.csv")
    assert told(folder, write, name) == usual
    assert usual[0] == ("owl", "wren")


def test_a_parquet_file_that_holds_the_pictures_themselves_is_one_line(folder):
    pytest.importorskip("pyarrow")
    import pandas as pd

    held = [{"bytes": (folder / f"pictures/{i}.jpg").read_bytes(), "path": None} for i in range(20)]
    pd.DataFrame({"image": held, "label": list(map(word, range(20)))}).to_parquet(folder / "t.parquet")
    with pytest.raises(
        DataError, match=r"the column image of 't\.parquet' holds files themselves, not their paths"
    ):
        load_data(folder / "t.parquet")


def test_decimal_commas_are_points_and_said(folder):
    data = load_data(table(folder, rows(lambda i: f"{i},5"), ("path", "size"), separator=";"))
    assert isinstance(data.task, Regression)
    values = torch.cat([data.task.answers(part.targets) for part in (data.train, data.valid)]).flatten()
    assert values.sort().values.tolist() == pytest.approx([i + 0.5 for i in range(20)], abs=1e-4)
    assert any("commas in numbers are read as decimal points" in note for note in data.notes)


def test_pairs_of_numbered_labels_are_no_decimals(folder):
    pairs = rows(lambda i: ("1,2", "1,3", "2,3", "3")[i % 4])
    data = load_data(table(folder, pairs, ("path", "label"), separator=";"), target="labels")
    assert isinstance(data.task, MultiLabel)
    assert data.classes == ("1", "2", "3")


def test_classes_that_differ_by_case_alone_are_said(folder):
    data = load_data(table(folder, rows(lambda i: ("Ant", "ant", "bee")[i % 3])))
    assert data.classes == ("Ant", "ant", "bee")
    assert any("classes that differ by case and space alone: Ant and ant" in note for note in data.notes)


def test_frames_with_a_name_twice_or_the_pictures_themselves_are_one_line(folder, monkeypatch):
    pandas = pytest.importorskip("pandas")
    monkeypatch.chdir(folder)
    twice = pandas.DataFrame([(*row, "x") for row in rows(word)], columns=["path", "label", "label"])
    with pytest.raises(DataError, match="several columns called 'label'"):
        load_data(twice)
    contents = [(folder / path).read_bytes() for path, _ in rows(word)]
    for cells in (contents, [Image.open(io.BytesIO(content)) for content in contents]):
        frame = pandas.DataFrame({"image": cells, "label": [label for _, label in rows(word)]})
        with pytest.raises(
            DataError, match="the column 'image' of the DataFrame holds pictures themselves"
        ) as caught:
            load_data(frame)
        assert len(str(caught.value)) < 300
