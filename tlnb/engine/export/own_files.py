"""Files of an export or a script: they appear together or not at all, over earlier ones of their kind alone."""

from __future__ import annotations

import importlib.machinery
import os
import secrets
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from tlnb.engine.printable import printable
from tlnb.engine.saving.atomic import TEMPORARY
from tlnb.errors import ExportError

CARD = "transferred with tlnb."
SCRIPT = "what a tlnb session did"
_HEAD = 4000  # characters in which such a line stands


def check(files: Iterable[Path], told_by: Path, line: str) -> None:
    """See that files may be written.

    Args:
        files: that will be written.
        told_by: the one that says whose they are.
        line: by which it says so.

    Raises:
        ExportError: one of them is there and was not written by tlnb.
    """
    there = [path for path in files if path.exists()]
    if there and not _says(told_by, line):
        raise ExportError(
            f"{printable(str(there[0]))} is there and was not written by such a command; take another name"
        )


def check_module_name(path: Path) -> None:
    """See that a Python file would not hide a module: Python looks for modules in the folder of a notebook first.

    Args:
        path: ends in ``.py``.

    Raises:
        ExportError: it has the name of a module.
    """
    name, here = path.stem, Path.cwd()
    elsewhere = [place for place in sys.path if place and Path(place).resolve() != here]
    known = name in sys.builtin_module_names or name in sys.stdlib_module_names
    if known or (
        name.isidentifier() and importlib.machinery.PathFinder.find_spec(name, elsewhere) is not None
    ):
        raise ExportError(
            f"{printable(path.name)} would hide the module {printable(name)} from every Python that is started in its "
            f"folder; take another name, such as my_{printable(name)}"
        )


@contextmanager
def together(target: Path, endings: Iterable[str]) -> Iterator[Path]:
    """A place to write ``target`` and the files of other endings beside it; when the block ends, all take their names.

    Where anything goes wrong, what was written is deleted, and what stood there before still does.

    Args:
        target: the main file.
        endings: of the files beside it, that which says whose they are first.

    Yields:
        What stands for ``target`` meanwhile, in a folder of its own.

    Raises:
        ExportError: they cannot be written.
    """
    folder = target.with_name(f".{target.name[:80]}.{secrets.token_hex(4)}{TEMPORARY}")
    try:
        folder.mkdir(parents=True)
        yield folder / target.name
        for ending in (*endings, target.suffix):
            draft = (folder / target.name).with_suffix(ending)
            if draft.exists():
                os.replace(draft, target.with_suffix(ending))
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0][:160]
        raise ExportError(f"cannot write {printable(str(target))}: {reason}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _says(path: Path, line: str) -> bool:
    try:
        with path.open(encoding="utf-8") as file:
            return line in file.read(_HEAD)
    except (OSError, UnicodeDecodeError):
        return False
