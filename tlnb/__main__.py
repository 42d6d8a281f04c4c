"""``python -m tlnb``: the five cells of the quickstart, one after the other, in a terminal.

``python -m tlnb --env`` says instead what is installed and what can be done here.
"""

from __future__ import annotations

import sys

from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

CELLS = (
    "%load_ext tlnb",
    "%tl_load convnet5",
    "%tl_data digits",
    "%tl_freeze 0:5",
    "%%tl_train\nfreeze body      epochs 3\nunfreeze 3:      epochs 2\nunfreeze all     epochs 2   decay 2.6",
)


def run_cells(shell: InteractiveShell) -> bool:
    """Show and run the cells in a shell; stop at the first that fails. Returns whether all of them ran."""
    for number, cell in enumerate(CELLS, start=1):
        lines = cell.replace("\n", "\n   ...: ")
        print(f"In [{number}]: {lines}", flush=True)
        if not shell.run_cell(cell, store_history=True).success:
            return False
        print()
    return True


def show_environment() -> int:
    """Print what is installed. Returns the exit status."""
    from tlnb.engine.doctor import examine

    print(examine())
    return 0


def main() -> int:
    """Run the cells in a new shell that keeps no history file. Returns the exit status of the process."""
    if sys.argv[1:] == ["--env"]:
        return show_environment()
    if sys.argv[1:]:
        print("usage: python -m tlnb [--env]", file=sys.stderr)
        return 2
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    return 0 if run_cells(InteractiveShell.instance(config=config)) else 1


if __name__ == "__main__":
    sys.exit(main())
