"""The whole main job by clicks; hostile names; two notebooks; many layers; looks."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from browser.lab import ROOT, Notebook, converted
from PIL import Image
from sklearn.datasets import load_digits

HOSTILE = "<img src=x onerror='hacked=1'>"
BLOBS = f"""
import torch, collections
from torch import nn
from pathlib import Path
from PIL import Image
bad = {HOSTILE!r}
for name in (bad, "plain"):
    folder = Path("pictures") / name
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(8):
        Image.new("L", (8, 8), 20 * i + (100 if name == bad else 0)).save(folder / f"{{i}}.png")
net = nn.Sequential(collections.OrderedDict([
    (bad, nn.Conv2d(1, 4, 3)), ("relu", nn.ReLU()), ("flat", nn.Flatten()), ("head", nn.Linear(144, 2))]))
"""
DEEP = """
from torch import nn
deep = nn.Sequential(*[nn.Conv2d(3, 3, 3, padding=1) for _ in range(59)], nn.Flatten(), nn.Linear(192, 2))
"""
# What a click costs in the kernel.
SLOW = """
import time, torch
class Slow:
    last = None
    def on_batch(self, step, steps):
        Slow.last = [p.detach().clone() for p in tl.model.parameters()]
        time.sleep(0.05)
tl.listeners.append(Slow())
def slow_step(model, x, y):
    time.sleep(0.03)
    return torch.nn.functional.cross_entropy(model(x), y)
def slow(*all, **named):
    for _ in range(400):
        time.sleep(0.05)
"""
SAME = "all(bool((p == q).all()) for p, q in zip(tl.model.parameters(), Slow.last))"
CLICKS = """
import time
_strips = get_ipython().magics_manager.registry['TlMagics'].showing._strips
_view, _took = list(_strips.values())[-1], []
for i in range(9):
    began = time.perf_counter()
    was = tl.frozen[i]
    _view.act('set', low=i, high=i, state='trains' if was else 'frozen')
    _took.append(time.perf_counter() - began)
    assert tl.frozen[i] != was and not _view.error
"""


def test_the_main_job_without_typing(open_notebook: Callable[..., Notebook]) -> None:
    notebook = open_notebook("%load_ext tlnb", "%tl_panel")
    notebook.run_all()
    panel = notebook.view(1)
    panel.get_by_role("button", name="Load").click()
    panel.get_by_text("convnet5: 9").wait_for(timeout=60_000)
    panel.get_by_label("data", exact=True).fill("digits")
    panel.get_by_role("button", name="Use").click()
    panel.get_by_text("digits: 1,437").wait_for(timeout=60_000)
    panel.get_by_role("button", name="Head only").click()
    notebook.until("tl.frozen.count(True)", 7)
    panel.get_by_role("button", name="Find a rate").click()
    panel.locator(".tlnb-curve svg").wait_for(timeout=60_000)
    panel.get_by_role("button", name="Train", exact=True).click()
    notebook.until("len(tl.history)", 1, seconds=60)
    assert notebook.ask("tl.history[-1].accuracy") > 0.8
    panel.locator(".tlnb-training[data-state=done]").wait_for()
    panel.locator(".tlnb-magics").get_by_text("%tl_train epochs 1 lr ").wait_for()  # once it has ended
    lines = panel.locator(".tlnb-magics").inner_text().splitlines()
    assert lines[:5] == [
        "%tl_load convnet5",
        "%tl_data digits",
        "%tl_freeze body",
        "%tl_unfreeze head",
        "%tl_lr",
    ]
    assert lines[5].startswith("%tl_train epochs 1 lr ")
    # What came of it: a photo that is dropped, with what it is.
    picture = notebook.lab.work / "seven.png"
    Image.fromarray((16 * load_digits().images[7]).clip(0, 255).astype("uint8")).save(picture)
    panel.get_by_label("a picture to try").set_input_files(picture)
    panel.locator(".tlnb-shown figure").wait_for()
    assert "seven.png" in panel.locator(".tlnb-shown").inner_text()
    panel.get_by_role("button", name="Results").click()
    panel.locator(".tlnb-shown .tlnb-matrix").wait_for()
    assert panel.locator(".tlnb-class").count() == 10, "each class, with a bar and pictures"
    assert panel.locator(".tlnb-thumbs img").count() == 40
    assert panel.locator(".tlnb-magics").inner_text().endswith("%tl_predict seven.png\n%tl_results")
    panel.get_by_role("button", name="Browse").click()
    panel.locator(".tlnb-folder").get_by_text("Use this folder").wait_for()
    panel.get_by_role("button", name="Browse").click()
    for dark in (False, True):
        for width in (400, 1600):
            notebook.look(dark=dark, width=width)
            wide = panel.evaluate("(panel) => panel.scrollWidth - panel.clientWidth")
            assert wide <= 1, "nothing sticks out"
            notebook.shoot(f"panel-{'dark' if dark else 'light'}-{width}")


def test_an_interrupt_ends_what_the_panel_trains_at_a_batch_edge(
    open_notebook: Callable[..., Notebook],
) -> None:
    notebook = open_notebook(
        "%load_ext tlnb\n%tl_load convnet5\n%tl_data digits --batch 16", SLOW, "%tl_panel"
    )
    notebook.run_all()
    panel = notebook.view(2)
    panel.get_by_role("spinbutton", name="epochs").fill("40")
    panel.get_by_role("button", name="Head only").click()
    panel.get_by_role("button", name="Train", exact=True).click()
    panel.get_by_text("left in this stage").wait_for()  # past its range test, at its batches
    assert panel.get_by_role("button", name="Head only").is_disabled()
    notebook.page.evaluate("() => { jupyterapp.commands.execute('kernelmenu:interrupt'); }")
    panel.locator(".tlnb-training[data-state=stopped]").wait_for()
    assert panel.locator(".tlnb-training strong").inner_text().startswith("stopped: ")
    assert notebook.ask("tl.busy") == ""
    assert notebook.ask(SAME), "the network is that of the last finished batch"
    assert notebook.ask("[p.grad is None for p in tl.model.parameters()].count(False)") == 0

    # The range test and the reading of data hear it too, and leave everything as it was.
    notebook.tell("tl.listeners.pop()\ntl.step = slow_step")
    for action in ("Find a rate", "Use"):
        notebook.tell("before = [p.detach().clone() for p in tl.model.parameters()]; data = tl._data")
        if action == "Use":
            panel.get_by_label("data", exact=True).fill("glyphs")
            notebook.tell("import tlnb.engine.data.load as m; usual = m.Data.samples; m.Data.samples = slow")
        panel.get_by_role("button", name=action).click()
        panel.get_by_text("of at most" if action == "Find a rate" else "reading the data").first.wait_for()
        notebook.page.wait_for_timeout(300)
        for _ in range(2 if action == "Use" else 1):  # where no batch ends, the second press does not wait
            notebook.page.evaluate("() => { jupyterapp.commands.execute('kernelmenu:interrupt'); }")
            notebook.page.wait_for_timeout(300)
        panel.get_by_text("interrupted; nothing is lost").wait_for()
        assert notebook.ask(
            "tl._data is data and all(bool((p == q).all()) for p, q in zip(tl.model.parameters(), before))"
        )
        panel.locator(".tlnb-magics").get_by_text("%tl_lr").wait_for(state="detached")
    notebook.tell("m.Data.samples = usual; tl.step = None")
    panel.get_by_role("spinbutton", name="epochs").fill("1")
    count = notebook.ask("len(tl.history)")
    panel.get_by_role("button", name="Train", exact=True).click()
    panel.locator(".tlnb-training[data-state=done]").wait_for()
    assert notebook.ask("len(tl.history)") == count + 1


@pytest.fixture(scope="module")
def notebook(open_notebook: Callable[..., Notebook]) -> Notebook:
    """A view of each kind, and a cell that takes a while."""
    return open_notebook(
        "%load_ext tlnb\n%tl_load convnet5\n%tl_data digits\n%tl_freeze 0:5", "%tl_layers", "%tl_lr", "%tl_panel",
        "%tl_train epochs 2 lr 1e-3", "import time\ntime.sleep(3)",
    )  # fmt: skip


def test_a_screen_reader_is_told_what_there_is(notebook: Notebook) -> None:
    for cell in range(5):
        notebook.run(cell)
    layers, picker, panel, training = (notebook.view(i).aria_snapshot() for i in (1, 2, 3, 4))
    boxes = [line.strip() for line in layers.splitlines() if line.strip().startswith("- checkbox")]
    assert len(boxes) == 8
    assert boxes[0].startswith(
        '- checkbox "layer 0, features.0, Conv2d, output 32×16×16, 352 parameters, frozen"'
    )
    assert "[checked]" not in boxes[0]
    assert "[checked]" in boxes[7]
    assert 'group "Layers of the network, in the order in which data flows"' in layers
    assert all(
        f'button "{name}"' in layers for name in ("Head only", "Last third", "All train", "All frozen")
    )
    for part in (
        'slider "learning rate, on a log scale"',
        'spinbutton "epochs"',
        'img "loss against learning rate;',
    ):
        assert part in picker
        assert part in panel or "slider" in part or "img" in part
    for part in (
        'combobox "network"',
        'combobox "data"',
        'heading "Network" [level=4]',
        'button "Find a rate"',
    ):
        assert part in panel
    for part in ('status: "done: accuracy', 'columnheader "valid loss"', 'img "layers that train: 5, 6, 7; all others',
                 'img "train loss '):  # fmt: skip
        assert part in training
    assert notebook.view(4).locator("[role=status][aria-live=polite]").count() >= 1
    for view in (1, 2, 3, 4):
        unnamed = notebook.view(view).evaluate(
            """(view) => [...view.querySelectorAll('button, input, [role=checkbox], [role=img], [role=progressbar]')]
            .filter((e) => !(e.textContent.trim() || e.ariaLabel || e.getAttribute('aria-label'))).length"""
        )
        assert unnamed == 0


def test_errors_show_in_each_widget_and_nothing_is_queued_in_silence(notebook: Notebook) -> None:
    picker, panel = notebook.view(2), notebook.view(3)
    panel.get_by_label("network", exact=True).fill("<img src=x onerror='hacked=1'>")
    panel.get_by_role("button", name="Load").click()
    error = panel.locator(".tlnb-error")
    error.wait_for()
    assert "<img src=x onerror='hacked=1'>" in error.inner_text()
    assert notebook.page.evaluate("() => window.hacked") is None
    notebook.tell("def bad(model, x, y): raise ValueError('no <i>loss</i>')\ntl.step = bad")
    picker.get_by_role("button", name="Train").click()
    picker.locator(".tlnb-error").wait_for()
    assert "ValueError: no <i>loss</i>" in picker.locator(".tlnb-error").inner_text()
    assert "ended by an error: ValueError: no <i>loss</i>" in picker.locator(".tlnb-training").inner_text()
    notebook.tell("tl.step = None")
    # What takes long waits for the cell that is running, and says so.
    notebook.start(5)
    picker.get_by_role("button", name="Train").click()
    picker.get_by_text("training: waits for the cell that is running").wait_for()
    assert picker.get_by_role("button", name="Train").is_disabled()
    notebook.until("len(tl.history)", 3)
    picker.locator(".tlnb-training[data-state=done]").wait_for()


def test_names_made_of_html_show_as_text(open_notebook: Callable[..., Notebook]) -> None:
    notebook = open_notebook(
        "%load_ext tlnb", BLOBS, "%tl_load $net --input 1,8,8\n%tl_data pictures --valid 0.25 --batch 4",
        "%tl_layers", "%%tl_train\nfreeze body epochs 2 lr 1e-3\nunfreeze all epochs 1 lr 1e-3", "%tl_panel",
        "%tl_history", "%tl_status", "%tl_lr --decay 2", "%tl_results", "%tl_predict pictures",
    )  # fmt: skip
    notebook.greet()
    notebook.run_all()
    assert HOSTILE in notebook.view(3).locator(".tlnb-layer").first.get_attribute("aria-label")
    assert notebook.ask("len(tl.history)") == 3
    assert HOSTILE in notebook.view(5).inner_text()
    assert f"rate of each layer: {HOSTILE} " in " ".join(
        notebook.view(8).locator(".tlnb-detail").all_inner_texts()
    )
    assert notebook.page.evaluate("() => window.hacked") is None
    assert notebook.page.locator("img[src=x]").count() == 0
    notebook.save()
    html = converted(notebook.path)
    notebook.page.goto(html.as_uri())
    assert notebook.page.evaluate("() => window.hacked") is None
    assert notebook.page.locator("img[src=x]").count() == 0
    shown = notebook.page.locator(".tlnb-twin", has_text=re.compile(r"\w")).all()
    assert [twin.is_visible() for twin in shown] == [True] * 4  # layers, run, panel and its last line
    assert "widget" not in notebook.page.locator("body").inner_text().lower()
    notebook.page.set_viewport_size({"width": 1000, "height": 1800})
    notebook.page.screenshot(path=ROOT / "screenshots" / "nbconvert.png")


def test_two_notebooks_have_two_sessions(open_notebook: Callable[..., Notebook]) -> None:
    cells = ("%load_ext tlnb", DEEP, "%tl_load $deep --input 3,8,8", "%tl_layers")
    one, two = open_notebook(*cells), open_notebook(*cells)
    for notebook in (one, two):
        notebook.run_all()
        notebook.view(3).locator(".tlnb-layer").nth(59).wait_for()
    one.view(3).locator(".tlnb-layer").nth(30).click()
    one.until("[i for i, fixed in enumerate(tl.frozen) if fixed]", [30])
    assert two.ask("any(tl.frozen)") is False
    assert two.view(3).locator(".tlnb-layer[data-frozen=true]").count() == 0
    times = [_redraw(one, i) for i in range(5, 15)]
    assert sorted(times)[len(times) // 2] < 300, times
    one.until("all(tl.frozen[5:15]) and not tl.busy")  # a box shows what is asked for before it is done
    one.tell(CLICKS)
    assert one.ask("sorted(_took)[4]") < 0.1
    one.look(dark=True, width=400)
    assert one.view(3).evaluate("(view) => view.scrollWidth - view.clientWidth") <= 1
    one.shoot("sixty-dark-400")


def _redraw(notebook: Notebook, box: int) -> float:
    """Milliseconds from a click to the box in its new state."""
    return float(
        notebook.page.evaluate(
            """async (i) => {
            const box = document.querySelectorAll('.tlnb-layer')[i], was = box.dataset.frozen;
            const at = box.getBoundingClientRect();
            const event = { bubbles: true, button: 0, pointerId: 1, clientX: at.x + 5, clientY: at.y + 5 };
            box.parentElement.setPointerCapture = () => {};
            const began = performance.now();
            box.dispatchEvent(new PointerEvent('pointerdown', event));
            box.dispatchEvent(new PointerEvent('pointerup', event));
            while (box.dataset.frozen === was && performance.now() - began < 5000)
                await new Promise((done) => setTimeout(done, 2));
            return performance.now() - began; }""",
            box,
        )
    )
