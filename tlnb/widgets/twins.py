"""Static twins: what a view shows, as HTML that needs neither a kernel nor a script."""

from __future__ import annotations

from html import escape
from typing import Any

TWIN = "tlnb-twin"  # a live view that stands right before an element of this class hides it
ICE = "background:repeating-linear-gradient(135deg,#cfe8f7 0 6px,#b3d5ea 6px 7px);border-color:#2f7fb3;color:#0b3c5d"
WARM = "background:#f2a541;border-color:#a85d00;color:#3d2200"
_BOX = (
    "box-sizing:border-box;display:inline-block;width:{width}px;margin:0 3px 3px 0;padding:2px 0;border:1px solid;"
    "border-radius:4px;text-align:center;font:12px/1.5 sans-serif;vertical-align:top;{look}"
)
# JupyterLab puts one line of text where a view has lost its kernel, and only that; the twin after it is enough.
_HIDE_DEAD = (
    ".jp-OutputArea-child:has(> .jp-OutputArea-output.jupyter-widgets:not(:has(*))):has(+ .jp-OutputArea-child ."
    + TWIN
    + "){display:none}"
)
_FLOOR, _ROOM = 28, 560


def twin(html: str) -> str:
    """HTML of an answer, marked as the twin of the view before it."""
    return f'<div class="{TWIN}"><style>{_HIDE_DEAD}</style>{html}</div>'


def strip(rows: Any) -> str:
    """The layers as a row of boxes.

    Args:
        rows: a ``LayerTable``.
    """
    total = max(rows.parameters, 1)
    room = max(_ROOM - len(rows) * _FLOOR, 0)
    boxes = []
    for row in rows:
        sign, look = ("❄", ICE) if row.frozen else ("▲", WARM)
        style = _BOX.format(width=_FLOOR + int(room * row.parameters / total), look=look)
        title = escape(f"layer {row.index}, {row.name}, {'frozen' if row.frozen else 'trains'}")
        boxes.append(f'<span style="{style}" title="{title}">{sign}<br>{row.index}</span>')
    return f"<div>{''.join(boxes)}</div><div>❄ frozen &nbsp; ▲ trains</div>"
