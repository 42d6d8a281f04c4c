"""A table of path and label, or a DataFrame of these."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tlnb.display.tables import printable
from tlnb.engine.data.images.check import Problem
from tlnb.engine.data.partition import TEST, TRAIN, VALID
from tlnb.engine.data.raw import RawDataset
from tlnb.engine.data.request import LABELS, REGRESSION, SourceRequest
from tlnb.engine.data.sources.cells import rows_of, word_of
from tlnb.engine.data.sources.columns import Sheet, columns_of, is_known
from tlnb.engine.data.sources.folder import remarks
from tlnb.engine.data.sources.found import Found
from tlnb.engine.data.sources.labels import are_numbers, encode
from tlnb.engine.data.sources.media import media_of
from tlnb.engine.data.sources.resolve import Resolver
from tlnb.errors import DataError

PARTS = ("train", "valid", "test")  # in the order of their numbers


def read_table(file: Path, request: SourceRequest) -> Found:
    """Pictures or sounds and labels from a table; paths are relative to the table's folder, or to ``request.folder``.

    Columns are known by their names (``columns``); ``request`` names others. One label column of words or whole
    numbers gives classes; words joined by ``;``, ``|`` or another delimiter, or several columns of 0 and 1, give
    labels, of which a picture can have several; numbers give a regression if they are not whole, or if the column's
    name or ``request.target`` says so.

    Raises:
        DataError: no such columns, or no usable file.
    """
    rows, named = rows_of(file)
    return _from_rows(rows, Resolver(file.parent, request), request, repr(printable(file.name)), header=named)


def is_frame(source: object) -> bool:
    """Whether this is a DataFrame, of pandas or another library: columns by name, and rows."""
    return not isinstance(source, type) and all(
        hasattr(source, name) for name in ("columns", "shape", "to_dict")
    )


def read_frame(frame: Any, request: SourceRequest) -> Found:
    """The same for a DataFrame; paths are relative to the working directory, or to ``request.folder``.

    Raises:
        DataError: no such columns, or no usable picture.
    """
    names = [str(name) for name in frame.columns]
    cells = [[word_of(cell) for cell in frame[name]] for name in frame.columns]
    rows = [names, *(list(row) for row in zip(*cells, strict=True))]
    shown = f"the {type(frame).__name__}"
    try:
        return _from_rows(rows, Resolver(Path.cwd(), request), request, shown, header=True)
    except DataError as error:
        if request.path is not None or not all(map(are_numbers, cells)):
            raise
        raise DataError(
            f"{shown} holds numbers and no pictures; give inputs and targets as (X, y): "
            f"(df.drop(columns={names[-1]!r}), df[{names[-1]!r}])"
        ) from error


def _from_rows(
    rows: list[list[str]], resolver: Resolver, request: SourceRequest, shown: str, *, header: bool = False
) -> Found:
    """Pictures and labels from the cells of a table; ``header`` where the first row is known to name the columns."""
    if len(rows) < 1 or len(rows[0]) < 2 or (header and len(rows) < 2):
        raise DataError(f"{shown} needs two columns or more: path and label")
    sheet = _sheet(rows, resolver, request, shown, header)
    problems: list[Problem] = []
    names: dict[int, str] = {}
    joined = len(sheet.labels[0]) > 1 or request.target == LABELS
    for index, path in enumerate(sheet.paths):
        file_name, reason = resolver.find(path)
        if file_name is not None and not joined and not sheet.labels[index][0]:
            reason = "no label"
        if file_name is None or reason:
            problems.append(Problem(printable(path), reason))
        elif sheet.parts is None or sheet.parts[index]:
            names[index] = file_name
    media = media_of(names.values())
    verdicts = media.check([resolver.root / name for name in names.values()], request)
    pairs = list(zip(names, verdicts, strict=True))
    problems += [Problem(printable(sheet.paths[i]), v.reason) for i, v in pairs if v.reason]
    good = [(i, verdict) for i, verdict in pairs if not verdict.reason]
    if not good:
        first = f"; the first: {problems[0].path}: {problems[0].reason}" if problems else ""
        raise DataError(f"no usable {media.one} in {shown}{first}")
    chosen = [i for i, _ in good]
    notes = [*sheet.notes, *resolver.notes()]
    targets = _targets(sheet, chosen, request, notes)
    asked = replace(request, target=REGRESSION) if sheet.measured else request
    # A single column of classes or of joined labels is named by what stands in it.
    encoded = encode([targets], asked, sheet.names if targets.dtype.kind == "f" else None)
    used = [names[i] for i in chosen]
    made = media.collect(
        resolver.root, used, [v for _, v in good], encoded.parts[0], encoded.kept[0], request
    )
    everything = made.samples
    notes += [*encoded.notes, *made.notes, *remarks(v.remark for _, v in good)]
    found = Found(
        everything, None, encoded.classes, encoded.kind, problems, notes, scale=made.scale, sound=made.sound
    )
    rest = chosen if encoded.kept[0] is None else [chosen[i] for i in encoded.kept[0].tolist()]
    found.columns = {name: [cells[i] for i in rest] for name, cells in sheet.columns.items()}
    found.paths = [names[i].replace(os.sep, "/") for i in rest]
    if sheet.parts is not None:
        _split(found, everything, [sheet.parts[i] for i in rest])
    return found


def _sheet(
    rows: list[list[str]], resolver: Resolver, request: SourceRequest, shown: str, named: bool
) -> Sheet:
    width = len(rows[0])
    for line, row in enumerate(rows, start=1):
        if len(row) != width:
            raise DataError(f"{shown}: row {line} has {len(row)} cells, not {width}")
    _look(rows[1:], resolver)
    bases = resolver.bases
    header = rows[0] if named or _is_header(rows, resolver) else None
    body = rows[1:] if header else rows
    if not body:
        raise DataError(f"{shown} holds no labels; a path and a label in each row are needed")
    sheet = columns_of(header, body, request, lambda cell: resolver.find(cell)[0], shown)
    resolver.settle(bases)
    return sheet


def _look(body: list[list[str]], resolver: Resolver) -> None:
    """Choose where pictures are looked for: where the cells say, else where those of one column are found."""
    columns = [[row[column] for row in body] for column in range(len(body[0]))] if body else []
    if any(resolver.finds_most(cells) for cells in columns):
        return
    best: tuple[int, list[str]] = (0, resolver.bases)
    for cells in columns:
        hits = resolver.guess(cells)
        best = max(best, (hits, resolver.bases), key=lambda pair: pair[0])
    resolver.settle(best[1])


def _is_header(rows: list[list[str]], resolver: Resolver) -> bool:
    """Whether the first row names the columns: it names one that we know, or no file."""
    if any(resolver.find(cell)[0] is not None for cell in rows[0]):
        return False
    if any(map(is_known, rows[0])):
        return True
    return len(rows) > 1 and not Path(rows[0][0]).suffix


def _targets(sheet: Sheet, rows: Sequence[int], request: SourceRequest, notes: list[str]) -> np.ndarray:
    cells = np.array([sheet.labels[i] for i in rows])
    if cells.shape[1] > 1 and (holes := int((cells == "").sum())):
        notes.append(f"{holes} empty cells of the labels are taken as 0")
        cells[cells == ""] = "0"
    if request.target != LABELS and request.delimiter is None:
        cells = _points(cells, notes, sure=sheet.measured or request.target == REGRESSION)
    numeric = are_numbers(cells.ravel().tolist())
    if cells.shape[1] == 1:
        column = cells[:, 0]
        measured = numeric and (
            sheet.measured or not all(float(word).is_integer() for word in set(column.tolist()))
        )
        return column.astype(float) if measured or (numeric and request.target == REGRESSION) else column
    if not numeric:
        raise DataError(
            f"{cells.shape[1]} label columns must hold numbers: 0 and 1 for labels, or measured values; "
            "for one class a picture name one column (--label)"
        )
    return cells.astype(float)


_COMMA = re.compile(r"[-+]?\d*,\d+|[-+]?\d+")


def _points(cells: np.ndarray, notes: list[str], *, sure: bool) -> np.ndarray:
    """Numbers with decimal commas, as half of Europe writes them, with points.

    Pairs of numbered labels look the same, but recur. So most cells must differ, unless it is ``sure`` that values
    are measured.
    """
    words = cells.ravel().tolist()
    commas = [word for word in words if "," in word]
    alike = all(map(_COMMA.fullmatch, words))
    if not commas or not alike or not (sure or 2 * len(set(words)) > len(words)):
        return cells
    notes.append(
        "commas in numbers are read as decimal points (--target labels, or --delimiter , for joined labels)"
    )
    return np.array([word.replace(",", ".") for word in words]).reshape(cells.shape)


def _split(found: Found, everything: RawDataset, words: list[str]) -> None:
    own = np.array([PARTS.index(word) for word in words])
    parts = [torch.from_numpy(np.flatnonzero(own == number)) for number in (TRAIN, VALID)]
    if all(map(len, parts)) or (len(parts[0]) and (own == TEST).any()):
        found.train = everything.subset(parts[0])
        found.valid = everything.subset(parts[1]) if len(parts[1]) else None
        found.everything, found.own = everything, own
    else:
        found.notes.append("one part of the table's split has no usable picture: split by --valid")
