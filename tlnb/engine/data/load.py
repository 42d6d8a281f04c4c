"""Naming data: find what the user means, read it, split it, and keep equal samples apart."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tlnb.engine.arguments import number_between, path_of, whole_number
from tlnb.engine.data.augment import check_augment
from tlnb.engine.data.collections import Collection
from tlnb.engine.data.dataset import Data
from tlnb.engine.data.leaks import leaks, repeats
from tlnb.engine.data.sources import hugging_face, objects, torchvision_sets
from tlnb.engine.data.sources.builtin import BUILTIN
from tlnb.engine.data.sources.folder import read_folder
from tlnb.engine.data.sources.found import CLASSES, LABELS, REGRESSION, TARGETS, Ask, Found
from tlnb.engine.data.sources.table import read_table
from tlnb.engine.data.splits import first_per_class, split
from tlnb.engine.printable import printable
from tlnb.engine.training.tasks import Classification, MultiLabel, Regression, Task
from tlnb.errors import DataError, did_you_mean

__all__ = ["BALANCES", "SOURCES", "Data", "load_data"]

BALANCES = ("weights", "samples")
SOURCES = tuple(BUILTIN)
BATCH = 64


def load_data(
    source: object,
    *,
    valid: float = 0.2,
    per_class: int | None = None,
    batch: int | None = None,
    seed: int = 0,
    size: int | None = None,
    augment: object = "none",
    balance: str | None = None,
    target: str | None = None,
    strict: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Data:
    """Read a data set and split it.

    Args:
        source: ``digits``, ``glyphs``, a folder of class folders, a CSV or TSV of path and label,
            ``torchvision/NAME``, a pair of tensors or arrays (X, y), a Dataset, a DataLoader, a Hugging Face
            data set, or a pair (train, valid) of such.
        valid: share of the samples to validate on, where the source has no split of its own.
        per_class: at most this many training samples of each class.
        batch: samples a step; None for what a DataLoader says, or by the amount of data.
        seed: of the split and of the choice that ``per_class`` makes.
        size: side of the training images in pixels; None for the network's own.
        augment: preset or v2 transform for the training pictures.
        balance: ``weights`` of the classes in the loss, ``samples`` of small classes repeated, or None.
        target: ``classes``, ``labels`` or ``regression``; None to be told by how the targets look.
        strict: a file that cannot be used is an error, not left out.
        progress: told how many of how many files are looked at.

    Raises:
        DataError: an unknown source, an impossible split or option, or, when strict, a bad file.
    """
    _check_options(valid, per_class, batch, size, augment, balance, target, seed)
    found = _find(source, Ask(seed, target, progress))
    if strict and found.problems:
        path, reason = found.problems[0]
        raise DataError(f"--strict, and {len(found.problems)} files cannot be used; {path}: {reason}")
    _fits(found, per_class, balance)
    train, held = _parts(found, valid, seed)
    if per_class is not None:
        kept = first_per_class(train.targets, torch.arange(len(train)), per_class, seed)
        train = train.subset(kept)
    if len(train) < 2 or not len(held):
        raise DataError(f"{len(train)} training and {len(held)} validation samples are too few")
    task = _task(found, train, held, balance)
    asked = {
        "source": source, "valid": valid, "size": size, "batch": batch, "per_class": per_class,
        "augment": augment, "balance": balance, "target": target, "strict": strict, "seed": seed,
    }  # fmt: skip
    batch = batch or found.batch or usual_batch(len(train.targets))
    return Data(
        _name(source), found.classes, train, held, batch, seed, size, found.notes, task, augment, balance,
        found.problems, _plain(asked),
    )  # fmt: skip


def _plain(asked: dict[str, Any]) -> dict[str, Any] | None:
    """The arguments as plain values, a path as one that holds from any folder; None for objects."""
    source = asked["source"]
    if not isinstance(source, str | os.PathLike) or not isinstance(asked["augment"], str):
        return None
    path = path_of(source, DataError)
    known = isinstance(source, str) and (source in BUILTIN or source.startswith("torchvision/"))
    return asked | {"source": os.fspath(source) if known else str(path.absolute())}


def _check_options(
    valid: float, per_class: int | None, batch: int | None, size: int | None, augment: object,
    balance: str | None, target: str | None, seed: int,
) -> None:  # fmt: skip
    number_between(valid, "--valid", 0, 1, DataError)
    whole_number(seed, "--seed", 0, DataError)
    for option, number in (("--per-class", per_class), ("--batch", batch), ("--size", size)):
        if number is not None:
            whole_number(number, option, 1, DataError)
    for option, word, words in (("--balance", balance, BALANCES), ("--target", target, TARGETS)):
        if word is not None and word not in words:
            raise DataError(f"{option} takes {', '.join(words)}, not {word!r}{did_you_mean(word, words)}")
    check_augment(augment)


def _find(source: object, ask: Ask) -> Found:
    if isinstance(source, str) and source in BUILTIN:
        return BUILTIN[source](ask)
    if isinstance(source, str) and source.startswith("torchvision/"):
        return torchvision_sets.read(source, ask)
    if isinstance(source, str | os.PathLike):
        return _find_path(os.fspath(source), ask)
    if hugging_face.is_one(source):
        return hugging_face.read(source, ask)
    return objects.read(source, ask)


def _find_path(text: str, ask: Ask) -> Found:
    if not text.strip():
        raise DataError("no source is named; such as: %tl_data digits")
    path = path_of(text, DataError)
    if path.is_dir():
        return read_folder(path, ask)
    if path.is_file():
        if path.suffix.lower() in (".csv", ".tsv"):
            return read_table(path, ask)
        what = "unpack it first" if path.suffix.lower() in (".zip", ".gz", ".tgz", ".tar", ".7z") else (
            "a folder of class folders or a CSV of path and label is"
        )  # fmt: skip
        raise DataError(f"{printable(text)!r} cannot be read as data; {what}")
    hint = did_you_mean(text, SOURCES) or _beside(path)
    raise DataError(
        f"no data {printable(text)!r}{hint}; there are {', '.join(SOURCES)}, torchvision/NAME, a folder, "
        "a CSV or $name"
    )


def _beside(path: Path) -> str:
    """The nearest name in the folder where the path should have been."""
    try:
        names = {printable(str(path.with_name(name))): None for name in os.listdir(path.parent)}
    except OSError:
        return ""
    return did_you_mean(printable(str(path)), names)


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


def _parts(found: Found, valid: float, seed: int) -> tuple[Collection, Collection]:
    if found.valid is not None:
        found.notes += leaks(found.train, found.valid)
        return found.train, found.valid
    digests = found.train.digests()
    rows = split(found.train.targets, valid, seed, digests=digests, classes=found.classes)
    train, held = (found.train.subset(part) for part in rows)
    # Where nothing could be kept together, it is looked for afterwards.
    found.notes += leaks(train, held) if digests is None else repeats(found.train, digests)
    return train, held


def _task(found: Found, train: Collection, held: Collection, balance: str | None) -> Task:
    if found.kind == REGRESSION:
        task = Regression.of(train.targets)
        for part in (train, held):
            part.targets = task.standardised(part.targets)
        return task
    weighted = balance == "weights"
    if found.kind == LABELS:
        return MultiLabel(weights=_label_weights(train.targets) if weighted else None)
    return Classification(weights=_class_weights(train.targets, len(found.classes)) if weighted else None)


def _class_weights(targets: Tensor, classes: int) -> tuple[float, ...]:
    """Inverse to the frequency of each class; the mean over the samples is 1."""
    counts = torch.bincount(targets, minlength=classes).clamp(min=1)
    return tuple((len(targets) / (classes * counts)).tolist())


def _label_weights(targets: Tensor) -> tuple[float, ...]:
    """How many samples lack a label for each that has it."""
    have = targets.sum(0).clamp(min=1)
    return tuple(((len(targets) - have) / have).clamp(min=1e-3).tolist())


def usual_batch(images: int) -> int:
    """Samples in a step for so many training images: few images need small batches, or there are hardly any steps."""
    if images <= 400:
        return 16
    return 32 if images <= 1000 else 64
