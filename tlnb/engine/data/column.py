"""A column of a table without a Python object for each row: its different cells once, or its texts behind one another.

A million rows over two thousand files are two thousand texts and four million bytes; texts that are all different are
their bytes and where each ends. What is longer than ``IN_MEMORY`` lies in a temporary file that is mapped into memory,
so that the system can let go of it.
"""

from __future__ import annotations

import mmap
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, overload

import numpy as np

IN_MEMORY = 256 << 20  # bytes of a column's texts, from which on they lie in a file
FEW = 1 << 16  # different cells, up to which they are always told apart


class Packed(Sequence[str]):
    """Texts behind one another.

    Args:
        content: UTF-8 of all texts.
        ends: where each ends, in bytes: int64 of shape (N,).
    """

    def __init__(self, content: Any, ends: np.ndarray):
        self._content, self._ends = content, ends

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        if isinstance(place, slice):
            return Column(self, np.arange(len(self))[place])
        at = range(len(self))[place]
        start = int(self._ends[at - 1]) if at else 0
        return str(self._content[start : int(self._ends[at])], "utf-8", "surrogatepass")

    def __getstate__(self) -> dict[str, Any]:
        return {"_content": bytes(self._content[:]), "_ends": self._ends}


class Column(Sequence[Any]):
    """The cells of a column.

    Args:
        values: cells, each of them once; texts of which most are different may come again.
        codes: which of them stands in each row: whole numbers of shape (N,).
    """

    def __init__(self, values: Sequence[Any], codes: np.ndarray):
        self.values, self.codes = values, codes

    @classmethod
    def of(cls, cells: Iterable[Any]) -> Column:
        """These cells; a column as it is."""
        if isinstance(cells, Column):
            return cells
        made = Builder()
        for cell in cells:
            made.append(cell)
        return made.column()

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> Column: ...
    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return Column(self.values, self.codes[place])
        return self.values[int(self.codes[place])]

    def __iter__(self) -> Iterator[Any]:
        values = self.values
        return (values[code] for code in self.codes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def take(self, rows: np.ndarray) -> Column:
        """These rows only, int64 of shape (n,)."""
        return Column(self.values, self.codes[rows])

    def map(self, change: Callable[[Any], Any]) -> Column:
        """What ``change`` makes of each cell; it is called once for each different one that stands in a row."""
        used, codes = self.used()
        made = Builder()
        for number in used:
            made.append(change(self.values[number]))
        found = made.column()
        return Column(found.values, found.codes[codes])

    def where(self, told: Callable[[Any], object]) -> np.ndarray:
        """For each row whether ``told`` is true of its cell: bool of shape (N,); asked once for each different cell."""
        return np.fromiter((bool(told(cell)) for cell in self.values), bool, len(self.values))[self.codes]

    def different(self) -> list[Any]:
        """The cells that stand in a row, as good as once each."""
        return [self.values[number] for number in self.used()[0]]

    def used(self) -> tuple[np.ndarray, np.ndarray]:
        """Places in ``values`` that stand in a row, rising, and for each row which of those places."""
        there = np.zeros(len(self.values), bool)
        there[self.codes] = True
        if there.all():
            return np.arange(len(there)), self.codes
        places = np.cumsum(there, dtype=np.int32) - 1
        return np.flatnonzero(there), places[self.codes]


class Pairs(Sequence[tuple[str, str]]):
    """Two columns of texts side by side."""

    def __init__(self, first: Column, second: Column):
        self.first, self.second = first, second

    def __len__(self) -> int:
        return len(self.first)

    @overload
    def __getitem__(self, place: int) -> tuple[str, str]: ...
    @overload
    def __getitem__(self, place: slice) -> Pairs: ...
    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return Pairs(self.first[place], self.second[place])
        return self.first[place], self.second[place]

    def take(self, rows: np.ndarray) -> Pairs:
        """These rows only, int64 of shape (n,)."""
        return Pairs(self.first.take(rows), self.second.take(rows))


class Builder:
    """Makes a column of cells that come one by one.

    Cells are told apart as long as few of them are different (``FEW``, or half of the rows). From then on texts are
    laid behind one another; other cells stay the objects that they are.
    """

    def __init__(self) -> None:
        self._known: dict[Any, int] | None = {}
        self._values: list[Any] = []
        self._codes = array("i")
        self._texts: _Texts | None = None

    def __len__(self) -> int:
        return len(self._codes)

    def append(self, cell: Any) -> None:
        """A cell more."""
        if self._known is None:
            self._add(cell)
            return
        key = cell if type(cell) is str else (type(cell), cell)
        try:
            code = self._known.setdefault(key, len(self._values))
        except TypeError:  # a list or another cell that cannot be looked up
            self._known = None
            self._add(cell)
            return
        if code == len(self._values):
            self._values.append(cell)
        self._codes.append(code)
        if code >= FEW and 2 * code > len(self._codes):
            self._known = None
            if all(type(value) is str for value in self._values):
                self._texts = _Texts()
                for value in self._values:
                    self._texts.append(value)
                self._values = []

    def _add(self, cell: Any) -> None:
        if self._texts is not None and type(cell) is not str:
            self._values, self._texts = list(self._texts.packed()), None
        if self._texts is not None:
            self._codes.append(self._texts.append(cell))
        else:
            self._codes.append(len(self._values))
            self._values.append(cell)

    def column(self) -> Column:
        """The cells so far."""
        values = self._values if self._texts is None else self._texts.packed()
        return Column(values, np.array(self._codes, np.int32))


def add_row(made: dict[str, Builder], row: Mapping[str, Any], count: int) -> None:
    """Add a row to columns, of which it may lack some and bring new ones: nothing stands where nothing is said.

    Args:
        made: a column by its name.
        row: cells by the names of their columns.
        count: rows that there are already.
    """
    for name in row.keys() - made.keys():
        made[name] = Builder()
        for _ in range(count):
            made[name].append(None)
    for name, builder in made.items():
        builder.append(row.get(name))


class _Texts:
    """Texts that are laid behind one another, in a file where they are long."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._file: BinaryIO | None = None
        self._ends = array("q")
        self._end = 0

    def append(self, text: str) -> int:
        """Its number."""
        raw = text.encode("utf-8", "surrogatepass")
        self._held += raw
        self._end += len(raw)
        self._ends.append(self._end)
        if len(self._held) > IN_MEMORY:
            self._spill()
        return len(self._ends) - 1

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="tlnb-")  # noqa: SIM115 - it lives as long as its map
        self._file.write(self._held)
        self._held.clear()

    def packed(self) -> Packed:
        """The texts so far."""
        ends = np.array(self._ends, np.int64)
        if self._file is None:
            return Packed(bytes(self._held), ends)
        self._spill()
        self._file.flush()
        return Packed(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ), ends)


def joined(columns: Sequence[Column]) -> Column:
    """Columns in a row."""
    if len(columns) == 1:
        return columns[0]
    made = Builder()
    for column in columns:
        for cell in column:
            made.append(cell)
    return made.column()


def chosen(cells: Sequence[Any], rows: np.ndarray) -> Sequence[Any]:
    """Some of the cells, in this order; without a copy of those of a column."""
    return cells.take(rows) if isinstance(cells, Column | Pairs) else [cells[row] for row in rows.tolist()]
