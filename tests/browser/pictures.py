"""Pictures of every widget for a person to look at: ``python tests/browser/pictures.py [FOLDER]``

Each widget in each of its states, light and dark, 400 and 1600 pixels wide, and as people see it who lack the
cones for green or for red. The folder is ``screenshots`` in the clone unless another is named.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from browser.lab import ARGUMENTS, CHROMIUM, ROOT, Lab, Notebook
from PIL import Image
from playwright.sync_api import sync_playwright

LOOKS = [(dark, width) for dark in (False, True) for width in (400, 1600)]
DEEP = """
from torch import nn
kinds = [nn.Conv2d(3 + i // 4, 3 + (i + 1) // 4, 3, padding=1) for i in range(58)]
deep = nn.Sequential(*kinds, nn.Flatten(), nn.Linear(17 * 64, 2))
%tl_load $deep --input 3,8,8
%tl_freeze 0:40
%tl_layers
"""
SLOW = """
import time
class Slow:
    def on_batch(self, step, steps):
        time.sleep(0.02)
class Fails:
    def on_epoch(self, record):
        if record.epoch == 3:
            raise RuntimeError("the disk is full")
"""
READY = "%tl_load convnet5\n%tl_data digits --batch 16 --seed 1"
CELLS = {
    "start": f"%load_ext tlnb\n{READY}{SLOW}",
    "layers-8": "%tl_freeze 0:5\n%tl_layers",
    "layers-60": DEEP,
    "picker": f"{READY}\n%tl_unfreeze 3:\n%tl_lr --decay 2.6",
    "training-finished": "%%tl_train\nfreeze body epochs 3\nunfreeze 3: epochs 4",
    "training-failed": "tl.listeners.append(Fails())\n%tl_train epochs 5 lr 1e-3",
    "training-stopped": "tl.listeners[-1] = Slow()\n%tl_train epochs 9 lr 1e-3",
    "panel-new": "tl.listeners.pop()\n%reload_ext tlnb\ntl = __import__('tlnb').Session()\n%tl_panel",
}
# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
BLIND = {
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881],
    ],
    "protanopia": [
        [0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998],
    ],
}  # fmt: skip


def as_seen_with(matrix: list[list[float]], picture: Image.Image) -> Image.Image:
    """The picture as it looks to a person with this colour vision."""
    light = (np.asarray(picture.convert("RGB"), np.float64) / 255) ** 2.2 @ np.array(matrix).T
    return Image.fromarray((255 * light.clip(0, 1) ** (1 / 2.2)).astype(np.uint8))


def shoot(notebook: Notebook, cell: int, name: str, folder: Path) -> None:
    """A cell's output in all looks."""
    for dark, width in LOOKS:
        notebook.look(dark=dark, width=width)
        file = folder / f"{name}-{'dark' if dark else 'light'}-{width}.png"
        notebook.picture(file, cell)
        if width == 1600 and not dark:
            for kind, matrix in BLIND.items():
                with Image.open(file) as picture:
                    as_seen_with(matrix, picture).save(folder / f"{name}-{kind}.png")


def under_way(notebook: Notebook, cell: int) -> Iterator[str]:
    """Start a cell that trains, and give the names of the states that it goes through."""
    notebook.start(cell)
    view = notebook.view(cell)
    view.locator(".tlnb-table tbody tr").nth(1).wait_for()
    yield "training-running"
    view.get_by_role("button", name="Pause").click()
    view.locator(".tlnb-training[data-state=paused]").wait_for()
    yield "training-paused"
    view.get_by_role("button", name="Stop").click()
    view.locator(".tlnb-training[data-state=stopped]").wait_for()
    yield "training-stopped"


def by_clicks(notebook: Notebook, cell: int) -> Iterator[str]:
    """Do the main job in the panel, and give names on the way."""
    panel = notebook.view(cell)
    yield "panel-new"
    panel.get_by_role("button", name="Load").click()
    panel.locator(".tlnb-layer").first.wait_for()
    panel.get_by_role("button", name="Use").click()
    panel.get_by_role("button", name="Train", exact=True).wait_for()
    panel.get_by_role("button", name="Head only").click()
    yield "panel-ready"
    panel.get_by_role("button", name="Find a rate").click()
    panel.locator(".tlnb-curve svg").wait_for()
    panel.get_by_role("spinbutton", name="epochs").fill("3")
    panel.get_by_role("button", name="Train", exact=True).click()
    panel.locator(".tlnb-training[data-state=done]").wait_for()
    yield "panel-done"


def all_pictures(lab: Lab, browser: Any, folder: Path) -> None:
    """Every widget, and a notebook without a kernel."""
    notebook = Notebook(lab, browser, list(CELLS.values()))
    walks = {"training-stopped": under_way, "panel-new": by_clicks}
    for cell, name in enumerate(CELLS):
        if name in walks and name.startswith("training"):
            for state in walks[name](notebook, cell):
                shoot(notebook, cell, state, folder)
            continue
        notebook.run(cell)
        if name in walks:
            for state in walks[name](notebook, cell):
                shoot(notebook, cell, state, folder)
        elif name != "start":
            notebook.page.wait_for_timeout(500)
            shoot(notebook, cell, name, folder)
    notebook.save()
    notebook.restart()
    notebook.reload()
    notebook.page.wait_for_timeout(4000)  # as long as JupyterLab looks for the lost views
    for cell, name in enumerate(CELLS):
        if name != "start":
            notebook.picture(folder / f"{name}-without-kernel.png", cell)
    notebook.close()


def main(folder: Path) -> None:
    """Write the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        lab = Lab(Path(place))
        try:
            all_pictures(lab, browser, folder)
        finally:
            lab.close()
            browser.close()
    print(f"{len(list(folder.glob('*.png')))} pictures in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "screenshots")
