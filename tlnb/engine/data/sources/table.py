"""A table of path and label, or a DataFrame of these."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tlnb.display.tables import printable
from tlnb.engine.data.column import Column
from tlnb.engine.data.images.check import Problem
from tlnb.engine.data.request import LABELS, REGRESSION, SourceRequest
from tlnb.engine.data.sources.cells import cells_of, word_of
from tlnb.engine.data.sources.columns import Sheet, columns_of, is_known
from tlnb.engine.data.sources.folder import remarks
from tlnb.engine.data.sources.found import Found, shown_files
from tlnb.engine.data.sources.labels import are_numbers, encode
from tlnb.engine.data.sources.media import media_of
from tlnb.engine.data.sources.resolve import Resolver
from tlnb.engine.data.sources.targets import are_measured, targets_of
from tlnb.errors import DataError

PARTS = ("train", "valid", "test")  # in the order of their numbers


def read_table(files: Sequence[Path], request: SourceRequest) -> Found:
    """Pictures or sounds and labels from a table; paths are relative to the table's folder, or to ``request.folder``.

    Columns are known by their names (``columns``); ``request`` names others. One label column of words or whole
    numbers gives classes; words joined by ``;``, ``|`` or another delimiter, or several columns of 0 and 1, give
    labels, of which a picture can have several; numbers give a regression if they are not whole, or if the column's
    name or ``request.target`` says so.

    Args:
        files: the table, or several of the same columns that are read as one.
        request: how it is read.

    Raises:
        DataError: no such columns, or no usable file.
    """
    homes = {file.parent for file in files}
    if len(homes) > 1 and request.folder is None:
        raise DataError(
            f"the tables lie in {len(homes)} folders; --folder says below which one the files are that they name"
        )
    columns, header = cells_of(files, request.progress)
    return _from_columns(columns, header, Resolver(files[0].parent, request), request, shown_files(files))


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
    shown = f"the {type(frame).__name__}"
    for name, column in zip(names, frame.columns, strict=True):
        first = next(iter(frame[column]), None)
        if isinstance(first, bytes | bytearray | Image.Image):
            raise DataError(
                f"the column {printable(name)!r} of {shown} holds pictures themselves; give them as (X, y), such as "
                "([Image.open(io.BytesIO(b)) for b in df['image']], df['label']), or write them to files"
            )
    cells = [Column.of(map(word_of, frame[name])) for name in frame.columns]
    try:
        return _from_columns(cells, names, Resolver(Path.cwd(), request), request, shown)
    except DataError as error:
        if request.path is not None or not all(are_numbers(column.different()) for column in cells):
            raise
        raise DataError(
            f"{shown} holds numbers and no pictures; give inputs and targets as (X, y): "
            f"(df.drop(columns={names[-1]!r}), df[{names[-1]!r}])"
        ) from error


def _from_columns(
    columns: list[Column], header: list[str] | None, resolver: Resolver, request: SourceRequest, shown: str
) -> Found:
    """Pictures and labels from the cells of a table; without a ``header`` the first row may be one."""
    if len(columns) < 2 or not len(columns[0]):
        raise DataError(f"{shown} needs two columns or more: path and label")
    sheet = _sheet(columns, header, resolver, request, shown)
    files, reasons = _files(sheet.paths, resolver)
    names, places = np.unique(files, return_inverse=True)
    names, places = (
        names.tolist(),
        places[sheet.paths.codes],
    )  # of each row: which file; names[0] may be that of none
    rows = np.arange(len(places))
    joined = len(sheet.labels) > 1 or request.target == LABELS
    bad = {code for code, reason in enumerate(reasons) if reason}
    usable = ~np.isin(sheet.paths.codes, np.array(sorted(bad), np.int64))
    empty = np.zeros(len(rows), bool)
    if not joined:
        empty = usable & ~sheet.labels[0].where(bool)
        usable &= ~empty
    problems = [
        Problem(printable(sheet.paths[row]), "no label" if empty[row] else reasons[sheet.paths.codes[row]])
        for row in np.flatnonzero(~usable).tolist()
    ]
    if sheet.parts is not None:
        usable &= sheet.parts.where(bool)
    rows = rows[usable]
    used, first = np.unique(places[rows], return_index=True)
    used = used[first.argsort()]  # files in the order of the rows that name them
    media = media_of(names[place] for place in used.tolist())
    verdicts = media.check([resolver.root / names[place] for place in used.tolist()], request)
    good = np.zeros(len(names), bool)
    good[[place for place, verdict in zip(used.tolist(), verdicts, strict=True) if not verdict.reason]] = True
    refused = {p: v.reason for p, v in zip(used.tolist(), verdicts, strict=True) if v.reason}
    for row in rows[~good[places[rows]]].tolist() if refused else ():
        problems.append(Problem(printable(sheet.paths[row]), refused[int(places[row])]))
    rows = rows[good[places[rows]]]
    if not len(rows):
        told = f"; the first: {problems[0].path}: {problems[0].reason}" if problems else ""
        raise DataError(f"no usable {media.one} in {shown}{told}")
    notes = [*sheet.notes, *resolver.notes()]
    labels = [column.take(rows) for column in sheet.labels]
    targets = targets_of(labels, request, notes, media.one, sheet.measured)
    asked = replace(request, target=REGRESSION) if sheet.measured else request
    # A single column of classes or of joined labels is named by what stands in it.
    encoded = encode([targets], asked, sheet.names if are_measured(targets) else None)
    kept = rows if encoded.kept[0] is None else rows[encoded.kept[0].numpy()]
    read = [place for place in used.tolist() if good[place]]
    number_of = np.zeros(len(names), np.int64)
    number_of[read] = np.arange(len(read))
    file_of = number_of[places[kept]]
    found_good = [verdict for verdict in verdicts if not verdict.reason]
    made = media.collect(
        resolver.root, [names[place] for place in read], found_good, encoded.parts[0],
        torch.from_numpy(file_of), request,
    )  # fmt: skip
    everything = made.samples
    notes += [*encoded.notes, *made.notes, *remarks(v.remark for v in found_good)]
    found = Found(
        everything, None, encoded.classes, encoded.kind, problems, notes, scale=made.scale, sound=made.sound
    )
    found.columns = {name: cells.take(kept) for name, cells in sheet.columns.items()}
    found.paths = Column([names[place].replace(os.sep, "/") for place in read], file_of)
    if sheet.parts is not None:
        found.part_by(sheet.parts.take(kept), media.one)
    return found


def _files(paths: Column, resolver: Resolver) -> tuple[np.ndarray, list[str]]:
    """For each of the column's cells the file that it means, and why it means none; empty where there is nothing."""
    used = set(paths.used()[0].tolist())
    files, reasons = [], []
    for number, name in enumerate(paths.values):
        found, reason = resolver.find(name) if number in used else (None, "")
        files.append(found or "")
        reasons.append(reason)
    return np.array(files, dtype=object), reasons


def _sheet(
    columns: list[Column],
    header: list[str] | None,
    resolver: Resolver,
    request: SourceRequest,
    shown: str,
) -> Sheet:
    _look([column if header else column[1:] for column in columns], resolver)
    bases = resolver.bases
    body = columns
    if header is None and _is_header(columns, resolver):
        header, body = [column[0] for column in columns], [column[1:] for column in columns]
    if not len(body[0]):
        raise DataError(f"{shown} holds no labels; a path and a label in each row are needed")
    sheet = columns_of(header, body, request, lambda cell: resolver.find(cell)[0], shown)
    resolver.settle(bases)
    return sheet


def _look(body: list[Column], resolver: Resolver) -> None:
    """Choose where pictures are looked for: where the cells say, else where those of one column are found."""
    if not len(body[0]) or any(resolver.finds_most(cells) for cells in body):
        return
    best: tuple[int, list[str]] = (0, resolver.bases)
    for cells in body:
        hits = resolver.guess(cells)
        best = max(best, (hits, resolver.bases), key=lambda pair: pair[0])
    resolver.settle(best[1])


def _is_header(columns: list[Column], resolver: Resolver) -> bool:
    """Whether the first row names the columns: it names one that we know, or no file."""
    first = [column[0] for column in columns]
    if any(resolver.find(cell)[0] is not None for cell in first):
        return False
    if any(map(is_known, first)):
        return True
    return len(columns[0]) > 1 and not Path(first[0]).suffix
