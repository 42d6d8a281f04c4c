"""Files of an export or a script: they appear together or not at all, over earlier ones of their kind alone."""

from __future__ import annotations

import importlib.machinery
import sys
from collections.abc import Iterable
from pathlib import Path

from tlnb.display.tables import printable
from tlnb.errors import ExportError

CARD = "transferred with tlnb."
SCRIPT = "what a tlnb session did"
_RUN_UNASKED = (
    "sitecustomize",
    "usercustomize",
    "__init__",
    "__main__",
)  # Python runs these by their name alone
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
    name = path.stem
    try:
        here = Path.cwd()
    except FileNotFoundError:
        raise ExportError("the working folder is gone; go to another, such as: %cd ~") from None
    elsewhere = [place for place in sys.path if place and Path(place).resolve() != here]
    known = name in sys.builtin_module_names or name in sys.stdlib_module_names or name in _RUN_UNASKED
    if known or (
        name.isidentifier() and importlib.machinery.PathFinder.find_spec(name, elsewhere) is not None
    ):
        raise ExportError(
            f"{printable(path.name)} would hide the module {printable(name)} from every Python that is started in its "
            f"folder; take another name, such as my_{printable(name)}"
        )


def _says(path: Path, line: str) -> bool:
    try:
        with path.open(encoding="utf-8") as file:
            return line in file.read(_HEAD)
    except (OSError, UnicodeDecodeError):
        return False
