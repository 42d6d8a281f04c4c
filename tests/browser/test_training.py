"""Rates, training, Stop and Pause in a real notebook, against the state of the kernel."""

from __future__ import annotations

import re
from collections.abc import Callable

import nbformat
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
FAILS = """
class Fails:
    def on_epoch(self, record):
        if record.epoch == 2:
            raise RuntimeError("no <b>room</b>")
tl.listeners.append(Fails())
run = %tl_train epochs 4 lr 1e-3
"""
CHANGED = "(was) => document.querySelector('.tlnb-rate').textContent !== was"
# What the training of the default job is stopped by: when the kernel heard of it, and when the stage had ended.
CLOCK = """
import time
from tlnb.engine.core.interrupts import StopRequest
class Clock:
    took, usual = [], StopRequest.ask
    def on_stage_end(self, result):
        Clock.took.append(time.perf_counter() - Clock.heard)
def heard(request):
    Clock.heard = time.perf_counter()
    Clock.usual(request)
StopRequest.ask = heard
tl.listeners.append(Clock())
"""
STOP = """async () => {
    const stop = [...document.querySelectorAll('.tlnb-stop')].filter((button) => button.offsetParent).at(-1);
    const training = stop.closest('.tlnb-training');
    const began = performance.now();
    stop.click();
    while (training.dataset.state !== 'stopped' && performance.now() - began < 15000)
        await new Promise((done) => setTimeout(done, 10));
    return performance.now() - began;
}"""
# Each step of the range test takes a moment too, and counts as one of the user's own.
SLOW_STEP = """
import time, torch
def slow_step(model, x, y):
    time.sleep(0.03)
    return torch.nn.functional.cross_entropy(model(x), y)
tl.step = slow_step
def state():
    import hashlib
    text = repr([(k, v.sum().item()) for k, v in tl.model.state_dict().items()]) + repr(
        [p.grad is None for p in tl.model.parameters()]) + repr(torch.get_rng_state().sum().item()) + repr(
        [m.training for m in tl.model.modules()])
    return hashlib.sha256(text.encode()).hexdigest()
"""
SAME = "all(bool((p == q).all()) for p, q in zip(tl.model.parameters(), Slow.last))"


@pytest.fixture(scope="module")
def notebook(open_notebook: Callable[..., Notebook]) -> Notebook:
    """A cell with the picker, one that trains slowly, and the rest of a short main job."""
    opened = open_notebook(
        "%load_ext tlnb", READY, "%tl_unfreeze 5: --find", SLOW, "run = %tl_train epochs 40 lr 1e-3\nrun",
        "%%tl_train\nfreeze body epochs 1\nunfreeze -2: epochs 2 lr 1e-3",
        "%tl_data digits\n%tl_freeze 0:5\nrun = %tl_train epochs 400 lr 1e-3", "curve = %tl_lr", "curve = %tl_lr",
        "%tl_train epochs 2 lr 1e-3;\nprint('after it')", FAILS,
    )  # fmt: skip
    opened.greet()
    for cell in range(1, 3):
        opened.run(cell)
    return opened


def test_a_rate_is_picked_by_rule_curve_and_slider(notebook: Notebook) -> None:
    picker = notebook.view(2)
    shown, magic = picker.locator(".tlnb-rate"), picker.locator(".tlnb-magic")
    assert picker.locator(".tlnb-rule").count() == 2, "the rest stands behind a button"
    picker.get_by_role("button", name="more").click()
    assert "training breaks" in picker.get_by_role("button", name="brink").get_attribute("title")
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
    picker.get_by_role("button", name="Find again").click()
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
    took = notebook.page.evaluate(STOP)
    assert took < 1000, "from the click to the word on the page"
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
    assert notebook.cell(5).locator(".tlnb-twin:visible").count() == 0
    assert view.get_by_role("button", name="Stop").count() == 0


def test_stop_ends_the_default_job_within_a_second(notebook: Notebook) -> None:
    notebook.tell(CLOCK)
    on_the_page = []
    for _ in range(3):
        notebook.start(6)
        notebook.view(6).locator(".tlnb-table tbody tr").nth(2).wait_for()
        on_the_page.append(notebook.page.evaluate(STOP))
        assert notebook.ask("run.stopped")
    assert notebook.ask("max(Clock.took)") < 1, (
        "seconds from the kernel's hearing of it to the end of the stage"
    )
    assert max(on_the_page) < 1000, on_the_page
    notebook.tell("StopRequest.ask = Clock.usual; tl.listeners.pop()")


def test_stop_of_a_range_test_leaves_no_trace(notebook: Notebook) -> None:
    notebook.tell(SLOW_STEP)
    before, picker = notebook.ask("state()"), notebook.view(2)
    was = picker.locator(".tlnb-curve svg").get_attribute("aria-label")
    picker.get_by_role("button", name="Find again").click()
    picker.get_by_text("of at most").wait_for()
    picker.get_by_role("button", name="Stop").click()
    error = picker.locator(".tlnb-error")
    error.wait_for()
    assert "the range test was stopped; the network is as it was before it" in error.inner_text()
    assert picker.locator(".tlnb-curve svg").get_attribute("aria-label") == was
    assert notebook.ask("state()") == before
    assert notebook.ask("tl.busy") == ""


def test_a_long_range_test_in_a_cell_has_a_stop_and_leaves_nothing_behind(notebook: Notebook) -> None:
    before = notebook.ask("state()")
    notebook.start(7)
    view = notebook.view(7)
    view.get_by_text("of at most").wait_for()
    view.get_by_role("button", name="Stop").click()
    notebook.cell(7).get_by_text("NotReady: the range test was stopped").wait_for()
    view.wait_for(state="detached")
    assert notebook.ask("state()") == before
    notebook.tell("tl.step = None")
    notebook.run(8)
    assert notebook.ask("curve.rate > 0")
    assert notebook.view(8).count() == 0, "an answer that is not shown has no view"


def test_the_twin_stays_where_the_answer_is_not_shown(notebook: Notebook) -> None:
    notebook.run(9)
    notebook.run(10)
    notebook.tell("tl.listeners.pop()")
    failed = notebook.view(10).locator(".tlnb-training[data-state=failed]")
    failed.wait_for()
    assert "ended by an error: RuntimeError: no <b>room</b>" in failed.inner_text()
    for cell in (9, 10):
        assert notebook.cell(cell).locator(".tlnb-twin:visible").count() == 0, "the view is there"
    notebook.save()
    cells = nbformat.read(notebook.path, 4).cells
    for cell, words in ((9, "done: accuracy"), (10, "ended by an error: RuntimeError: no &lt;b&gt;room")):
        twin = cells[cell].outputs[1]
        assert words in twin.data["text/html"]
        assert twin.data["text/html"].count("<polyline") == 3, "the curves of two epochs"
        assert "valid loss" in twin.data["text/plain"]
    both = [output for output in cells[5].outputs if "text/html" in output.get("data", {})]
    assert ["done: accuracy" in output.data["text/html"] for output in both] == [False, True], (
        "once, not twice"
    )


def test_a_restart_in_the_middle_of_a_run_leaves_how_far_it_was(notebook: Notebook) -> None:
    notebook.start(6)
    notebook.view(6).locator(".tlnb-table tbody tr").nth(1).wait_for()
    notebook.restart()
    twin = notebook.cell(6).locator(".tlnb-twin", has_text=re.compile("training is under way|^stopped: "))
    twin.wait_for()
    assert not notebook.view(6).is_visible(), "it could not be clicked any more"
    assert notebook.cell(6).locator(".tlnb-twin:visible").count() == 1
