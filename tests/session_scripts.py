"""Running a written script in a process that cannot import tlnb."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

WITHOUT_TLNB = """
import runpy, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tlnb":
            raise ImportError("tlnb is not there")
sys.meta_path.insert(0, Blocked())
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def run_without_tlnb(script: Path) -> str:
    """What a script prints in a fresh process where ``import tlnb`` fails."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TLNB, str(script)],
        cwd=script.parent, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
