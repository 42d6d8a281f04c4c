"""What targets are, told by how they look: classes, several labels a sample, or measured values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tlnb.engine.data.sources.found import CLASSES, LABELS, REGRESSION
from tlnb.engine.printable import printable
from tlnb.errors import DataError

Encoded = tuple[str, tuple[str, ...], list[Tensor]]


def encode(parts: Sequence[Any], target: str | None = None, names: Sequence[str] | None = None) -> Encoded:
    """Targets as tensors, under one meaning for all parts.

    Args:
        parts: raw targets of training samples, or of training and validation samples: tensors, arrays, or
            lists of numbers or words.
        target: what they are, if the user has said it.
        names: names of the classes or of the columns, if the source knows them.

    Returns:
        The kind, the names of the network's outputs, and for each part int64 (N,) for classes, float32
        (N, outputs) otherwise.

    Raises:
        DataError: targets that cannot be what they are said to be.
    """
    arrays = [_array(part) for part in parts]
    joined = np.concatenate(arrays)
    kind = target or _look(joined)
    if kind == CLASSES:
        classes, codes = _classes(joined, names)
    elif kind == LABELS:
        classes, codes = _labels(joined, names)
    else:
        classes, codes = _values(joined, names)
    ends = np.cumsum([len(array) for array in arrays])[:-1]
    return kind, classes, [torch.from_numpy(np.ascontiguousarray(c)) for c in np.split(codes, ends)]


def are_one_hot(parts: Sequence[Any]) -> bool:
    """Whether each target is a row of zeros with a single 1, so that it may be the number of a class."""
    arrays = [_array(part) for part in parts]
    return all(
        a.ndim == 2 and a.dtype.kind in "biuf" and np.isin(a, (0, 1)).all() and (a.sum(1) == 1).all()
        for a in arrays
    )


def _array(part: Any) -> np.ndarray:
    if isinstance(part, Tensor):
        array = part.detach().cpu().numpy()
    elif isinstance(part, np.ndarray):
        array = part
    else:
        part = [p.item() if isinstance(p, Tensor) and p.dim() == 0 else p for p in part]
        try:
            array = np.asarray([np.asarray(p) if isinstance(p, Tensor) else p for p in part])
        except ValueError:
            raise DataError(
                "the targets are lists of different lengths; give a row of 0 and 1 each"
            ) from None
    missing = sum(value is None or value != value for value in array.ravel().tolist())
    if missing:
        raise DataError(f"{missing} targets are missing; leave those samples out")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (1, 2) or array.dtype.kind not in "biufUSO":
        raise DataError(f"targets of shape {array.shape} and type {array.dtype} cannot be learned")
    return array.astype(str) if array.dtype.kind in "SO" else array


def _look(array: np.ndarray) -> str:
    if array.dtype.kind == "U":
        return LABELS if any(";" in word for word in array.ravel()) else CLASSES
    if array.ndim == 2:
        return LABELS if np.isin(array, (0, 1)).all() else REGRESSION
    return CLASSES if array.dtype.kind != "f" or (array == np.round(array)).all() else REGRESSION


def _classes(array: np.ndarray, names: Sequence[str] | None) -> tuple[tuple[str, ...], np.ndarray]:
    if array.ndim == 2:  # one-hot rows
        if not (np.isin(array, (0, 1)).all() and (array.sum(1) == 1).all()):
            raise DataError("each sample has several targets; one class each is needed (or --target labels)")
        array = array.argmax(1)
    if array.dtype.kind == "f":
        if not np.isfinite(array).all() or (array != np.round(array)).any():
            raise DataError("the targets are not whole numbers; measured values need --target regression")
        array = array.astype(np.int64)
    if names is not None and array.dtype.kind in "iub":
        if array.min() < 0 or array.max() >= len(names):
            raise DataError(
                f"class numbers from {array.min()} to {array.max()}, but {len(names)} class names"
            )
        return tuple(map(printable, map(str, names))), array.astype(np.int64)
    values = _in_order(array)
    codes = {value: code for code, value in enumerate(values)}
    found = np.fromiter((codes[value] for value in array.tolist()), np.int64, len(array))
    return tuple(printable(str(value)) for value in values), found


def _in_order(array: np.ndarray) -> list[Any]:
    """The different values, numbers by size even where they are written as words."""
    values = sorted(set(array.tolist()))
    if array.dtype.kind == "U" and all(value.strip().lstrip("-").isdecimal() for value in values):
        values.sort(key=int)
    return values


def _labels(array: np.ndarray, names: Sequence[str] | None) -> tuple[tuple[str, ...], np.ndarray]:
    if array.ndim == 2:
        try:
            numbers = array.astype(np.float32)
        except ValueError:
            numbers = None
        if numbers is None or not np.isin(numbers, (0, 1)).all():
            raise DataError("columns of labels hold 0 and 1 only; measured values need --target regression")
        given = names if names is not None and len(names) == array.shape[1] else range(array.shape[1])
        return tuple(printable(str(name)) for name in given), numbers
    sets = [{word.strip() for word in str(value).split(";") if word.strip()} for value in array.tolist()]
    known = sorted(set().union(*sets))
    if not known:
        raise DataError("no sample has a label")
    place = {word: column for column, word in enumerate(known)}
    found = np.zeros((len(sets), len(known)), np.float32)
    for row, words in enumerate(sets):
        found[row, [place[word] for word in words]] = 1
    return tuple(map(printable, known)), found


def _values(array: np.ndarray, names: Sequence[str] | None) -> tuple[tuple[str, ...], np.ndarray]:
    try:
        values = array.astype(np.float32)
    except ValueError:
        wrong = next(word for word in array.ravel().tolist() if not _is_number(word))
        raise DataError(f"--target regression needs numbers, not {printable(str(wrong))!r}") from None
    if not np.isfinite(values).all():
        raise DataError("--target regression needs finite numbers; some targets are missing or infinite")
    values = values.reshape(len(values), -1)
    if names is None or len(names) != values.shape[1]:
        names = ["value"] if values.shape[1] == 1 else [f"value {i}" for i in range(values.shape[1])]
    return tuple(printable(str(name)) for name in names), values


def _is_number(word: object) -> bool:
    try:
        float(word)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True


def are_numbers(words: Iterable[str]) -> bool:
    """Whether every word is a number."""
    return all(_is_number(word) for word in words)
