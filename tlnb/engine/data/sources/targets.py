"""What the label columns of a table say: words, numbers, or lists of labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from tlnb.engine.data.column import Column
from tlnb.engine.data.request import LABELS, REGRESSION, SourceRequest
from tlnb.engine.data.sources.labels import are_numbers
from tlnb.errors import DataError

Targets = Column | np.ndarray
"""Words or numbers of one column; numbers of several, or 0 and 1 for lists of labels: (N, columns)."""


class NamedLabels(np.ndarray):
    """Rows of 0 and 1 with the names of the labels."""

    labels: tuple[str, ...]


def targets_of(
    columns: Sequence[Column], request: SourceRequest, notes: list[str], thing: str, measured: bool = False
) -> Targets:
    """Labels as :func:`encode` takes them.

    Args:
        columns: of the labels.
        request: may say what they are.
        notes: takes what was guessed.
        thing: what a sample is, in a word.
        measured: whether the name of the column says that its values are measured.

    Raises:
        DataError: words in several columns.
    """
    if len(columns) == 1 and any(
        isinstance(cell, list | tuple | np.ndarray) for cell in columns[0].different()
    ):
        return _listed(list(columns[0]))
    if len(columns) > 1 and (holes := sum(int(column.where(is_hole).sum()) for column in columns)):
        notes.append(f"{holes} empty cells of the labels are taken as 0")
        columns = [column.map(lambda cell: "0" if is_hole(cell) else cell) for column in columns]
    words = [column.map(word_in) for column in columns]
    if request.target != LABELS and request.delimiter is None:
        words = _points(words, notes, sure=measured or request.target == REGRESSION)
    different = [column.different() for column in words]
    numeric = all(map(are_numbers, different))
    if len(words) == 1:
        whole = not numeric or all(float(word).is_integer() for word in different[0])
        values = numeric and (measured or not whole or request.target == REGRESSION)
        return words[0].map(float) if values else words[0]
    if not numeric:
        raise DataError(
            f"{len(words)} label columns must hold numbers: 0 and 1 for labels, or measured values; "
            f"for one class a {thing} name one column (--label)"
        )
    return np.stack([np.array(list(column.map(float)), np.float64) for column in words], 1)


def are_measured(targets: Targets) -> bool:
    """Whether targets are numbers, not words."""
    return isinstance(targets, np.ndarray) or isinstance(targets[0], float)


def word_in(cell: Any) -> str:
    """What a cell says, as a word."""
    if isinstance(cell, bool):
        return str(int(cell))
    return "" if cell is None else str(cell).strip()


def is_hole(cell: Any) -> bool:
    """Whether nothing stands in a cell."""
    return cell is None or (
        not isinstance(cell, list | tuple | np.ndarray) and word_in(cell).lower() in ("", "nan")
    )


_COMMA = re.compile(r"[-+]?\d*,\d+|[-+]?\d+")


def _points(columns: list[Column], notes: list[str], *, sure: bool) -> list[Column]:
    """Numbers with decimal commas, as half of Europe writes them, with points.

    Pairs of numbered labels look the same, but recur. So most cells must differ, unless it is ``sure`` that values
    are measured.
    """
    words = {word for column in columns for word in column.different()}
    commas = any("," in word for word in words)
    cells = sum(map(len, columns))
    if not commas or not all(map(_COMMA.fullmatch, words)) or not (sure or 2 * len(words) > cells):
        return columns
    notes.append(
        "commas in numbers are read as decimal points (--target labels, or --delimiter , for joined labels)"
    )
    return [column.map(lambda word: word.replace(",", ".")) for column in columns]


def _listed(cells: Sequence[Any]) -> NamedLabels:
    """Lists of labels as rows of 0 and 1: (N, labels)."""
    rows = [[] if cell is None else list(map(str, cell)) for cell in cells]
    labels = tuple(sorted({label for row in rows for label in row}))
    made = np.array([[float(label in row) for label in labels] for row in rows]).view(NamedLabels)
    made.labels = labels
    return made
