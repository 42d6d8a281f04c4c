"""The map in JupyterLab: a lasso, a click, keys, speed at 5,000 and 10,000 samples, looks."""

from __future__ import annotations

from collections.abc import Callable

from browser.lab import Notebook

MANY = """
import torch
from torch import nn
torch.manual_seed(0)
y = torch.arange(10_000) % 12
x = torch.randn(10_000, 16) + 6 * torch.eye(16)[y]
net = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 12))
%tl_load $net --input 16
data = (x, y)
%tl_data $data --seed 1
%tl_train epochs 2 lr 1e-2
"""
FRAMES = """async (map) => {
    const canvas = map.querySelector('canvas'), at = canvas.getBoundingClientRect(), gaps = [];
    const spot = { clientX: at.x + 100, clientY: at.y + 90, bubbles: true, cancelable: true };
    let before = performance.now();
    for (let i = 0; i < 60; i += 1) {
        canvas.dispatchEvent(new WheelEvent('wheel', { ...spot, deltaY: i % 20 < 10 ? -30 : 30 }));
        await new Promise((done) => requestAnimationFrame(done));
        const now = performance.now();
        gaps.push(now - before);
        before = now;
    }
    canvas.dispatchEvent(new MouseEvent('dblclick'));
    return gaps.sort((a, b) => a - b); }"""
CLICK = """async ([map, x, y]) => {
    const canvas = map.querySelector('canvas'), at = canvas.getBoundingClientRect();
    const said = () => map.querySelector('.tlnb-map-card').textContent;
    const words = () => map.querySelector('.tlnb-map-words').textContent;
    canvas.setPointerCapture = () => {};
    const spot = { bubbles: true, button: 0, pointerId: 1,
        clientX: at.x + at.width * (0.5 + 0.94 * x), clientY: at.y + at.height * (0.5 - 0.92 * y) };
    const before = [said(), words()], began = performance.now();
    canvas.dispatchEvent(new PointerEvent('pointerdown', spot));
    canvas.dispatchEvent(new PointerEvent('pointerup', spot));
    while ((said() === before[0] || words() === before[1]) && performance.now() - began < 5000)
        await new Promise((done) => setTimeout(done, 4));
    return performance.now() - began; }"""
# A point near the middle, as shares of the picture from its centre.
SPOT = (
    "(lambda p: ((p - p.min(0)) / (p.max(0) - p.min(0)) - .5)[abs(p - p.mean(0)).sum(1).argmin()].tolist())"
)


def test_a_lasso_chooses_and_the_selection_goes_on(open_notebook: Callable[..., Notebook]) -> None:
    notebook = open_notebook(
        "%load_ext tlnb\n%tl_load convnet5\n%tl_data digits\n%tl_freeze body\n%tl_train epochs 2 lr 1e-2",
        "m = %tl_map\nm",
    )
    notebook.run_all()
    view = notebook.view(1)
    canvas = view.locator("canvas.tlnb-map-canvas")
    canvas.wait_for()
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    mouse = notebook.page.mouse
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    mouse.move(box["x"] + 4, box["y"] + 4)
    mouse.down()
    for x, y in ((middle[0], box["y"] + 4), middle, (box["x"] + 4, middle[1])):
        mouse.move(x, y, steps=6)
    mouse.up()
    view.get_by_text(" chosen: ").wait_for()
    inside = notebook.ask(
        "(lambda p, s: (len(s), all(p[i, 0] < .5 * (p[:, 0].min() + p[:, 0].max()) + .1 and "
        "p[i, 1] > .5 * (p[:, 1].min() + p[:, 1].max()) - .1 for i in s)))(m.coordinates, m.selected)"
    )
    assert inside[0] > 5
    assert inside[1], "what lies in the upper left quarter"
    view.get_by_label("name of the variable").fill("upper")
    view.get_by_role("button", name="To a variable").click()
    notebook.until("len(upper) == len(m.selected)", True)
    canvas.press("Escape")
    notebook.until("len(m.selected)", 0)
    canvas.press("ArrowRight")
    canvas.press("ArrowRight")
    view.locator(".tlnb-map-card img").wait_for()
    canvas.press(" ")
    notebook.until("len(m.selected)", 1)
    notebook.tell("m2 = m.select(range(40))")
    view.get_by_role("button", name="Right or wrong").click()
    view.locator(".tlnb-map-key", has_text="wrong").wait_for()
    view.get_by_role("button", name="Class", exact=True).click()
    for dark in (False, True):
        for width in (700, 1500):
            notebook.look(dark=dark, width=width)
            assert view.evaluate("(map) => map.scrollWidth - map.clientWidth") <= 1
            notebook.shoot(f"map-{'dark' if dark else 'light'}-{width}")
    notebook.save()


def test_ten_thousand_points_move_smoothly_and_answer_a_click(open_notebook: Callable[..., Notebook]) -> None:
    notebook = open_notebook("%load_ext tlnb", MANY, "m = %tl_map\nm", "half = %tl_map --samples 5000\nhalf")
    notebook.run_all()
    for cell, least in ((3, 5000), (2, 10_000)):
        view = notebook.view(cell)
        view.locator("canvas.tlnb-map-canvas").scroll_into_view_if_needed()
        assert notebook.ask("len(half)" if cell == 3 else "len(m)") == least
        gaps = view.evaluate(FRAMES)
        print(f"{least}: median frame {gaps[30]:.1f} ms, 9 of 10 within {gaps[53]:.1f} ms")
        assert gaps[30] < 60
        x, y = notebook.ask(f"{SPOT}({'half' if cell == 3 else 'm'}.coordinates)")
        took = notebook.page.evaluate(CLICK, [view.element_handle(), x, y])
        print(f"{least}: a click was answered in {took:.0f} ms")
        assert 0 < took < 300
