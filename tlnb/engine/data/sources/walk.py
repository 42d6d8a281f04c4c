"""The files below a folder, without loops and without leaving it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tlnb.engine.data.images.check import Problem
from tlnb.engine.printable import printable

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
        problems.append(Problem(_shown(folder, root), f"cannot be opened: {error.strerror}"))
        return
    for entry in listed:
        if is_hidden(entry.name):
            continue
        if entry.is_symlink() and (reason := link_problem(entry.path, home)):
            problems.append(Problem(_shown(entry.path, root), reason))
        elif entry.is_dir():
            real = os.path.realpath(entry.path)
            if real in seen:
                problems.append(Problem(_shown(entry.path, root), "a link to a folder that is read already"))
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


def _shown(path: str, root: str) -> str:
    return printable(os.path.relpath(path, root))
