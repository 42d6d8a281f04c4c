"""A folder of class folders, with or without a split, walked without loops and without leaving it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from tlnb.display.tables import few, printable
from tlnb.engine.data.images.check import Problem
from tlnb.engine.data.partition import TEST as TESTS
from tlnb.engine.data.partition import TRAIN as TRAINS
from tlnb.engine.data.partition import VALID as VALIDATES
from tlnb.engine.data.request import CLASSES, COLUMNS, NO_SPLIT, OWN, SourceRequest
from tlnb.engine.data.sources.found import TEST, TRAIN, VALID, Found
from tlnb.engine.data.sources.labels import alike, composed
from tlnb.engine.data.sources.media import Media, media_of
from tlnb.errors import DataError

# What systems and tools leave behind in every folder; not worth a word.
CLUTTER = {"thumbs.db", "desktop.ini", "__macosx", "__pycache__"}


def is_hidden(name: str) -> bool:
    """Whether a name is hidden by custom (``.DS_Store``), or left behind by a tool."""
    return name.startswith((".", "~$")) or name.lower() in CLUTTER


def files_below(folder: Path, root: Path, problems: list[Problem], *, links: bool = False) -> Iterator[str]:
    """Paths of the files in a folder and its folders, relative to ``root``, in a settled order.

    Args:
        folder: where to look.
        root: what may not be left: a link that leads out of it is listed and not followed.
        problems: gets what was left out.
        links: follow links that lead out.
    """
    home = "" if links else os.path.realpath(root)
    yield from _walk(os.fspath(folder), os.fspath(root), home, {os.path.realpath(folder)}, problems)


def _walk(folder: str, root: str, home: str, seen: set[str], problems: list[Problem]) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        problems.append(Problem(_shown_path(folder, root), f"cannot be opened: {error.strerror}"))
        return
    for entry in listed:
        if is_hidden(entry.name):
            continue
        if entry.is_symlink() and (reason := link_problem(entry.path, home)):
            problems.append(Problem(_shown_path(entry.path, root), reason))
        elif entry.is_dir():
            real = os.path.realpath(entry.path)
            if real in seen:
                problems.append(
                    Problem(_shown_path(entry.path, root), "a link to a folder that is read already")
                )
                continue
            seen.add(real)
            yield from _walk(entry.path, root, home, seen, problems)
        else:
            yield os.path.relpath(entry.path, root) if ".." in entry.path else entry.path[len(root) + 1 :]


def link_problem(path: str, home: str) -> str:
    """Why a link is not followed; empty where it may be. ``home`` is what it may not leave; empty for anything."""
    real = os.path.realpath(path)
    if not os.path.exists(real):
        return "a link to nothing, or in a circle"
    return (
        "" if not home or is_below(real, home) else "a link that leads out of the folder; --links follows it"
    )


def is_below(real: str, home: str) -> bool:
    """Whether a path with links resolved lies in a folder with links resolved."""
    return real == home or real.startswith(home.rstrip(os.sep) + os.sep)


def _shown_path(path: str, root: str) -> str:
    return printable(os.path.relpath(path, root))


def read_folder(root: Path, request: SourceRequest) -> Found:
    """Pictures or sounds in a folder for each class, or in such folders below ``train`` and ``val``/``valid``/``test``.

    Raises:
        DataError: no class folders, or no usable file in them.
    """
    media = media_of(files_below(root, root, [], links=request.links))
    if request.target not in (None, CLASSES):
        raise DataError(f"class folders hold one class a {media.one}; --target {request.target} needs a CSV")
    request.refuse((name for name in COLUMNS if name != "split"), "class folders have no columns")
    if request.split not in (None, NO_SPLIT):
        raise DataError(
            "--split of a folder is none: then all of its folders are classes; parts are called train and val"
        )
    problems: list[Problem] = []
    root, inner = _within(root, media)
    parts, roles, notes = ([root], [TRAINS], []) if request.split else _split_folders(root, request, media)
    notes += inner
    listed = [
        (name, label, part)
        for part, top in enumerate(parts)
        for name, label in _files(top, root, problems, media, links=request.links)
    ]
    if not listed:
        raise DataError(_nothing(root, problems, media))
    listed = _same_names(listed, notes)
    notes += alike({label for _, label, _ in listed})
    names = [name for name, _, _ in listed]
    verdicts = media.check([root / name for name in names], request)
    problems += [
        Problem(printable(name), verdict.reason)
        for name, verdict in zip(names, verdicts, strict=True)
        if verdict.reason
    ]
    good = [i for i, verdict in enumerate(verdicts) if not verdict.reason]
    labels = {label for _, label, _ in listed} | _class_folders(parts[0])
    classes = _classes([listed[i] for i in good], labels, notes, root, problems, media)
    place = {label: number for number, label in enumerate(classes)}
    good = [i for i in good if listed[i][1] in place]
    targets = torch.tensor([place[listed[i][1]] for i in good])
    made = media.collect(root, [names[i] for i in good], [verdicts[i] for i in good], targets, None, request)
    everything = made.samples
    notes += [*made.notes, *remarks(verdict.remark for verdict in verdicts)]
    shown = tuple(map(printable, classes))
    paths = [names[i].replace(os.sep, "/") for i in good]
    if len(parts) == 1:
        return Found(
            everything,
            None,
            shown,
            problems=problems,
            notes=notes,
            scale=made.scale,
            sound=made.sound,
            paths=paths,
        )
    own = np.array([roles[listed[i][2]] for i in good])
    train, valid = (
        everything.subset(torch.from_numpy(np.flatnonzero(own == p))) for p in (TRAINS, VALIDATES)
    )
    return Found(
        train, valid if len(valid) else None, shown, problems=problems, notes=notes, scale=made.scale,
        sound=made.sound, everything=everything, own=own, paths=paths,
    )  # fmt: skip


def remarks(found: object) -> list[str]:
    """One line for each remark, with the number of files that it was made on."""
    counted = Counter(remark for remark in found if remark)  # type: ignore[attr-defined]
    return [f"{count} file{'s' if count > 1 else ''} with {remark}" for remark, count in counted.items()]


def _within(root: Path, media: Media) -> tuple[Path, list[str]]:
    """The folder that the class folders stand in, and what to say: a packed folder is often unpacked into one more.

    A folder that holds a single one is left for it, where that holds several folders with files.
    """
    found = root
    while True:
        entries = [entry for entry in sorted(found.iterdir()) if not is_hidden(entry.name)]
        folders = [entry for entry in entries if entry.is_dir()]
        files = [entry for entry in entries if entry.suffix.lower() in media.suffixes and not entry.is_dir()]
        if files or len(folders) != 1 or folders[0].is_symlink():
            break
        found = folders[0]
    if found == root or sum(_holds_files(found / name, media) for name in _class_folders(found)) < 2:
        return root, []
    return found, [f"read from {printable(os.path.relpath(found, root))}, the only folder in it"]


def _split_folders(
    root: Path, request: SourceRequest, media: Media
) -> tuple[list[Path], list[int], list[str]]:
    """The folders of the parts: one, or training and validation, and test where it is asked for; what each is for.

    A class may be called train too. So a folder of that name is a part only where it holds class folders, and
    validation or test stands beside it, or no other class does.
    """
    below = {entry.name.lower(): entry for entry in sorted(root.iterdir()) if entry.is_dir()}
    train, valid, test = (
        next((below[n] for n in names if n in below), None) for names in (TRAIN, VALID, TEST)
    )
    if train is None:
        return [root], [TRAINS], []
    named = {train, *(part for part in (valid, test) if part is not None)}
    others = [e.name for n, e in below.items() if not is_hidden(n) and e not in named]
    held = [part for part in (valid, test) if part is not None and _class_folders(part)]
    if any(_holds_files(root / name, media) for name in others) and not (_class_folders(train) and held):
        return (
            [root],
            [TRAINS],
            [
                f"{printable(train.name)} is taken as a class, as it holds no class folders beside validation ones"
            ],
        )
    notes = [f"beside {train.name}, not read: {few(tuple(map(printable, others)))}"] if others else []
    if request.test == OWN and test in held:
        roles = {train: TRAINS, test: TESTS} | ({valid: VALIDATES} if valid in held else {})
        return list(roles), list(roles.values()), notes
    if valid in held and test is not None:
        notes.append(f"{test.name} is left aside for the end; {valid.name} is measured on")
    elif valid is None and test in held:
        notes.append("measured on test, as there is no val folder")
    elif valid is not None and valid not in held:
        instead = f"; measured on {printable(held[0].name)}" if held else ": not used"
        notes.append(f"{printable(valid.name)} holds no class folders{instead}")
    elif test is not None and test not in held:
        notes.append(f"{printable(test.name)} holds no class folders: not used")
    return [train, *held[:1]], [TRAINS, VALIDATES], notes


def _class_folders(folder: Path) -> set[str]:
    """Names of the classes that a part has folders for, with or without pictures."""
    return {
        composed(entry.name) for entry in folder.iterdir() if entry.is_dir() and not is_hidden(entry.name)
    }


def _holds_files(folder: Path, media: Media) -> bool:
    return any(Path(name).suffix.lower() in media.suffixes for name in files_below(folder, folder, []))


def _same_names(listed: list[tuple[str, str, int]], notes: list[str]) -> list[tuple[str, str, int]]:
    """Validation classes under the names that training has for them, where only large and small letters differ."""
    ours = {label for _, label, part in listed if part == 0}
    folded: dict[str, list[str]] = {}
    for label in ours:
        folded.setdefault(label.casefold(), []).append(label)
    other = {
        label: folded[label.casefold()][0]
        for _, label, part in listed
        if part and label not in ours and len(folded.get(label.casefold(), ())) == 1
    }
    notes += [
        f"the validation folder {printable(label)} is taken for {printable(same)}"
        for label, same in other.items()
    ]
    return [(name, other.get(label, label) if part else label, part) for name, label, part in listed]


def _files(
    top: Path, root: Path, problems: list[Problem], media: Media, *, links: bool
) -> list[tuple[str, str]]:
    """(path below root, class) of what may be a sample in the class folders of one part."""
    base = len(top.relative_to(root).parts)
    found = []
    for name in files_below(top, root, problems, links=links):
        below = Path(name).parts[base:]
        suffix = Path(name).suffix.lower()
        if len(below) < 2:
            if suffix in media.suffixes:
                problems.append(Problem(printable(name), "in no class folder"))
        elif suffix in media.suffixes or not suffix:
            found.append((name, composed(below[0])))
        else:
            problems.append(Problem(printable(name), f"not a {media.one} by its name ({printable(suffix)})"))
    return found


def _classes(
    good: Sequence[tuple[str, str, int]], all_labels: set[str], notes: list[str], root: Path,
    problems: list[Problem], media: Media,
) -> list[str]:  # fmt: skip
    """The classes that can be learned: those with a usable training file."""
    if not good:
        raise DataError(_nothing(root, problems, media))
    classes = sorted({label for _, label, part in good if part == 0})
    left_out = tuple(printable(label) for label in sorted(all_labels - set(classes)))
    if left_out:
        notes.append(f"left out, as there is no usable training {media.one}: {few(left_out)}")
    if len(classes) < 2:
        one = f"only {printable(classes[0])!r} has" if classes else "none has"
        raise DataError(
            f"two classes or more are needed in {_shown(root)}; {one} usable training {media.one}s"
        )
    return classes


def _nothing(root: Path, problems: list[Problem], media: Media) -> str:
    loose = sum(problem.reason == "in no class folder" for problem in problems)
    if loose:
        return f"{_shown(root)} holds {loose} {media.one}s but no class folders; put those of each class into one"
    if problems:
        first = f"{problems[0].path}: {problems[0].reason}"
        return f"no usable {media.one} in {_shown(root)}; the first of {len(problems)}: {first}"
    return f"no {media.one}s in {_shown(root)}; it should hold a folder of {media.one}s for each class"


def _shown(root: Path) -> str:
    return repr(printable(os.fspath(root)))
