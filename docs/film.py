"""The moving picture of the start page: a real session in JupyterLab, layers, rate and training, as animated WebP.

``python docs/film.py`` writes ``docs/pictures/session.webp``; it needs what the browser tests need (Chromium and the
extra ``test``). A frame is a screenshot of the notebook; how long it is shown is said here, so that a slow machine
makes the same film as a fast one.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from browser.lab import ARGUMENTS, CHROMIUM, Lab, Notebook  # noqa: E402

FILM = ROOT / "docs" / "pictures" / "session.webp"
MOST_BYTES = 700_000
WIDTH, HEIGHT = 880, 640
CELLS = ("%load_ext tlnb\n%tl_load convnet5\n%tl_data digits --per-class 40", "%tl_layers", "%tl_lr")
EPOCHS = 5
MOST_FRAMES = 36  # of the training, evenly spread
# A mouse pointer, which screenshots lack; it goes where the real one is.
POINTER = """() => {
    const pointer = document.createElement('div');
    pointer.innerHTML = '<svg width="22" height="22" viewBox="0 0 22 22"><path fill="#222" stroke="white" '
        + 'stroke-width="1.3" d="M3 1 L3 17 L7.5 13 L10.5 20 L13.5 18.7 L10.6 12 L16.5 12 Z"/></svg>';
    pointer.style.cssText = 'position:fixed;z-index:99999;pointer-events:none;left:-40px;top:0;line-height:0';
    document.body.append(pointer);
    addEventListener('mousemove', (event) => {
        pointer.style.left = event.clientX - 3 + 'px';
        pointer.style.top = event.clientY - 1 + 'px';
    }, true);
}"""
TO_TRAINING = """() => {
    const box = document.querySelector('.jp-WindowedPanel-outer') ?? document.querySelector('.jp-Notebook');
    const training = document.querySelector('.tlnb-training');
    box.scrollTop += training.getBoundingClientRect().top - box.getBoundingClientRect().top - 20;
}"""
TO_VIEW = """(n) => {
    const box = document.querySelector('.jp-WindowedPanel-outer') ?? document.querySelector('.jp-Notebook');
    const cell = document.querySelectorAll('.jp-Notebook .jp-Cell')[n];
    box.scrollTop += cell.getBoundingClientRect().top - box.getBoundingClientRect().top - 6;
}"""


class Film:
    """Frames of a page, and for how long each is shown.

    Args:
        page: Playwright's page.
        area: what of it is taken: x, y, width and height in pixels.
    """

    def __init__(self, page: Any, area: dict[str, float]):
        self.page, self.area = page, area
        self.frames: list[Image.Image] = []
        self.times: list[int] = []

    def take(self, milliseconds: int) -> None:
        """Take a frame; one that is like the last only lengthens it."""
        picture = Image.open(io.BytesIO(self.page.screenshot(clip=self.area))).convert("RGB")
        ImageDraw.Draw(picture).rectangle((0, 0, picture.width - 1, picture.height - 1), outline="#CCCCCC")
        if self.frames and picture.tobytes() == self.frames[-1].tobytes():
            self.times[-1] += milliseconds
        else:
            self.frames.append(picture)
            self.times.append(milliseconds)

    def rest(self, milliseconds: int) -> None:
        """The last frame stands longer."""
        self.times[-1] += milliseconds

    def click(self, place: Any, *, before: int = 450, after: int = 700) -> None:
        """Go to the middle of something, click it, and take both."""
        box = place.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.page.mouse.move(x, y)
        self.take(before)
        self.page.mouse.click(x, y)
        self.page.wait_for_timeout(500)
        self.take(after)

    def write(self, file: Path) -> None:
        """All frames as one picture that begins again at its end."""
        first, *others = self.frames
        first.save(file, save_all=True, append_images=others, duration=self.times, loop=0, quality=70, method=4,
                   minimize_size=True)  # fmt: skip


def play(notebook: Notebook) -> Film:
    """The session: network and data, what trains and the rate by clicks, training as it runs."""
    page = notebook.page
    page.evaluate(POINTER)
    box = page.locator(".jp-NotebookPanel-notebook").bounding_box()
    film = Film(page, {"x": box["x"], "y": box["y"], "width": box["width"], "height": box["height"]})
    film.take(900)
    notebook.run(0)
    page.wait_for_timeout(600)
    film.take(1500)

    notebook.run(1)
    notebook.view(1).locator(".tlnb-layer").first.wait_for()
    page.evaluate(TO_VIEW, 1)
    page.wait_for_timeout(400)
    film.take(900)
    film.click(notebook.view(1).get_by_role("button", name="Head only"), after=1000)
    for number in (6, 5, 4, 3):
        film.click(notebook.view(1).locator(".tlnb-layer").nth(number), before=250, after=350)
    film.rest(1500)

    notebook.run(2)
    view = notebook.view(2)
    view.locator(".tlnb-curve svg").wait_for()
    page.evaluate(TO_VIEW, 2)
    page.wait_for_timeout(400)
    film.take(1800)
    film.click(view.get_by_role("button", name="minimum"), after=1200)
    view.get_by_role("spinbutton", name="epochs").fill(str(EPOCHS))
    view.get_by_role("spinbutton", name="epochs").press("Tab")
    view.locator(".tlnb-magic", has_text=f"epochs {EPOCHS}").wait_for()
    film.take(700)
    film.click(view.get_by_role("button", name="Train", exact=True), after=200)
    train(page, film)
    return film


def train(page: Any, film: Film) -> None:
    """Frames of training until it is done, few and evenly spread whatever time it takes."""
    page.locator(".tlnb-training").first.wait_for()
    page.evaluate(TO_TRAINING)
    before, until = len(film.frames), time.monotonic() + 300
    while page.locator(".tlnb-training[data-state=done]").count() == 0:
        if time.monotonic() > until:
            raise SystemExit("the training of the film does not end")
        film.take(120)
        page.wait_for_timeout(100)
    page.wait_for_timeout(800)
    taken = film.frames[before:]
    step = max(1, len(taken) / MOST_FRAMES)
    film.frames[before:] = [taken[int(at * step)] for at in range(int(len(taken) / step))]
    film.times[before:] = [120] * (len(film.frames) - before)
    page.mouse.move(0, 0)
    film.take(3500)


def main() -> None:
    """Write the film."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        lab = Lab(Path(folder))
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        try:
            notebook = Notebook(lab, browser, CELLS, WIDTH)
            notebook.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
            film = play(notebook)
        finally:
            browser.close()
            lab.close()
    film.write(FILM)
    print(f"{len(film.frames)} frames, {sum(film.times) / 1000:.1f} s, {FILM.stat().st_size:,} bytes")
    if FILM.stat().st_size > MOST_BYTES:
        sys.exit(f"more than {MOST_BYTES:,} bytes")


if __name__ == "__main__":
    main()
