"""From nothing to a classifier of own pictures in JupyterLab: upload into classes, webcam, train, a dropped picture."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser.lab import ARGUMENTS, CHROMIUM, Lab, Notebook
from PIL import Image, ImageDraw

HOSTILE = "<img src=x onerror='hacked=1'>"
FAKE = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


def drawing(kind: int, seed: int) -> Image.Image:
    """A disc, a bar or a frame, somewhere on grey."""
    dice = np.random.default_rng(seed)
    image = Image.new("RGB", (96, 96), tuple(int(v) for v in dice.integers(60, 120, 3)))
    x, y = (int(v) for v in dice.integers(8, 30, 2))
    pen, ink = ImageDraw.Draw(image), tuple(int(v) for v in dice.integers(170, 255, 3))
    if kind == 0:
        pen.ellipse((x, y, x + 50, y + 50), fill=ink)
    elif kind == 1:
        pen.rectangle((x, y, x + 12, y + 60), fill=ink)
    else:
        pen.rectangle((x, y, x + 54, y + 54), outline=ink, width=5)
    return image


def saved(image: Image.Image, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


@pytest.fixture
def filmed(lab: Lab) -> Iterator[Any]:
    """A browser whose webcam is a drawing that moves."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS, *FAKE])
        yield opened
        opened.close()


def test_three_classes_of_own_pictures(lab: Lab, filmed: Any, tmp_path: Path) -> None:
    notebook = Notebook(lab, filmed, ["%load_ext tlnb\n%tl_panel"])
    notebook.run_all()
    panel = notebook.view(0)
    panel.get_by_role("button", name="Load").click()
    panel.get_by_text("convnet5: 9").wait_for(timeout=60_000)
    panel.get_by_role("button", name="Own pictures …").click()
    panel.get_by_label("folder for your pictures").fill("shapes")
    panel.get_by_label("folder for your pictures").press("Enter")
    # Two classes by picking files, one by a zip, and a fourth, of a hostile name, by the webcam.
    for kind, name in enumerate(("discs", "bars")):
        panel.get_by_label("name of a new class").fill(name)
        panel.get_by_role("button", name="Add class").click()
        chooser = panel.get_by_label(f"pictures of {name}")
        files = [saved(drawing(kind, 100 * kind + i), tmp_path / name / f"{i}.png") for i in range(16)]
        broken = tmp_path / name / "broken.png"
        broken.write_bytes(b"no picture")
        chooser.set_input_files([*files, broken])
        notebook.until(f"len(list(__import__('pathlib').Path('shapes/{name}').glob('*.png')))", 16)
        panel.locator(".tlnb-own-head", has_text=name).get_by_text("16").wait_for()
    panel.get_by_text("1 not taken").wait_for()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        for i in range(16):
            made.write(saved(drawing(2, 300 + i), tmp_path / "frames" / f"{i}.png"), f"any/frames/{i}.png")
    panel.get_by_label("a zip of class folders").set_input_files(
        {"name": "frames.zip", "mimeType": "application/zip", "buffer": archive.getvalue()}
    )
    panel.locator(".tlnb-own-head", has_text="frames").get_by_text("16").wait_for()
    panel.get_by_label("name of a new class").fill(HOSTILE)
    panel.get_by_label("name of a new class").press("Enter")
    card = panel.locator(".tlnb-own-card", has_text="onerror")
    card.get_by_role("button", name="Webcam").click()
    record = card.get_by_role("button", name="Hold to record")
    record.wait_for()
    notebook.page.wait_for_timeout(500)
    box = record.bounding_box()
    notebook.page.mouse.move(box["x"] + 10, box["y"] + 10)
    notebook.page.mouse.down()
    notebook.page.wait_for_timeout(2500)
    notebook.page.mouse.up()
    notebook.until("len(list(__import__('pathlib').Path('shapes').glob('_img*/*.jpg'))) >= 4", True)
    card.get_by_role("button", name="Close webcam").click()
    for dark in (False, True):
        for width in (700, 1500):
            notebook.look(dark=dark, width=width)
            assert panel.evaluate("(panel) => panel.scrollWidth - panel.clientWidth") <= 1
            notebook.shoot(f"own-{'dark' if dark else 'light'}-{width}")
    assert notebook.page.evaluate("() => window.hacked") is None
    assert notebook.page.locator("img[src=x]").count() == 0
    panel.get_by_role("button", name="Use these pictures").click()
    panel.get_by_text("in 4 classes").first.wait_for(timeout=60_000)
    panel.locator(".tlnb-gallery .tlnb-class").nth(3).wait_for()
    assert panel.locator(".tlnb-gallery .tlnb-class").count() == 4
    panel.get_by_role("button", name="All train").click()
    panel.get_by_role("button", name="Skip the test").click()
    panel.get_by_text("rate 1.0e-03").wait_for()
    panel.get_by_role("spinbutton", name="epochs").fill("8")
    panel.get_by_role("button", name="Train", exact=True).click()
    notebook.until("len(tl.history)", 8, seconds=90)
    panel.locator(".tlnb-training[data-state=done]").wait_for()
    # A picture that is dropped onto the page.
    content = io.BytesIO()
    drawing(1, 999).save(content, format="PNG")
    transfer = notebook.page.evaluate_handle(
        """(bytes) => { const made = new DataTransfer();
            made.items.add(new File([new Uint8Array(bytes)], 'new one.png', { type: 'image/png' })); return made; }""",
        list(content.getvalue()),
    )
    panel.locator("label.tlnb-drop", has_text="Try a picture").dispatch_event(
        "drop", {"dataTransfer": transfer}
    )
    panel.locator(".tlnb-shown figure").wait_for()
    said = panel.locator(".tlnb-shown figcaption").inner_text()
    assert "new one.png" in said
    assert "what in it spoke for the answer" in panel.locator(".tlnb-shown").inner_text()
    assert said.startswith("bars"), said
    # The webcam, live: the filmed class is what it says.
    panel.get_by_role("button", name="Try with the webcam").click()
    panel.locator(".tlnb-live-label", has_text="onerror").wait_for()
    assert panel.locator(".tlnb-live-bars i").count() == 4
    panel.locator("img.tlnb-live-picture").wait_for()
    frames = panel.locator("img.tlnb-live-picture").evaluate(
        """async (image) => { let count = 0; const seen = new MutationObserver(() => { count += 1; });
            seen.observe(image, { attributes: true });
            await new Promise((done) => setTimeout(done, 3000)); return count; }"""
    )
    print(f"{frames / 3:.1f} frames a second are answered")
    assert frames >= 3
    for dark in (False, True):
        for width in (700, 1500):
            notebook.look(dark=dark, width=width)
            notebook.shoot(f"live-{'dark' if dark else 'light'}-{width}")
    panel.get_by_role("button", name="Close the webcam").click()
    panel.get_by_label("file to write").fill("shapes-net")
    panel.get_by_role("button", name="Save session").click()
    notebook.until("__import__('os').path.isfile('shapes-net.safetensors')", True)
    panel.locator(".tlnb-magics").get_by_text("%tl_save shapes-net").wait_for()
    lines = panel.locator(".tlnb-magics").inner_text()
    assert "# pictures put into shapes/discs: 16" in lines
    assert "%tl_data shapes" in lines
    assert lines.splitlines()[-1] == "%tl_save shapes-net"
    assert notebook.page.evaluate("() => window.hacked") is None
    notebook.close()


def drop(notebook: Notebook, place: Any, *paths: Path) -> None:
    """Drop files or folders of the machine onto a place of the page, as a person does it with a mouse."""
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    line = notebook.page.context.new_cdp_session(notebook.page)
    for kind in ("dragEnter", "dragOver", "drop"):
        line.send(
            "Input.dispatchDragEvent",
            {
                "type": kind, "x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2,
                "data": {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1},
            },
        )  # fmt: skip
    line.detach()


def test_a_folder_with_a_folder_for_each_class_is_dropped(
    open_notebook: Callable[..., Notebook], tmp_path: Path
) -> None:
    for kind, name in enumerate(("discs", "bars")):
        for i in range(3):
            saved(drawing(kind, 10 * kind + i), tmp_path / "all" / "shapes" / name / f"{i}.png")
    saved(drawing(2, 1), tmp_path / "all" / ".hidden" / "0.png")
    saved(drawing(0, 50), tmp_path / "all" / "shapes" / "discs" / "deep" / "50.png")
    for i in range(120):  # more than a browser tells of a folder at once
        saved(drawing(2, 100 + i), tmp_path / "all" / "shapes" / HOSTILE.replace("/", "") / f"{i}.png")
    (tmp_path / "all" / "shapes" / "read me.txt").write_text("no picture")
    notebook = open_notebook("%load_ext tlnb\n%tl_panel")
    notebook.run_all()
    panel = notebook.view(0)
    panel.get_by_role("button", name="Own pictures …").click()
    panel.get_by_label("folder for your pictures").fill("dropped")
    panel.get_by_label("folder for your pictures").press("Enter")
    drop(notebook, panel.locator(".tlnb-own-drop", has_text="Drop a folder"), tmp_path / "all")
    head = panel.locator(".tlnb-own-head", has_text="onerror")
    head.get_by_text("120").wait_for()
    for name in ("discs", "bars"):
        panel.locator(".tlnb-own-head", has_text=name).get_by_text("3").wait_for()
    panel.locator(".tlnb-own-head", has_text="deep").get_by_text("1").wait_for()
    counts = "sorted(len(list(p.iterdir())) for p in __import__('pathlib').Path('dropped').iterdir())"
    notebook.until(counts, [1, 3, 3, 120])
    # Onto a class: all that is in the folder belongs to it.
    bars = panel.locator(".tlnb-own-card", has_text="bars").locator(".tlnb-own-drop")
    drop(notebook, bars, tmp_path / "all" / "shapes" / "discs")
    panel.locator(".tlnb-own-head", has_text="bars").get_by_text("7").wait_for()
    assert notebook.page.evaluate("() => window.hacked") is None
    assert notebook.page.locator("img[src=x]").count() == 0


def test_without_a_webcam_the_page_says_so(open_notebook: Callable[..., Notebook]) -> None:
    notebook = open_notebook("%load_ext tlnb\n%tl_load convnet5\n%tl_panel")
    notebook.run_all()
    panel = notebook.view(0)
    panel.get_by_role("button", name="Try with the webcam").click()
    panel.get_by_text("⚠").first.wait_for()
    assert "webcam" in panel.locator(".tlnb-detail", has_text="⚠").first.inner_text()
