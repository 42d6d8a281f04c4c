"""Hostile files at the door of a session: one line, nothing of the session has changed, and no code has run."""

from __future__ import annotations

import csv
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import blobs, small
from pictures import JPEG, class_folders, png
from safetensors.torch import save_file

from tlnb.errors import TlnbError
from tlnb.session import Session

EVIL = "\x1b[2J<img src=x onerror=alert(1)>\u202e"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def tl() -> Session:
    made = Session([])
    made.load(small(), input="1,8,8")
    made.data((blobs(30).inputs, blobs(30).targets), batch=16)
    made.train(1, 0.01)
    return made


def state(tl: Session) -> tuple[Any, ...]:
    weights = [tensor.numpy().tobytes() for tensor in tl.model.state_dict().values()]
    return weights, tl.frozen, tl.task, list(tl.heads), len(tl.history), str(tl._data), id(tl.model)


def refused(tl: Session, work: Callable[[], object]) -> str:
    """The one line by which something is refused; the session is as it was."""
    before = state(tl)
    with pytest.raises(TlnbError) as caught:
        work()
    assert state(tl) == before
    said = str(caught.value)
    assert said.isprintable(), repr(said)
    assert caught.value._render_traceback_() == [f"{type(caught.value).__name__}: {said}"]
    return said


# ---------------------------------------------------------------- weights


class Runs:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("it ran",)


def lying(header: dict[str, object], data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def packed(path: Path, content: dict[str, object]) -> None:
    """What torch.save writes, with every part compressed: few bytes that unpack to many."""
    torch.save(content, "plain.tmp")
    with zipfile.ZipFile("plain.tmp") as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for part in plain.infolist():
            file.writestr(part.filename, plain.read(part))


def overlapping(path: Path) -> None:
    """An archive whose directory names the same bytes many times."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data/0", bytes(1 << 16))
        part = file.infolist()[0]
        for number in range(500):
            twin = zipfile.ZipInfo(f"archive/data/{number + 1}")
            for name in ("header_offset", "file_size", "compress_size", "CRC"):
                setattr(twin, name, getattr(part, name))
            file.filelist.append(twin)
        file._didModify = True  # type: ignore[attr-defined]


WEIGHTS: dict[str, Callable[[Path], object]] = {
    "pickle.pth": lambda path: path.write_bytes(pickle.dumps({"w": Runs()})),
    "torch.pth": lambda path: torch.save({"w": torch.ones(2), "x": Runs()}, path),
    "model.pth": lambda path: torch.save(small(), path),
    "bomb.pth": lambda path: packed(path, {"w": torch.zeros(8 << 20)}),
    "overlapping.pth": overlapping,
    "long.safetensors": lambda path: path.write_bytes(struct.pack("<Q", 1 << 60) + b"{}"),
    "more.safetensors": lambda path: path.write_bytes(
        lying({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4 << 40]}})
    ),
    "outside.safetensors": lambda path: path.write_bytes(
        lying({"a": {"dtype": "U8", "shape": [4], "data_offsets": [2, 6]}}, b"1234")
    ),
    "deep.safetensors": lambda path: path.write_bytes(struct.pack("<Q", 60_000) + b"[" * 60_000),
    "names.pth": lambda path: torch.save({f"{EVIL}.weight": torch.ones(2, 2)}, path),
    "names.safetensors": lambda path: save_file({f"a\n{EVIL}": torch.ones(2, 2)}, path),
    "nothing.pth": lambda path: path.write_bytes(b""),
    "folder.pth": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("arch", [None, "convnet5"])
def test_weights_are_refused(tl: Session, tmp_path: Path, name: str, arch: str | None) -> None:
    WEIGHTS[name](tmp_path / name)
    refused(tl, lambda: tl.load(name, arch=arch))
    assert not Path("it ran").exists()


def test_a_zip_bomb_is_told_by_its_size(tl: Session, tmp_path: Path) -> None:
    packed(tmp_path / "bomb.pth", {"w": torch.zeros(8 << 20)})
    assert (tmp_path / "bomb.pth").stat().st_size < 1 << 18
    assert "that unpack to 33,5" in refused(tl, lambda: tl.load("bomb.pth"))


def test_a_file_name_moves_no_terminal(tl: Session, tmp_path: Path) -> None:
    name = f"{EVIL.replace('/', '')}\n.pth"
    Path(name).write_bytes(b"x")
    refused(tl, lambda: tl.load(name))
    for work in (tl.resume, tl.data, tl.save):
        refused(tl, lambda work=work: work(name))


def test_class_names_in_a_files_own_words_are_escaped(tmp_path: Path) -> None:
    tl = Session([])
    tl.load("convnet5")
    names = [EVIL, *map(str, range(40))]
    save_file(tl.model.state_dict(), "evil.safetensors", {"classes": json.dumps(names), "note": EVIL})
    tl.load("evil.safetensors")
    tl.data("digits", per_class=3)
    assert EVIL not in (tl.view.tasks["evil"].classes or ())
    shown = [tl.load("evil.safetensors"), tl.status(), tl.tasks(), tl.layers, *tl.view.tasks["evil"].classes]
    assert not [text for text in map(str, shown) if "\x1b" in text or "\u202e" in text]
    assert not [text for text in shown if hasattr(text, "_repr_html_") and "<img" in text._repr_html_()]


@pytest.mark.parametrize("about", [
    '{"size": [1e9, 1e9], "channels": 1}', "[" * 10_000, '{"mean": "x"}', '{"resize": -3}', "null", "7",
])  # fmt: skip
def test_what_a_file_says_of_its_preprocessing_is_taken_or_left(tmp_path: Path, about: str) -> None:
    tl = Session([])
    tl.load("convnet5")
    save_file(tl.model.state_dict(), "own.safetensors", {"preprocess": about, "classes": about})
    usual = tl.view.need_model().preprocess
    tl.load("own.safetensors", arch="convnet5")
    assert tl.view.need_model().preprocess == usual


# ---------------------------------------------------------------- pictures and folders


def header(width: int, height: int) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)


def _tiff(width: int, height: int) -> bytes:
    fields = (
        (256, width),
        (257, height),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, height),
        (279, 9),
    )
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(fields)) + entries + bytes(16)


HUGE = {
    "huge.png": png(header(100_000, 100_000), (b"IDAT", b"x"), (b"IEND", b"")),
    "tall.png": png(header(1, 1 << 31), (b"IDAT", b"x"), (b"IEND", b"")),
    "huge.bmp": b"BM" + struct.pack("<IHHIIiiHHIIIIII", 70, 0, 0, 54, 40, 100_000, 100_000, 1, 24, 0, 0, 0, 0, 0, 0),
    "huge.gif": b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + b"," + struct.pack(
        "<HHHHB", 0, 0, 65_535, 65_535, 0) + b"\x02\x01\x00\x00;",
    "huge.ppm": b"P6 100000 100000 255\n",
    "huge.tif": _tiff(100_000, 100_000),
}  # fmt: skip


def test_huge_pictures_are_left_out_by_their_headers(tl: Session, tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "pets")
    for name, content in HUGE.items():
        (folder / "cats" / name).write_bytes(content)
    found = tl.data("pets")
    listed = {Path(problem.path).name: problem.reason for problem in found.problems}
    assert listed.keys() == HUGE.keys()
    assert not [name for name, reason in listed.items() if "large" not in reason and "decoded" not in reason]
    assert "too large: 100,000×100,000 pixels" in listed["huge.png"]
    tl.train(1, 0.01)


def test_links_out_of_a_folder_and_in_circles_are_not_followed(tl: Session, tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "pets")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "diary.jpg").write_bytes(JPEG)
    (folder / "cats" / "out.jpg").symlink_to(tmp_path / "secret" / "diary.jpg")
    (folder / "cats" / "etc").symlink_to("/etc")
    (folder / "owls").symlink_to(tmp_path / "secret")
    (folder / "dogs" / "up").symlink_to(folder)
    (folder / "dogs" / "self").symlink_to(folder / "dogs" / "self")
    found = tl.data("pets")
    assert found.classes == ("cats", "dogs")
    assert len(found.train) + len(found.valid) == 12
    reasons = {Path(problem.path).name: problem.reason for problem in found.problems}
    assert {name for name, reason in reasons.items() if "leads out of the folder" in reason} >= {
        "out.jpg",
        "etc",
    }
    assert {"up", "self"} <= reasons.keys()


# ---------------------------------------------------------------- tables


FORMULA = "=cmd|' /C calc'!A0"


def test_formulas_in_a_table_are_names_and_nothing_else(tl: Session, tmp_path: Path) -> None:
    class_folders(tmp_path)
    rows = [f'cats/{i}.jpg,"{FORMULA}"' for i in range(6)] + [f"dogs/{i}.jpg,@SUM(1)" for i in range(6)]
    Path("table.csv").write_text("path,label\n" + "\n".join(rows))
    assert set(tl.data("table.csv").classes) == {FORMULA, "@SUM(1)"}
    tl.train(1, 0.01)
    assert FORMULA in str(tl.results())


def test_no_table_that_is_written_begins_a_cell_with_a_formula(tmp_path: Path) -> None:
    tl = Session([])
    folder = class_folders(tmp_path / "pets", ("=1+cmd", "@SUM(1)"))
    tl.load("convnet5")
    tl.data(str(folder))
    tl.train(1, 0.01)
    tl.script("job.py")
    with open("job.files.csv", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert any("cmd" in cell for cell in cells)
    assert not [cell for cell in cells if cell.startswith(("=", "+", "@", "\t", "\r"))]


@pytest.mark.parametrize(
    "path", ["../secret/diary.jpg", "/etc/passwd", "link.jpg", "cats/../../secret/diary.jpg"]
)
def test_a_path_that_leaves_the_tables_folder_is_listed_and_not_read(
    tl: Session, tmp_path: Path, path: str
) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "diary.jpg").write_bytes(JPEG)
    class_folders(tmp_path / "pets")
    (tmp_path / "pets" / "link.jpg").symlink_to(tmp_path / "secret" / "diary.jpg")
    rows = [f"{name}/{i}.jpg,{name}" for name in ("cats", "dogs") for i in range(6)]
    Path("pets/table.csv").write_text("\n".join(["path,label", *rows, f"{path},cats"]))
    found = tl.data("pets/table.csv")
    assert [problem.path for problem in found.problems] == [path]
    assert "leads out of the folder" in found.problems[0].reason
    Path("pets/only.csv").write_text(f"path,label\n{path},cats\n")
    refused(tl, lambda: tl.data("pets/only.csv"))


def test_a_table_is_no_bomb(tl: Session) -> None:
    Path("wide.csv").write_text("path,label\n" + "a" * (1 << 18) + ",b\n")
    Path("quote.csv").write_text('path,label\n"' + "a,b\n" * 50_000)
    for name in ("wide.csv", "quote.csv"):
        refused(tl, lambda name=name: tl.data(name))


def test_an_archive_is_not_unpacked(tl: Session) -> None:
    with zipfile.ZipFile("photos.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("../../escape.jpg", bytes(10 << 20))
    assert "unpack it first" in refused(tl, lambda: tl.data("photos.zip"))
    assert sorted(os.listdir()) == ["home", "photos.zip"]
