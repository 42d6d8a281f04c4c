"""Results as a page: mistakes and the confusion matrix in real text, which fits a narrow page and a dark one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

import numpy as np

MATRIX = 60  # up to so many classes, the matrix is a table
NUMBERS = 25  # up to so many, each cell shows its number
PAIRS = 6  # confusions that are told in words
_STYLE = (
    "<style>"
    ".tlnb-two{display:flex;flex-wrap:wrap;gap:12px 32px;align-items:flex-start}.tlnb-two>*{min-width:0;max-width:100%}"
    ".tlnb-two img{max-width:100%;height:auto}"
    ".tlnb-matrix{overflow:auto;max-width:100%}"
    ".tlnb-matrix table{border-collapse:separate;border-spacing:1px;margin:0;table-layout:auto;font:12px/1 sans-serif}"
    ".tlnb-matrix tr,.tlnb-matrix tr:nth-child(odd){background:none!important}"
    ".tlnb-matrix td,.tlnb-matrix th{padding:0 3px;border:0;text-align:center;height:21px;"
    "min-width:15px;max-width:26px}"
    ".tlnb-matrix th{font-weight:400;white-space:nowrap;max-width:160px;overflow:hidden;text-overflow:ellipsis}"
    ".tlnb-matrix tbody th{text-align:right;padding-right:6px}"
    ".tlnb-matrix thead th{vertical-align:bottom;max-width:26px;height:auto;padding:2px 0}"
    ".tlnb-matrix thead th span{display:inline-block;writing-mode:vertical-rl;transform:rotate(180deg);"
    "max-height:130px;overflow:hidden}"
    ".tlnb-matrix.tlnb-many td,.tlnb-matrix.tlnb-many th{height:13px;min-width:11px;"
    "max-width:13px;padding:0;font-size:10px}"
    ".tlnb-matrix.tlnb-many tbody th{max-width:150px;padding-right:5px}.tlnb-matrix td{outline:1px solid #80808030}"
    "</style>"
)


def confusions(matrix: np.ndarray, classes: Sequence[str], most: int = PAIRS) -> str:
    """The commonest confusions as a sentence; empty where there is none.

    Args:
        matrix: how often class i was taken for class j, (classes, classes).
        classes: names.
        most: how many are told.
    """
    wrong = matrix * ~np.eye(len(matrix), dtype=bool)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(int(place), len(matrix)) for place in order if wrong.flat[place]]
    words = [
        f"{classes[true]} taken for {classes[taken]} {_times(wrong[true, taken])}" for true, taken in pairs
    ]
    left = int((wrong > 0).sum()) - len(words)
    more = f", and {left} other pair{'s' * (left != 1)}" if left > 0 else ""
    return f"{', '.join(words)}{more}" if words else ""


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(int(count), f"{count} times")


def matrix_html(matrix: np.ndarray, classes: Sequence[str]) -> str:
    """The confusion matrix as a table; right answers and mistakes differ in colour, and each cell says what it is."""
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    many = len(classes) > NUMBERS
    upright = max(map(len, classes)) > 3
    heads = "".join(f"<th scope='col'>{_head(name, upright)}</th>" for name in classes)
    rows = "".join(
        f"<tr><th scope='row'>{escape(name)}</th>{''.join(_cells(i, matrix, shares, classes, many))}</tr>"
        for i, name in enumerate(classes)
    )
    kind = "tlnb-matrix tlnb-many" if many else "tlnb-matrix"
    return (
        f'{_STYLE}<div class="tlnb-quiet">rows: what it is; columns: what it was taken for</div>'
        f'<div class="{kind}"><table><thead><tr><th></th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _head(name: str, upright: bool) -> str:
    return f"<span>{escape(name)}</span>" if upright else escape(name)


def _cells(
    true: int, matrix: np.ndarray, shares: np.ndarray, classes: Sequence[str], many: bool
) -> Iterator[str]:
    for taken, count in enumerate(matrix[true]):
        if not count:
            yield "<td></td>"
            continue
        right = true == taken
        # Mistakes are few; the root makes one in a hundred visible.
        strength = shares[true, taken] if right else np.sqrt(shares[true, taken])
        rgb = "43,134,192" if right else "208,101,30"
        words = f"{count} {classes[true]} " + ("right" if right else f"taken for {classes[taken]}")
        ink = "color:#fff" if strength > 0.55 else ""
        yield (
            f'<td title="{escape(words)}" style="background:rgba({rgb},{max(strength, 0.12):.2f});{ink}">'
            f"{'' if many else count}</td>"
        )


def side_by_side(*parts: str) -> str:
    """Parts next to each other where there is room, their tops aligned."""
    return f'<div class="tlnb-two">{"".join(f"<div>{part}</div>" for part in parts if part)}</div>'
