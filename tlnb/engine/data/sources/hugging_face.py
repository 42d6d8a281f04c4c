"""Hugging Face data sets, recognised by what they can do; the library itself is never imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from tlnb.display.tables import few
from tlnb.engine.data.images.scale import PixelScale
from tlnb.engine.data.partition import TRAIN as TRAINS
from tlnb.engine.data.partition import VALID as VALIDATES
from tlnb.engine.data.raw import ReadPictures
from tlnb.engine.data.readers import ItemReader
from tlnb.engine.data.request import SourceRequest
from tlnb.engine.data.sources.found import TEST, Found, roles_of
from tlnb.engine.data.sources.labels import composed, encode
from tlnb.engine.data.sources.objects import picture_scale
from tlnb.errors import DataError, did_you_mean

_LOOKED_AT = 24  # pictures whose pixels are looked at to find one scale for all


def is_one(source: object) -> bool:
    """Whether this is a Hugging Face ``Dataset``, a ``DatasetDict``, or a pair of data sets."""
    if isinstance(source, Mapping):
        return bool(source) and all(map(_is_set, source.values()))
    if isinstance(source, tuple | list):
        return len(source) == 2 and all(map(_is_set, source))
    return _is_set(source)


def _is_set(value: object) -> bool:
    return all(hasattr(value, name) for name in ("column_names", "features", "__getitem__", "__len__"))


def is_stream(source: object) -> bool:
    """Whether this is a data set of theirs that can only be gone through, or a dictionary of such."""
    if isinstance(source, Mapping):
        return bool(source) and all(map(is_stream, source.values()))
    there = ("column_names", "features", "__iter__", "take")
    return all(hasattr(source, name) for name in there) and not hasattr(source, "__len__")


def read(source: Any, request: SourceRequest) -> Found:
    """Pictures and labels, by the types of the columns.

    The picture is the first column of the type ``Image``, or ``request.path``; the target is the first
    ``ClassLabel``, or list of such, else a column called ``label`` or ``labels``, or ``request.label``.

    Raises:
        DataError: no such columns, no split called ``train``, or items that differ from their columns.
    """
    request.refuse(
        ("split", "folder", "suffix", "links"), "a Hugging Face data set has splits and files of its own"
    )
    notes: list[str] = []
    parts, roles = _parts(source, request, notes)
    image, label = _columns(parts[0].features, request, notes)
    targets: list[Any] = []
    names: list[list[str] | None] = []
    for part in parts:
        if label not in part.features or image not in part.features:
            raise DataError(f"the splits have different columns; {label!r} and {image!r} are needed in each")
        targets.append(_column(part, label))
        names.append(_class_names(part.features[label]))
        _check_items(part, image, label, targets[-1])
    known = names[0]
    if _names(parts[0].features[label]) is None and known is not None:
        targets = [_rows(column, own or known, known) for column, own in zip(targets, names, strict=True)]
    elif known is not None and any(own is not None and list(own) != list(known) for own in names):
        every = [own or known for own in names]
        merged = list(dict.fromkeys(name for own in every for name in own))
        targets = [
            [own[number] if number >= 0 else -1 for number in column]
            for column, own in zip(targets, every, strict=True)
        ]
        if any(-1 in column for column in targets):
            raise DataError(
                "the splits name their classes differently, and some samples have none (-1); filter those out"
            )
        notes.append("its splits number the classes differently: matched by name")
        known = merged
    encoded = encode(targets, request, known)
    scales = [_scale(part, image, request) for part in parts]
    made = []
    for part, tensor, kept in zip(parts, encoded.parts, encoded.kept, strict=True):
        made.append(ReadPictures(_reader(part, image, scales[0][0]), tensor, kept))
    notes += [note for note in (*scales[0][1], *encoded.notes) if note not in notes]
    found = Found.of_parts(
        made, roles, classes=encoded.classes, kind=encoded.kind, notes=notes, scale=scales[0][0]
    )
    found.columns = _told_columns(parts, encoded.kept, request)
    starts = np.cumsum([0, *map(len, parts)])
    if any(kept is not None for kept in encoded.kept):
        found.used = np.concatenate(
            [start + rows for start, rows in zip(starts, map(_places, parts, encoded.kept), strict=False)]
        )
    return found


def _places(part: Any, kept: Any) -> np.ndarray:
    """Places of the rows of a part that are used."""
    return np.arange(len(part)) if kept is None else np.asarray(kept)


def _told_columns(parts: list[Any], kept: Sequence[Any], request: SourceRequest) -> dict[str, list[Any]]:
    """The columns by which groups or times are told, over all parts; of the others the names alone matter."""
    there = [name for name in parts[0].features if all(name in part.features for part in parts)]
    found: dict[str, list[Any]] = {}
    for name in there:
        if type(parts[0].features[name]).__name__ == "Image":
            continue
        asked = name in (request.groups, request.time)
        columns = [_column(part, name) if asked else [] for part in parts]
        found[name] = [
            column[place]
            for part, column, rows in zip(parts, columns, kept, strict=True)
            for place in (_places(part, rows).tolist() if asked else ())
        ]
    return found


def _parts(source: Any, request: SourceRequest, notes: list[str]) -> tuple[list[Any], list[int]]:
    """The splits that are read, the one to learn from first, and what each is for."""
    if not isinstance(source, Mapping):
        parts = list(source) if isinstance(source, tuple | list) else [source]
        return parts, [TRAINS, VALIDATES][: len(parts)]
    named = {str(name).lower(): part for name, part in source.items()}
    roles = roles_of(named, request)
    if not roles:
        raise DataError(f"the data set has the splits {', '.join(map(str, source))}, but none called train")
    if any(name in TEST and role == VALIDATES for name, role in roles.items()):
        notes.append("measured on test, as there is no validation split")
    others = tuple(name for name in named if name not in roles)
    if others:
        notes.append(f"splits that are not read: {few(others)}")
    return [named[name] for name in roles], list(roles.values())


def _columns(features: Mapping[str, Any], request: SourceRequest, notes: list[str]) -> tuple[str, str]:
    kinds = {name: type(feature).__name__ for name, feature in features.items()}
    columns = ", ".join(f"{name}: {kind}" for name, kind in kinds.items())
    for option, wanted in (("--path", request.path), ("--label", request.label)):
        if wanted is not None and wanted not in kinds:
            raise DataError(
                f"there is no column {wanted!r}{did_you_mean(wanted, kinds)}; {option} takes one of {columns}"
            )
    images = [name for name, kind in kinds.items() if kind == "Image"]
    labels = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    labels += [n for n, f in features.items() if _names(_inner(f)) is not None]
    labels = labels or [str(name) for name in ("label", "labels", "target") if name in kinds][:1]
    image = request.path or next(iter(images), None)
    label = request.label or next(iter(labels), None)
    if image is None or label is None:
        missing = "picture (type Image)" if image is None else "label (type ClassLabel)"
        raise DataError(f"the data set has no column with a {missing}; it has {columns}")
    for option, chosen, every in (("path", request.path, images), ("label", request.label, labels)):
        if chosen is None and len(every) > 1:
            notes.append(
                f"the {'picture' if option == 'path' else 'label'} is the column {every[0]}, "
                f"not {few(tuple(every[1:]))} (--{option} changes it)"
            )
    return image, label


def _check_items(part: Any, image: str, label: str, targets: list[Any]) -> None:
    """See that items say what their columns do; a transform may have changed them.

    Raises:
        DataError: they do not.
    """
    for number in sorted({0, len(part) // 2, len(part) - 1}):
        try:
            item = part[number]
            given = item[label]
        except Exception as error:  # another's transform may raise anything
            raise DataError(
                f"item {number} has no {label!r} as its column has "
                f"({type(error).__name__}); take the transform off, or give a "
                "torch Dataset"
            ) from None
        if image not in item:
            raise DataError(
                f"items have no {image!r} but {few(tuple(map(str, item)))}; "
                "take the transform off, or give a torch Dataset"
            )
        if not np.array_equal(np.asarray(given), np.asarray(targets[number])):
            raise DataError(
                f"item {number} has the {label} {given!r} and its column {targets[number]!r}; take the transform off"
            )


def _scale(part: Any, image: str, request: SourceRequest) -> tuple[PixelScale, list[str]]:
    items = []
    for number in np.linspace(0, len(part) - 1, min(_LOOKED_AT, len(part))).astype(int).tolist():
        value = part[number][image]
        if isinstance(value, Image.Image) or hasattr(value, "dtype"):
            items.append(value)
    return picture_scale(items, request) or (request.scale, [])


def _names(feature: Any) -> Sequence[str] | None:
    return getattr(feature, "names", None)


def _inner(feature: Any) -> Any:
    """What a list holds, of features that are lists."""
    return getattr(feature, "feature", None)


def _class_names(feature: Any) -> list[str] | None:
    """Names of the classes of a column, or of the lists in it."""
    found = _names(feature) or _names(_inner(feature))
    return None if found is None else [composed(str(name)) for name in found]


def _rows(column: Sequence[Sequence[int]], own: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Rows of 0 and 1 from lists of class numbers: (N, len(names)).

    Args:
        column: lists of numbers.
        own: what they name in this part.
        names: the columns of the rows.
    """
    rows = np.zeros((len(column), len(names)), np.int64)
    place = {name: at for at, name in enumerate(names)}
    for row, numbers in zip(rows, column, strict=True):
        for number in numbers:
            if own[number] not in place:
                raise DataError(f"a split has the label {own[number]!r}, which training does not know")
            row[place[own[number]]] = 1
    return rows


def _column(part: Any, name: str) -> list[Any]:
    column = part[name]
    return column if isinstance(column, list) else list(column)


def _reader(part: Any, column: str, scale: PixelScale) -> ItemReader:
    def item(number: int) -> Any:
        return part[number][column]

    return ItemReader(len(part), item, scale)
