"""``python -m tlnb``: the five cells of the quickstart, one after the other, in a terminal.

``python -m tlnb --env`` says instead what is installed and what can be done here.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

CELLS = (
    "%load_ext tlnb",
    "%tl_load convnet5",
    "%tl_data digits",
    "%tl_freeze 0:5",
    "%%tl_train\nfit head\nunfreeze 3:      epochs 2   init soft\nunfreeze all     epochs 2   decay 2.6",
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


PACKAGES = {"PIL": "pillow", "sklearn": "scikit-learn", "IPython": "ipython"}
"""Packages that are installed under another name than they are imported by."""


def show_environment() -> int:
    """Print what is installed, or what is broken and what to do. Returns the exit status."""
    try:
        from tlnb.engine.doctor import examine

        print(examine())
    except (ImportError, OSError) as error:
        module = (getattr(error, "name", None) or "torch").partition(".")[0]
        package = PACKAGES.get(module, module)
        print(
            f"tlnb cannot run here: {error}\nto do: pip install --force-reinstall {package}", file=sys.stderr
        )
        return 1
    return 0


def main() -> int:
    """Run the cells in a new shell that keeps no history file. Returns the exit status of the process."""
    if sys.argv[1:] == ["--env"]:
        return show_environment()
    if sys.argv[1:]:
        print("usage: python -m tlnb [--env]", file=sys.stderr)
        return 2
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    return 0 if run_cells(InteractiveShell.instance(config=config)) else 1


if __name__ == "__main__":
    sys.exit(main())
