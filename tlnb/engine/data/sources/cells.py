"""The cells of a table in a file, or in many of one form: CSV, TSV, JSONL or Parquet, in UTF-8 or UTF-16 with its mark.

Files are read row by row, and what is kept of them is a :class:`Column` a column.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tlnb.display.tables import few, printable
from tlnb.engine.data.column import Builder, Column, add_row
from tlnb.engine.data.sources.labels import is_missing
from tlnb.errors import DataError, first_line

SHEETS = (".csv", ".tsv")
TABLES = (*SHEETS, ".jsonl", ".ndjson", ".parquet")
Columns = dict[str, Column]
Progress = Callable[[int, int], None]

_SIGNS = (",", "\t", ";", "|")
_LARGEST = 1 << 22  # characters of a cell
_LOOKED_AT = 50  # lines that tell what stands between the cells
_START = 1 << 20  # bytes in which they are looked for
_TOLD = 50_000  # rows after which it is told how far reading is


def _silent(done: int, total: int) -> None:
    """Tell nobody how far it is."""


def cells_of(files: Sequence[Path], progress: Progress = _silent) -> tuple[list[Column], list[str] | None]:
    """The columns of a table as words, and their names where they are known.

    Args:
        files: one, or several of the same columns.
        progress: told how many of how many files are read.

    Returns:
        Columns, and None for their names where the first row may be those: that of a CSV or TSV. Where it stands at the
        start of each of several files, it is there once.

    Raises:
        DataError: one cannot be read, or has other columns.
    """
    if files[0].suffix.lower() not in SHEETS:
        columns = columns_of(files, progress)
        return [column.map(word_of) for column in columns.values()], list(columns)
    first: list[str] | None = None
    made: list[Builder] = []
    for number, file in enumerate(files):
        rows = _rows(file)
        top = next(rows, None)
        if top is None:
            continue
        if first is None:
            first, made = top, [Builder() for _ in top]
        if top is first or top != first:
            _add(made, top, _shown(file), 1)
        for line, row in enumerate(rows, start=2):
            _add(made, row, _shown(file), line)
            if line % _TOLD == 0:
                progress(number, len(files))
        progress(number + 1, len(files))
    return [one.column() for one in made], None


def columns_of(files: Sequence[Path], progress: Progress = _silent) -> Columns:
    """Every column of a table by its name; the first row of a CSV or TSV names them.

    Args:
        files: one, or several of the same columns.
        progress: told how many of how many files are read.

    Raises:
        DataError: one cannot be read, has other columns, or two columns have one name.
    """
    made: dict[str, Builder] = {}
    for number, file in enumerate(files):
        kind, names = file.suffix.lower(), None
        if kind == ".parquet":
            names = _add_parquet(file, made)
        elif kind in SHEETS:
            names = _add_sheet(file, made)
        else:
            _add_json_lines(file, made)
        if names is not None and set(names) != set(made):
            raise DataError(
                f"{_shown(file)} has the columns {few(tuple(map(printable, names)))}, and {_shown(files[0])} "
                f"{few(tuple(map(printable, made)))}; tables that are read together have the same"
            )
        progress(number + 1, len(files))
    columns = {name: builder.column() for name, builder in made.items()}
    for name, column in columns.items():
        if any(isinstance(cell, dict) and "bytes" in cell for cell in column.values):
            raise _holds_files(name, files[0])
    return columns


def _holds_files(name: str, file: Path) -> DataError:
    return DataError(
        f"the column {printable(name)} of {_shown(file)} holds files themselves, not their paths; read it with "
        "the package datasets, and name what it gives: %tl_data $dataset"
    )


def _shown(file: Path) -> str:
    return repr(printable(file.name))


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


def _text(file: Path, most: int) -> str:
    """The first so many bytes of a file as text, which may end in the middle of a line.

    Raises:
        DataError: it cannot be read.
    """
    try:
        coder = codecs.getincrementaldecoder(_coding(file))()
        with open(file, "rb") as handle:
            return coder.decode(handle.read(most))
    except UnicodeDecodeError:
        raise _not_text(file) from None
    except OSError as error:
        raise DataError(f"cannot read {_shown(file)}: {error.strerror or error}") from None


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


def _rows(file: Path) -> Iterator[list[str]]:
    """The rows of a CSV or TSV in which something stands, one after another, without space around the cells.

    Raises:
        DataError: it cannot be read.
    """
    lines = _text(file, _START).splitlines()
    if file.stat().st_size > _START and len(lines) > 1:
        lines.pop()  # it may end anywhere
    csv.field_size_limit(_LARGEST)
    try:
        with open(file, encoding=_coding(file), newline="") as handle:
            for row in csv.reader(handle, delimiter=_sign(file, lines)):
                cells = [cell.strip() for cell in row]
                if any(cells):
                    yield cells
    except csv.Error as error:
        raise DataError(f"cannot read {_shown(file)}: {error}") from None
    except UnicodeDecodeError:
        raise _not_text(file) from None
    except OSError as error:
        raise DataError(f"cannot read {_shown(file)}: {error.strerror or error}") from None


def _add(made: Sequence[Builder], row: Sequence[str], shown: str, line: int) -> None:
    # A single column is refused by whoever asks for two.
    if len(row) != len(made) > 1:
        raise DataError(f"{shown}: row {line} has {len(row)} cells, not {len(made)}")
    for builder, cell in zip(made, row, strict=False):
        builder.append(cell)


def _add_sheet(file: Path, made: dict[str, Builder]) -> list[str] | None:
    """Add the rows of a file; its columns."""
    rows = _rows(file)
    header = next(rows, None)
    if header is None:
        return None
    if len(set(header)) != len(header):
        raise DataError(f"two columns of {_shown(file)} have the same name")
    if not made:
        made.update((name, Builder()) for name in header)
    if set(header) == set(made):
        builders = [made[name] for name in header]
        for line, row in enumerate(rows, start=2):
            _add(builders, row, _shown(file), line)
    return header


def _add_json_lines(file: Path, made: dict[str, Builder]) -> None:
    try:
        with open(file, encoding=_coding(file), newline="\n") as handle:
            for number, line in enumerate(filter(str.strip, handle), start=1):
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    row = None
                if not isinstance(row, dict):
                    raise DataError(f"{_shown(file)}: line {number} is no object of JSON")
                add_row(made, row, len(next(iter(made.values()), ())))
    except UnicodeDecodeError:
        raise _not_text(file) from None
    except OSError as error:
        raise DataError(f"cannot read {_shown(file)}: {error.strerror or error}") from None


def _add_parquet(file: Path, made: dict[str, Builder]) -> list[str]:
    """Add the rows of a file, a batch at a time; its columns."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise DataError('Parquet needs the package pyarrow: pip install "tlnb[hf]"') from None
    try:
        with parquet.ParquetFile(file) as table:
            schema = table.schema_arrow
            for name, kind in zip(schema.names, schema.types, strict=True):
                if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
                    raise _holds_files(name, file)
                if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
                    raise _holds_files(name, file)
            if not made:
                made.update((name, Builder()) for name in schema.names)
            if set(schema.names) == set(made):
                for batch in table.iter_batches():
                    for name, cells in zip(schema.names, batch.columns, strict=True):
                        builder = made[name]
                        for cell in cells.to_pylist():
                            builder.append(cell)
    except DataError:
        raise
    except Exception as error:  # pyarrow has errors of its own
        raise DataError(f"cannot read {_shown(file)}: {first_line(error)}") from None
    return list(schema.names)


def _coding(file: Path) -> str:
    """How a text file is written: as UTF-8, or as Excel writes "Unicode text"."""
    with open(file, "rb") as handle:
        start = handle.read(2)
    return "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _not_text(file: Path) -> DataError:
    return DataError(
        f"cannot read {_shown(file)}: it is not UTF-8 text; save it as UTF-8, or name what pandas reads: "
        "%tl_data $frame"
    )


def word_of(cell: Any) -> str:
    """A cell as a word without space around it; empty where nothing stands in it."""
    return "" if is_missing(cell) else str(cell).strip()
