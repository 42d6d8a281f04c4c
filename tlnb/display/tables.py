"""Tables as aligned text and as HTML, and names from outside that are safe to show."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from html import escape
from typing import Any

_CELL = "text-align:{align};padding:2px 10px;white-space:nowrap"
_LONG = "text-align:{align};padding:2px 10px;min-width:16em;white-space:normal"  # of columns with long cells
_WRAPS = 48  # letters


class Table:
    """Rows under headers.

    Args:
        headers: column titles.
        rows: cells; each is turned into text by ``str``.
        caption: a line above the table (text) or its caption (HTML).
        align: one of ``<`` and ``>`` a column, as a string; right where every cell looks like a number.
    """

    def __init__(
        self,
        headers: Sequence[str],
        rows: Sequence[Sequence[object]],
        caption: str = "",
        align: str | None = None,
    ):
        self.headers = tuple(headers)
        self.rows = tuple(tuple(str(cell) for cell in row) for row in rows)
        self.caption = caption
        self.align = align or "".join(self._guess(i) for i in range(len(self.headers)))

    def _guess(self, column: int) -> str:
        cells = [row[column] for row in self.rows if row[column] not in ("", "-")]
        numeric = cells and all(cell[0].isdigit() or cell[0] in "-+." for cell in cells)
        return ">" if numeric else "<"

    def __repr__(self) -> str:
        widths = [max(len(row[i]) for row in (self.headers, *self.rows)) for i in range(len(self.headers))]
        lines = [
            "  ".join(f"{cell:{a}{w}}" for cell, a, w in zip(row, self.align, widths, strict=True)).rstrip()
            for row in (self.headers, *self.rows)
        ]
        return "\n".join([self.caption, *lines] if self.caption else lines)

    def _repr_html_(self) -> str:
        styles = [
            (_LONG if max((len(row[i]) for row in self.rows), default=0) > _WRAPS else _CELL).format(
                align="right" if a == ">" else "left"
            )
            for i, a in enumerate(self.align)
        ]

        def line(tag: str, row: Sequence[str]) -> str:
            cells = zip(styles, row, strict=True)
            return "<tr>" + "".join(f'<{tag} style="{s}">{escape(c)}</{tag}>' for s, c in cells) + "</tr>"

        caption = f'<caption style="text-align:left">{escape(self.caption)}</caption>' if self.caption else ""
        head, body = line("th", self.headers), "".join(line("td", row) for row in self.rows)
        return f"<table>{caption}<thead>{head}</thead><tbody>{body}</tbody></table>"


def frame(columns: dict[str, Any]) -> Any:
    """The columns as a pandas DataFrame; as they are where pandas is not installed."""
    try:
        import pandas
    except ImportError:
        return columns
    return pandas.DataFrame(columns)


# Joiners that Indic and Arabic words and many emoji are written with; harmless, unlike the other formatters.
_KEPT = {"\u200c", "\u200d"}


def printable(name: str) -> str:
    """The name with control characters, direction marks and undecodable bytes shown as their codes.

    A folder may be called ``\\x1b[2J``, which clears a terminal, or hold U+202E, which turns text around.
    """
    return "".join(c if _harmless(c) else c.encode("unicode_escape").decode() for c in name)


def few(names: tuple[str, ...], most: int = 8) -> str:
    """The names in a line, the middle left out where there are many."""
    if len(names) <= most:
        return ", ".join(names)
    return ", ".join(names[: most - 1]) + f", … {names[-1]}"


def _harmless(character: str) -> bool:
    return character in _KEPT or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
