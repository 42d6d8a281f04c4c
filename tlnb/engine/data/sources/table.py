"""A CSV or TSV of path and label."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tlnb.engine.data.collections import ReadPictures
from tlnb.engine.data.images.check import Problem, check_files
from tlnb.engine.data.readers import FileReader
from tlnb.engine.data.sources.files import known_digests
from tlnb.engine.data.sources.folder import TEST, TRAIN, VALID, remarks
from tlnb.engine.data.sources.found import LABELS, REGRESSION, Ask, Found
from tlnb.engine.data.sources.labels import are_numbers, encode
from tlnb.engine.data.sources.walk import is_below
from tlnb.engine.printable import printable
from tlnb.errors import DataError

_PATHS = ("path", "file", "filename", "file_name", "image", "image_path", "image_id", "img")
_SPLITS = ("split", "set", "fold", "subset")


@dataclass
class Sheet:
    """The columns of a table, told apart.

    Attributes:
        paths: of the pictures, as they are written.
        labels: a row of words for each picture.
        names: of the label columns; None where there is no header.
        splits: a word for each picture, or None.
    """

    paths: list[str]
    labels: list[list[str]]
    names: list[str] | None
    splits: list[str] | None


def read_table(file: Path, ask: Ask) -> Found:
    """Pictures and labels from a table; paths are relative to the table's folder.

    One label column of words or whole numbers gives classes; words joined by ``;`` or several columns of 0
    and 1 give labels, of which a picture can have several; numbers give a regression if they are not whole or
    if ``ask.target`` says so. A column ``split`` with ``train`` and ``valid`` or ``test`` is the split.

    Raises:
        DataError: no such columns, or no usable picture.
    """
    sheet = _columns(_rows(file), file)
    root, problems = file.parent, []
    keep = []
    for index, path in enumerate(sheet.paths):
        reason = _path_problem(path, root)
        if not reason and not all(sheet.labels[index]) and ask.target != LABELS:
            reason = "no label"
        if reason:
            problems.append(Problem(printable(path), reason))
        else:
            keep.append(index)
    verdicts = check_files([root / sheet.paths[i] for i in keep], ask.progress)
    pairs = list(zip(keep, verdicts, strict=True))
    problems += [Problem(printable(sheet.paths[i]), v.reason) for i, v in pairs if v.reason]
    good = [(i, verdict) for i, verdict in pairs if not verdict.reason]
    if not good:
        first = f"; the first: {problems[0].path}: {problems[0].reason}" if problems else ""
        raise DataError(f"no usable picture in {printable(file.name)!r}{first}")
    rows = [i for i, _ in good]
    kind, classes, (targets,) = encode([_targets(sheet, rows, ask.target)], ask.target, _names(sheet))
    reader = FileReader(root, [os.path.normpath(sheet.paths[i]) for i in rows])
    everything = ReadPictures(reader, targets, known=known_digests(reader, [v for _, v in good]))
    notes = remarks(v.remark for v in verdicts)
    found = Found(everything, None, classes, kind, problems, notes)
    if sheet.splits is not None:
        _split(found, everything, [sheet.splits[i] for i in rows])
    return found


def _rows(file: Path) -> list[list[str]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise DataError(f"cannot read {printable(file.name)!r}: {reason}") from None
    first = text.partition("\n")[0]
    delimiter = "\t" if file.suffix.lower() == ".tsv" or ("\t" in first and "," not in first) else ","
    if delimiter == "," and "," not in first and ";" in first:
        delimiter = ";"
    try:
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        rows = [[cell.strip() for cell in row] for row in lines]
    except csv.Error as error:
        raise DataError(f"cannot read {printable(file.name)!r}: {error}") from None
    return [row for row in rows if any(row)]


def _columns(rows: list[list[str]], file: Path) -> Sheet:
    if not rows or len(rows[0]) < 2:
        raise DataError(f"{printable(file.name)!r} needs two columns or more: path and label")
    header = rows[0] if _is_header(rows, file.parent) else None
    body = rows[1:] if header else rows
    width = len(rows[0])
    for line, row in enumerate(body, start=2 if header else 1):
        if len(row) != width:
            raise DataError(f"{printable(file.name)!r}: row {line} has {len(row)} cells, not {width}")
    lowered = [name.lower() for name in header or []]
    path = next((lowered.index(name) for name in _PATHS if name in lowered), 0)
    split = next((lowered.index(name) for name in _SPLITS if name in lowered), None)
    labels = [column for column in range(width) if column not in (path, split)]
    if not labels or not body:
        raise DataError(
            f"{printable(file.name)!r} holds no labels; a path and a label in each row are needed"
        )
    return Sheet(
        [row[path] for row in body],
        [[row[column] for column in labels] for row in body],
        [header[column] for column in labels] if header else None,
        [row[split].lower() for row in body] if split is not None else None,
    )


def _is_header(rows: list[list[str]], root: Path) -> bool:
    """Whether the first row names the columns: it names one that we know, or no file."""
    if any(cell.lower() in _PATHS for cell in rows[0]):
        return True
    return len(rows) > 1 and not Path(rows[0][0]).suffix and not (root / rows[0][0]).is_file()


def _path_problem(path: str, root: Path) -> str:
    if not path or "\0" in path:
        return "no path"
    if not is_below(os.path.realpath(root / path), os.path.realpath(root)):
        return "leads out of the folder that the table is in; put the table above its pictures"
    return ""


def _targets(sheet: Sheet, rows: Sequence[int], target: str | None) -> np.ndarray:
    cells = np.array([sheet.labels[i] for i in rows])
    numeric = are_numbers(cells.ravel().tolist())
    if cells.shape[1] == 1:
        column = cells[:, 0]
        measured = numeric and not all(_whole(word) for word in set(column.tolist()))
        return column.astype(float) if measured or (numeric and target == REGRESSION) else column
    if not numeric:
        raise DataError(
            f"{cells.shape[1]} label columns must hold numbers: 0 and 1 for labels, or measured values; "
            "for one class a picture keep one column"
        )
    return cells.astype(float)


def _whole(word: str) -> bool:
    return float(word).is_integer()


def _names(sheet: Sheet) -> list[str] | None:
    # A single column of classes or of joined labels is named by what stands in it.
    if sheet.names is None or (len(sheet.names) == 1 and not are_numbers(row[0] for row in sheet.labels)):
        return None
    return sheet.names


def _split(found: Found, everything: ReadPictures, words: list[str]) -> None:
    unknown = set(words) - {*TRAIN, *VALID, *TEST}
    if unknown:
        raise DataError(
            f"the split column holds {printable(min(unknown))!r}; train, valid and test are known"
        )
    held = VALID if any(word in VALID for word in words) else TEST
    parts = [
        torch.tensor([i for i, word in enumerate(words) if word in names], dtype=torch.int64)
        for names in (TRAIN, held)
    ]
    if not all(map(len, parts)):
        return
    found.train, found.valid = (everything.subset(part) for part in parts)
    if held is VALID and any(word in TEST for word in words):
        found.notes.append("test rows are left aside for the end; valid rows are measured on")
