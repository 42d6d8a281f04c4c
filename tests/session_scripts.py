"""Running a written script in a process that cannot import tlnb."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

WITHOUT_TLNB = """
import json, os, runpy, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tlnb":
            raise ImportError("tlnb is not there")
sys.meta_path.insert(0, Blocked())
import numpy, PIL.Image, safetensors.torch, torch, torchvision
for line in sys.stdin:
    script, shown = json.loads(line)
    child = os.fork()
    if child == 0:
        file = os.open(shown, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1), os.dup2(file, 2)
        os.chdir(os.path.dirname(script))
        runpy.run_path(script, run_name="__main__")
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@functools.cache
def _with_torch() -> subprocess.Popen[str]:
    """A process that has imported torch and computed nothing: each script is a fork of it and saves seconds.

    It ends when this process does, as its input ends.
    """
    return subprocess.Popen(
        [sys.executable, "-c", WITHOUT_TLNB],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip


def run_without_tlnb(script: Path) -> str:
    """What a script prints in a process of its own where ``import tlnb`` fails."""
    process = _with_torch()
    assert process.stdin is not None
    assert process.stdout is not None
    shown = script.with_name(f"{script.stem}.shown")
    process.stdin.write(json.dumps([str(script.resolve()), str(shown.resolve())]) + "\n")
    process.stdin.flush()
    status = process.stdout.readline().strip()
    assert status == "0", shown.read_text()
    return shown.read_text()
