"""Texts out of tables, folders, lists and data sets of Hugging Face: what is read, how it is split, what is said."""

from __future__ import annotations

import json

import pytest
import torch

from tlnb.engine.data.load import load_data
from tlnb.engine.data.texts import Texts
from tlnb.errors import DataError

ROWS = [(f"text number {i} is here", ("up", "down")[i % 2]) for i in range(20)]


def write(path, rows=ROWS, header=("text", "label"), sign=","):
    lines = [sign.join(header), *(sign.join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def everything(data):
    pairs = [*zip(data.train.all(), data.train.targets.tolist(), strict=True)]
    return sorted([*pairs, *zip(data.valid.all(), data.valid.targets.tolist(), strict=True)])


WANTED = sorted((text, {"down": 0, "up": 1}[label]) for text, label in ROWS)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_every_kind_of_table_gives_the_same(tmp_path, kind):
    path = tmp_path / f"t.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps({"text": t, "label": c}) + "\n" for t, c in ROWS))
    elif kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(
            pyarrow.table({"text": [t for t, _ in ROWS], "label": [c for _, c in ROWS]}), path
        )
    else:
        write(path, sign="\t" if kind == "tsv" else ",")
    data = load_data(str(path), text="text", label="label")
    assert data.classes == ("down", "up")
    assert everything(data) == WANTED
    assert data.asked["text"] == "text"
    guessed = load_data(str(path))
    assert everything(guessed) == WANTED
    assert any("--text" in note for note in guessed.notes)


def test_a_wrong_column_names_the_nearest(tmp_path):
    write(tmp_path / "t.csv")
    with pytest.raises(DataError, match="did you mean 'text'"):
        load_data(str(tmp_path / "t.csv"), text="texd", label="label")
    with pytest.raises(DataError, match="did you mean 'label'"):
        load_data(str(tmp_path / "t.csv"), text="text", label="labels_")
    with pytest.raises(DataError, match="something else"):
        load_data(str(tmp_path / "t.csv"), text="text", label="text")
    with pytest.raises(DataError, match="--length"):
        load_data(str(tmp_path / "t.csv"), text="text", length=0)
    with pytest.raises(DataError, match="--size"):
        load_data(str(tmp_path / "t.csv"), text="text", size=3)


def test_pairs_several_labels_and_values(tmp_path):
    rows = [(f"first {i}", f"second {i}", i % 2, (i // 2) % 2, i / 7) for i in range(20)]
    path = write(tmp_path / "t.csv", rows, ("sentence1", "sentence2", "a", "b", "mark"))
    pairs = load_data(str(path), text="sentence1,sentence2", label="a")
    assert pairs.train.all()[0][0].startswith("first")
    assert pairs.train.all()[0][1].startswith("second")
    several = load_data(str(path), text="sentence1", label="a,b")
    assert several.classes == ("a", "b")
    assert several.train.targets.shape[1] == 2
    values = load_data(str(path), text="sentence1", label="mark")
    assert values.train.targets.dtype == torch.float32
    assert "regression" in repr(values)
    lines = "".join(
        json.dumps({"text": f"t {i}", "tags": ["x", "y"][: i % 3] or ["z"]}) + "\n" for i in range(20)
    )
    (tmp_path / "t.jsonl").write_text(lines)
    listed = load_data(str(tmp_path / "t.jsonl"), text="text", label="tags")
    assert listed.classes == ("x", "y", "z")


def test_rows_without_text_or_label_are_listed(tmp_path):
    path = write(tmp_path / "t.csv", [*ROWS, ("", "up"), ("words", ""), ("nan is a word", "down")])
    data = load_data(str(path), text="text", label="label")
    assert [problem.reason for problem in data.problems] == ["no text", "no label"]
    assert len(data.train) + len(data.valid) == 21


def test_texts_that_differ_in_case_and_space_stay_on_one_side(tmp_path):
    rows = []
    for i in range(30):
        rows += [(f"Some text {i}", ("up", "down")[i % 2]), (f"some   TEXT {i} ", ("up", "down")[i % 2])]
    data = load_data(str(write(tmp_path / "t.csv", rows)), text="text", label="label", valid=0.3)
    ours, theirs = ({" ".join(t.lower().split()) for t in part.all()} for part in (data.train, data.valid))
    assert not ours & theirs
    assert any("equal (but for case and space)" in note for note in data.notes)


def test_what_is_measured_on_is_not_learned(tmp_path):
    write(tmp_path / "train.csv", [*ROWS, ("SEEN  before", "up")])
    write(tmp_path / "test.csv", [("seen before", "up"), ("not seen", "down")])
    data = load_data(str(tmp_path), text="text", label="label")
    assert len(data.valid) == 2
    assert not any("seen" in text.lower() for text in data.train.all())
    assert any("1 training text is left out" in note for note in data.notes)
    pair = load_data(((["a", "b", "C"], ["x", "y", "x"]), (["c", "d"], ["x", "y"])))
    assert pair.train.all() == ["a", "b"]


def test_a_split_column_and_a_test_part(tmp_path):
    rows = [(*row, "test" if i > 15 else "valid" if i > 11 else "train") for i, row in enumerate(ROWS)]
    path = write(tmp_path / "t.csv", rows, ("text", "label", "split"))
    data = load_data(str(path), text="text", label="label")
    assert (len(data.train), len(data.valid)) == (12, 4)
    data = load_data(str(path), text="text", label="label", test=True)
    assert (len(data.train), len(data.valid), len(data.test)) == (12, 4, 4)
    data = load_data(str(path), text="text", label="label", split="none", test=0.2)
    assert len(data.test) == 4


def test_folders_of_text_files(tmp_path):
    for part in ("train", "valid"):
        for i, (text, label) in enumerate(ROWS):
            place = tmp_path / "parts" / part / label
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{i}.txt").write_text(f"{part} {text}")
            (tmp_path / "plain" / label).mkdir(parents=True, exist_ok=True)
            (tmp_path / "plain" / label / f"{i}.txt").write_text(text)
    (tmp_path / "plain" / "up" / "broken.txt").write_bytes(b"\xff\xfe\xff")
    (tmp_path / "plain" / "up" / "empty.txt").write_text(" \n")
    data = load_data(str(tmp_path / "plain"))
    assert everything(data) == WANTED
    assert sorted(problem.reason for problem in data.problems) == ["it is not UTF-8 text", "no text"]
    assert data.train.path(0).suffix == ".txt"
    data = load_data(str(tmp_path / "parts"))
    assert len(data.train) == len(data.valid) == 20


def test_lists_of_strings_and_pandas(tmp_path):
    texts, labels = [t for t, _ in ROWS], [c for _, c in ROWS]
    assert everything(load_data((texts, labels))) == WANTED
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(ROWS, columns=["text", "label"])
    assert everything(load_data((frame["text"], frame["label"]))) == WANTED
    pairs = load_data(([(t, t[::-1]) for t in texts], labels))
    assert isinstance(pairs.train.all()[0], tuple)


def test_data_sets_of_hugging_face():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    part = datasets.Dataset.from_dict(
        {"text": [t for t, _ in ROWS], "label": [i % 2 for i in range(20)]}, features
    )
    data = load_data(part)
    assert data.classes == ("no", "yes")
    assert isinstance(data.train, Texts)
    other = datasets.Dataset.from_dict({"text": ["one", "two"], "label": [0, 1]}, features)
    data = load_data(datasets.DatasetDict({"train": part, "test": other}))
    assert len(data.valid) == 2
    assert any("measured on test" in note for note in data.notes)


def test_decimal_commas_of_a_measured_column_are_points_and_holes_of_several_labels_are_said(tmp_path):
    rows = [(f"text number {i}", f"{i},5") for i in range(20)]
    data = load_data(str(write(tmp_path / "a.csv", rows, ("text", "score"), ";")))
    values = (
        torch.cat([data.train.targets, data.valid.targets]).flatten().sort().values
    )  # to mean 0 and deviation 1
    assert len(values) == 20
    assert torch.allclose(values.diff(), values.diff()[0])
    assert any("decimal points" in note for note in data.notes)
    rows = [(f"text number {i}", i % 2, "" if i % 4 else 1) for i in range(20)]
    data = load_data(str(write(tmp_path / "b.csv", rows, ("text", "a", "b"))))
    assert data.classes == ("a", "b")
    assert sum(data.train.targets[:, 1].tolist()) + sum(data.valid.targets[:, 1].tolist()) == 5
    assert any("15 empty cells of the labels are taken as 0" in note for note in data.notes)
