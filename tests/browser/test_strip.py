"""The strip of layers by itself, on a page whose kernel answers when the test says so: it matters not who is faster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tlnb.widgets import LayerToggles

# A model as anywidget hands it over: what the kernel sends comes by `from_kernel`, what goes there is kept in `sent`.
PAGE = """async ([module, layers]) => {
    const url = URL.createObjectURL(new Blob([module], { type: "text/javascript" }));
    const { default: widget } = await import(url);
    const values = { layers, states: layers.map(() => "frozen"), key: "k", summary: "", magic: "", error: "", busy: "",
        doing: "", disabled: false, retired: false };
    const heard = {};
    const tell = (name, ...words) => [...(heard[name] || [])].forEach((hear) => hear(...words));
    window.sent = [];
    window.from_kernel = (changed) => {
        Object.assign(values, changed);
        Object.keys(changed).forEach((key) => tell(`change:${key}`));
    };
    window.answer = () => tell("msg:custom", { done: sent[sent.length - 1].id });
    const model = { get: (name) => values[name], set: (name, value) => { values[name] = value; }, save_changes() {},
        on: (name, hear) => { (heard[name] ??= new Set()).add(hear); }, off: (name, hear) => heard[name]?.delete(hear),
        send: (message) => sent.push(message) };
    document.body.replaceChildren(document.createElement("div"));
    widget.render({ model, el: document.body.firstChild });
}"""
LAYERS = [
    {"name": f"conv{i}", "kind": "Conv2d", "shape": [8, 4, 4], "parameters": 100, "head": i == 5, "adaptable": i < 5}
    for i in range(6)
]  # fmt: skip


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page with a strip of six frozen layers, the third of which has the focus."""
    opened = browser.new_page()
    opened.evaluate(PAGE, [LayerToggles._esm, LAYERS])
    opened.locator(".tlnb-layer").nth(2).focus()
    yield opened
    opened.close()


def asked(page: Any) -> list[tuple[int, int, str]]:
    """The ranges that were asked for, with the state of each."""
    return [(one["low"], one["high"], one["state"]) for one in page.evaluate("() => sent")]


def shown(page: Any) -> str:
    """The first letter of each box's state."""
    return "".join(box.get_attribute("data-state")[0] for box in page.locator(".tlnb-layer").all())


def test_a_key_goes_from_what_the_kernel_said_while_another_was_awaited(page: Any) -> None:
    page.keyboard.press("Enter")
    assert shown(page) == "fftfff"
    page.evaluate(
        "() => from_kernel({ states: ['frozen', 'frozen', 'frozen', 'frozen', 'frozen', 'trains'] })"
    )
    assert shown(page) == "fftfft"
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    assert asked(page) == [(2, 2, "trains"), (5, 5, "frozen")]
    page.evaluate(
        "() => { from_kernel({ states: [...'fftfff'].map((s) => s === 't' ? 'trains' : 'frozen') }); answer(); }"
    )
    assert shown(page) == "fftfff"


def test_new_words_about_the_same_layers_leave_focus_drag_and_what_is_awaited(page: Any) -> None:
    box = page.locator(".tlnb-layer").nth(2).element_handle()
    page.keyboard.press("Enter")
    changed = [{**layer, "adaptable": False, "parameters": 100 * (i + 1)} for i, layer in enumerate(LAYERS)]
    page.evaluate("(layers) => from_kernel({ layers })", changed)
    assert page.evaluate("(box) => document.activeElement === box", box)
    assert shown(page) == "fftfff"
    page.keyboard.press("Enter")  # it trains, as was asked for, and can no more be adapted
    assert asked(page) == [(2, 2, "trains"), (2, 2, "frozen")]
    assert "300 parameters" in box.get_attribute("aria-label")


def test_another_network_keeps_the_focus_in_the_strip(page: Any) -> None:
    page.keyboard.press("Enter")
    fewer = [{**layer, "name": f"other{i}"} for i, layer in enumerate(LAYERS[:2])]
    page.evaluate("(layers) => from_kernel({ layers, states: ['trains', 'frozen'] })", fewer)
    assert page.evaluate("() => document.activeElement.dataset.index") == "1"
    assert shown(page) == "tf", "what was asked for the old network says nothing of this one"
    page.keyboard.press("Enter")
    assert asked(page)[-1] == (1, 1, "trains")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    assert asked(page)[-1] == (0, 0, "adapted")
