"""What is documented is there, and what is there is documented."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell

import tlnb
from tlnb.__main__ import CELLS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = ("pip install . && python -m tlnb", 'pip install ".[test]" && python -m pytest')


def cells_of(*paths: Path) -> list[str]:
    return [cell.source for path in paths for cell in nbformat.read(path, as_version=4).cells]


@pytest.fixture(scope="module")
def magics() -> dict[str, str]:
    """Every magic that the extension registers, as it is typed, with its help."""
    shell = InteractiveShell()
    before = shell.magics_manager.lsmagic()
    names = {kind: set(before[kind]) for kind in ("line", "cell")}
    tlnb.load_ipython_extension(shell)
    after = shell.magics_manager.lsmagic()
    return {
        {"line": "%", "cell": "%%"}[kind] + name: after[kind][name].__doc__ or ""
        for kind in names
        for name in set(after[kind]) - names[kind]
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_readme_holds_the_two_commands(command: str) -> None:
    assert command in README.splitlines()


@pytest.mark.parametrize("cell", CELLS)
def test_readme_and_quickstart_hold_the_five_cells(cell: str) -> None:
    assert cell in README
    assert cell in cells_of(ROOT / "notebooks" / "01_quickstart.ipynb")


def test_every_magic_is_in_the_readme(magics: dict[str, str]) -> None:
    assert [name for name in sorted(magics) if f"`{name}" not in README] == []


def test_every_magic_is_in_a_notebook(magics: dict[str, str]) -> None:
    text = "\n".join(cells_of(*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("nbs_tests/*-pass-*.ipynb")))
    assert [name for name in sorted(magics) if not re.search(rf"(?m)^(\w+ = )?{name}\b", text)] == []


def test_every_magic_has_help_with_an_example(magics: dict[str, str]) -> None:
    assert [name for name, help in sorted(magics.items()) if not re.search(rf"(?m)^\s+{name}\b", help)] == []
    assert {"%tl_load", "%tl_data", "%tl_freeze", "%tl_lr", "%tl_train", "%%tl_train", "%%tl_step"} <= set(
        magics
    )
