"""The cells of a table in a file: CSV, TSV, JSONL or Parquet, in UTF-8 or in UTF-16 with its mark."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tlnb.display.tables import printable
from tlnb.engine.data.sources.labels import is_missing
from tlnb.errors import DataError, first_line

SHEETS = (".csv", ".tsv")
TABLES = (*SHEETS, ".jsonl", ".ndjson", ".parquet")
Columns = dict[str, list[Any]]

_SIGNS = (",", "\t", ";", "|")
_LARGEST = 1 << 22  # characters of a cell
_LOOKED_AT = 50  # lines that tell what stands between the cells


def rows_of(file: Path) -> tuple[list[list[str]], bool]:
    """The rows of a table as words, and whether the first is known to name the columns.

    Raises:
        DataError: it cannot be read.
    """
    if file.suffix.lower() not in SHEETS:
        columns = columns_of(file)
        words = [[word_of(cell) for cell in cells] for cells in columns.values()]
        return [list(columns), *(list(row) for row in zip(*words, strict=True))], True
    text = _text(file)
    csv.field_size_limit(_LARGEST)
    try:
        cells = csv.reader(io.StringIO(text, newline=""), delimiter=_sign(file, text.splitlines()))
        rows = [[cell.strip() for cell in row] for row in cells]
    except csv.Error as error:
        raise DataError(f"cannot read {printable(file.name)!r}: {error}") from None
    return [row for row in rows if any(row)], False


def columns_of(file: Path) -> Columns:
    """Every column of a table by its name; the first row of a CSV or TSV names them.

    Raises:
        DataError: it cannot be read, or two columns have one name.
    """
    kind, shown = file.suffix.lower(), repr(printable(file.name))
    if kind == ".parquet":
        columns = _parquet(file)
    elif kind in SHEETS:
        columns = _sheet(file, shown)
    else:
        columns = _json_lines(file, shown)
    for name, cells in columns.items():
        if any(isinstance(cell, bytes) or (isinstance(cell, dict) and "bytes" in cell) for cell in cells):
            raise DataError(
                f"the column {printable(name)} of {shown} holds files themselves, not their paths; read it with "
                "the package datasets, and name what it gives: %tl_data $dataset"
            )
    return columns


def names_of(file: Path) -> list[str]:
    """The names of the columns, as far as they can be read from the start of the file; empty where they cannot."""
    kind = file.suffix.lower()
    try:
        if kind == ".parquet":
            from pyarrow import parquet

            return list(parquet.read_schema(file).names)
        first = next((line for line in _text(file, 1 << 16).splitlines() if line.strip()), "")
        if kind in SHEETS:
            return [name.strip() for name in next(csv.reader([first], delimiter=_sign(file, [first])), [])]
        row = json.loads(first)
        return list(row) if isinstance(row, dict) else []
    except Exception:  # what cannot be read is told where it is read as a whole
        return []


def _text(file: Path, most: int = -1) -> str:
    """What a file says; where ``most`` bytes are named, its start, which may end in the middle of a line."""
    try:
        with open(file, "rb") as handle:
            raw = handle.read(most)
    except OSError as error:
        raise DataError(f"cannot read {printable(file.name)!r}: {error.strerror or error}") from None
    wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as Excel writes "Unicode text"
    coder = codecs.getincrementaldecoder("utf-16" if wide else "utf-8-sig")()
    try:
        return coder.decode(raw, final=most < 0)
    except UnicodeDecodeError:
        raise DataError(
            f"cannot read {printable(file.name)!r}: it is not UTF-8 text; save it as UTF-8, or name what pandas "
            "reads: %tl_data $frame"
        ) from None


def _sign(file: Path, lines: Sequence[str]) -> str:
    """What stands between the cells: the sign that gives most rows the width of the first, commas where several do.

    Where signs do as well as each other, that of the widest first row is taken.
    """
    if file.suffix.lower() == ".tsv":
        return "\t"
    best, most = ",", (0, 0)
    for sign in _SIGNS:
        widths = [len(row) for row in csv.reader(lines[:_LOOKED_AT], delimiter=sign) if row]
        if not widths or widths[0] < 2:
            continue
        same = (Counter(widths).get(widths[0], 0), widths[0])
        if same > most:
            best, most = sign, same
    return best


def _sheet(file: Path, shown: str) -> Columns:
    rows, _ = rows_of(file)
    header = rows[0] if rows else []
    if len(set(header)) != len(header):
        raise DataError(f"two columns of {shown} have the same name")
    for line, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise DataError(f"{shown}: row {line} has {len(row)} cells, not {len(header)}")
    return {name: [row[at] for row in rows[1:]] for at, name in enumerate(header)}


def _json_lines(file: Path, shown: str) -> Columns:
    columns: Columns = {}
    for number, line in enumerate(filter(str.strip, _text(file).split("\n"))):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise DataError(f"{shown}: line {number + 1} is no object of JSON")
        for name in row:
            columns.setdefault(name, [None] * number)
        for name, cells in columns.items():
            cells.append(row.get(name))
    return columns


def _parquet(file: Path) -> Columns:
    try:
        from pyarrow import parquet
    except ImportError:
        raise DataError('Parquet needs the package pyarrow: pip install "tlnb[hf]"') from None
    try:
        found: Columns = parquet.read_table(file).to_pydict()
    except Exception as error:  # pyarrow has errors of its own
        raise DataError(f"cannot read {printable(file.name)!r}: {first_line(error)}") from None
    return found


def word_of(cell: Any) -> str:
    """A cell as a word without space around it; empty where nothing stands in it."""
    return "" if is_missing(cell) else str(cell).strip()
