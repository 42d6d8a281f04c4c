"""The grid of suspects in JupyterLab: relabel two and drop one by keys and mouse, train again, reload; looks."""

from __future__ import annotations

from collections.abc import Callable

from browser.lab import Notebook

ACTS = "sorted(mark.act for mark in tl.view.data.mending.marks.values())"
PRESS = """([grid, key]) => grid.getRootNode().activeElement.dispatchEvent(
    new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, composed: true }))"""


def test_two_are_relabelled_one_dropped_and_training_goes_on(open_notebook: Callable[..., Notebook]) -> None:
    notebook = open_notebook(
        "%load_ext tlnb\n%tl_load convnet5\n%tl_data digits --per-class 20\n%tl_freeze body",
        "suspects = %tl_clean\nsuspects",
        "%tl_train epochs 1 lr 1e-2",
        "%load_ext tlnb\n%tl_resume",
    )
    notebook.run(0)
    notebook.tell("tl.train(1, 1e-2)")
    notebook.run(1)
    view = notebook.view(1)
    cards = view.locator(".tlnb-suspect")
    cards.first.wait_for()
    cards.first.scroll_into_view_if_needed()
    cards.first.locator("img[src^='data:image']").wait_for()
    assert cards.count() == notebook.ask("min(24, len(suspects))")
    before = notebook.ask("len(tl.view.data.train) + len(tl.view.data.valid)")
    likely = notebook.ask("[(row.sample, row.likely) for row in suspects[:3]]")
    # By mouse, then by keys: R takes the likely label and goes on to the next card.
    cards.first.locator(".tlnb-suspect-take").click()
    notebook.until("len(suspects.marks)", 1)
    cards.nth(1).click(position={"x": 6, "y": 6})
    notebook.page.keyboard.press("r")
    notebook.until("len(suspects.marks)", 2)
    view.locator(".tlnb-suspect[data-mark=relabel]").nth(1).wait_for()
    notebook.page.keyboard.press("d")
    notebook.until(ACTS, ["drop", "relabel", "relabel"])
    notebook.page.keyboard.press("k")
    notebook.until(ACTS, ["drop", "keep", "relabel", "relabel"])
    notebook.page.keyboard.press("u")
    notebook.until(ACTS, ["drop", "relabel", "relabel"])
    marks = notebook.ask("{n: mark.label for n, mark in suspects.marks.items()}")
    assert marks == {likely[0][0]: likely[0][1], likely[1][0]: likely[1][1], likely[2][0]: ""}
    assert notebook.ask("len(tl.view.data.train) + len(tl.view.data.valid)") == before - 1
    view.locator(".tlnb-magic", has_text="%tl_clean --undo").wait_for()
    milliseconds = cards.nth(4).evaluate(
        """async (card) => { const began = performance.now(); card.querySelector("button").click();
            while (!card.dataset.mark && performance.now() - began < 5000) await new Promise((go) => setTimeout(go, 4));
            return performance.now() - began; }"""
    )
    print(f"a click is answered in {milliseconds:.0f} ms")
    notebook.run(2)
    assert notebook.ask("tl.history.stages[-1].recipe.data[-1].fingerprint == tl.view.state.data_fingerprint")
    assert notebook.ask(
        "tl.history.stages[-1].recipe.data[-1].fingerprint != tl.history.stages[0].recipe.data[-1].fingerprint"
    )
    notebook.shoot("suspects")
    notebook.save()
    notebook.reload()
    cards = notebook.view(1).locator(".tlnb-suspect")
    cards.first.wait_for()
    assert cards.nth(2).get_attribute("data-mark") == "drop"
    label = cards.nth(2).get_attribute("aria-label")
    assert label.endswith("; dropped")
    # The kernel ends; a new one takes up the session, and the grid, drawn anew, stands as it was left.
    marks = notebook.ask("{n: mark.act for n, mark in suspects.marks.items()}")
    notebook.restart()
    notebook.run(3)
    notebook.run(1)
    assert notebook.ask("{n: mark.act for n, mark in suspects.marks.items()}") == marks
    cards = notebook.view(1).locator(".tlnb-suspect")
    cards.first.wait_for()
    cards.first.get_by_role("button").first.wait_for()
    notebook.tell("tl.train(1, 1e-2)")
    assert notebook.ask("len(tl.view.data.train) + len(tl.view.data.valid)") == before - 1
