"""Python values as one writes them."""

from __future__ import annotations

import inspect
import io
import json
import tokenize
from collections.abc import Callable
from typing import Any


def no_formula(path: str) -> str:
    """The same path, so that a spreadsheet does not run it as a formula."""
    return f"./{path}" if path.startswith(("=", "+", "-", "@", "\t", "\r")) else path


class Code(str):
    """Text that is code already."""


def literal(value: object) -> str:
    """A value as code: text in double quotes, tuples and lists too."""
    if isinstance(value, Code):
        return str(value)
    if isinstance(value, str):
        # JSON escapes as Python does; what is no ASCII may stand as it is, but for what cannot be encoded.
        return json.dumps(value, ensure_ascii=any(0xD800 <= ord(c) <= 0xDFFF for c in value))
    if isinstance(value, tuple):
        return f"({', '.join(map(literal, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{literal(key)}: {literal(each)}' for key, each in value.items())}}}"
    return repr(value)


def source_of(function: Callable[..., Any]) -> str:
    """A function of the product as it stands in its file, so that a script computes what the product does."""
    return inspect.getsource(function).rstrip()


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


_OWN = frozenset(
    (
        "load_data", "inputs", "read_picture", "normalised", "changed_inputs", "loss_of", "figure_of",
        "CHANGES", "MEAN", "STD", "ROOT", "SIZE", "CLASSES", "WEIGHTS", "WINDOW", "FRONT",
    )
)  # fmt: skip
_TAKEN = frozenset(("changed_inputs", "inputs", "loss_of", "figure_of"))


def numbered(code: str, place: int) -> str:
    """Code of one of several data sets: from the second on, what it defines carries its number."""
    return code if place == 1 else _renamed(code, {name: f"{name}_{place}" for name in _OWN})


def of_data(code: str, several: bool) -> str:
    """Code of the training, which takes its data from where it lies: ``data`` where there are several."""
    code = code.replace("<, data>", ", data" if several else "")
    return _renamed(code, {name: f"data.{name}" for name in _TAKEN}) if several else code


def _renamed(code: str, names: dict[str, str]) -> str:
    """Code with other names; text and remarks stay as they are."""
    lines, before, found = code.splitlines(keepends=True), "", []
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.NAME and token.string in names and before != ".":
            found.append((token.start, token.string))
        before = token.string
    for (row, column), name in reversed(found):
        line = lines[row - 1]
        lines[row - 1] = line[:column] + names[name] + line[column + len(name) :]
    return "".join(lines)
