"""Where tlnb keeps files between kernels."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """The folder: what ``TLNB_HOME`` says, else ``.tlnb`` in the working directory. It may not exist yet."""
    named = os.environ.get("TLNB_HOME")
    return Path(named).expanduser() if named else Path.cwd() / ".tlnb"
