"""The tutorials in a real browser: no cell fails, each view is there, and what is saved reads well without one."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import nbformat
from browser.lab import ROOT, VIEW, Notebook, converted
from nbformat import NotebookNode

# Of the tutorials that take long: the cells that a view stands below, and those that they need.
SOME = {
    "02_five_conv_layers.ipynb": (0, 1),
    "04_stop_and_go_on.ipynb": (0, 1, 2, 3),
    "05_how_much_to_transfer.ipynb": (0, 1, 15),
    "06_results_and_export.ipynb": (0, 1, 2, 3, 10),
    "03_your_own_photos.ipynb": (0, 1, 2, 3, 4, 5, 8),  # last, since it goes to another folder
}


def cells_of(name: str, wanted: Iterable[int] | None = None) -> list[str]:
    cells = [c.source for c in nbformat.read(ROOT / "notebooks" / name, 4).cells if c.cell_type == "code"]
    return cells if wanted is None else [cells[i] for i in wanted]


def run_and_save(notebook: Notebook) -> list[NotebookNode]:
    """The cells as they are saved after a run."""
    notebook.greet()
    notebook.run_all()
    notebook.ask("1")
    notebook.save()
    return nbformat.read(notebook.path, 4).cells


def check(notebook: Notebook, cells: list[NotebookNode]) -> int:
    """No error; below each view its twin, at rest; how many views there are."""
    views = 0
    for number, cell in enumerate(cells):
        errors = [output for output in cell.outputs if output.output_type == "error"]
        assert not errors, errors[0].evalue
        for i, output in enumerate(cell.outputs):
            if VIEW in output.get("data", {}):
                views += 1
                following = [other.get("data", {}).get("text/html", "") for other in cell.outputs[i + 1 :]]
                assert "tlnb-twin" in following[0], (
                    f"right below, for the page without a kernel: {cell.source}"
                )
                assert any("<table" in html or "<div>" in html or "<img" in html for html in following)
                assert not any(
                    VIEW in other.get("data", {}) and len(other.data) > 1 for other in cell.outputs
                )
        # An older strip of layers has given its place to its twin; every other view is there, and its twin rests.
        retired = notebook.cell(number).locator(".tlnb-host[hidden]").count()
        shown = notebook.view(number)
        if shown.count() > retired:
            shown.first.wait_for()
        assert notebook.cell(number).locator(".tlnb-twin:visible").count() == retired
    return views


def test_the_quickstart(open_notebook: Callable[..., Notebook]) -> None:
    notebook = open_notebook(*cells_of("01_quickstart.ipynb"))
    cells = run_and_save(notebook)
    assert check(notebook, cells) == 4  # two strips, the training, the panel
    assert notebook.ask("len(tl.history)") == 5
    training = notebook.view(5)
    assert training.locator(".tlnb-stage").count() == 3
    assert training.locator(".tlnb-table tbody tr").count() == 5
    assert notebook.view(11).get_by_label("data", exact=True).input_value() == "digits"
    # The same session: a click in the panel moves the strip of cell 4.
    notebook.view(11).get_by_role("button", name="All train").click()
    notebook.until("any(tl.frozen)", False)
    assert notebook.view(4).locator(".tlnb-layer[data-frozen=true]").count() == 0
    read_without_a_kernel(notebook)


def read_without_a_kernel(notebook: Notebook) -> None:
    """On a page made by nbconvert, whole and with all that a careful page takes out: no dead view, no gap."""
    for sanitised in (False, True):
        notebook.page.goto(converted(notebook.path, sanitised=sanitised).as_uri())
        notebook.page.set_viewport_size({"width": 1000, "height": 2600})
        notebook.page.screenshot(
            path=ROOT / "screenshots" / f"nbconvert-{'plain' if sanitised else 'whole'}.png"
        )
        text = notebook.page.locator("body").inner_text()
        assert text.count("done: accuracy") == 1
        assert ("❄0 ❄1 ❄2 ❄3 ❄4 ▲5 ▲6 ▲7" in text) == sanitised
        assert notebook.page.content().count("classifier.7 (head)") == 1, "folded away below the strip"
        assert "widget" not in text.lower().replace("widgets", "")
        assert "the panel as it was left" in text


def test_the_views_of_the_others(open_notebook: Callable[..., Notebook]) -> None:
    cells = [cell for name, wanted in SOME.items() for cell in cells_of(name, wanted)]
    notebook = open_notebook(*cells)
    assert check(notebook, run_and_save(notebook)) >= len(SOME)
