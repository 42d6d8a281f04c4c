"""The views of the quickstart outside JupyterLab: Notebook 7, Voilà, marimo; skipped where one is not installed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat
import pytest

CELLS = (
    "%load_ext tlnb",
    "%tl_load convnet5",
    "%tl_data digits --per-class 5 --batch 25",
    "%tl_freeze body",
    "%tl_lr --steps 12",
    "%tl_panel",
)
# Voilà runs the cells before there is a page, so that answers are static there; views that are asked for live.
ASKED = (
    *CELLS[:3],
    "tl.freeze('body')\nfrom tlnb.widgets import LayerToggles, LRPicker, Panel\nLayerToggles(tl)",
    "LRPicker(tl, tl.find_lr(steps=12))",
    "Panel(tl)",
)
MARIMO = """
import marimo

app = marimo.App()


@app.cell
def _():
    import marimo as mo

    from tlnb import Session
    from tlnb.widgets import LayerToggles, LRPicker, Panel

    tl = Session([])
    tl.load("convnet5")
    tl.data("digits", per_class=5, batch=25)
    tl.freeze("body")
    return LRPicker, LayerToggles, Panel, mo, tl


@app.cell
def _(LayerToggles, mo, tl):
    mo.ui.anywidget(LayerToggles(tl))
    return


@app.cell
def _(LRPicker, mo, tl):
    mo.ui.anywidget(LRPicker(tl, tl.find_lr(steps=12)))
    return


@app.cell
def _(Panel, mo, tl):
    mo.ui.anywidget(Panel(tl))
    return


if __name__ == "__main__":
    app.run()
"""


def needs(module: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(module) is None, reason=f"{module} is not installed")


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Starts a server in an empty folder and gives its address; stopped by its own id after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*command: str, path: str = "/") -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "PYTEST", "IPYTHON"))}
        own = {
            "IPYTHONDIR": str(tmp_path / "ipython"),
            "TLNB_HOME": str(tmp_path / "tlnb"),
            "OMP_NUM_THREADS": "1",
        }
        own |= {f"JUPYTER_{kind}_DIR": str(tmp_path / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
        with (tmp_path / "log").open("wb") as log:
            line = [part.format(port=port) for part in command]
            server = subprocess.Popen(
                [sys.executable, "-m", *line], cwd=tmp_path, env=clean | own, stdout=log, stderr=log
            )
        started.append(server)
        until, address = time.monotonic() + 120, f"http://127.0.0.1:{port}{path}"
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), 1):
                    return address
            except OSError:
                assert server.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < until, (tmp_path / "log").read_text()
                time.sleep(0.2)

    yield start
    for server in started:
        server.terminate()
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()


def written(folder: Path, cells: Sequence[str]) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, folder / "quickstart.ipynb")


def drive(page: Any) -> None:
    """Thaw a layer, see the curve, and train one epoch by the panel."""
    strip = page.locator(".tlnb-layer").first
    strip.wait_for(timeout=120_000)
    strip.click()
    page.locator(".tlnb-magic", has_text="%tl_unfreeze 0").first.wait_for()
    page.locator(".tlnb-curve svg").first.wait_for()
    page.get_by_role("button", name="Head only").last.click()
    page.get_by_role("spinbutton", name="epochs").last.fill("1")
    page.get_by_role("button", name="Train", exact=True).last.click()
    page.locator(".tlnb-training[data-state=done]").first.wait_for(timeout=90_000)


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.set_default_timeout(60_000)
    yield opened
    opened.close()


@needs("notebook")
def test_notebook_7(serve: Callable[..., str], page: Any, tmp_path: Path) -> None:
    written(tmp_path, CELLS)
    page.goto(
        serve(
            "notebook", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", "--ServerApp.port={port}",
            "--IdentityProvider.token=", "--JupyterNotebookApp.expose_app_in_browser=True",
            path="/notebooks/quickstart.ipynb",
        )
    )  # fmt: skip
    page.wait_for_function(
        """() => { const panel = window.jupyterapp?.shell.currentWidget;
                   return panel?.sessionContext?.session?.kernel?.connectionStatus === 'connected'; }""",
        timeout=60_000,
    )
    page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells'); }")
    drive(page)


@needs("voila")
def test_voila(serve: Callable[..., str], page: Any, tmp_path: Path) -> None:
    written(tmp_path, ASKED)
    page.goto(
        serve("voila", "quickstart.ipynb", "--no-browser", "--port={port}", "--Voila.ip=127.0.0.1"),
        timeout=180_000,
    )
    drive(page)


@needs("marimo")
def test_marimo(serve: Callable[..., str], page: Any, tmp_path: Path) -> None:
    (tmp_path / "quickstart.py").write_text(MARIMO)
    page.goto(serve("marimo", "run", "quickstart.py", "--headless", "--no-token", "--port={port}"))
    drive(page)
