"""Python values as one writes them."""

from __future__ import annotations

import json


def literal(value: object) -> str:
    """A value as code: text in double quotes, tuples and lists too."""
    if isinstance(value, str):
        # JSON escapes as Python does; what is no ASCII may stand as it is, but for what cannot be encoded.
        return json.dumps(value, ensure_ascii=any(0xD800 <= ord(c) <= 0xDFFF for c in value))
    if isinstance(value, tuple):
        return f"({', '.join(map(literal, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    return repr(value)


def wrapped(name: str, values: tuple[str, ...], width: int = 100) -> str:
    """An assignment of a tuple of text, in lines."""
    line = f"{name} = {literal(values)}"
    if len(line) <= width:
        return line
    rows, row = [], "   "
    for value in values:
        item = f" {literal(value)},"
        if len(row) + len(item) > width and row.strip():
            rows.append(row)
            row = "   "
        row += item
    return "\n".join([f"{name} = (", *rows, row, ")"])
