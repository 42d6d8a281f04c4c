"""Where tlnb keeps files between kernels."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path


def home() -> Path:
    """The folder: what ``TLNB_HOME`` says, else ``.tlnb`` in the working directory. It may not exist yet."""
    return named_home() or Path.cwd() / ".tlnb"


def named_home() -> Path | None:
    """The folder that ``TLNB_HOME`` names; None where it names none.

    A relative one is meant from the working directory in which it was first asked for, and stays there when that
    changes.
    """
    named = os.environ.get("TLNB_HOME")
    return _absolute(named) if named else None


@cache
def _absolute(named: str) -> Path:
    try:
        return Path(named).expanduser().absolute()
    except RuntimeError:  # no such user
        return Path(named).absolute()
