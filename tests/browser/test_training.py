"""Rates, training, Stop and Pause in a real notebook, against the state of the kernel."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from browser.lab import Notebook

READY = "%tl_load convnet5\n%tl_data digits --batch 16 --seed 1\n%tl_freeze 0:6"
# Each batch takes a moment, so that there is time to click; what each batch leaves is written down.
SLOW = """
import time
class Slow:
    last = None
    def on_batch(self, step, steps):
        Slow.last = [p.detach().clone() for p in tl.model.parameters()]
        time.sleep(0.05)
tl.listeners.append(Slow())
"""
CHANGED = "(was) => document.querySelector('.tlnb-rate').textContent !== was"
SAME = "all(bool((p == q).all()) for p, q in zip(tl.model.parameters(), Slow.last))"


@pytest.fixture(scope="module")
def notebook(open_notebook: Callable[..., Notebook]) -> Notebook:
    """A cell with the picker, one that trains slowly, and the rest of a short main job."""
    opened = open_notebook(
        "%load_ext tlnb", READY, "%tl_unfreeze 5: --find", SLOW, "run = %tl_train epochs 40 lr 1e-3\nrun",
        "%%tl_train\nfreeze body epochs 1\nunfreeze -2: epochs 2 lr 1e-3",
    )  # fmt: skip
    for cell in range(3):
        opened.run(cell)
    return opened


def test_a_rate_is_picked_by_rule_curve_and_slider(notebook: Notebook) -> None:
    picker = notebook.view(2)
    shown, magic = picker.locator(".tlnb-rate"), picker.locator(".tlnb-magic")
    picker.get_by_role("button", name="brink").click()
    by_rule = shown.inner_text()
    assert by_rule.startswith("rate ")
    curve = picker.locator(".tlnb-curve")
    box = curve.bounding_box()
    curve.click(position={"x": box["width"] / 3, "y": 80})
    notebook.page.wait_for_function(
        "(was) => document.querySelector('.tlnb-rate').textContent !== was", arg=by_rule
    )
    by_click = shown.inner_text()
    slider = picker.get_by_role("slider")
    slider.focus()
    slider.press("ArrowRight")
    notebook.page.wait_for_function(
        "(was) => document.querySelector('.tlnb-rate').textContent !== was", arg=by_click
    )
    notebook.page.wait_for_timeout(300)
    rate = float(shown.inner_text().removeprefix("rate "))
    assert magic.inner_text().startswith("%tl_train epochs 1 lr ")
    assert float(magic.inner_text().split()[-1]) == pytest.approx(rate, rel=0.06)


def test_train_in_the_picker_trains_at_the_picked_rate(notebook: Notebook) -> None:
    picker = notebook.view(2)
    rate = float(picker.locator(".tlnb-magic").inner_text().split()[-1])
    picker.get_by_role("button", name="Train").click()
    notebook.until("len(tl.history)", 1, seconds=60)
    assert notebook.ask("tl.history[-1].rate") == pytest.approx(rate, rel=0.01)
    picker.locator(".tlnb-training[data-state=done]").wait_for()
    picker.get_by_role("button", name="Run again").click()
    notebook.page.wait_for_function("() => document.querySelector('.tlnb-picker .tlnb-button').disabled")
    notebook.until("tl.busy", "", seconds=60)


def test_pause_and_stop_while_the_cell_runs(notebook: Notebook) -> None:
    notebook.run(3)
    notebook.start(4)
    view = notebook.view(4)
    bar = view.get_by_role("progressbar")
    notebook.page.wait_for_function(
        "() => Number(document.querySelector('.tlnb-bar[aria-valuenow]:not([hidden])')?.ariaValueNow) > 5"
    )
    view.get_by_role("button", name="Pause").click()
    view.locator(".tlnb-training[data-state=paused]").wait_for()
    notebook.page.wait_for_timeout(300)
    held = bar.get_attribute("aria-valuenow")
    notebook.page.wait_for_timeout(600)
    assert bar.get_attribute("aria-valuenow") == held

    # A toggle meanwhile is refused in words, and changes nothing.
    layers = notebook.view(1)
    layers.locator(".tlnb-layer").nth(2).click(force=True)  # it says that it is disabled, and answers why
    layers.locator(".tlnb-error").wait_for()
    assert "training is under way" in layers.locator(".tlnb-error").inner_text()
    view.get_by_role("button", name="Go on").click()
    view.locator(".tlnb-training[data-state=running]").wait_for()
    took = notebook.page.evaluate(
        """async () => {
            const stop = [...document.querySelectorAll('.tlnb-stop')].find((button) => button.offsetParent);
            const training = stop.closest('.tlnb-training');
            const began = performance.now();
            stop.click();
            while (training.dataset.state !== 'stopped' && performance.now() - began < 15000)
                await new Promise((done) => setTimeout(done, 10));
            return performance.now() - began;
        }"""
    )
    assert took < 1500, "the click, the batch, the measuring of nothing, and the way back"
    assert notebook.ask("run.stopped")
    assert notebook.ask("len(run.records)") < 40
    assert notebook.ask(SAME), "the network is that of the last finished batch"
    assert notebook.ask("[int(fixed) for fixed in tl.frozen]") == [1, 1, 1, 1, 1, 0, 0, 0]


def test_the_next_cell_works_after_a_stop(notebook: Notebook) -> None:
    notebook.tell("tl.listeners.pop()")
    before = notebook.ask("len(tl.history.stages)")
    notebook.run(5)
    assert notebook.ask("len(tl.history.stages)") == before + 2
    view = notebook.view(5)
    assert view.locator(".tlnb-training").get_attribute("data-state") == "done"
    assert view.locator(".tlnb-table tbody tr").count() == 3
    assert view.locator(".tlnb-stage").count() == 2
    curve = view.locator(".tlnb-stage details").first
    assert curve.get_attribute("open") is None, "the curve of a finished stage is folded away"
    assert not notebook.cell(5).locator(".tlnb-twin").is_visible()
    assert view.get_by_role("button", name="Stop").count() == 0
