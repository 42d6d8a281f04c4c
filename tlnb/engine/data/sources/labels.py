"""What targets are, told by how they look: classes, several labels a sample, or measured values."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tlnb.display.tables import few, printable
from tlnb.engine.data.column import Column
from tlnb.engine.data.request import CLASSES, LABELS, REGRESSION, USUAL, SourceRequest
from tlnb.errors import DataError

DELIMITERS = (";", "|", ",", " ")
UNLABELLED = (-100, -1)  # PyTorch's ignore_index, and what STL-10 and others write where there is no label
SIGNS = (*UNLABELLED, -9, -99, -999, -9999)  # that stand for not measured
MANY = 20  # from so many whole numbers on, they may be measured values
Names = Sequence[str] | Mapping[int, str]


@dataclass
class Encoded:
    """Targets as tensors, under one meaning for all parts.

    Attributes:
        kind: ``classes``, ``labels`` or ``regression``.
        classes: names of the network's outputs.
        parts: for each part int64 (n,) for classes, float32 (n, outputs) otherwise.
        kept: for each part the rows that have a target, int64 (n,); None for all.
        notes: what was guessed, with the option that changes it.
    """

    kind: str
    classes: tuple[str, ...]
    parts: list[Tensor]
    kept: list[Tensor | None]
    notes: list[str] = field(default_factory=list)


def encode(parts: Sequence[Any], request: SourceRequest = USUAL, names: Names | None = None) -> Encoded:
    """Targets as tensors, under one meaning for all parts.

    Args:
        parts: raw targets of training samples, or of training and validation samples: tensors, arrays, or
            lists of numbers or words.
        request: what the user says of them.
        names: names of the classes or of the columns, if the source knows them: in order, or by number.

    Raises:
        DataError: targets that cannot be what they are said to be.
    """
    notes: list[str] = []
    told = [_different(part, notes) for part in parts]
    if len({each.values.shape[1:] for each in told}) > 1:
        raise DataError("the parts have targets of different forms; they must be alike")
    joined, counts = (np.concatenate([getattr(each, name) for each in told]) for name in ("values", "counts"))
    delimiter = _delimiter(joined, request, names, notes)
    kind = request.target or (LABELS if delimiter else _look(joined))
    kept = np.arange(len(joined))
    if kind == CLASSES:
        if request.target is None:
            kept = _labelled(joined, counts, names, notes)
        classes, codes = _classes(joined[kept], names)
        if request.target is None and names is None:
            _say_many(int(counts[kept].sum()), classes, notes)
        notes += alike(classes)
    elif kind == LABELS:
        classes, codes = _labels(joined, names, delimiter, notes)
        if request.target is None and joined.ndim == 2 and len(classes) > 1 and (codes.sum(1) == 1).all():
            notes.append("each sample has exactly one label; --target classes takes them as classes")
    else:
        classes, codes = _values(joined, names)
        _say_signs(codes, counts, notes)
        if request.target is None and codes.shape[1] > 1 and _are_shares(codes):
            notes.append(
                "each target's values sum to 1, as shares of classes do: learned as values, by their squared error; "
                "for the likeliest class of each: targets.argmax(1)"
            )
    place_of = np.full(len(joined), -1)
    place_of[kept] = np.arange(len(kept))
    tensors, rows, start = [], [], 0
    for each in told:
        places = place_of[each.places + start]
        inside = places >= 0
        tensors.append(torch.from_numpy(np.ascontiguousarray(codes[places[inside]])))
        rows.append(None if inside.all() else torch.from_numpy(np.flatnonzero(inside)))
        start += len(each.values)
    return Encoded(kind, classes, tensors, rows, notes)


class _Told(NamedTuple):
    """Raw targets: what they are, and which each sample has.

    Attributes:
        values: the different targets, (V,); rows of several as they come, (N, outputs).
        counts: how many samples have each.
        places: of each sample among the values.
    """

    values: np.ndarray
    counts: np.ndarray
    places: np.ndarray


def _different(part: Any, notes: list[str]) -> _Told:
    if isinstance(part, Column):
        used, places = part.used()
        values = _array([part.values[number] for number in used.tolist()], notes)
        return _Told(values, np.bincount(places, minlength=len(values)), places)
    array = _array(part, notes)
    if array.ndim == 2:
        return _Told(array, np.ones(len(array), np.int64), np.arange(len(array)))
    values, places, counts = np.unique(array, return_inverse=True, return_counts=True)
    return _Told(values, counts, places)


def are_one_hot(parts: Sequence[Any]) -> bool:
    """Whether each target is a row of zeros with a single 1, so that it may be the number of a class."""
    arrays = [_array(part) for part in parts]
    return all(
        a.ndim == 2 and a.dtype.kind in "biuf" and np.isin(a, (0, 1)).all() and (a.sum(1) == 1).all()
        for a in arrays
    )


def composed(name: str) -> str:
    """A name with its accents composed, so that one that a Mac wrote is the same as one that others did."""
    return unicodedata.normalize("NFC", name)


def alike(classes: Iterable[str]) -> list[str]:
    """A line for classes whose names differ by nothing but case and space: mostly slips of the hand."""
    same: dict[str, list[str]] = {}
    for name in sorted(classes):
        same.setdefault("".join(name.split()).casefold(), []).append(name)
    pairs = [" and ".join(map(printable, names)) for names in same.values() if len(names) > 1]
    return [f"classes that differ by case and space alone: {few(tuple(pairs))}"] if pairs else []


def is_missing(value: object) -> bool:
    """Whether a value stands for none: None, NaN, and pandas' NA and NaT."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float | np.floating) and bool(value != value)


def _array(part: Any, notes: list[str] | None = None) -> np.ndarray:
    if isinstance(part, Tensor):
        array = part.detach().cpu().numpy()
    elif isinstance(part, np.ndarray):
        masked = int(np.ma.count_masked(part)) if isinstance(part, np.ma.MaskedArray) else 0
        if masked:
            raise DataError(f"{masked} targets are missing; leave those samples out")
        array = np.asarray(part)
    else:
        part = [p.item() if isinstance(p, Tensor) and p.dim() == 0 else p for p in part]
        try:
            array = np.asarray([np.asarray(p) if isinstance(p, Tensor) else p for p in part])
        except (ValueError, TypeError):
            raise DataError(
                "the targets are lists of different lengths; give a row of 0 and 1 each"
            ) from None
    array = _without_unknowns(array, notes)
    missing = sum(map(is_missing, array.ravel().tolist())) if array.dtype.kind in "fO" else 0
    if missing:
        raise DataError(f"{missing} targets are missing; leave those samples out")
    if array.dtype.kind == "O":
        array = _plain(array)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (1, 2) or array.dtype.kind not in "biufUS":
        raise DataError(f"targets of shape {array.shape} and type {array.dtype} cannot be learned")
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    return (
        np.array([composed(word) for word in array.ravel()]).reshape(array.shape)
        if array.dtype.kind == "U"
        else array
    )


def _without_unknowns(array: np.ndarray, notes: list[str] | None) -> np.ndarray:
    """Rows of 0, 1 and -1 with holes, as CheXpert has them: a hole is the sign for not mentioned, which is 0."""
    if array.ndim != 2 or array.shape[1] < 2 or array.dtype.kind not in "fO":
        return array
    holes = np.array([is_missing(value) for value in array.ravel().tolist()]).reshape(array.shape)
    if not holes.any() or not all(value in (0, 1, *UNLABELLED) for value in array[~holes].tolist()):
        return array
    if notes is not None:
        notes.append(f"{int(holes.sum())} labels are missing: taken as 0")
    return np.where(holes, 0, array).astype(np.float64)


def _plain(array: np.ndarray) -> np.ndarray:
    """Objects as numbers or as words."""
    flat = array.ravel().tolist()
    if all(isinstance(value, bool | int | float | np.number) for value in flat):
        return np.array(flat).reshape(array.shape)
    if all(isinstance(value, str | bool | int | float | np.number) for value in flat):
        return np.array([str(value) for value in flat]).reshape(array.shape)
    return array


def _look(array: np.ndarray) -> str:
    if array.dtype.kind == "U":
        return CLASSES
    if array.ndim == 2:
        return LABELS if np.isin(array, (*UNLABELLED, 0, 1)).all() else REGRESSION
    return CLASSES if array.dtype.kind != "f" or (array == np.round(array)).all() else REGRESSION


# ---------------------------------------------------------------- classes


def _labelled(array: np.ndarray, counts: np.ndarray, names: Names | None, notes: list[str]) -> np.ndarray:
    """The targets that are a class; samples under the sign for none are left out, and that is said."""
    rows = np.arange(len(array))
    if array.ndim != 1:
        return rows
    values = set(array.tolist())
    if not all(_is_whole(value) for value in values):
        return rows
    numbers = {value: int(float(value)) for value in values}
    others = {number for number in numbers.values() if number not in UNLABELLED}
    if not others or min(others) < 0:
        return rows
    for sign in UNLABELLED:
        raw = [value for value, number in numbers.items() if number == sign]
        if not raw:
            continue
        count = int(counts[np.isin(array, raw)].sum())
        have = f"{count} sample{' has' if count == 1 else 's have'} the target {sign}"
        if sign == -1 and names is None and len(others) < 3:
            # -1 and 1 are two classes; -1, 0 and 1 may well be three.
            if others != {1}:
                notes.append(
                    f"{have}, taken as a class of its own; leave those out if it is the sign for no label"
                )
            continue
        rows = rows[~np.isin(array[rows], raw)]
        notes.append(
            f"{have}, the sign for no label: left out, and tl.split counts without them "
            "(--target classes makes it a class)"
        )
    return rows


def _say_many(count: int, classes: Sequence[str], notes: list[str]) -> None:
    """Say it where classes may be measured values: many whole numbers, not counted from 0 or 1, or few of each."""
    if len(classes) <= MANY or not all(_is_whole(name) for name in classes):
        return
    low, high = int(float(classes[0])), int(float(classes[-1]))
    if low not in (0, 1) or high - low + 1 > len(classes) or count < 10 * len(classes):
        notes.append(
            f"{len(classes)} different whole numbers from {low} to {high} are taken for classes; "
            "--target regression learns them as measured values"
        )


def _classes(array: np.ndarray, names: Names | None) -> tuple[tuple[str, ...], np.ndarray]:
    if array.ndim == 2:  # one-hot rows
        if not (np.isin(array, (0, 1)).all() and (array.sum(1) == 1).all()):
            raise DataError("each sample has several targets; one class each is needed (or --target labels)")
        array = array.argmax(1)
    if array.dtype.kind == "f":
        if not np.isfinite(array).all() or (array != np.round(array)).any():
            raise DataError("the targets are not whole numbers; measured values need --target regression")
        array = array.astype(np.int64)
    if not len(array):
        raise DataError("no sample has a target")
    if names is not None and array.dtype.kind in "iub":
        return _numbered(array.astype(np.int64), names)
    values = _in_order(array)
    if names is not None and set(values) <= set(_listed(names)):
        values = _listed(names)
    codes = {value: code for code, value in enumerate(values)}
    found = np.fromiter((codes[value] for value in array.tolist()), np.int64, len(array))
    return tuple(printable(str(value)) for value in values), found


def _listed(names: Names) -> list[str]:
    return [names[number] for number in sorted(names)] if isinstance(names, Mapping) else list(names)


def _numbered(array: np.ndarray, names: Names) -> tuple[tuple[str, ...], np.ndarray]:
    """Class numbers under names that are known."""
    by_number = names if isinstance(names, Mapping) else dict(enumerate(map(str, names)))
    if unnamed := set(array.tolist()) - set(by_number):
        raise DataError(
            f"class numbers from {array.min()} to {array.max()}, but {len(by_number)} class names"
            + (f"; {min(unnamed)} has none" if isinstance(names, Mapping) else "")
        )
    order = sorted(by_number)
    place = {number: code for code, number in enumerate(order)}
    found = np.fromiter((place[number] for number in array.tolist()), np.int64, len(array))
    return tuple(printable(str(by_number[number])) for number in order), found


def _in_order(array: np.ndarray) -> list[Any]:
    """The different values, numbers by size even where they are written as words."""
    values = sorted(set(array.tolist()))
    if array.dtype.kind == "U" and all(value.strip().lstrip("-").isdecimal() for value in values):
        values.sort(key=int)
    return values


# ---------------------------------------------------------------- several labels a sample


def _delimiter(
    array: np.ndarray, request: SourceRequest, names: Names | None, notes: list[str]
) -> str | None:
    """What stands between the labels in a cell of words; None where each cell is one."""
    if array.dtype.kind != "U" or array.ndim != 1 or request.target in (CLASSES, REGRESSION):
        if request.delimiter is not None and array.dtype.kind == "U":
            raise DataError(
                f"--delimiter is for several labels in a cell, --target {request.target} for one value"
            )
        return None
    cells = Counter(array.tolist())
    if request.delimiter is not None:
        if not any(request.delimiter in cell for cell in cells):
            raise DataError(f"no label holds the delimiter {request.delimiter!r}")
        return request.delimiter
    if any(";" in cell for cell in cells):
        return ";"
    if names is not None and set(cells) <= set(_listed(names)):
        return None
    for sign in DELIMITERS[1:]:
        if not _recurs(cells, sign, strict=request.target is None):
            continue
        pieces = sorted({piece for cell in cells for piece in _pieces(cell, sign)})
        name = {" ": "blanks", ",": "commas"}.get(sign, repr(sign))
        notes.append(
            f"labels joined by {name}: {len(pieces)} labels, any number of them a sample "
            f"(--delimiter changes it, --target classes takes each of {len(cells)} combinations as a class)"
        )
        return sign
    if request.target is None and (words := _shared(cells)):
        notes.append(
            f"words recur in the class names ({few(words, 3)}); if they are several labels: --delimiter ' '"
        )
    return ";" if request.target == LABELS else None


def _pieces(cell: str, sign: str) -> list[str]:
    return [piece.strip() for piece in cell.split(sign) if piece.strip()]


def _recurs(cells: Mapping[str, int], sign: str, *, strict: bool) -> bool:
    """Whether pieces of the joined cells come again in other cells, as labels do and parts of names do not.

    Names such as ``red car`` and ``blue car`` share words too. So blanks and commas must also stand between
    different numbers of pieces, with each piece of a joined cell in another one, unless labels are asked for.
    """
    joined = [cell for cell in cells if len(_pieces(cell, sign)) > 1]
    if not joined:
        return False
    if not strict:
        return True
    seen = Counter(piece for cell in cells for piece in set(_pieces(cell, sign)))
    again = [piece for cell in joined for piece in _pieces(cell, sign) if seen[piece] > 1]
    total = sum(len(_pieces(cell, sign)) for cell in joined)
    if sign == "|":
        return 2 * len(again) >= total
    lengths = {len(_pieces(cell, sign)) for cell in cells}
    alone = any(seen[cell] > 1 for cell in cells if len(_pieces(cell, sign)) == 1)
    return len(lengths) > 1 and 5 * len(again) >= 4 * total and (alone or len(lengths) > 2)


def _shared(cells: Mapping[str, int]) -> tuple[str, ...]:
    """Words that stand in several class names of several words, where most of their words do."""
    seen = Counter(
        word for cell in cells for sign in (" ", ",") for word in set(_pieces(cell, sign)) if sign in cell
    )
    several = tuple(word for word, count in seen.most_common() if count > 1)
    return several if 2 * len(several) > len(seen) > 0 else ()


def _labels(
    array: np.ndarray, names: Names | None, delimiter: str | None, notes: list[str]
) -> tuple[tuple[str, ...], np.ndarray]:
    if array.ndim == 1 and array.dtype.kind in "biuf" and names is not None and len(names) == 1:
        array = array[:, None]
    if array.ndim == 2:
        try:
            numbers = array.astype(np.float32)
        except ValueError:
            numbers = None
        if numbers is None or not np.isin(numbers, (*UNLABELLED, 0, 1)).all():
            raise DataError("columns of labels hold 0 and 1 only; measured values need --target regression")
        for sign in sorted(UNLABELLED, reverse=True):
            if unsure := int((numbers == sign).sum()):
                notes.append(
                    f"{unsure} labels are {sign} (uncertain or not known): taken as 0; "
                    f"--target regression learns {sign}, 0 and 1 as values"
                )
        numbers = np.maximum(numbers, 0)
        listed = [] if names is None else _listed(names)
        given: Iterable[object] = listed if len(listed) == array.shape[1] else range(array.shape[1])
        return tuple(printable(str(name)) for name in given), numbers
    sets = [set(_pieces(str(value), delimiter or ";")) for value in array.tolist()]
    known = sorted(set().union(*sets))
    if not known:
        raise DataError("no sample has a label")
    place = {word: column for column, word in enumerate(known)}
    found = np.zeros((len(sets), len(known)), np.float32)
    for row, words in enumerate(sets):
        found[row, [place[word] for word in words]] = 1
    return tuple(map(printable, known)), found


# ---------------------------------------------------------------- measured values


def _values(array: np.ndarray, names: Names | None) -> tuple[tuple[str, ...], np.ndarray]:
    try:
        values = array.astype(np.float32)
    except ValueError:
        wrong = next(word for word in array.ravel().tolist() if not _is_number(word))
        raise DataError(f"--target regression needs numbers, not {printable(str(wrong))!r}") from None
    if not np.isfinite(values).all():
        raise DataError("--target regression needs finite numbers; some targets are missing or infinite")
    values = values.reshape(len(values), -1)
    listed = [] if names is None else _listed(names)
    if len(listed) != values.shape[1]:
        listed = ["value"] if values.shape[1] == 1 else [f"value {i}" for i in range(values.shape[1])]
    return tuple(printable(str(name)) for name in listed), values


def _are_shares(values: np.ndarray) -> bool:
    return bool((values >= 0).all() and (np.abs(values.sum(1) - 1) < 5e-3).all())


def _say_signs(values: np.ndarray, counts: np.ndarray, notes: list[str]) -> None:
    """Say it where one negative number stands among others from 0 on, as where nothing was measured."""
    for sign in SIGNS:
        count = int(((values == sign) * counts[:, None]).sum())
        others = values[values != sign]
        if count > 1 and others.size and others.min() >= 0:
            notes.append(
                f"{count} targets are {sign}, and no other is below zero: learned as a value; leave those samples "
                "out if it is the sign for not measured"
            )


def _is_number(word: object) -> bool:
    try:
        float(word)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True


def _is_whole(word: object) -> bool:
    return _is_number(word) and float(word).is_integer()  # type: ignore[arg-type]


def are_numbers(words: Iterable[str]) -> bool:
    """Whether every word is a number."""
    return all(_is_number(word) for word in words)
