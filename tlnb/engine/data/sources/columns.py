"""Which column of a table is what: by its name first, and by what stands in it where no name is known."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tlnb.display.tables import few, printable
from tlnb.engine.data.column import Column
from tlnb.engine.data.request import NO_SPLIT, OWN, SourceRequest
from tlnb.engine.data.sources.found import EVERY, TEST, TRAIN, VALID
from tlnb.engine.data.sources.labels import are_numbers
from tlnb.errors import DataError, did_you_mean

PATHS = (
    "path", "filepath", "file_path", "image_path", "img_path", "filename", "file_name", "file", "image", "img",
    "picture", "photo", "clip", "audio", "sound", "wav", "recording", "audio_path", "audio_file", "slice_file_name",
    "image_file", "image_name", "img_name", "image_index", "image_id", "img_id",
)  # fmt: skip
_LABELS = (
    "label", "labels", "class", "classes", "class_name", "classname", "target", "targets", "category", "categories",
    "diagnosis", "finding", "findings", "finding_label", "finding_labels", "species", "breed", "tag", "tags", "dx",
    "label_name",
)  # fmt: skip
_SPLITS = ("split", "set", "subset", "partition", "fold", "kfold", "folds", "fold_id", "cv_fold", "k_fold")
_FLAGS = ("is_valid", "valid", "is_val", "val", "is_validation", "validation", "is_test", "is_train", "train")
_MEASURED = (
    "age", "score", "count", "weight", "price", "temperature", "length", "bmi", "dose", "angle", "distance", "area",
    "volume", "number", "height", "width", "value", "years", "bone_age", "boneage", "rating",
)  # fmt: skip
_NO_LABEL = re.compile(
    r"|unnamed.*|index|idx|no|row|.*_?id|id_.*|uuid|.*patient.*|.*subject.*|.*study.*|width|height|w|h|size|.*_size|bytes"
    r"|md5|sha\d*|hash|.*url.*|date.*|time|timestamp|.*fold.*|.*path|.*file_?name.*"
)
_TRUE, _FALSE = {"1", "true", "yes", "1.0", "t"}, {"0", "false", "no", "0.0", "f"}
_FOLDS = 20  # different numbers in a column of folds
_HOLES = {"", "nan", "<na>", "null"}


@dataclass
class Sheet:
    """The columns of a table, told apart.

    Attributes:
        paths: of the pictures, as they are written.
        labels: the columns of the labels; empty where nothing is written.
        names: of the label columns; None where there is no header.
        parts: for each picture ``train``, ``valid``, ``test`` or nothing; None where the table has no split.
        measured: whether the name of the label says that it is a measured value.
        notes: what was guessed, with the option that changes it.
        columns: every column by its name.
    """

    paths: Column
    labels: list[Column]
    names: list[str] | None
    parts: Column | None
    measured: bool = False
    notes: list[str] = field(default_factory=list)
    columns: dict[str, Column] = field(default_factory=dict)


def plain_name(name: str) -> str:
    """A column's name as it is compared: ``Image Index`` is ``image_index``."""
    return re.sub(r"[\s\-.]+", "_", name.strip().lower())


def is_known(name: str) -> bool:
    """Whether a cell is the name of a column, as far as such names are known."""
    return plain_name(name) in (*PATHS, *_LABELS, *_SPLITS, *_FLAGS)


def columns_of(
    header: list[str] | None,
    body: Sequence[Column],
    request: SourceRequest,
    found: Callable[[str], str | None],
    shown: str,
) -> Sheet:
    """The columns of a table.

    Args:
        header: names of the columns, or None.
        body: the columns, without their names.
        request: the columns that the user names.
        found: the picture that a cell names; None where there is none.
        shown: the table's name, for errors.

    Raises:
        DataError: no column, or none that is named, or several that could be the label.
    """
    width = len(body)
    names = [plain_name(name) for name in header] if header else [""] * width
    notes: list[str] = []
    path = _place(request.path, "path", header, width) if request.path else _path(names, body, found)
    split = _split(names, body, header, request, path)
    apart = [c for c in range(width) if header and header[c] in (request.groups, request.time)]
    others = [column for column in range(width) if column not in (path, split, *apart)]
    if not others:
        raise DataError(f"{shown} holds no labels; a path and a label in each row are needed")
    if request.labels:
        labels = [_place(name, "label", header, width) for name in request.labels]
        if path in labels:
            raise DataError(
                f"the column {request.label} holds the pictures; --path names another one for them"
            )
    else:
        labels = _label(names, header, body, others, notes)
    cells = [body[c].map(lambda cell: "" if cell.lower() in _HOLES else cell) for c in labels]
    values = set(cells[0].different()) - {""}
    measured = (
        len(labels) == 1
        and (names[labels[0]] in _MEASURED)
        and request.target is None
        and are_numbers(values)
        and len(values) > 10
    )
    if measured:
        notes.append(
            f"{printable(_name(header, labels[0]))} is learned as a measured "
            "value (--target classes takes each number as a class)"
        )
    parts = None
    if split is not None:
        parts = _parts(body[split], _name(header, split), names[split], request, notes)
    return Sheet(
        body[path],
        cells,
        [header[c] for c in labels] if header else None,
        parts,
        measured,
        notes,
        dict(zip(header or (), body, strict=False)),
    )


def label_columns(
    columns: Mapping[str, Column],
    request: SourceRequest,
    taken: Collection[str],
    notes: list[str],
    shown: str,
) -> list[str]:
    """The columns of the labels of a table of texts.

    Args:
        columns: by name.
        request: the columns that the user names.
        taken: columns that are something else.
        notes: what was guessed goes here.
        shown: the table's name, for errors.

    Raises:
        DataError: no column, or none that is named, or several that could be the label.
    """
    header = list(columns)
    if request.labels:
        labels = [place_of(name, "label", header) for name in request.labels]
        if set(labels) & set(taken):
            raise DataError(f"the column {request.label} holds something else; --label names another one")
        return labels
    names = [plain_name(name) for name in header]
    known = [c for c, name in enumerate(header) if name not in taken and names[c] not in (*_SPLITS, *_FLAGS)]
    if not known:
        raise DataError(f"{shown} holds no labels; a text and a label in each row are needed")
    body = [column.map(_as_word) for column in columns.values()]
    return [header[c] for c in _label(names, header, body, known, notes)]


def part_words(
    columns: Mapping[str, Column], request: SourceRequest, taken: Collection[str], notes: list[str]
) -> Column | None:
    """For each row of a table of texts ``train``, ``valid``, ``test`` or nothing; None where it has no split."""
    header = list(columns)
    names = [plain_name(name) if name not in taken else "" for name in header]
    body = [column if name in taken else column.map(_as_word) for name, column in columns.items()]
    split = _split(names, body, header, request, -1)
    return None if split is None else _parts(body[split], header[split], names[split], request, notes)


def place_of(wanted: str, option: str, header: list[str]) -> str:
    """The name of the column that is meant.

    Raises:
        DataError: there is none.
    """
    return header[_place(wanted, option, header, len(header))]


def _as_word(cell: Any) -> str:
    return "" if cell is None else str(cell)


def _name(header: list[str] | None, column: int) -> str:
    return (header[column] if header else "") or f"column {column + 1}"


def _place(wanted: str, option: str, header: list[str] | None, width: int) -> int:
    """The column of a name, or of a number from 1."""
    names = header or []
    for same in (lambda a: a, plain_name):
        hits = [c for c, name in enumerate(names) if same(name) == same(wanted)]
        if hits:
            return hits[0]
    if wanted.isdecimal() and 1 <= int(wanted) <= width:
        return int(wanted) - 1
    known = few(tuple(printable(name) for name in names if name)) if names else f"the numbers 1 to {width}"
    raise DataError(
        f"there is no column {printable(wanted)!r}{did_you_mean(wanted, names)}; --{option} takes one of {known}"
    )


def _path(names: Sequence[str], body: Sequence[Column], found: Callable[[str], str | None]) -> int:
    """The column of the pictures: one that is named so, else that with most pictures that are there."""
    samples = [column[:: max(len(column) // 40, 1)] for column in body]
    hits = [len({found(cell) for cell in sample} - {None}) for sample in samples]
    named = [names.index(name) for name in PATHS if name in names]
    good = [column for column in named if 2 * hits[column] >= len(samples[column])]
    if good:
        return good[0]
    best = max(range(len(names)), key=lambda column: hits[column])
    if hits[best]:
        return best
    if named:
        return named[0]
    return next((c for c, name in enumerate(names) if name and not name.startswith("unnamed")), 0)


def _label(
    names: Sequence[str],
    header: list[str] | None,
    body: Sequence[Column],
    others: list[int],
    notes: list[str],
) -> list[int]:
    """The columns of the labels, by name, else all that can be labels together."""
    named = [names.index(name) for name in _LABELS if name in names and names.index(name) in others]
    if named:
        return _said([named[0]], others, header, notes)
    usable = [c for c in others if not (header and _NO_LABEL.fullmatch(names[c])) and not _counts(body[c])]
    usable = [c for c in usable if names[c] not in (*PATHS, *_SPLITS, *_FLAGS)] or usable
    if not usable:
        if len(others) > 1:
            raise DataError(_which(others, header))
        return others
    if len(usable) > 1:
        columns = [{cell for cell in body[c].different() if cell.lower() not in _HOLES} for c in usable]
        if not all(map(are_numbers, columns)):
            raise DataError(_which(usable, header))
        signs = [{float(word) for word in column} for column in columns]
        few_values = [values <= {0.0, 1.0, -1.0} for values in signs]
        if any(few_values) and not all(few_values):
            raise DataError(_which(usable, header))
    return _said(usable, others, header, notes)


def _said(chosen: list[int], others: list[int], header: list[str] | None, notes: list[str]) -> list[int]:
    left = tuple(printable(_name(header, c)) for c in others if c not in chosen)
    if left:
        what = few(tuple(printable(_name(header, c)) for c in chosen), 4)
        are = "label is the column" if len(chosen) == 1 else "labels are the columns"
        notes.append(f"the {are} {what}; not used: {few(left, 4)} (--label COLUMN[,COLUMN] changes it)")
    return chosen


def _which(columns: list[int], header: list[str] | None) -> str:
    names = [printable(_name(header, c)) if header else str(c + 1) for c in columns]
    return f"several columns could be the label: {few(tuple(names))}; name it, such as --label {names[0]}"


def _counts(column: Column) -> bool:
    """Whether a column numbers the rows."""
    if len(column) < 3 or column[0] not in ("0", "1"):
        return False
    return all(cell.isdecimal() and int(cell) == number for number, cell in enumerate(column, int(column[0])))


# ---------------------------------------------------------------- the split


def _split(
    names: Sequence[str], body: Sequence[Column], header: list[str] | None, request: SourceRequest, path: int
) -> int | None:
    if request.split == NO_SPLIT:
        return None
    if request.split is not None:
        return _place(_column_and_value(request.split, header)[0], "split", header, len(names))
    words = next((names.index(name) for name in _SPLITS[:4] if name in names), None)
    if words is not None and words != path:
        return words
    for name in _FLAGS:
        if name in names and _lower(body[names.index(name)]) <= _TRUE | _FALSE | {""}:
            return names.index(name)
    return next(
        (names.index(name) for name in _SPLITS[4:] if name in names and names.index(name) != path), None
    )


def _lower(column: Column) -> set[str]:
    return {cell.lower() for cell in column.different()}


def _column_and_value(split: str, header: list[str] | None) -> tuple[str, str | None]:
    if header and split in header:
        return split, None
    name, equals, value = split.rpartition("=")
    return (name, value.strip()) if equals and name else (split, None)


def _parts(cells: Column, shown: str, name: str, request: SourceRequest, notes: list[str]) -> Column | None:
    """For each row ``train``, ``valid``, ``test`` or nothing; None where the column holds no two parts."""
    shown, different = printable(shown), _lower(cells) - {""}
    value = _column_and_value(request.split, [shown])[1] if request.split else None
    if value is not None:
        if value.lower() not in different:
            raise DataError(
                f"no row has {printable(value)!r} in the column {shown}; there are "
                f"{few(tuple(map(printable, sorted(different))), 6)}"
            )
        held = {value.lower()}
        part_of = dict.fromkeys(different | {""}, "train") | dict.fromkeys(held, "valid")
    elif different <= set(EVERY):
        part_of = dict.fromkeys(TRAIN, "train") | dict.fromkeys(VALID, "valid") | dict.fromkeys(TEST, "test")
    elif different <= _TRUE | _FALSE and name not in _SPLITS[4:]:
        held = _FALSE if name in ("is_train", "train") else _TRUE
        part_of = dict.fromkeys(different, "train") | dict.fromkeys(held, "valid")
        notes.append(f"validated on the rows that {shown} says (--split none ignores it)")
    elif _are_folds(different) and (name in _SPLITS or request.split):
        first = min(different, key=float)
        part_of = dict.fromkeys(different, "train") | {first: "valid"}
        notes.append(
            f"validated on {shown} {first} of {len(different)} (--split "
            f"{shown}=VALUE takes another, --split none ignores it)"
        )
    else:
        raise DataError(
            f"the split column {shown} holds {printable(min(different - set(EVERY)))!r}; "
            "train, valid and test are known; "
            f"--split {shown}=VALUE names the validation part, --split none ignores it"
        )
    parts = cells.map(lambda cell: part_of.get(cell.lower(), ""))
    return _both(parts, shown, notes, own_test=request.test == OWN)


def _are_folds(words: set[str]) -> bool:
    return (
        2 <= len(words) <= _FOLDS and are_numbers(words) and all(float(word).is_integer() for word in words)
    )


def _both(column: Column, shown: str, notes: list[str], *, own_test: bool) -> Column | None:
    parts = set(column.different())
    if own_test and {"train", "test"} <= parts:
        return column
    held = "valid" if "valid" in parts else "test"
    if "train" not in parts or held not in parts:
        only = next((part for part in ("train", "valid", "test") if part in parts), "nothing")
        notes.append(f"the column {shown} holds {only} alone: split by --valid")
        return None
    if held == "valid" and "test" in parts:
        notes.append("test rows are left aside for the end; valid rows are measured on")
    elif held == "test":
        notes.append(f"measured on the test rows, as {shown} names no validation rows")
    if "" in parts:
        empty = sum(1 for part in column if part == "")
        notes.append(f"{empty} rows with nothing in {shown} are not used")
    return column.map(lambda part: "train" if part == "train" else "valid" if part == held else "")
