"""Hugging Face data sets, recognised by what they can do; the library itself is never imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tlnb.engine.data.collections import ReadPictures
from tlnb.engine.data.readers import ItemReader
from tlnb.engine.data.sources.found import Ask, Found
from tlnb.engine.data.sources.labels import encode
from tlnb.errors import DataError

_TRAIN, _VALID = ("train",), ("validation", "valid", "val", "test")


def is_one(source: object) -> bool:
    """Whether this is a Hugging Face ``Dataset``, a ``DatasetDict``, or a pair of data sets."""
    if isinstance(source, Mapping):
        return bool(source) and all(map(_is_set, source.values()))
    if isinstance(source, tuple | list):
        return len(source) == 2 and all(map(_is_set, source))
    return _is_set(source)


def _is_set(value: object) -> bool:
    return all(hasattr(value, name) for name in ("column_names", "features", "__getitem__", "__len__"))


def read(source: Any, ask: Ask) -> Found:
    """Pictures and labels, by the types of the columns.

    The picture is the first column of the type ``Image``; the target is the first ``ClassLabel``, or list of
    such, else a column called ``label`` or ``labels``.

    Raises:
        DataError: no such columns, or no split called ``train``.
    """
    notes: list[str] = []
    if isinstance(source, Mapping):
        found = [next((name for name in group if name in source), None) for group in (_TRAIN, _VALID)]
        if found[0] is None:
            raise DataError(
                f"the data set has the splits {', '.join(map(str, source))}, but none called train"
            )
        parts = [source[name] for name in found if name is not None]
        if found[1] == "test":
            notes.append("measured on test, as there is no validation split")
    else:
        parts = list(source) if isinstance(source, tuple | list) else [source]
    image, label = _columns(parts[0].features)
    feature = parts[0].features[label]
    targets: list[Any] = [_column(part, label) for part in parts]
    names = _names(feature)
    if names is None and (names := _names(_inner(feature))) is not None:
        targets = [_rows(column, len(names)) for column in targets]
    kind, classes, tensors = encode(targets, ask.target, names)
    made = [ReadPictures(_reader(part, image), tensor) for part, tensor in zip(parts, tensors, strict=True)]
    return Found(made[0], made[1] if len(made) > 1 else None, classes, kind, notes=notes)


def _columns(features: Mapping[str, Any]) -> tuple[str, str]:
    kinds = {name: type(feature).__name__ for name, feature in features.items()}
    image = next((name for name, kind in kinds.items() if kind == "Image"), None)
    label = next((name for name, kind in kinds.items() if kind == "ClassLabel"), None)
    label = label or next((n for n, f in features.items() if _names(_inner(f)) is not None), None)
    label = label or next((name for name in ("label", "labels", "target") if name in kinds), None)
    if image is None or label is None:
        missing = "picture (type Image)" if image is None else "label (type ClassLabel)"
        columns = ", ".join(f"{name}: {kind}" for name, kind in kinds.items())
        raise DataError(f"the data set has no column with a {missing}; it has {columns}")
    return image, label


def _names(feature: Any) -> Sequence[str] | None:
    return getattr(feature, "names", None)


def _inner(feature: Any) -> Any:
    """What a list holds, of features that are lists."""
    return getattr(feature, "feature", None)


def _rows(column: Sequence[Sequence[int]], count: int) -> np.ndarray:
    """Rows of 0 and 1 from lists of class numbers: (N, count)."""
    rows = np.zeros((len(column), count), np.int64)
    for row, numbers in zip(rows, column, strict=True):
        row[np.asarray(numbers, np.int64)] = 1
    return rows


def _column(part: Any, name: str) -> list[Any]:
    column = part[name]
    return column if isinstance(column, list) else list(column)


def _reader(part: Any, column: str) -> ItemReader:
    def item(number: int) -> Any:
        return part[number][column]

    return ItemReader(len(part), item)
