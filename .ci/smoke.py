"""The main job as a user has it: the five cells from the installed package, away from the clone.

``.ci/run`` starts it in an empty folder. It fails where a cell fails, where tlnb is not the installed one, or
where the validation accuracy at the end is below 97 %.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

import tlnb
from tlnb.__main__ import run_cells

assert "site-packages" in Path(tlnb.__file__).parts, f"tlnb is imported from {tlnb.__file__}"
shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
begin = time.perf_counter()
if not run_cells(shell):
    sys.exit("a cell of the main job failed")
seconds = time.perf_counter() - begin
accuracy = shell.user_ns["tl"].history[-1].accuracy
print(f"main job: {seconds:.0f} s, validation accuracy {accuracy:.1%}")
assert accuracy >= 0.97
