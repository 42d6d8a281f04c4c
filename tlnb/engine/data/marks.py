"""What a person decided about samples: keep as they are, give another label, leave out; and the file that holds it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated

import torch
from torch import Tensor

from tlnb.display.tables import printable
from tlnb.engine.core.arguments import path_of
from tlnb.engine.core.structure import Exact, one_of, whole
from tlnb.engine.data.raw import RawDataset
from tlnb.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from tlnb.engine.data.dataset import Data

KEEP, RELABEL, DROP = "keep", "relabel", "drop"
ACTS = (KEEP, RELABEL, DROP)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run
_LARGEST = 64 << 20  # bytes of a file of marks


@dataclass(frozen=True)
class Mark:
    """One decision.

    Attributes:
        act: ``keep``, ``relabel`` or ``drop``.
        label: the class that it is given; empty for the others.
        given: the class that it had.
        name: of its file, or the beginning of a text.
        sample: its number in the source, see :class:`Numbers`.
        content: digest of what it holds, in hexadecimal; empty where it has none.
        why: what made it suspicious, in words.
    """

    act: Annotated[str, one_of(*ACTS)]
    label: Exact = ""
    given: Exact = ""
    name: Exact = ""
    sample: Annotated[int, whole(-1)] = -1
    content: Exact = ""
    why: Exact = ""

    @property
    def words(self) -> str:
        """What was decided, for a table."""
        return f"{self.act} {self.label}".strip()


Log = tuple[Mark, ...]
"""Decisions in the order in which they were made; the last one about a sample holds."""
_COLUMNS = tuple(f.name for f in fields(Mark))


def marks_text(marks: Iterable[Mark]) -> str:
    """The marks as a CSV, a line each, which no spreadsheet takes for formulas."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for mark in marks:
        cells = (str(getattr(mark, name)) for name in _COLUMNS)
        writer.writerow(
            [f"'{cell}" if cell.startswith(_FORMULA) and cell != "-1" else cell for cell in cells]
        )
    return file.getvalue()


def read_marks(source: object) -> Log:
    """The marks in a file that :func:`marks_text` made; columns may stand in any order, and some may lack.

    Raises:
        DataError: no such file, or one that is no table of marks.
    """
    path = path_of(source, DataError)
    shown = printable(str(path))
    try:
        if not path.is_file():
            raise DataError(f"no file of marks {shown!r}; %tl_clean --save FILE writes one")
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{shown} is too large for a file of marks")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{shown} cannot be read as a file of marks: {error}") from None
    try:
        rows = list(csv.DictReader(io.StringIO(text), strict=True))
    except csv.Error as error:
        raise DataError(f"{shown} is no table of marks: {error}") from None
    if rows and not ({"act"} <= set(rows[0]) and {"name", "sample", "content"} & set(rows[0])):
        raise DataError(f"{shown} is no table of marks; its columns are {', '.join(_COLUMNS)}")
    return tuple(_read(row, number, shown) for number, row in enumerate(rows, start=2))


def _read(row: dict[str, str], line: int, shown: str) -> Mark:
    cells = {name: _cell(row.get(name)) for name in _COLUMNS}
    act = cells["act"].strip().lower()
    if act not in ACTS:
        hint = did_you_mean(act, ACTS)
        raise DataError(f"{shown}, line {line}: a mark is {', '.join(ACTS)}, not {act!r}{hint}")
    if act == RELABEL and not cells["label"]:
        raise DataError(f"{shown}, line {line}: relabel needs a label")
    sample = cells.pop("sample").strip() or "-1"
    try:
        number = int(sample)
    except ValueError:
        raise DataError(f"{shown}, line {line}: a sample is a whole number, not {sample!r}") from None
    label, given, name, content, why = (cells[key] for key in ("label", "given", "name", "content", "why"))
    return Mark(act, label, given, name, number, content, why)


def _cell(value: object) -> str:
    text = value if isinstance(value, str) else ""
    return text[1:] if text.startswith("'") and text[1:].startswith(_FORMULA) else text


class Numbers:
    """How the training and validation samples of a data set are numbered and known again; its test part plays no part.

    A sample's number is its place in the source; where the parts were apart, training samples come first and
    validation samples behind them.

    Args:
        data: as it was read, before anything was mended.
    """

    def __init__(self, data: Data):
        self.parts: tuple[RawDataset, RawDataset] = (data.train, data.valid)
        count = len(data.train)
        own = torch.arange(count), torch.arange(count, count + len(data.valid))
        self.numbers: tuple[Tensor, Tensor] = (
            own if data.split is None else (data.split.train, data.split.valid)
        )
        self._places = {
            number: (part, index)
            for part, numbers in enumerate(self.numbers)
            for index, number in enumerate(numbers.tolist())
        }
        self._named: dict[str, list[int]] | None = None
        self._held: dict[str, list[int]] | None = None
        self._known: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._places)

    @property
    def all(self) -> Tensor:
        """The number of each sample, training samples first: int64 of shape (N,)."""
        return torch.cat(self.numbers)

    def place(self, sample: int) -> tuple[int, int]:
        """In which part a sample is (0 trains, 1 validates), and its index there.

        Raises:
            DataError: there is no such training or validation sample.
        """
        if sample not in self._places:
            raise DataError(f"there is no training or validation sample {sample}")
        return self._places[sample]

    def name(self, sample: int) -> str:
        """The file of a sample, the beginning of a text, or its number."""
        part, index = self.place(sample)
        name = self.parts[part].name(index)
        return f"sample {sample}" if name == f"sample {index}" else name

    def content(self, sample: int) -> str:
        """A digest of what a sample holds, in hexadecimal; empty where it has none."""
        if sample not in self._known:
            part, index = self.place(sample)
            self._known[sample] = (self.parts[part].content(index) or b"").hex()
        return self._known[sample]

    def find(self, marks: Sequence[Mark]) -> dict[int, Mark]:
        """The mark that holds for each sample, by its number; marks that fit no sample are left out.

        A sample is known by its content. Of several with the same one it is that of the same name or number, and one
        whose content cannot be told is known by name and number alone.
        """
        found: dict[int, Mark] = {}
        for mark in marks:
            sample = self._sample(mark)
            if sample is not None:
                found[sample] = mark
        return found

    def _sample(self, mark: Mark) -> int | None:
        near = [mark.sample] if mark.sample in self._places else []
        if mark.name and not (near and self.name(mark.sample) == mark.name):
            near = [*self._by_name(mark.name), *near]
        if not mark.content:
            same = [n for n in near if not mark.name or self.name(n) == mark.name]
            return same[0] if same else None
        for sample in near:
            if self.content(sample) == mark.content:
                return sample
        return next(iter(self._by_content(mark.content)), None)

    def _by_name(self, name: str) -> list[int]:
        if self._named is None:
            self._named = {}
            for sample in self._places:
                self._named.setdefault(self.name(sample), []).append(sample)
        return self._named.get(name, [])

    def _by_content(self, content: str) -> list[int]:
        if self._held is None:
            self._held = {}
            for sample in self._places:
                self._held.setdefault(self.content(sample), []).append(sample)
        return self._held.get(content, [])
