"""A JupyterLab server and notebooks in a real browser, and a line to each notebook's kernel beside it."""

from __future__ import annotations

import ast
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import forked
import nbformat
from jupyter_client.blocking import BlockingKernelClient

ROOT = Path(__file__).parents[2]
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
)  # fmt: skip
SETTINGS = {
    "apputils-extension/notification": {
        "fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True,
    },
    "docmanager-extension/plugin": {"autosave": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}  # fmt: skip
VIEW = "application/vnd.jupyter.widget-view+json"
PANEL = (
    "const panel = [...jupyterapp.shell.widgets('main')]"
    ".find((widget) => widget.sessionContext && widget.content.widgets);"
)


def unused_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def converted(notebook: Path, *, sanitised: bool = False) -> Path:
    """A page that nbconvert makes of a notebook.

    ``sanitised``: of its outputs only what a careful page such as GitHub's leaves of them: no views, no styles,
    no drawings.
    """
    from nbconvert import HTMLExporter

    content = nbformat.read(notebook, 4)
    for output in (output for cell in content.cells for output in cell.get("outputs", ()) if sanitised):
        data = output.get("data", {})
        data.pop(VIEW, None)
        if "text/html" in data:
            plain = re.sub(r"<(style|svg|script)\b.*?</\1>", "", data["text/html"], flags=re.DOTALL)
            data["text/html"] = re.sub(r' (style|class|title)="[^"]*"', "", plain)
    page, _ = HTMLExporter().from_notebook_node(content)
    html = notebook.with_suffix(".plain.html" if sanitised else ".html")
    html.write_text(page, encoding="utf-8")
    return html


class Lab:
    """A JupyterLab of its own: settings, runtime files and notebooks below one new folder.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path):
        self.folder, self.work = folder, folder / "work"
        self.work.mkdir()
        for name, value in SETTINGS.items():
            path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(value))
        self.token, port = secrets.token_hex(16), unused_port()
        self.url = f"http://127.0.0.1:{port}"
        own = {
            f"{key}_DIR": str(folder / key.lower())
            for key in ("JUPYTER_CONFIG", "JUPYTER_DATA", "JUPYTER_RUNTIME", "JUPYTERLAB_WORKSPACES")
        }
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "PYTEST", "IPYTHON"))}
        environment = clean | own | {
            "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"), "IPYTHONDIR": str(folder / "ipython"),
            "TLNB_HOME": str(folder / "tlnb"), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg",
        }  # fmt: skip
        if "JUPYTER_PATH" in os.environ:  # of a test run, whose kernels are forks
            forked.start()
            environment |= {name: os.environ[name] for name in ("JUPYTER_PATH", forked.SERVER)}
        command = [
            sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={port}", f"--IdentityProvider.token={self.token}",
            f"--ServerApp.root_dir={self.work}", "--LabApp.expose_app_in_browser=True",
            "--LabApp.extension_manager=readonly", "--ServerApp.terminals_enabled=False",
            "--LanguageServerManager.autodetect=False",
        ]  # fmt: skip
        self._log = (folder / "server.log").open("wb")
        self._server = subprocess.Popen(
            command, cwd=self.work, env=environment, stdout=self._log, stderr=subprocess.STDOUT
        )
        self._wait()

    def _wait(self) -> None:
        end = time.monotonic() + 90
        while time.monotonic() < end and self._server.poll() is None:
            try:
                self.api("/api/status")
            except OSError:
                time.sleep(0.2)
            else:
                return
        raise RuntimeError((self.folder / "server.log").read_text(errors="replace")[-3000:])

    def api(self, path: str, method: str = "GET") -> Any:
        request = urllib.request.Request(
            self.url + path, method=method, headers={"Authorization": f"token {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            text = reply.read()
        return json.loads(text) if text else None

    def close(self) -> None:
        """Stop the kernels and the server, each by its own id."""
        try:
            for kernel in self.api("/api/kernels"):
                self.api(f"/api/kernels/{kernel['id']}", "DELETE")
        except OSError:
            pass
        self._server.terminate()
        try:
            self._server.wait(15)
        except subprocess.TimeoutExpired:
            self._server.kill()
        self._log.close()


class Notebook:
    """A notebook that is open in a page.

    Args:
        lab: the server.
        browser: Playwright's browser.
        cells: source of the code cells.
        width: of the window, in pixels.
    """

    def __init__(self, lab: Lab, browser: Any, cells: Sequence[str], width: int = 1280):
        self.lab = lab
        self.path = lab.work / f"n{secrets.token_hex(4)}.ipynb"
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
        nbformat.write(notebook, self.path)
        # One context for all pages of a browser, as of a person's, so that JupyterLab's code comes from its cache.
        context = (browser.contexts or [browser.new_context()])[0]
        self.page = context.new_page()
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.set_default_timeout(45_000)
        self._client: BlockingKernelClient | None = None
        workspace = secrets.token_hex(4)
        self.page.goto(f"{lab.url}/lab/workspaces/{workspace}/tree/{self.path.name}?token={lab.token}&reset")
        self._ready()
        self.page.evaluate("() => jupyterapp.shell.collapseLeft()")

    def _ready(self) -> None:
        self.page.wait_for_function(
            "() => { if (!window.jupyterapp) return false; "
            + PANEL
            + """
            const kernel = panel?.sessionContext.session?.kernel;
            return Boolean(panel?.isAttached && kernel?.connectionStatus === 'connected'
                           && kernel.status === 'idle'); }"""
        )
        self.page.wait_for_selector(".jp-Notebook .jp-Cell")

    # ---------------------------------------------------------------- cells

    def run_all(self) -> None:
        """Run every cell, to its end."""
        self._command("notebook:run-all-cells")

    def greet(self) -> None:
        """Run the first cell, which loads tlnb, and wait until the kernel has heard that a page is there.

        What is run before that shows itself without views, and how long it takes a page to speak differs.
        """
        self.run(0)
        widgets = "__import__('ipywidgets').widgets.widget._instances.values()"
        self.until(f"any(getattr(widget, 'answered', False) for widget in list({widgets}))")

    def run(self, number: int) -> None:
        """Run a cell, to its end."""
        self._select(number)
        self._command("notebook:run-cell")

    def start(self, number: int) -> None:
        """Run a cell and do not wait."""
        self._select(number)
        self.page.evaluate("() => { jupyterapp.commands.execute('notebook:run-cell'); }")

    def _select(self, number: int) -> None:
        self.page.evaluate(f"(n) => {{ {PANEL} panel.content.activeCellIndex = n; }}", number)

    def _command(self, name: str) -> None:
        self.page.evaluate("(name) => jupyterapp.commands.execute(name)", name)

    def cell(self, number: int) -> Any:
        """A cell's place on the page."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(number)

    def view(self, number: int) -> Any:
        """The view in a cell's output."""
        return self.cell(number).locator(".tlnb")

    # ---------------------------------------------------------------- the kernel

    @property
    def client(self) -> BlockingKernelClient:
        """A client of the kernel, beside the page."""
        if self._client is None:
            kernel = self.page.evaluate(f"() => {{ {PANEL} return panel.sessionContext.session.kernel.id; }}")
            file = self.lab.folder / "jupyter_runtime" / f"kernel-{kernel}.json"
            self._client = BlockingKernelClient(connection_file=str(file))
            self._client.load_connection_file()
            self._client.start_channels()
        return self._client

    def ask(self, expression: str) -> Any:
        """The value of an expression in the kernel, after what it is doing; plain values only."""
        reply = self._execute("", {"value": f"repr({expression})"})["user_expressions"]["value"]
        assert reply["status"] == "ok", reply
        return ast.literal_eval(ast.literal_eval(reply["data"]["text/plain"]))

    def tell(self, code: str) -> None:
        """Run statements in the kernel, outside the notebook."""
        reply = self._execute(code, {})
        assert reply["status"] == "ok", reply

    def _execute(self, code: str, expressions: dict[str, str]) -> dict[str, Any]:
        client = self.client
        request = client.execute(
            code, silent=False, store_history=False, user_expressions=expressions, stop_on_error=False
        )
        while True:
            reply = client.get_shell_msg(timeout=90)
            if reply["parent_header"].get("msg_id") == request:
                return dict(reply["content"])

    def until(self, expression: str, value: Any = True, seconds: float = 20) -> None:
        """Wait until an expression in the kernel has a value."""
        end = time.monotonic() + seconds
        while (now := self.ask(expression)) != value:
            assert time.monotonic() < end, f"{expression} is {now!r}, not {value!r}"
            time.sleep(0.05)

    # ---------------------------------------------------------------- life

    def save(self) -> None:
        """Save the notebook with its outputs."""
        self._command("docmanager:save")

    def reload(self) -> None:
        """Load the page again; the kernel lives on."""
        self.page.reload()
        self._ready()

    def restart(self) -> None:
        """Restart the kernel; all its state is gone."""
        self.page.evaluate(f"async () => {{ {PANEL} await panel.sessionContext.session.kernel.restart(); }}")
        self._ready()

    def look(self, *, dark: bool, width: int) -> None:
        """Change theme and width."""
        theme = f"JupyterLab {'Dark' if dark else 'Light'}"
        self.page.evaluate(
            "(theme) => jupyterapp.commands.execute('apputils:change-theme', { theme })", theme
        )
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.wait_for_timeout(700)

    def shoot(self, name: str) -> None:
        """A picture of the whole notebook, in the folder ``screenshots`` of the clone."""
        height = self.page.evaluate(
            """() => [...document.querySelectorAll('.jp-Notebook .jp-Cell')]
                     .reduce((sum, cell) => sum + cell.getBoundingClientRect().height + 10, 180)"""
        )
        size = self.page.viewport_size
        self.page.set_viewport_size({"width": size["width"], "height": int(min(height, 6000))})
        self.page.wait_for_timeout(400)
        folder = ROOT / "screenshots"
        folder.mkdir(exist_ok=True)
        self.page.screenshot(path=folder / f"{name}.png")
        self.page.set_viewport_size(size)

    def picture(self, file: Path, number: int) -> None:
        """A picture of a cell's output, whole, in the present look."""
        size = self.page.viewport_size
        area = self.cell(number).locator(".jp-Cell-outputArea")
        box = area.bounding_box()
        self.page.set_viewport_size({"width": size["width"], "height": int(min(box["height"] + 300, 6000))})
        area.scroll_into_view_if_needed()
        self.page.wait_for_timeout(200)
        area.screenshot(path=file)
        self.page.set_viewport_size(size)

    def close(self) -> None:
        """Close the page and the line to the kernel."""
        if self._client is not None:
            self._client.stop_channels()
        self.page.close()
