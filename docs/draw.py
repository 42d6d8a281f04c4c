"""The drawings of the site, as SVG: ``python docs/draw.py`` writes them into ``docs/pictures``.

The figures in them are those of the quickstart's stored output.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

PICTURES = Path(__file__).parent / "pictures"
ICE, WARM, INK, FAINT, GREEN = "#9EC9E2", "#E8A15C", "#333333", "#999999", "#2E8B57"
LAYERS = ("conv", "conv", "conv", "conv", "conv", "linear", "linear", "head")
STAGES = (  # line of the plan, layers that train, what came of it
    ("fit head", (7,), "97.8 %"),
    ("unfreeze 3:", (3, 4, 5, 6, 7), "99.4 %"),
    ("unfreeze all", tuple(range(8)), "98.9 %: worse, so taken back; 99.4 % stays"),
)
SECONDS = 3  # that each stage is seen


def svg(width: int, height: int, label: str, *parts: str) -> str:
    """A drawing on a white card, so that it can be read on a dark page too."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(label)}" font-family="system-ui, sans-serif" font-size="14">'
        f'<rect width="{width}" height="{height}" rx="8" fill="white"/>{"".join(parts)}</svg>\n'
    )


def box(x: float, y: float, width: float, height: float, colour: str, inside: str = "") -> str:
    """A rounded box; ``inside`` holds its animations."""
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="5" fill="{colour}">{inside}</rect>'


def text(x: float, y: float, words: str, colour: str = INK, anchor: str = "middle", more: str = "") -> str:
    """A line of text."""
    return f'<text x="{x}" y="{y}" fill="{colour}" text-anchor="{anchor}"{more}>{escape(words)}</text>'


def arrow(x: float, y: float, to: float) -> str:
    """An arrow to the right."""
    return (
        f'<path d="M{x} {y}H{to - 6}" stroke="{INK}" stroke-width="1.5" fill="none"/>'
        f'<path d="M{to} {y}l-8 -4v8z" fill="{INK}"/>'
    )


def main_job() -> str:
    """The moving one: which layers train in each stage of the quickstart, and what comes of it."""
    time = f'dur="{SECONDS * len(STAGES)}s" repeatCount="indefinite" calcMode="discrete"'
    parts = [text(24, 30, "convnet5: five convolutions, three linear layers", anchor="start")]
    for layer, kind in enumerate(LAYERS):
        colours = ";".join(WARM if layer in trains else ICE for _, trains, _ in STAGES)
        x = 24 + 78 * layer
        parts.append(box(x, 48, 70, 54, ICE, f'<animate attributeName="fill" values="{colours}" {time}/>'))
        parts += [text(x + 35, 72, str(layer)), text(x + 35, 92, kind, more=' font-size="12"')]
    for number, (line, _, came) in enumerate(STAGES):
        shown = ";".join("1" if number == now else "0" for now in range(len(STAGES)))
        start = 1 if number == 0 else 0
        fade = f'<animate attributeName="opacity" values="{shown}" {time}/>'
        words = text(24, 134, f"stage {number + 1}: {line}", anchor="start")
        figure = text(640, 134, came, GREEN, "end", ' font-weight="bold"')
        parts.append(f'<g opacity="{start}">{fade}{words}{figure}</g>')
    parts += [
        box(24, 156, 14, 14, ICE), text(46, 168, "frozen: not one bit moves, runs once per image", anchor="start"),
        box(400, 156, 14, 14, WARM), text(422, 168, "trains", anchor="start"),
    ]  # fmt: skip
    words = "; ".join(f"{line}: {came}" for line, _, came in STAGES)
    return svg(664, 188, f"The stages of the quickstart: {words}", *parts)


def cut() -> str:
    """Where the cut is, what runs once and what runs in each epoch."""
    parts = [text(60, 84, "1,437"), text(60, 102, "images"), arrow(94, 86, 126)]
    for layer, kind in enumerate(LAYERS):
        x = 130 + 62 * layer + (96 if layer > 4 else 0)
        parts.append(box(x, 58, 56, 54, ICE if layer < 5 else WARM))
        parts += [text(x + 28, 82, str(layer)), text(x + 28, 101, kind, more=' font-size="12"')]
    parts += [
        f'<path d="M487 40V66M487 108V130" stroke="{INK}" stroke-dasharray="4 4"/>', text(487, 32, "the cut"),
        arrow(438, 86, 462), arrow(512, 86, 534),
        text(487, 82, "kept"), text(487, 100, "features", more=' font-size="12"'),
        text(284, 148, "runs once per image, in test mode"), text(630, 148, "runs in every epoch"),
    ]  # fmt: skip
    return svg(
        740,
        168,
        "Frozen layers 0 to 4 run once, their features are kept, layers 5 to 7 train on them",
        *parts,
    )


def advice() -> str:
    """The classic table."""
    cells = {
        (0, 0): ("unfreeze more layers", "of the pretrained model"),
        (1, 0): ("unfreeze fewer layers", "often the head alone"),
        (0, 1): ("start from the weights", "and train completely"),
        (1, 1): ("fine-tune completely", ""),
    }
    parts = [
        text(280, 30, "unlike the old data"), text(520, 30, "like the old data"),
        text(84, 82, "little data"), text(84, 162, "much data"),
    ]  # fmt: skip
    for (column, row), lines in cells.items():
        x, y = 160 + 240 * column, 44 + 80 * row
        parts.append(box(x, y, 230, 70, "#EEF3F7"))
        parts += [text(x + 115, y + 31 + 20 * n, line) for n, line in enumerate(lines)]
    return svg(648, 206, "Four cells: little or much data, like or unlike the old data", *parts)


if __name__ == "__main__":
    for name, draw in (("main-job", main_job), ("cut", cut), ("advice", advice)):
        (PICTURES / f"{name}.svg").write_text(draw(), encoding="utf-8")
