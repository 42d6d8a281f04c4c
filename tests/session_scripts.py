"""Running a written script in a process that cannot import tlnb."""

from __future__ import annotations

import sys
from pathlib import Path

import forked


def run_without_tlnb(script: Path) -> str:
    """What a script prints in a process of its own where ``import tlnb`` fails."""
    done = forked.run([sys.executable, str(script.resolve())], tlnb=False, cwd=script.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
