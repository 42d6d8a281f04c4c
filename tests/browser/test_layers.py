"""Toggles in a real notebook, against the state of the kernel."""

from __future__ import annotations

from collections.abc import Callable

import nbformat
import pytest
from browser.lab import ROOT, Notebook

STATES = "''.join(row.state[0] for row in tl.layers)"
OWN = """
import ipywidgets
from IPython.display import display
from tlnb.widgets import LayerToggles
out = ipywidgets.Output()
display(ipywidgets.HBox([LayerToggles(tl), ipywidgets.IntSlider()]))
display(ipywidgets.VBox([ipywidgets.Label("my own label"), out]))
with out:
    display(tl.layers)
"""
# Keys in one go, faster than any answer of the kernel.
PRESS = """(keys) => keys.forEach((key) => document.activeElement.dispatchEvent(
    new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true })))"""
FLAGS = "[int(fixed) for fixed in tl.frozen]"


def first_cells(name: str, last: str) -> list[str]:
    """The code cells of a tutorial up to the first that begins with ``last``."""
    cells = [c.source for c in nbformat.read(ROOT / "notebooks" / name, 4).cells if c.cell_type == "code"]
    return cells[: next(i for i, cell in enumerate(cells) if cell.startswith(last)) + 1]


@pytest.fixture(scope="module")
def notebook(open_notebook: Callable[..., Notebook]) -> Notebook:
    """The quickstart up to the freezing; a second view of the layers; a cell for magics."""
    opened = open_notebook(
        *first_cells("01_quickstart.ipynb", "%tl_freeze"), "%tl_layers", "%tl_layers", "%tl_freeze 0:5", OWN
    )
    opened.greet()
    for cell in range(1, 6):
        opened.run(cell)
    opened.ask("tl.frozen")
    return opened


@pytest.fixture(autouse=True)
def five_frozen(notebook: Notebook) -> None:
    notebook.tell("tl.freeze('all'); tl.unfreeze('5:')")


def boxes(notebook: Notebook, cell: int = 5) -> object:
    return notebook.view(cell).locator(".tlnb-layer")


def test_older_strips_show_what_they_found_and_the_line_stays(notebook: Notebook) -> None:
    for cell in (3, 4):
        assert notebook.cell(cell).locator(".tlnb-layer:visible").count() == 0
        assert notebook.cell(cell).locator(".tlnb-twin").is_visible()
    boxes(notebook).first.wait_for()
    frozen = notebook.cell(4).locator(".tlnb-twin .tlnb-ice").count()
    assert frozen == 5
    assert "froze layers 0–4" in notebook.cell(3).inner_text()
    assert not notebook.cell(5).locator(".tlnb-twin").is_visible()
    notebook.cell(5).locator("summary").click()
    assert "features.15" in notebook.cell(5).locator("table").inner_text(), (
        "the table is there while the kernel lives"
    )


def test_views_compose_with_boxes_and_outputs(notebook: Notebook) -> None:
    notebook.run(7)
    cell = notebook.cell(7)
    cell.locator(".widget-label", has_text="my own label").wait_for()
    cell.locator(".tlnb-layer").nth(7).wait_for()
    both = cell.locator(".tlnb-layer:visible")
    assert both.count() == 8 + 8, "the one of the box, and that of the answer in the Output"
    assert cell.locator(".widget-label", has_text="my own label").is_visible()
    wide = cell.locator(".tlnb").first.bounding_box()
    assert wide["width"] > 250
    assert wide["height"] < 400
    assert cell.get_by_role("slider").is_visible()
    notebook.run(5)


def test_a_click_toggles_one_in_both_views(notebook: Notebook) -> None:
    boxes(notebook).nth(2).click()
    notebook.until(FLAGS, [1, 1, 0, 1, 1, 0, 0, 0])
    for cell in (5, 7):
        notebook.page.wait_for_function(
            "(box) => box.ariaChecked === 'true'", arg=boxes(notebook, cell).nth(2).element_handle()
        )
    assert "features.8" in boxes(notebook).nth(2).get_attribute("aria-label")
    assert notebook.ask("tl.model.features[8].weight.requires_grad")
    notebook.view(5).locator(".tlnb-magic", has_text="%tl_unfreeze 2").wait_for()


def test_a_drag_and_a_shift_click_set_a_range(notebook: Notebook) -> None:
    boxes(notebook).nth(1).drag_to(boxes(notebook).nth(3))
    notebook.until(FLAGS, [1, 0, 0, 0, 1, 0, 0, 0])
    boxes(notebook).nth(5).click()
    notebook.until(STATES, "ftttfatt")
    boxes(notebook).nth(5).click()
    notebook.until(FLAGS, [1, 0, 0, 0, 1, 1, 0, 0])
    boxes(notebook).nth(7).click(modifiers=["Shift"])
    notebook.until(FLAGS, [1, 0, 0, 0, 1, 1, 1, 1])


def test_clicks_go_through_three_states_and_leave_the_others(notebook: Notebook) -> None:
    box = boxes(notebook).nth(6)
    notebook.page.wait_for_function(
        "(box) => box.getAttribute('aria-checked') === 'true'", arg=box.element_handle()
    )
    for states, checked, title in (
        ("ffffftat", "mixed", "adapted"),
        ("ffffftft", "false", "frozen"),
        ("fffffttt", "true", "trains"),
    ):
        box.click()
        notebook.until(STATES, states)
        notebook.page.wait_for_function(
            f"(box) => box.getAttribute('aria-checked') === '{checked}'", arg=box.element_handle()
        )
        assert title in box.get_attribute("aria-label")
    box.click()
    notebook.view(5).locator(".tlnb-magic", has_text="%tl_adapt 6").wait_for()
    notebook.until(STATES, "ffffftat")


@pytest.mark.parametrize(
    ("label", "flags"),
    [
        ("Head only", [1, 1, 1, 1, 1, 1, 1, 0]),
        ("Last third", [1, 1, 1, 1, 1, 0, 0, 0]),
        ("All train", [0] * 8),
        ("All frozen", [1] * 8),
    ],
)
def test_presets(notebook: Notebook, label: str, flags: list[int]) -> None:
    notebook.view(5).get_by_role("button", name=label).click()
    notebook.until(FLAGS, flags)


def test_keys(notebook: Notebook) -> None:
    boxes(notebook).nth(0).focus()
    for key in ("ArrowRight", "ArrowRight", "Space"):
        notebook.page.keyboard.press(key)
    notebook.until(FLAGS, [1, 1, 0, 1, 1, 0, 0, 0])
    notebook.page.wait_for_function(
        "(box) => box.ariaChecked === 'true'", arg=boxes(notebook).nth(2).element_handle()
    )
    assert notebook.page.evaluate("() => document.activeElement.dataset.index") == "2"
    notebook.page.keyboard.press("End")
    notebook.page.wait_for_function("() => document.activeElement.dataset.index === '7'")
    notebook.page.keyboard.press("Enter")
    notebook.until(FLAGS, [1, 1, 0, 1, 1, 0, 0, 1])


def test_no_key_is_lost_however_fast_they_come(notebook: Notebook) -> None:
    boxes(notebook).nth(0).focus()
    notebook.page.wait_for_function(
        "(box) => box.ariaChecked === 'true'", arg=boxes(notebook).nth(7).element_handle()
    )
    notebook.page.evaluate(PRESS, [*["Enter"] * 4, "ArrowRight", *["Enter"] * 3, "End", *["Enter"] * 3])
    notebook.until(FLAGS, [0, 1, 1, 1, 1, 0, 0, 1])
    box = boxes(notebook).nth(7)
    notebook.page.wait_for_function("(box) => box.ariaChecked === 'false'", arg=box.element_handle())


def test_a_magic_moves_the_views(notebook: Notebook) -> None:
    notebook.tell("tl.unfreeze('all')")
    notebook.run(6)
    assert not boxes(notebook).first.is_visible(), "that of the magic is live now"
    notebook.run(5)
    handle = boxes(notebook).nth(4).element_handle()
    notebook.page.wait_for_function("(box) => box.ariaChecked === 'false'", arg=handle)
    assert [box.get_attribute("aria-checked") for box in boxes(notebook).all()] == ["false"] * 5 + [
        "true"
    ] * 3
    assert "592,906 of 981,226 parameters train" in notebook.view(5).locator(".tlnb-summary").inner_text()


def test_an_error_of_a_click_is_shown(notebook: Notebook) -> None:
    notebook.tell(
        "def broken(where): raise RuntimeError('a <b>bold</b> mistake')\ntl.freeze = tl.unfreeze = broken"
    )
    boxes(notebook).nth(0).click()
    error = notebook.view(5).locator(".tlnb-error")
    error.wait_for()
    assert error.inner_text() == "⚠ RuntimeError: a <b>bold</b> mistake"
    notebook.tell("del tl.freeze, tl.unfreeze")
    boxes(notebook).nth(0).click()
    error.wait_for(state="detached")
    notebook.until(FLAGS, [0, 1, 1, 1, 1, 0, 0, 0])


def test_the_twin_is_there_and_rests(notebook: Notebook) -> None:
    twin = notebook.cell(5).locator(".tlnb-twin")
    assert twin.count() == 1
    assert not twin.is_visible()


def test_reload_keeps_the_views_and_a_restart_leaves_the_twins(notebook: Notebook) -> None:
    notebook.save()
    notebook.reload()
    boxes(notebook).nth(6).wait_for()
    boxes(notebook).nth(7).click()
    notebook.until(FLAGS, [1, 1, 1, 1, 1, 0, 0, 1])
    notebook.restart()
    twin = notebook.cell(5).locator(".tlnb-twin")
    twin.wait_for()  # the views answer no more, so the twins take their place
    assert not boxes(notebook).first.is_visible()
    lost = notebook.cell(7).get_by_text("The kernel of this view is gone")
    lost.first.wait_for()  # a view of one's own has no twin: it stays, and says that it cannot be clicked
    notebook.reload()
    twin.wait_for()
    notebook.page.wait_for_timeout(3500)  # as long as JupyterLab looks for the lost view
    assert twin.is_visible()
    assert "❄" in twin.inner_text()
    assert not notebook.page.get_by_text("Error displaying widget").first.is_visible()
