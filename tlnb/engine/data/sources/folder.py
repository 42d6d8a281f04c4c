"""A folder of class folders, with or without a split."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from tlnb.engine.data.collections import ReadPictures
from tlnb.engine.data.images.check import Problem, check_files
from tlnb.engine.data.images.headers import SUFFIXES
from tlnb.engine.data.readers import FileReader
from tlnb.engine.data.sources.files import known_digests
from tlnb.engine.data.sources.found import CLASSES, Ask, Found
from tlnb.engine.data.sources.walk import files_below, is_hidden
from tlnb.engine.printable import few, printable
from tlnb.errors import DataError

TRAIN, VALID, TEST = ("train", "training"), ("val", "valid", "validation"), ("test", "testing")


def read_folder(root: Path, ask: Ask) -> Found:
    """Pictures in a folder for each class, or in such folders below ``train`` and ``val``/``valid``/``test``.

    Raises:
        DataError: no class folders, or no usable picture in them.
    """
    if ask.target not in (None, CLASSES):
        raise DataError(f"class folders hold one class a picture; --target {ask.target} needs a CSV")
    problems: list[Problem] = []
    parts, notes = _split_folders(root)
    listed = [
        (name, label, part)
        for part, top in enumerate(parts)
        for name, label in _pictures(top, root, problems)
    ]
    if not listed:
        raise DataError(_nothing(root, problems))
    names = [name for name, _, _ in listed]
    verdicts = check_files([root / name for name in names], ask.progress)
    problems += [
        Problem(printable(name), verdict.reason)
        for name, verdict in zip(names, verdicts, strict=True)
        if verdict.reason
    ]
    good = [i for i, verdict in enumerate(verdicts) if not verdict.reason]
    classes = _classes([listed[i] for i in good], {label for _, label, _ in listed}, notes, root, problems)
    notes += remarks(verdict.remark for verdict in verdicts)
    place = {label: number for number, label in enumerate(classes)}
    good = [i for i in good if listed[i][1] in place]
    reader = FileReader(root, [names[i] for i in good])
    targets = torch.tensor([place[listed[i][1]] for i in good])
    everything = ReadPictures(reader, targets, known=known_digests(reader, [verdicts[i] for i in good]))
    shown = tuple(map(printable, classes))
    if len(parts) == 1:
        return Found(everything, None, shown, problems=problems, notes=notes)
    part = torch.tensor([listed[i][2] for i in good])
    train, valid = (everything.subset(torch.nonzero(part == p).flatten()) for p in (0, 1))
    return Found(train, valid, shown, problems=problems, notes=notes)


def remarks(found: object) -> list[str]:
    """One line for each remark, with the number of files that it was made on."""
    counted = Counter(remark for remark in found if remark)  # type: ignore[attr-defined]
    return [f"{count} file{'s' if count > 1 else ''} with {remark}" for remark, count in counted.items()]


def _split_folders(root: Path) -> tuple[list[Path], list[str]]:
    """The folders of the parts: one, or training and validation."""
    below = {entry.name.lower(): entry for entry in sorted(root.iterdir()) if entry.is_dir()}
    train, valid, test = (
        next((below[n] for n in names if n in below), None) for names in (TRAIN, VALID, TEST)
    )
    if train is None:
        return [root], []
    others = [name for name in below if not is_hidden(name) and name not in (*TRAIN, *VALID, *TEST)]
    notes = [f"beside {train.name}, not read: {few(tuple(map(printable, others)))}"] if others else []
    if valid is None and test is None:
        return [train], notes
    if valid is not None and test is not None:
        notes.append(f"{test.name} is left aside for the end; {valid.name} is measured on")
    elif valid is None:
        notes.append("measured on test, as there is no val folder")
    return [train, valid or test], notes  # type: ignore[list-item]


def _pictures(top: Path, root: Path, problems: list[Problem]) -> list[tuple[str, str]]:
    """(path below root, class) of what may be a picture in the class folders of one part."""
    base = len(top.relative_to(root).parts)
    found = []
    for name in files_below(top, root, problems):
        below = Path(name).parts[base:]
        suffix = Path(name).suffix.lower()
        if len(below) < 2:
            if suffix in SUFFIXES:
                problems.append(Problem(printable(name), "in no class folder"))
        elif suffix in SUFFIXES or not suffix:
            found.append((name, below[0]))
        else:
            problems.append(Problem(printable(name), f"not a picture by its name ({printable(suffix)})"))
    return found


def _classes(
    good: Sequence[tuple[str, str, int]], all_labels: set[str], notes: list[str], root: Path,
    problems: list[Problem],
) -> list[str]:  # fmt: skip
    """The classes that can be learned: those with a usable training picture."""
    if not good:
        raise DataError(_nothing(root, problems))
    classes = sorted({label for _, label, part in good if part == 0})
    left_out = tuple(printable(label) for label in sorted(all_labels - set(classes)))
    if left_out:
        notes.append(f"left out, as there is no usable training picture: {few(left_out)}")
    if len(classes) < 2:
        one = f"only {printable(classes[0])!r} has" if classes else "none has"
        raise DataError(f"two classes or more are needed in {_shown(root)}; {one} usable training pictures")
    return classes


def _nothing(root: Path, problems: list[Problem]) -> str:
    loose = sum(problem.reason == "in no class folder" for problem in problems)
    if loose:
        return f"{_shown(root)} holds {loose} pictures but no class folders; put those of each class into one"
    if problems:
        first = f"{problems[0].path}: {problems[0].reason}"
        return f"no usable picture in {_shown(root)}; the first of {len(problems)}: {first}"
    return f"no pictures in {_shown(root)}; it should hold a folder of pictures for each class"


def _shown(root: Path) -> str:
    return repr(printable(os.fspath(root)))
