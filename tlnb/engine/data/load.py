"""Naming data: find what the user means, read it, split it, and keep equal samples apart."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from glob import glob
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tlnb.display.tables import few, printable
from tlnb.engine.core.arguments import others_code, path_of
from tlnb.engine.core.objectives import Classification, MultiLabel, Objective, Regression, scored
from tlnb.engine.data.balance import class_weights, label_weights
from tlnb.engine.data.column import Column
from tlnb.engine.data.dataset import Data
from tlnb.engine.data.marks import read_marks
from tlnb.engine.data.mending import mended
from tlnb.engine.data.parting import FeaturesOf, Parts, parted
from tlnb.engine.data.places import Places
from tlnb.engine.data.raw import RawDataset, Several
from tlnb.engine.data.request import BALANCES, CLASSES, LABELS, REGRESSION, SourceRequest
from tlnb.engine.data.sources import hugging_face, named, objects, text
from tlnb.engine.data.sources.cells import TABLES
from tlnb.engine.data.sources.folder import is_hidden, read_folder
from tlnb.engine.data.sources.found import Found
from tlnb.engine.data.sources.loader import NO_STREAM
from tlnb.engine.data.sources.named import BUILTIN
from tlnb.engine.data.sources.remote import fetched, is_address
from tlnb.engine.data.sources.table import is_frame, read_frame, read_table
from tlnb.engine.data.sources.tars import TAR, read_tars
from tlnb.engine.data.split import first_per_class, leaks, repeats, split
from tlnb.errors import DataError, did_you_mean, nearest

__all__ = ["BALANCES", "SOURCES", "Data", "load_data"]

SOURCES = tuple(BUILTIN)
SHARDS = (*TABLES, TAR)


def load_data(
    source: object,
    request: SourceRequest | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
    features: FeaturesOf | None = None,
    **options: Any,
) -> Data:
    """Read a data set and split it.

    Args:
        source: ``digits``, ``glyphs``, a folder of class folders, a table (CSV, TSV, JSONL, Parquet) of path and label
            (pictures, or sounds as wav and flac) or of texts, a tar as WebDataset lays it out, a folder of such files,
            a pattern (``shards/*.csv``) or an address of them (``s3://…``), ``torchvision/NAME``, a pair of
            tensors, arrays or texts (X, y), a Dataset, a DataLoader, a DataFrame of path and label, a Hugging Face
            data set, or a pair (train, valid) of such.
        request: how it is to be read.
        progress: told how many of how many files are looked at.
        features: those of a network, by which near duplicates are told; None where there is none.
        options: the fields of :class:`SourceRequest` by name, in place of ``request``.

    Raises:
        DataError: an unknown source, an impossible split or option, or, when strict, a bad file.
    """
    if request is None:
        request = SourceRequest.of(**options)
    if progress is not None:
        request = replace(request, progress=progress)
    plain = isinstance(source, str | os.PathLike | Tensor | tuple | list)
    try:
        with nullcontext() if plain else others_code(source, DataError):
            found = _find(source, request)
    except OSError as error:  # a folder that may not be read, or a disk that fails
        raise DataError(f"cannot read {_name(source)!r}: {error.strerror or error}") from None
    if found.sound is None:
        request.refuse(("window", "rate"), "this data holds no sounds")
    if request.strict and found.problems:
        path, reason = found.problems[0]
        raise DataError(f"--strict, and {len(found.problems)} files cannot be used; {path}: {reason}")
    per_class, balance = request.per_class, request.balance
    _fits(found, per_class, balance)
    parts = parted(found, request, features) if request.parted else _parts(found, request)
    if parts.tied:
        request = replace(request, groups=parts.tied)
    train, held = parts.train, parts.valid
    if per_class is not None:
        kept = first_per_class(train.targets, torch.arange(len(train)), per_class, request.seed)
        train = train.subset(kept)
        if parts.places is not None:
            parts = replace(parts, places=replace(parts.places, train=parts.places.train[kept]))
    if len(train) < 2 or not len(held):
        raise DataError(f"{len(train)} training and {len(held)} validation samples are too few")
    _check_alike(train, held)
    said = parts.notes if request.parted else _missing(found, train, held, request)
    notes = [*found.notes, *said]
    task = _task(found, train, held, balance)
    task = scored(task, request.score) if request.score is not None else task
    if request.score == "top5" and len(found.classes) <= 5:
        notes.append(
            f"top5 is 100 % for {len(found.classes)} classes whatever the answers are: --score takes another one"
        )
    batch = request.batch or found.batch or usual_batch(len(train.targets))
    data = Data(
        _name(source), found.classes, train, held, batch, request.seed, request.size, notes, task, request.augment,
        balance, found.problems, _plain(source, _settled(request, found)), found.scale, parts.test, parts.places,
        parts.units, found.sound, request.length, parts.groups, parts.times,
    )  # fmt: skip
    return data if request.marks is None else mended(data, read_marks(request.marks))


def _check_alike(train: RawDataset, held: RawDataset) -> None:
    """Rows of numbers have one shape in all parts; token numbers may be padded to another length."""
    one, other = (getattr(part, "inputs", None) for part in (train, held))
    if isinstance(one, Tensor) and isinstance(other, Tensor) and one.is_floating_point():
        shapes = [tuple(part.shape[1:]) for part in (one, other)]
        if shapes[0] != shapes[1]:
            raise DataError(f"a training sample has shape {shapes[0]} and a validation sample {shapes[1]}")


def _settled(request: SourceRequest, found: Found) -> SourceRequest:
    """The request with what was found out about sounds, so that they are heard the same when they are read again."""
    sound = found.sound
    if sound is None:
        return request
    return replace(request, window=sound.window, bands=str(sound.bands), rate=sound.rate)


def _plain(source: object, request: SourceRequest) -> dict[str, Any] | None:
    """The arguments as plain values, a path as one that holds from any folder; None for objects."""
    plain = isinstance(request.augment, str) and not isinstance(request.groups, tuple)
    if not isinstance(source, str | os.PathLike) or not plain or isinstance(request.time, tuple):
        return None
    path = path_of(source, DataError)
    known = isinstance(source, str) and (
        source in BUILTIN or source.startswith("torchvision/") or is_address(source)
    )
    return request.plain(os.fspath(source) if known else str(path.absolute()))


def _find(source: object, request: SourceRequest) -> Found:
    if isinstance(source, str) and source in BUILTIN:
        return BUILTIN[source](request)
    if isinstance(source, str) and source.startswith("torchvision/"):
        return named.read(source, request)
    if isinstance(source, str | os.PathLike):
        return _find_path(os.fspath(source), request)
    if is_frame(source):
        return _of_frame(source, request)
    if hugging_face.is_stream(source):
        raise DataError(NO_STREAM)
    if hugging_face.is_one(source) and text.is_text_set(source, request):
        return text.read_text_set(source, request)
    if hugging_face.is_one(source):
        return hugging_face.read(source, request)
    return objects.read(source, request)


def _of_frame(frame: Any, request: SourceRequest) -> Found:
    names = [str(name) for name in frame.columns]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(
            f"the {type(frame).__name__} has several columns called {printable(twice)!r}; give each a name of its own"
        )
    if request.text is None and (request.path is not None or not text.name_texts(names)):
        return read_frame(frame, request)
    columns = {name: Column.of(frame[column]) for name, column in zip(names, frame.columns, strict=True)}
    return text.read_text_columns(columns, request, f"the {type(frame).__name__}")


def _find_path(name: str, request: SourceRequest) -> Found:
    if not name.strip():
        raise DataError("no source is named; such as: %tl_data digits")
    if is_address(name):
        files, said = fetched(name, SHARDS, request.progress)
        found = _of_files(files, request)
        found.notes.append(said)
        return found
    path = path_of(name, DataError)
    if path.is_dir():
        if text.tables_in(path) and (request.text is not None or not text.holds_pictures(path)):
            return text.read_text_tables(path, request)
        if text.holds_texts(path, request):
            return text.read_text_folder(path, request)
        files = text.files_in(path, SHARDS)
        if files and not text.holds_pictures(path):
            return _of_files(files, request)
        return read_folder(path, request)
    if path.is_file():
        if path.suffix.lower() in SHARDS:
            return _of_files([path], request)
        what = f"unpack it first: !python -m zipfile -e {path.name!r} photos" if path.suffix.lower() == ".zip" else (
            "unpack it first" if path.suffix.lower() in (".gz", ".tgz", ".7z")
            else "a folder of class folders or a CSV of path and label is"
        )  # fmt: skip
        raise DataError(f"{printable(name)!r} cannot be read as data; {what}")
    if files := _matching(path):
        return _of_files(files, request)
    hint = did_you_mean(name, SOURCES) or _beside(path)
    raise DataError(
        f"no data {printable(name)!r}{hint}; there are {', '.join(SOURCES)}, torchvision/NAME, a folder, "
        "a CSV or $name"
    )


def _matching(path: Path) -> list[Path]:
    """The files that a pattern such as ``shards/*.csv`` means, in the order of their names; none where it is none."""
    if not any(sign in str(path) for sign in "*?["):
        return []
    found = sorted(Path(name) for name in glob(str(path), recursive=True))
    return [file for file in found if file.suffix.lower() in SHARDS and file.is_file()]


def _of_files(files: list[Path], request: SourceRequest) -> Found:
    """Texts, pictures or sounds of one table or tar, or of several that are read as one."""
    kinds = sorted({file.suffix.lower() for file in files})
    if len(kinds) > 1:
        raise DataError(
            f"these are files of several kinds ({', '.join(kinds)}); name those that belong together, such as "
            f"{printable(str(files[0].with_name('*' + kinds[0])))!r}"
        )
    if kinds == [TAR]:
        return read_tars(files, request)
    if text.is_text_table(files[0], request):
        return text.read_text_table(files, request)
    return read_table(files, request)


def _beside(path: Path) -> str:
    """The nearest name in the folder where the path should have been."""
    try:
        names = [printable(name) for name in os.listdir(path.parent) if not is_hidden(name)]
    except OSError:
        return ""
    near = nearest(printable(path.name), names)  # the names alone: a long folder would make all of them near
    return f"; did you mean {printable(str(path.with_name(near)))!r}?" if near else ""


def _name(source: object) -> str:
    if isinstance(source, str | os.PathLike):
        return printable(os.fspath(source))
    if isinstance(source, tuple | list):
        return f"({', '.join(type(part).__name__ for part in source)})"
    return type(source).__name__


def _fits(found: Found, per_class: int | None, balance: str | None) -> None:
    """Refuse what cannot be learned, and options that mean nothing for it."""
    if found.kind == CLASSES and len(found.classes) < 2:
        raise DataError(f"every sample is of the class {found.classes[0]!r}; two classes are needed")
    if found.kind != CLASSES and per_class is not None:
        raise DataError("--per-class needs one class a sample")
    if found.kind == REGRESSION and balance is not None:
        raise DataError("--balance needs classes; these targets are measured values")
    if found.kind == LABELS and balance == "samples":
        raise DataError("--balance samples needs one class a sample; --balance weights works for labels")


def _parts(found: Found, request: SourceRequest) -> Parts:
    if found.valid is not None:
        found.notes += leaks(found.train, found.valid)
        whole = found.own is not None and not isinstance(found.everything, Several)
        own = Places.of(found.own) if whole and found.own is not None else None
        return Parts(found.train, found.valid, places=own)
    digests = found.train.digests()
    rows = split(found.train.targets, request.valid, request.seed, digests=digests, classes=found.classes)
    train, held = (found.train.subset(part) for part in rows)
    # Where nothing could be kept together, it is looked for afterwards.
    found.notes += leaks(train, held) if digests is None else repeats(found.train, digests)
    return Parts(train, held, places=Places(*rows))


def _missing(found: Found, train: RawDataset, held: RawDataset, request: SourceRequest) -> list[str]:
    """What to say where the parts are not what was asked for: another share, or classes that one of them lacks."""
    notes = []
    total = len(train) + len(held)
    share = len(held) / total
    if (
        found.valid is None
        and request.per_class is None
        and abs(share - request.valid) > max(0.05, 1 / total)
    ):
        if len(held) > request.valid * total:
            why = (
                f"one sample of each of {len(found.classes)} classes is needed"
                if found.kind == CLASSES
                else "equal samples stay together"
            )
        else:
            why = "equal samples stay together"
        notes.append(f"{share:.0%} of the samples validate, not {request.valid:.0%}: {why}")
    if found.kind == REGRESSION:
        return notes
    counts = [_per_output(part, len(found.classes)) for part in (train, held)]
    lack = [tuple(found.classes[i] for i in (count == 0).nonzero().flatten().tolist()) for count in counts]
    what = "class" if found.kind == CLASSES else "label"
    if lack[0]:
        notes.append(f"no training sample has the {what} {few(lack[0], 4)}: it cannot be learned")
    alone = tuple(name for name in lack[1] if name not in lack[0])
    if alone:
        cure = "add samples" if found.valid is not None else "a larger --valid, or more samples, measures it"
        notes.append(
            f"no validation sample has the {what} {few(alone, 4)}: how well it is learned is not measured; {cure}"
        )
    if request.per_class is not None and (
        few_of := [i for i in (counts[0] < request.per_class).nonzero().flatten().tolist() if counts[0][i]]
    ):
        shown = few(tuple(f"{found.classes[i]} {int(counts[0][i])}" for i in few_of), 4)
        notes.append(f"fewer than --per-class {request.per_class} training samples: {shown}")
    return notes


def _per_output(part: RawDataset, outputs: int) -> Tensor:
    """How many samples have each class or label."""
    if part.targets.is_floating_point():
        return part.targets.sum(0)
    return torch.bincount(part.targets, minlength=outputs)


def _task(found: Found, train: RawDataset, held: RawDataset, balance: str | None) -> Objective:
    if found.kind == REGRESSION:
        task = Regression.of(train.targets)
        for part in (train, held):
            part.targets = task.standardised(part.targets)
        return task
    weighted = balance == "weights"
    if found.kind == LABELS:
        return MultiLabel(weights=label_weights(train.targets) if weighted else None)
    return Classification(weights=class_weights(train.targets, len(found.classes)) if weighted else None)


def usual_batch(images: int) -> int:
    """Samples in a step for so many training images: few images need small batches, or there are hardly any steps."""
    if images <= 400:
        return 16
    return 32 if images <= 1000 else 64
