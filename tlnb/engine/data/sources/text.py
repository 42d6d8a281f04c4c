"""Texts with their labels: tables (CSV, TSV, JSONL, Parquet), folders of .txt, lists of strings, Hugging Face sets."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tlnb.display.tables import few, printable
from tlnb.engine.data.column import Column, Pairs, joined
from tlnb.engine.data.images.check import Problem
from tlnb.engine.data.images.headers import SUFFIXES
from tlnb.engine.data.partition import TEST, TRAIN, VALID
from tlnb.engine.data.request import CLASSES, LABELS, NO_SPLIT, OWN, SourceRequest
from tlnb.engine.data.sound.files import SUFFIXES as SOUNDS
from tlnb.engine.data.sources import found as parts_of
from tlnb.engine.data.sources.cells import SHEETS, TABLES, Columns, columns_of, names_of
from tlnb.engine.data.sources.columns import PATHS, label_columns, part_words, place_of, plain_name
from tlnb.engine.data.sources.folder import files_below, is_hidden
from tlnb.engine.data.sources.found import Found, shown_files
from tlnb.engine.data.sources.labels import composed, encode
from tlnb.engine.data.sources.targets import NamedLabels, are_measured, is_hole, targets_of, word_in
from tlnb.engine.data.texts import Texts, plain
from tlnb.engine.data.tokens import Text
from tlnb.errors import DataError

_NAMED = (
    "text", "sentence", "utterance", "review", "content", "document", "query", "question", "tweet", "comment",
    "message", "body", "title", "sentence1", "premise",
)  # fmt: skip
_SECOND = {"sentence1": "sentence2", "premise": "hypothesis", "question1": "question2", "text1": "text2"}
_OF_PICTURES = ("path", "folder", "suffix", "range", "bands", "size", "links")
_LARGEST = 1 << 22  # bytes of a .txt


def is_text_table(path: Path, request: SourceRequest) -> bool:
    """Whether a table is to be read as texts: the user says so, only texts come so, or its columns are named so."""
    kind = path.suffix.lower()
    if request.text is not None or request.path is not None:
        return request.text is not None
    names = names_of(path)
    plain_names = {plain_name(name) for name in names}
    return name_texts(names) or (kind not in SHEETS and not plain_names & {*PATHS})


def name_texts(names: Iterable[str]) -> bool:
    """Whether columns of these names hold texts, and none a picture."""
    plain = {plain_name(name) for name in names}
    return bool(plain & {*_NAMED, *_SECOND}) and not plain & {*PATHS}


def tables_in(folder: Path) -> dict[int, list[Path]]:
    """The tables of a folder that are called after the parts, by part: ``train.csv``, ``test-00000-of-00002.csv``."""
    every = files_in(folder, TABLES)
    named: dict[int, list[Path]] = {}
    for part, words in ((TRAIN, parts_of.TRAIN), (VALID, parts_of.VALID), (TEST, parts_of.TEST)):
        for word in words:
            found = [path for path in every if re.fullmatch(rf"{word}([-_.]\d.*)?", path.stem.lower())]
            if found and part not in named:
                kind = min(found, key=lambda path: TABLES.index(path.suffix.lower())).suffix
                named[part] = [path for path in found if path.suffix == kind]
    return named if TRAIN in named else {}


def files_in(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """The files of a folder whose names end so, in the order of their names."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(
                entry.name
                for entry in entries
                if os.path.splitext(entry.name)[1].lower() in endings
                and not is_hidden(entry.name)
                and entry.is_file()
            )
    except OSError:
        return []
    return [folder / name for name in names]


def holds_texts(folder: Path, request: SourceRequest) -> bool:
    """Whether a folder holds .txt files, and neither pictures nor sounds."""
    suffixes = _suffixes(folder, request.links)
    return ".txt" in suffixes and not suffixes & {*SUFFIXES, *SOUNDS}


def holds_pictures(folder: Path) -> bool:
    """Whether a folder holds pictures or sounds."""
    return bool(_suffixes(folder, False) & {*SUFFIXES, *SOUNDS})


def _suffixes(folder: Path, links: bool) -> set[str]:
    return {Path(name).suffix.lower() for name in files_below(folder, folder, [], links=links)}


# ---------------------------------------------------------------- tables


def read_text_table(files: Sequence[Path], request: SourceRequest) -> Found:
    """Texts and labels of one table, or of several of the same columns that are read as one.

    Raises:
        DataError: no such columns, or no usable row.
    """
    return read_text_columns(_columns(files, request), request, shown_files(files))


def read_text_columns(columns: Columns, request: SourceRequest, shown: str) -> Found:
    """The same for columns that are read already, such as those of a DataFrame."""
    request.refuse(_OF_PICTURES, "texts are no pictures")
    words, notes = None, list[str]()
    if request.split != NO_SPLIT:
        text = _text_names(columns, request, [])
        words = part_words(columns, request, {*text, *_apart(request)}, notes)
    return _of_columns([columns], [words], request, notes, shown)


def read_text_tables(folder: Path, request: SourceRequest) -> Found:
    """Texts and labels of the tables of a folder, a part each.

    Raises:
        DataError: as of one table.
    """
    request.refuse((*_OF_PICTURES, "split"), "the tables are the parts")
    tables, notes = tables_in(folder), list[str]()
    if request.test != OWN and VALID in tables:
        if TEST in tables:
            notes.append(f"{printable(tables[TEST][0].name)} is left aside for the end")
            del tables[TEST]
    elif request.test != OWN and TEST in tables:
        tables = {TRAIN: tables[TRAIN], VALID: tables[TEST]}
        notes.append(f"measured on {printable(tables[VALID][0].name)}, as there is no table for validation")
    names = ("train", "valid", "test")
    read = {part: _columns(files, request) for part, files in tables.items()}
    words: list[Column | None] = [_alike(names[part], columns) for part, columns in read.items()]
    return _of_columns(list(read.values()), words, request, notes, repr(printable(str(folder))))


def _of_columns(
    tables: Sequence[Columns], words: Sequence[Column | None], request: SourceRequest, notes: list[str], shown: str
) -> Found:  # fmt: skip
    """Texts and labels of one or several tables of the same columns, as one set with parts."""
    columns: Columns = {
        name: joined([table[name] if name in table else _alike("", table) for table in tables])
        for name in tables[0]
    }
    text = _text_names(columns, request, notes)
    split = [] if request.split in (None, NO_SPLIT) else [request.split.partition("=")[0]]
    labels = label_columns(columns, request, {*text, *split, *_apart(request)}, notes, shown)
    sides = [columns[name].map(word_in) for name in text]
    texts: Column | Pairs = sides[0] if len(sides) == 1 else Pairs(sides[0], sides[1])
    parts = [part for part in words if part is not None]
    own = joined(parts) if len(parts) == len(words) else None
    several = len(labels) > 1 or request.target == LABELS
    empty = np.logical_and.reduce([side.where(lambda cell: not plain(cell)) for side in sides])
    lacking = ~empty & columns[labels[0]].where(is_hole) if not several else np.zeros(len(empty), bool)
    problems = [
        Problem(f"row {row + 1}", "no text" if empty[row] else "no label")
        for row in np.flatnonzero(empty | lacking).tolist()
    ]
    usable = ~empty & ~lacking
    if own is not None:
        usable &= own.where(bool)
    kept = np.flatnonzero(usable)
    if not len(kept):
        raise DataError(f"no usable text in {shown}")
    targets = targets_of([columns[name].take(kept) for name in labels], request, notes, "text")
    names = labels if are_measured(targets) else None
    if isinstance(targets, NamedLabels):
        names = list(targets.labels)
        if len(names) == 1 and request.target is None:  # a label that a text has or lacks
            request = replace(request, target=LABELS)
    encoded = encode([targets], request, names)
    rest = kept if encoded.kept[0] is None else kept[encoded.kept[0].numpy()]
    everything = Texts(texts, encoded.parts[0], torch.from_numpy(rest))
    found = Found(
        everything, None, encoded.classes, encoded.kind, problems, [*notes, *encoded.notes],
        columns={name: cells.map(word_in).take(rest) for name, cells in columns.items() if name not in text}
        | {name: side.take(rest) for name, side in zip(text, sides, strict=True)},
    )  # fmt: skip
    if own is not None:
        found.part_by(own.take(rest), "text")
        _apart_from(found)
    return found


def _alike(cell: str, columns: Columns) -> Column:
    """A column of one cell for all rows of these."""
    return Column([cell], np.zeros(_count(columns), np.int32))


def _apart_from(found: Found) -> None:
    """Leave out training texts that validation has too, but for case and space."""
    if found.valid is None:
        return
    held = set(found.valid.digests() or ())
    digests = found.train.digests() or []
    rows = [row for row, digest in enumerate(digests) if digest not in held]
    gone = len(digests) - len(rows)
    if gone and rows:
        found.train = found.train.subset(torch.tensor(rows))
        are = "texts are" if gone > 1 else "text is"
        found.notes.append(
            f"{gone} training {are} left out: equal, but for case and space, to texts that are measured on"
        )
        if found.own is not None and found.everything is not None:
            place = np.flatnonzero(found.own == TRAIN)
            found.own = found.own.copy()
            found.own[np.setdiff1d(place, place[rows])] = -1


def _apart(request: SourceRequest) -> set[str]:
    return {name for name in (request.groups, request.time) if isinstance(name, str)}


def _text_names(columns: Columns, request: SourceRequest, notes: list[str]) -> list[str]:
    """The columns of the texts: one, or two for pairs of sentences."""
    if request.text is not None:
        names = [place_of(name, "text", list(columns)) for name in request.texts]
        if len(names) > 2:
            raise DataError(f"--text takes one column, or two for pairs of sentences, not {len(names)}")
        return names
    by_name = {plain_name(name): name for name in columns}
    named = next((by_name[name] for name in (*_NAMED, *_SECOND) if name in by_name), None)
    if named is None:
        lengths = {
            name: sum(len(cell) for cell in cells[:200] if isinstance(cell, str))
            for name, cells in columns.items()
        }
        named = max(lengths, key=lambda name: lengths[name])
        if not lengths[named]:
            raise DataError(f"no column holds texts; there are {few(tuple(map(printable, columns)))}")
    second = by_name.get(_SECOND.get(plain_name(named), ""))
    chosen = [named] if second is None else [named, second]
    notes.append(
        f"the texts are the column {' and '.join(map(printable, chosen))} (--text COLUMN[,COLUMN] changes it)"
    )
    return chosen


def _count(columns: Columns) -> int:
    return len(next(iter(columns.values()), []))


def _columns(files: Sequence[Path], request: SourceRequest) -> Columns:
    """Every column of a table by its name.

    Raises:
        DataError: it cannot be read, or holds no texts and labels.
    """
    columns = columns_of(files, request.progress)
    if len(columns) < 2 or not _count(columns):
        raise DataError(
            f"{shown_files(files)} needs two columns or more, with a text and a label in each row"
        )
    return columns


# ---------------------------------------------------------------- folders


def read_text_folder(root: Path, request: SourceRequest) -> Found:
    """Texts in a folder of .txt files for each class, or in such folders below ``train`` and ``valid``/``test``.

    Raises:
        DataError: no class folders, or no usable text in them.
    """
    if request.target not in (None, CLASSES):
        raise DataError(f"class folders hold one class a text; --target {request.target} needs a table")
    request.refuse(
        ("label", "delimiter", "text", *_OF_PICTURES[:-1]), "class folders of texts have no columns"
    )
    problems: list[Problem] = []
    listed: list[tuple[str, str, str]] = []  # path, class, part
    tops = {entry.name.lower() for entry in root.iterdir() if entry.is_dir()}
    parts = request.split is None and bool(tops & set(parts_of.TRAIN)) and bool(tops & set(parts_of.HELD))
    for name in files_below(root, root, problems, links=request.links):
        below = Path(name).parts
        at = 1 if parts else 0
        if Path(name).suffix.lower() != ".txt":
            problems.append(Problem(printable(name), "not a .txt"))
        elif len(below) < at + 2:
            problems.append(Problem(printable(name), "in no class folder"))
        elif not parts or _part(below[0]):
            listed.append((name, composed(below[at]), _part(below[0]) if parts else ""))
    texts, good = [], []
    for name, label, part in listed:
        read = read_text(root / name)
        if isinstance(read, Problem):
            problems.append(Problem(printable(name), read.reason))
        else:
            texts.append(read)
            good.append((name, label, part))
    classes = sorted({label for _, label, part in good if part in ("", "train")})
    good_rows = [row for row, (_, label, _) in enumerate(good) if label in classes]
    if len(classes) < 2:
        raise DataError(
            f"two classes or more are needed in {printable(str(root))!r}: a folder of .txt files for each"
        )
    targets = torch.tensor([classes.index(good[row][1]) for row in good_rows])
    everything = Texts(
        [texts[row] for row in good_rows], targets, names=[root / good[row][0] for row in good_rows]
    )
    found = Found(
        everything, None, tuple(map(printable, classes)), problems=problems,
        paths=[good[row][0].replace(os.sep, "/") for row in good_rows],
    )  # fmt: skip
    if parts:
        words = [good[row][2] for row in good_rows]
        if "valid" not in words and request.test != OWN:
            words = ["valid" if word == "test" else word for word in words]
            found.notes.append("measured on test, as there is no val folder")
        found.part_by(Column.of(words), "text")
        _apart_from(found)
    return found


def _part(name: str) -> str:
    folded = name.lower()
    kinds = (("train", parts_of.TRAIN), ("valid", parts_of.VALID), ("test", parts_of.TEST))
    return next((word for word, names in kinds if folded in names), "")


def read_text(path: Path) -> str | Problem:
    """The text of a .txt file, or why it cannot be used."""
    try:
        if path.stat().st_size > _LARGEST:
            return Problem("", "more than 4 MiB")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        return Problem("", "it is not UTF-8 text")
    except OSError as error:
        return Problem("", str(error.strerror))
    return text if text.strip() else Problem("", "no text")


# ---------------------------------------------------------------- variables


def as_texts(values: Any) -> list[Text] | None:
    """Texts, or pairs of sentences, of a sequence, an array or a column of pandas; None for anything else."""
    values = values.to_numpy() if hasattr(values, "to_numpy") else values
    if isinstance(values, np.ndarray):
        values = values.tolist() if values.dtype.kind in "OUT" and values.ndim == 1 else None
    if not isinstance(values, Sequence) or isinstance(values, str | bytes | bytearray) or not len(values):
        return None
    if all(isinstance(value, str) for value in values):
        return list(values)
    if all(_is_pair(value) for value in values):
        return [(value[0], value[1]) for value in values]
    return None


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(part, str) for part in value)
    )


def is_text_set(source: Any, request: SourceRequest) -> bool:
    """Whether a Hugging Face data set is one of texts: the user says so, or it has no column of pictures."""
    part = next(iter(source.values())) if isinstance(source, Mapping) else source
    part = part[0] if isinstance(part, tuple | list) else part
    kinds = {type(feature).__name__ for feature in part.features.values()}
    strings = any(
        getattr(feature, "dtype", "") in ("string", "large_string") for feature in part.features.values()
    )
    return request.text is not None or (strings and "Image" not in kinds and "Audio" not in kinds)


def read_text_set(source: Any, request: SourceRequest) -> Found:
    """Texts and labels of a Hugging Face data set, or of its splits.

    Raises:
        DataError: no such columns, or no split called ``train``.
    """
    request.refuse((*_OF_PICTURES, "split"), "a Hugging Face data set has splits of its own")
    notes: list[str] = []
    names = ("train", "valid", "test")
    if isinstance(source, Mapping):
        by_part = {_part(str(name)): part for name, part in source.items() if _part(str(name))}
        if "train" not in by_part:
            raise DataError(
                f"the data set has the splits {', '.join(map(str, source))}, but none called train"
            )
        if request.test != OWN and "test" in by_part:
            held = by_part.pop("test")
            if "valid" not in by_part:
                by_part["valid"] = held
                notes.append("measured on test, as there is no validation split")
            else:
                notes.append("the split test is left aside for the end")
    elif isinstance(source, tuple | list):
        by_part = dict(zip(names, source, strict=False))
    else:
        by_part = {"": source}
    tables: list[Columns] = []
    words: list[Column | None] = []
    for word, part in by_part.items():
        tables.append({name: Column.of(_named(part, name)) for name in part.column_names})
        words.append(_alike(word, tables[-1]) if word else None)
    return _of_columns(tables, words, request, notes, "the data set")


def _named(part: Any, name: str) -> list[Any]:
    """A column, its numbers of classes as their names."""
    feature, column = part.features[name], list(part[name])
    names = getattr(feature, "names", None)
    inner = getattr(getattr(feature, "feature", None), "names", None)
    if names is not None:
        return [None if number is None or number < 0 else names[number] for number in column]
    if inner is not None:
        return [[inner[number] for number in numbers] for numbers in column]
    return column


def texts_part(texts: Sequence[Text], rows: Tensor | None = None) -> Any:
    """What makes a collection of texts once the targets are known."""
    return lambda targets: Texts(texts, targets, rows)


def without_held(found: Found) -> Found:
    """The same, training texts left out that are measured on too."""
    if isinstance(found.train, Texts) and isinstance(found.valid, Texts):
        found = replace(found, notes=list(found.notes))
        _apart_from(found)
    return found
