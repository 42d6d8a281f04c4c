"""Static fallbacks: what a view shows, as HTML that needs neither a kernel nor a script."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape
from typing import Any

from tlnb.display.tables import Table
from tlnb.engine.network.layers import ADAPTED, FROZEN, TRAINS
from tlnb.engine.training.history import Run
from tlnb.engine.training.records import EpochRecord, show_rate
from tlnb.session.answers import LayerTable, curve_html

TWIN = "tlnb-twin"  # a view that is on the page hides the elements of this class that carry its key
# Colours without which a page that takes styles of elements away still reads; the dark ones come by a class.
_DARK = "".join(
    f'[data-jp-theme-light="false"] .{kind},.vscode-dark .{kind}'
    f"{{background:{back}!important;border-color:{line}!important;color:{ink}!important}}"
    for kind, back, line, ink in (
        ("tlnb-ice", "repeating-linear-gradient(135deg,#17415c 0 6px,#215576 6px 7px)", "#6fbde8", "#d6effc"),
        (
            "tlnb-mixed",
            "radial-gradient(circle at 4px 4px,#c3a6f0 0 1.5px,#3d2a5c 2px) 0 0/8px 8px",
            "#c3a6f0",
            "#efe6ff",
        ),
        ("tlnb-fire", "#e09a3a", "#ffce85", "#221300"),
    )
)
ICE = (
    "background:repeating-linear-gradient(135deg,#cfe8f7 0 6px,#b3d5ea 6px 7px);"
    "border-color:#2f7fb3;color:#0b3c5d"
)
MIXED = (
    "background:radial-gradient(circle at 4px 4px,#5b3a8c 0 1.5px,#dccdf2 2px) 0 0/8px 8px;"
    "border-color:#5b3a8c;color:#2c1650"
)
WARM = "background:#f2a541;border-color:#a85d00;color:#3d2200"
_BOX = (
    "box-sizing:border-box;display:inline-block;flex:{width} 1 26px;min-width:26px;padding:2px 0;"
    "border:1px solid;border-radius:4px;text-align:center;font:12px/1.5 sans-serif;vertical-align:top;{look}"
)
# Where a view has lost its kernel, JupyterLab writes one line of text and nothing else. The fallback, which comes
# next, is enough then.
_HIDE_DEAD = (
    f".jp-OutputArea-child:has(+ .jp-OutputArea-child .{TWIN}) > "
    ".jp-OutputArea-output.jupyter-widgets:not(:has(*)){display:none}"
)
_FLOOR, _ROOM = 28, 560
# Told apart with any colour vision, and read on white and on black.
_TRAIN, _VALID, _FIGURE = "#2b86c0", "#d0651e", "#12906f"


def marked(html: str, key: str) -> str:
    """HTML marked as the fallback of the view with this key, which stands right before it."""
    return f'<div class="{TWIN}" data-of="{escape(key)}"><style>{_HIDE_DEAD}</style>{html}</div>'


SIGNS = {FROZEN: "❄", ADAPTED: "◆", TRAINS: "▲"}


def _look(state: str) -> tuple[str, str]:
    """Class and style of a box for a layer in this state."""
    return {FROZEN: ("tlnb-ice", ICE), ADAPTED: ("tlnb-mixed", MIXED)}.get(state, ("tlnb-fire", WARM))


def strip(rows: LayerTable) -> str:
    """The layers as a row of boxes."""
    room = max(_ROOM - len(rows) * _FLOOR, 0)
    total = max(rows.parameters, 1)
    boxes = []
    for row in rows:
        sign, (kind, look) = SIGNS[row.state], _look(row.state)
        style = _BOX.format(width=_FLOOR + room * row.parameters // total, look=look)
        title = escape(f"layer {row.index}, {row.name}, {row.words.lstrip('❄◆ ')}")
        # Where a page takes the styles away, ❄0 ❄1 ▲2 is left.
        mark = f'<span style="display:block">{sign}</span>'
        boxes.append(f'<span class="{kind}" style="{style}" title="{title}">{mark}{row.index}</span>')
    line = f'<div style="display:flex;flex-wrap:wrap;gap:3px;max-width:{_ROOM}px">{" ".join(boxes)}</div>'
    adapted = " &nbsp; ◆ adapted" if any(row.state == ADAPTED for row in rows) else ""
    return f"<style>{_DARK}</style>{line}<div>❄ frozen{adapted} &nbsp; ▲ trains</div>"


def layers(rows: LayerTable) -> str:
    """What every page sees below the strip: how much trains, and each layer as it was here."""
    said = "<br>".join(escape(line) for line in (rows.summary, rows.note) if line)
    table = rows.table._repr_html_()
    return f"<div>{said}</div><details><summary>each layer, as it was here</summary>{table}</details>"


def run(done: Run, words: str = "") -> str:
    """A run: its table, which layers trained in which stage, curves, every epoch, every range test.

    Args:
        done: the run, or what there is of it so far.
        words: how it stands, in place of its own last word.
    """
    parts = [
        f"<style>{_DARK}</style>",
        _table(done, words)._repr_html_(),
        *(_stage(stage) for stage in done.stages),
    ]
    if len(done.records) > 1:
        parts.append(_charts(done.records))
    if done.records:
        table = _epoch_table(done.records)._repr_html_()
        parts.append(f"<details><summary>every epoch</summary>{table}</details>")
    if not words:
        parts.append(f'<div style="opacity:.7;font-size:12px">{escape(done.next)}</div>')
    return "".join(parts)


def run_text(done: Run, words: str = "") -> str:
    """The same as text: its table, and every epoch."""
    records = done.records
    return "\n".join(
        [
            repr(_table(done, words)),
            *([repr(_epoch_table(records))] if len(records) > len(done.stages) else []),
        ]
    )


def _table(done: Run, words: str) -> Table:
    table = done.table
    return Table(table.headers, table.rows, words or table.caption, table.align)


def _stage(stage: Any) -> str:
    cells = _cells(stage.trained, len(stage.trained) + len(stage.stage.frozen))
    line = f"<div>{stage.number}. {escape(stage.stage.text)} {cells}</div>"
    if stage.curve is None:
        return line
    words = escape(f"range test of stage {stage.number}: {stage.curve.note}")
    return f"{line}<details><summary>{words}</summary>{curve_html(stage.curve)}</details>"


def _cells(trained: Collection[int], count: int) -> str:
    looks = [_look(TRAINS if i in trained else FROZEN) for i in range(count)]
    boxes = "".join(
        f'<span style="display:inline-block;box-sizing:border-box;width:12px;height:12px;margin-right:2px;'
        f'border:1px solid;border-radius:2px;{look}" class="{kind}"></span>'
        for kind, look in looks
    )
    return f'<span style="white-space:nowrap" title="layers that train are filled">{boxes}</span>'


def _epoch_table(records: Sequence[EpochRecord]) -> Table:
    headers = ("stage", "epoch", "rate", "train loss", "valid loss", records[-1].metric_name)
    rows = [
        (r.stage, f"{r.epoch}/{r.epochs}", show_rate(r.rate), f"{r.train_loss:.4f}", f"{r.valid_loss:.4f}",
         f"{r.accuracy:.4f}")
        for r in records
    ]  # fmt: skip
    return Table(headers, rows)


def _charts(records: Sequence[EpochRecord]) -> str:
    losses = [
        ("train loss", _TRAIN, [r.train_loss for r in records]),
        ("valid loss", _VALID, [r.valid_loss for r in records]),
    ]
    figure = [(records[-1].metric_name, _FIGURE, [r.accuracy for r in records])]
    edges = [i for i in range(1, len(records)) if records[i].stage != records[i - 1].stage]
    return f"<div>{_chart(losses, edges)} {_chart(figure, edges)}</div>"


def _chart(series: Sequence[tuple[str, str, list[float]]], edges: Sequence[int]) -> str:
    """Lines over epochs as SVG, 300 by 140 pixels, in the page's own ink on the page's own paper."""
    values = [value for _, _, points in series for value in points]
    low, high = min(values), max(values)
    span, count = (high - low) or 1.0, len(series[0][2])

    def at(i: float, value: float) -> str:
        return f"{46 + 242 * i / max(count - 1, 1):.1f},{118 - 88 * (value - low) / span:.1f}"

    lines = [
        f'<text x="4" y="{y}" font-size="10" fill="currentColor" opacity=".75">{value:.3g}</text>'
        for value, y in ((high, 34), (low, 121))
    ]
    for edge in edges:
        x = at(edge - 0.5, low).partition(",")[0]
        lines.append(f'<line x1="{x}" x2="{x}" y1="26" y2="122" stroke="#999" stroke-dasharray="3 3"/>')
    for place, (name, colour, points) in enumerate(series):
        dashes = ' stroke-dasharray="5 3"' if place else ""
        path = " ".join(at(i, value) for i, value in enumerate(points))
        lines.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>'
            f'<text x="{46 + 90 * place}" y="14" font-size="11" fill="{colour}">{escape(name)}</text>'
        )
    label = escape("; ".join(f"{n}: {', '.join(f'{v:.3g}' for v in points)}" for n, _, points in series))
    return (
        f'<svg role="img" aria-label="{label}" width="300" height="140" viewBox="0 0 300 140" '
        f'style="max-width:100%">{"".join(lines)}'
        '<text x="288" y="136" font-size="10" fill="currentColor" opacity=".75" text-anchor="end">epochs</text></svg>'
    )
