"""Pictures from the page: checked, named safely, never over a file; a zip; frames; all of it in the panel."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlnb.errors import BadArguments
from tlnb.session import Session
from tlnb.widgets import Panel
from tlnb.widgets.uploads import LARGEST, Uploads, safe_name

HOSTILE = "<img src=x onerror='hacked=1'>"


def encoded(value: int = 90, kind: str = "PNG", size: tuple[int, int] = (40, 30), seed: int = 0) -> bytes:
    dice = np.random.default_rng(seed)
    file = io.BytesIO()
    pixels = (value + dice.integers(0, 40, size[::-1])).clip(0, 255).astype("uint8")
    Image.fromarray(pixels).save(file, format=kind)
    return file.getvalue()


def packed(**files: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Uploads:
    monkeypatch.chdir(tmp_path)
    return Uploads.at("mine")


@pytest.fixture
def panel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Panel:
    monkeypatch.chdir(tmp_path)
    made = Panel(Session(listeners=[]))
    made.act("own")
    return made


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        (HOSTILE, "_img src=x onerror='hacked=1'_"),
        ("../../etc", "_.._etc"),
        ("a/b\\c:d", "a_b_c_d"),
        ("CON", "CON_"),
        ("  .hidden. ", "hidden"),
        ("Käse\x00\u202e", "Käse__"),
        ("猫", "猫"),
    ],
)
def test_names_are_safe_on_any_machine(name: str, safe: str) -> None:
    assert safe_name(name, "class") == safe


@pytest.mark.parametrize("name", ["", "..", " . ", "///"])
def test_what_is_no_name_is_one_line(name: str) -> None:
    with pytest.raises(BadArguments, match="cannot be the name of a class"):
        safe_name(name, "class")


@pytest.mark.parametrize("place", ["..", "/tmp/elsewhere", ".", "a/../.."])
def test_only_folders_beside_the_notebook_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadArguments, match="beside the notebook"):
        Uploads.at(place)


def test_a_picture_never_takes_the_place_of_another(uploads: Uploads) -> None:
    into = uploads.begin("cats")
    first, again, other = (uploads.put(into, "x.png", encoded(v)) for v in (90, 90, 20))
    assert first == again
    assert [path.name for path in (first, other)] == ["x.png", "x (2).png"]
    assert first.read_bytes() == encoded(90)
    link = uploads.root / into / "y.png"
    link.symlink_to(uploads.root.parent / "outside.png")
    assert uploads.put(into, "y.png", encoded()).name == "y (2).png"
    assert not (uploads.root.parent / "outside.png").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"<html>hello", "a web page, not a picture"),
        (encoded()[:60], "cannot be decoded|damaged"),
        (b"\xff" * (LARGEST + 1), "larger than 64 MB"),
    ],
)
def test_what_is_no_picture_is_refused_with_its_reason(uploads: Uploads, content: bytes, reason: str) -> None:
    assert uploads.put(uploads.begin("a"), f"{HOSTILE}.png", content) is None
    assert re.search(reason, uploads.refused[0][1])
    assert list((uploads.root / "a").iterdir()) == []


def test_a_file_gets_the_ending_of_what_it_is(uploads: Uploads) -> None:
    into = uploads.begin("a")
    names = [
        ("photo.png", "JPEG"),
        ("photo", "PNG"),
        ("../up.gif", "GIF"),
        ("dir\\x.JPG", "JPEG"),
        (".png", "PNG"),
    ]
    made = [uploads.put(into, name, encoded(kind=kind)).name for name, kind in names]
    assert made == ["photo.png.jpg", "photo.png", "up.gif", "x.JPG", "png.png"]


def test_a_zip_of_class_folders_and_one_for_a_class(uploads: Uploads) -> None:
    content = packed(**{
        "all/dogs/1.png": encoded(10), "all/dogs/2.png": encoded(20), "all/cats/1.png": encoded(30),
        "all/cats/../../../evil.png": encoded(40), "__MACOSX/all/cats/._1.png": b"x", "all/cats/.DS_Store": b"x",
        "loose.png": encoded(50), "all/cats/readme.txt": b"x",
    })  # fmt: skip
    assert uploads.unpack(content) == {"dogs": 2, "cats": 1}
    assert sorted(path.relative_to(uploads.root).as_posix() for path in uploads.root.rglob("*.png")) == [
        "cats/1.png", "dogs/1.png", "dogs/2.png",
    ]  # fmt: skip
    assert not (uploads.root.parent / "evil.png").exists()
    assert ("loose.png", "stands in no folder, so its class is not known") in uploads.refused
    assert uploads.unpack(content, "all of them") == {"all of them": 4}
    for bad in (b"PK\x03\x04 no", packed(**{"a/x.txt": b"x"})):
        with pytest.raises(BadArguments, match="zip"):
            uploads.unpack(bad)


def test_what_came_last_can_be_taken_back_and_nothing_else(uploads: Uploads) -> None:
    old = uploads.root / "a" / "old.png"
    old.parent.mkdir(parents=True)
    old.write_bytes(encoded(5))
    for value in (10, 20):
        uploads.put(uploads.begin("a"), "x.png", encoded(value))
    assert uploads.take_back("a") == 1
    assert uploads.take_back("a") == 1
    assert uploads.take_back("a") == 0
    assert [path.name for path in old.parent.iterdir()] == ["old.png"]


def give(panel: Panel, into: str, name: str, content: bytes, piece: int = 1 << 20) -> None:
    """As the page does, in pieces."""
    for at in range(0, max(len(content), 1), piece):
        part = memoryview(content[at : at + piece])
        panel.act("piece", into=into, name=name, token=name, at=at, size=len(content), buffers=[part])


def test_three_classes_of_ones_own_are_trained_without_a_word_typed(panel: Panel, tmp_path: Path) -> None:
    for name, value in ((HOSTILE, 20), ("middle", 110), ("bright", 210)):
        panel.act("begin", into=name)
        for number in range(12):
            give(panel, name, f"{number}.png", encoded(value, seed=number), piece=500)
        panel.act("done_putting")
        assert panel.error == ""
    safe = safe_name(HOSTILE, "class")
    assert [(one["name"], one["count"]) for one in panel.own["classes"]] == [
        (safe, 12),
        ("bright", 12),
        ("middle", 12),
    ]
    assert all(uri.startswith("data:image/jpeg") for one in panel.own["classes"] for uri in one["pictures"])
    assert panel.magics[-1] == "# pictures put into my-pictures/bright: 12"
    panel.act("load", model="convnet5")
    panel.act("data", source=panel.own["folder"])
    assert panel.magics[-2:] == ["%tl_data my-pictures", "%tl_freeze body\n%tl_unfreeze head"]
    panel.act("set_epochs", epochs=6)
    panel.act("pick", rate=1e-2)
    panel.act("train")
    assert panel.error == ""
    panel.act("frame", number=7, buffers=[memoryview(encoded(210, "JPEG", seed=99))])
    assert panel.error == ""
    assert panel.seen["frame"] == 7
    assert panel.seen["label"] == "bright"
    assert [name for name, _ in panel.seen["bars"]] == [safe, "bright", "middle"]
    assert sum(share for _, share in panel.seen["bars"]) == pytest.approx(1, abs=1e-4)
    assert panel.seen["picture"].startswith("data:image/")
    before = list(panel.magics)
    panel.act("frame", number=8, buffers=[b"no picture"])
    assert panel.seen == {"frame": 8}
    assert panel.error.startswith("the frame is no picture that can be read")
    assert panel.magics == before
    assert panel.doing == panel.state.replace("done", "") == ""
    panel.act("script", path=str(tmp_path / "mine.py"))
    assert panel.error == ""
    assert "import torch" in (tmp_path / "mine.py").read_text()


def test_pieces_that_do_not_fit_and_closed_folders_are_one_line(panel: Panel) -> None:
    panel.act("begin", into="a")
    panel.act("piece", into="a", name="x.png", token="t", at=5, size=10, buffers=[b"12345"])
    assert panel.error == "a piece of x.png was lost on the way; give it again"
    panel.act("piece", into="a", name="x.png", token="t", at=0, size=LARGEST + 1, buffers=[b"1"])
    assert panel.error == "x.png is larger than 64 MB"
    panel.act("piece", into="b", name="x.png", token="t", at=0, size=1, buffers=[b"1"])
    assert panel.error == "no class 'b' was begun"
    panel.act("take_back", into="a")
    assert panel.error.startswith("no picture of a came from this page")
    panel.act("own_close")
    panel.act("begin", into="a")
    assert panel.error == "open a folder for your own pictures first"


def test_what_came_can_be_taken_back_in_the_panel(panel: Panel) -> None:
    panel.act("begin", into="a")
    give(panel, "a", "x.png", encoded())
    panel.act("done_putting")
    assert panel.own["classes"][0]["back"]
    panel.act("take_back", into="a")
    assert panel.own["classes"] == [{"name": "a", "count": 0, "pictures": [], "back": False}]
    assert panel.magics == []
