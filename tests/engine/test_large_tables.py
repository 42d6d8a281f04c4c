"""Data that is larger than what Python objects would leave room for: columns, many tables as one, tars, addresses."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
import torch
from pictures import drawing, encoded
from PIL import Image
from refusals import refusal

import tlnb.engine.data.column as columns
from tlnb.engine.data.column import Column, Packed, joined
from tlnb.engine.data.load import load_data
from tlnb.engine.data.preprocess import Preprocess
from tlnb.errors import DataError
from tlnb.session import Session

ROWS = [(f"a story of {n} {'up' if n % 2 else 'down'}", "ud"[n % 2], n // 4) for n in range(64)]


# ---------------------------------------------------------------- columns


def test_a_column_holds_each_cell_once_and_four_bytes_a_row() -> None:
    column = Column.of(f"c{number % 10}" for number in range(50_000))
    assert len(column.values) == 10
    assert column.codes.nbytes == 4 * 50_000
    assert column[12_345] == "c5"
    assert list(column[3:40_000:20_000]) == ["c3", "c3"]
    assert column.take(np.array([7, 7, 1])) == ["c7", "c7", "c1"]
    called: list[str] = []
    assert column.map(lambda cell: called.append(cell) or cell[1:])[11] == "1"
    assert len(called) == 10


@pytest.mark.parametrize("in_memory", [1 << 20, 8])
def test_texts_that_are_all_different_lie_behind_one_another(monkeypatch, in_memory) -> None:
    monkeypatch.setattr(columns, "FEW", 4)
    monkeypatch.setattr(columns, "IN_MEMORY", in_memory)
    texts = [f"é{number}\n," * (number % 3) for number in range(40)]
    column = Column.of(texts)
    assert isinstance(column.values, Packed)
    assert list(column) == texts
    assert column[-1] == texts[-1]
    assert joined([column, column[:3]]) == texts + texts[:3]


def test_cells_of_several_kinds_are_told_apart(monkeypatch) -> None:
    cells = [1, 1.0, True, "1", None, [1], [1]]
    assert [type(cell) for cell in Column.of(cells)] == [type(cell) for cell in cells]
    monkeypatch.setattr(columns, "FEW", 2)
    mixed = ["a", "b", "c", "d", 5, "e"]
    assert list(Column.of(mixed)) == mixed


# ---------------------------------------------------------------- many tables


def write(path, rows, header=("text", "label", "who")):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        lines = [header, *rows] if header else rows
        path.write_text("".join(",".join(map(str, row)) + "\n" for row in lines), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(dict(zip(header, row, strict=True))) + "\n" for row in rows))
    else:
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pa.table(dict(zip(header, zip(*rows, strict=True), strict=True))), path)


def sides(data):
    return [[(part.texts[row], int(t)) for row, t in zip(part.rows, part.targets, strict=True)]
            for part in (data.train, data.valid)]  # fmt: skip


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_many_tables_are_read_as_one(tmp_path, ending) -> None:
    write(tmp_path / f"one.{ending}", ROWS)
    for number in range(8):
        write(tmp_path / "shards" / f"{number:03d}.{ending}", ROWS[8 * number : 8 * number + 8])
    options = {"label": "label", "groups": "who", "seed": 3}
    alone = load_data(str(tmp_path / f"one.{ending}"), **options)
    for source in (tmp_path / "shards", tmp_path / "shards" / f"*.{ending}"):
        together = load_data(str(source), **options)
        assert sides(together) == sides(alone)
        assert len(together.train) + len(together.valid) == len(ROWS)
        again = load_data(**together.asked)
        assert sides(again) == sides(alone)
    who = [{int(text.split()[3]) // 4 for text, _ in side} for side in sides(alone)]
    assert not who[0] & who[1]


def test_tables_that_are_called_after_parts_are_these(tmp_path) -> None:
    for number in range(4):
        write(tmp_path / f"train-{number:05d}-of-00004.csv", ROWS[8 * number : 8 * number + 8])
        write(tmp_path / f"validation-{number:05d}-of-00004.csv", ROWS[32 + 8 * number : 40 + 8 * number])
    data = load_data(str(tmp_path), label="label")
    assert [text for text, _ in sides(data)[0]] == [row[0] for row in ROWS[:32]]
    assert [text for text, _ in sides(data)[1]] == [row[0] for row in ROWS[32:]]


def test_tables_that_do_not_belong_together_are_refused(tmp_path) -> None:
    write(tmp_path / "s" / "a.csv", ROWS)
    write(tmp_path / "s" / "b.csv", [("x", 1)], header=("text", "grade"))
    assert "'b.csv' has the columns text, grade" in refusal(str(tmp_path / "s"))
    write(tmp_path / "k" / "a.csv", ROWS)
    write(tmp_path / "k" / "b.jsonl", ROWS)
    assert "several kinds (.csv, .jsonl)" in refusal(str(tmp_path / "k"))
    for folder in "ab":
        write(tmp_path / folder / "t.csv", [("x.png", 1)], header=("path", "label"))
    assert "--folder" in refusal(str(tmp_path / "[ab]" / "t.csv"))


# ---------------------------------------------------------------- a file that many rows name


@pytest.fixture
def often(tmp_path):
    """Twelve pictures that 240 rows name."""
    (tmp_path / "p").mkdir()
    for number in range(12):
        Image.fromarray(np.full((8, 8, 3), 20 * number, np.uint8)).save(tmp_path / "p" / f"{number}.png")
    lines = [f"p/{number % 12}.png,{'ab'[number % 12 // 6]},{number % 12 % 4}" for number in range(240)]
    (tmp_path / "t.csv").write_text("path,label,who\n" + "\n".join(lines) + "\n")
    return tmp_path / "t.csv"


def test_a_file_that_many_rows_name_is_read_once_and_on_one_side(often) -> None:
    data = load_data(str(often), groups="who")
    assert len(data.train.reader) == 12
    assert len(data.train) + len(data.valid) == 240
    names = [{part.name(row) for row in range(len(part))} for part in (data.train, data.valid)]
    assert not names[0] & names[1]
    assert len(names[0] | names[1]) == 12
    plain = load_data(str(often))
    assert any("228 samples are byte-equal to others" in note for note in plain.notes)


def test_frozen_layers_see_a_file_once_and_training_is_the_same(often, monkeypatch, tmp_path) -> None:
    weights = []
    for number, worth in enumerate((2, 10**9)):  # as few pictures as there are; each row by itself
        monkeypatch.setenv("TLNB_HOME", str(tmp_path / str(number)))
        monkeypatch.setattr("tlnb.engine.data.image_cache.WORTH_FOLDING", worth)
        tl = Session([])
        tl.load("convnet5")
        tl.data(str(often))
        tl.run("freeze body epochs 1 lr 1e-3")
        weights.append([parameter.detach().clone() for parameter in tl.model.parameters()])
        rows = sum(len(entry.rows) for entry in tl.view.routes.cache.entries.values())
        assert rows == (12 if worth == 2 else 240)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*weights, strict=True))


def test_a_stop_in_a_large_table_goes_on_exactly(often, monkeypatch, tmp_path) -> None:
    class Stop:
        def on_batch(self, done: int, total: int) -> None:
            if done == 5 and not self.asked:
                self.asked = True
                stopped.stop_request.ask()

        asked = False

    ends = []
    for listeners in ([], [Stop()]):
        monkeypatch.setenv("TLNB_HOME", str(tmp_path / str(len(ends))))
        stopped = tl = Session(listeners)
        tl.load("convnet5")
        tl.data(str(often))
        run = tl.run("unfreeze all epochs 2 lr 1e-3")
        if listeners:
            assert run.stopped
            tl.save(tmp_path / "half")
            tl = Session([])
            tl.resume(tmp_path / "half")
            tl.go_on()
        ends.append([parameter.detach().clone() for parameter in tl.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


# ---------------------------------------------------------------- tars


def tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as made:
        for name, content in members:
            about = tarfile.TarInfo(name)
            about.size = len(content)
            made.addfile(about, io.BytesIO(content))


def pictured(number):
    return encoded(Image.fromarray(np.full((8, 8, 3), 12 * number, np.uint8)), "PNG")


def test_tars_are_read_in_place(tmp_path) -> None:
    for shard in range(2):
        members = []
        for number in range(10 * shard, 10 * shard + 10):
            about = json.dumps({"who": number // 4, "breed": "ab"[number % 2]}).encode()
            members += [(f"im/{number:04d}.png", pictured(number)), (f"im/{number:04d}.json", about)]
        tar(tmp_path / "t" / f"{shard}.tar", [*members, ("im/lonely.json", b"{}")])
    data = load_data(str(tmp_path / "t"), label="breed", groups="who")
    assert data.classes == ("a", "b")
    assert len(data.train) + len(data.valid) == 20
    for part in (data.train, data.valid):
        samples = part.prepare(Preprocess(3, (8, 8), None))
        grey = samples.pixels(torch.arange(len(part)))[:, 0, 0, 0].long() // 12
        assert [part.name(row) for row in range(len(part))] == [
            f"{number // 10}.tar/im/{number:04d}.png" for number in grey.tolist()
        ]
        assert torch.equal(part.targets, grey % 2)
        assert samples.fingerprint() == part.prepare(Preprocess(3, (8, 8), None)).fingerprint()


def test_the_class_beside_a_picture_and_what_is_no_tar(tmp_path) -> None:
    members = [
        part
        for number in range(20)
        for part in ((f"{number}.png", pictured(number)), (f"{number}.cls", str(number % 2).encode()))
    ]
    tar(tmp_path / "a.tar", [*members, ("x.png", pictured(1)), ("y.png", b"no picture"), ("y.cls", b"1")])
    data = load_data(str(tmp_path / "a.tar"))
    assert [(problem.path, problem.reason) for problem in data.problems] == [("a.tar/x.png", "no label")]
    assert data.classes == ("0", "1")
    (tmp_path / "b.tar").write_bytes(b"not a tar at all" * 100)
    assert "'b.tar' cannot be read as a plain tar" in refusal(str(tmp_path / "b.tar"))
    tar(tmp_path / "c.tar", [("readme.txt", b"hello")])
    assert "holds no pictures" in refusal(str(tmp_path / "c.tar"))


# ---------------------------------------------------------------- addresses and streams


def test_an_address_is_fetched_once(tmp_path, monkeypatch) -> None:
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))
    for number in range(4):
        write(tmp_path / f"{number}.csv", ROWS[16 * number : 16 * number + 16])
        with fsspec.open(f"memory://texts/{number}.csv", "wb") as file:
            file.write((tmp_path / f"{number}.csv").read_bytes())
    data = load_data("memory://texts/*.csv", label="label", seed=3)
    assert len(data.train) + len(data.valid) == len(ROWS)
    assert any(note.startswith("fetched once from memory://texts/*.csv") for note in data.notes)
    there = sorted((tmp_path / "home").rglob("*.csv"))
    assert len(there) == 4
    times = [path.stat().st_mtime_ns for path in there]
    assert sides(load_data(**data.asked)) == sides(data)
    assert [path.stat().st_mtime_ns for path in there] == times
    with fsspec.open("memory://texts/0.csv", "wb") as file:
        file.write(b"text,label,who\nanother text,u,1\n")
    assert len(load_data("memory://texts", label="label").train.texts) == len(ROWS) - 15


def test_addresses_that_cannot_be_fetched_are_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TLNB_HOME", str(tmp_path))
    assert "cannot fetch nowhere://a" in refusal("nowhere://a/b.csv")
    assert "nothing is at memory://empty/" in refusal("memory://empty/x.csv")
    monkeypatch.setattr("tlnb.engine.data.sources.remote.SHARE", 0.0)
    import fsspec

    with fsspec.open("memory://full/0.csv", "wb") as file:
        file.write(b"text,label\na,b\n")
    assert "of which half may be filled" in refusal("memory://full/0.csv")


def test_a_stream_is_refused_with_the_way_to_the_disk() -> None:
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_dict({"text": [row[0] for row in ROWS[:40]], "label": [0, 1] * 20})
    stream = made.to_iterable_dataset()
    for source in (stream, {"train": stream}):
        said = refusal(source)
        assert "datasets.Dataset.from_generator(lambda: iter(stream), features=stream.features)" in said
    stored = datasets.Dataset.from_generator(lambda: iter(stream), features=stream.features)
    assert len(load_data(stored).train) + len(load_data(stored).valid) == 40


def test_a_picture_of_no_kind_in_a_table_is_named_once_a_row(tmp_path) -> None:
    (tmp_path / "ok.png").write_bytes(encoded(drawing(), "PNG"))
    (tmp_path / "no.png").write_bytes(b"hello")
    rows = ["ok.png,a", "ok.png,b"] * 4 + ["no.png,a"] * 3 + ["gone.png,b"]
    (tmp_path / "t.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    with pytest.raises(DataError, match="equal"):
        load_data(str(tmp_path / "t.csv"))
