"""What the panel offers beside training: folders, pictures of classes, networks, a photo to try, what came of it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlnb.session import Session
from tlnb.widgets import Panel
from tlnb.widgets.browsing import folder, networks

HOSTILE = "<img src=x onerror='hacked=1'>"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of twelve pictures, bright and dark, one of a hostile name."""
    root = tmp_path_factory.mktemp("data") / "photos"
    dice = np.random.default_rng(0)
    for name, base in ((HOSTILE.replace("/", ""), 40), ("plain", 180)):
        (root / name).mkdir(parents=True)
        for number in range(12):
            pixels = (base + dice.integers(0, 40, (40, 40))).astype("uint8")
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def panel(photos: Path) -> Panel:
    made = Panel(Session(listeners=[]))
    made.act("load", model="convnet5")
    made.act("data", source=str(photos))
    assert made.error == ""
    return made


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (50, 40), value).save(file, format="PNG")
    return file.getvalue()


def test_a_folder_shows_what_can_be_chosen(photos: Path) -> None:
    (photos.parent / "labels.csv").write_text("path,label\n")
    (photos.parent / ".hidden").mkdir(exist_ok=True)
    found = folder(str(photos.parent))
    assert [(one["name"], one["says"]) for one in found["folders"]] == [("photos", "2 folders")]
    assert [one["name"] for one in found["tables"]] == ["labels.csv"]
    assert folder(str(photos / "plain"))["says"] == "12 pictures"
    assert found["parent"] == str(photos.parent.parent)


def test_a_folder_that_is_not_there_is_one_line() -> None:
    panel = Panel(Session(listeners=[]))
    panel.act("look", path="/nowhere/at/all")
    assert panel.error == "/nowhere/at/all cannot be read: No such file or directory"
    assert panel.folder == {}
    panel.act("look")
    assert panel.folder["path"] == str(Path.cwd())
    panel.act("look_away")
    assert panel.folder == {}


def test_networks_come_with_what_they_cost() -> None:
    says = dict(networks())
    assert says["convnet5"] == "1.0 M parameters, ships with tlnb"
    assert says["mobilenet_v2"].startswith("3.5 M parameters, 72 % of ImageNet right, ")
    assert says["mobilenet_v2"].endswith(("on this machine", "MB to download"))


def test_the_panel_begins_with_the_head_and_shows_each_class(panel: Panel) -> None:
    session = panel.session
    assert session.frozen == (True,) * 7 + (False,)
    assert panel.magics[-1] == "%tl_freeze body\n%tl_unfreeze head"
    assert sum(one["count"] for one in panel.gallery) == len(session.view.samples[0])
    assert all(len(one["pictures"]) == 4 for one in panel.gallery)
    assert all(uri.startswith("data:image/png;base64,") for one in panel.gallery for uri in one["pictures"])


def test_what_came_of_it_is_shown_with_names_escaped(panel: Panel) -> None:
    panel.act("train")
    assert panel.error == ""
    assert {"results", "picture", "undo", "save", "export", "advise"} <= set(panel.can)
    assert not {"further", "resume"} & set(panel.can)
    panel.act("results")
    assert panel.error == ""
    assert "tlnb-matrix" in panel.shown
    panel.act("picture", name=f"{HOSTILE}.png", buffers=[memoryview(png(200))])
    assert panel.error == ""
    assert "tlnb-bars" in panel.shown
    assert "<img src=x" not in panel.shown
    assert panel.magics[-1].startswith("%tl_predict ")
    panel.act("undo")
    assert len(panel.session.history) == 0


@pytest.mark.parametrize("content", [b"", b"no picture", png(9)[:40]])
def test_what_is_no_picture_is_one_line(panel: Panel, content: bytes) -> None:
    shown = panel.shown
    panel.act("picture", name="x.png", buffers=[content])
    assert panel.error == "x.png is no picture that can be read"
    assert panel.shown == shown


def test_a_network_that_knows_classes_answers_before_any_data() -> None:
    panel = Panel(Session(listeners=[]))
    panel.act("load", model="convnet5")
    assert "picture" in panel.can
    panel.act("picture", name="letter.png", buffers=[png(255)])
    assert panel.error == ""
    assert "letter.png" in panel.shown


def test_files_need_a_name(panel: Panel, tmp_path: Path) -> None:
    panel.act("save", path=" ")
    assert panel.error == "name a file"
    panel.act("save", path=str(tmp_path / "mine"))
    assert panel.error == ""
    assert (tmp_path / "mine.safetensors").is_file()
