"""What is written over: files of an earlier export or script, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tlnb.engine.printable import printable
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


def _says(path: Path, line: str) -> bool:
    try:
        with path.open(encoding="utf-8") as file:
            return line in file.read(_HEAD)
    except (OSError, UnicodeDecodeError):
        return False
