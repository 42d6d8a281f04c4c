"""The rooms of the house, in the order in which they may import each other. This list is the drawing of tlnb."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tlnb"
# A room imports rooms that stand before it, and no others. Imports inside functions and those for type checkers
# count: they too say what has to be understood first.
ROOMS = (
    "errors",
    "version",
    "display",
    "engine/core",
    "engine/network",
    "engine/data",
    "engine/models",
    "engine/features",
    "engine/training",
    "engine/forgetting",
    "engine/advice",
    "engine/checkpoint",
    "engine/results",
    "engine/cleaning",
    "engine/export",
    "engine/doctor",
    "assets",
    "tracking",
    "cluster",
    "session",
    "widgets",
    "magics",
    "tlnb",  # __init__ and __main__: the doors
)
DOORS = ("__init__", "__main__")


def modules() -> dict[str, Path]:
    """Every module of the package, with its file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


def room_of(path: Path) -> str:
    """The room that a file belongs to."""
    place = path.relative_to(PACKAGE).with_suffix("").as_posix()
    if place in DOORS:
        return "tlnb"
    for room in ROOMS:
        if place == room or place.startswith(room + "/"):
            return room
    if place == "engine/__init__":
        return "errors"  # a docstring: it may import nothing
    raise AssertionError(f"{path.relative_to(ROOT)} is in no room")


def imported(tree: ast.AST, known: dict[str, Path]) -> set[str]:
    """Modules of tlnb that a file imports, wherever the import stands in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & set(known) or {node.module}
            if not names <= set(known):
                found.add(node.module)
    return found


def arrows() -> dict[tuple[str, str], list[str]]:
    """From which room to which one imports go, and the files that hold them."""
    known = modules()
    found = defaultdict(list)
    for path in known.values():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for name in sorted(imported(tree, known)):
            pair = room_of(path), room_of(known[name])
            if pair[0] != pair[1]:
                found[pair].append(f"{path.relative_to(ROOT)} imports {name}")
    return found


def test_a_room_imports_only_rooms_before_it() -> None:
    order = {room: number for number, room in enumerate(ROOMS)}
    wrong = [line for (a, b), lines in arrows().items() for line in lines if order[b] > order[a]]
    assert not wrong, "\n".join(wrong)


def test_no_two_rooms_import_each_other() -> None:
    pairs = set(arrows())
    assert not {(a, b) for a, b in pairs if (b, a) in pairs}


def test_no_file_imports_itself_in_a_circle() -> None:
    known = modules()
    graph = {
        name: imported(ast.parse(path.read_text(encoding="utf-8")), known) - {name}
        for name, path in known.items()
    }
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_every_room_is_there() -> None:
    assert {room_of(path) for path in modules().values()} == set(ROOMS)


@pytest.mark.parametrize(
    "statement",
    [
        "def f():\n    from tlnb.session import Session",
        "if TYPE_CHECKING:\n    from tlnb.session import Session",
        "import tlnb.session",
        "from tlnb import session",
    ],
)
def test_an_import_counts_wherever_it_stands(statement: str) -> None:
    assert "tlnb.session" in imported(ast.parse(statement), modules())


def test_contributing_prints_the_rooms() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("\n## The house\n")[2].partition("\n## ")[0]
    block = section.partition("```\n")[2].partition("```")[0]
    printed = [line.split()[0].removesuffix(".py").rstrip("/") for line in block.splitlines()]
    assert tuple(printed) == ROOMS


def private_reads(tree: ast.AST) -> list[int]:
    """Lines that read ``session._x``, whatever holds the session."""
    pattern = re.compile(r"(^|\.)_?(session|tl)$")
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith(("__", "_repr_"))
        and pattern.search(ast.unparse(node.value))
    ]


def test_nothing_outside_the_session_reads_its_private_names() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in modules().values()
        if room_of(path) != "session"
        for line in private_reads(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not wrong


@pytest.mark.parametrize(
    "code", ["session._model", "self.session._data.x", "self._session._emit()", "tl._model"]
)
def test_a_private_read_is_found(code: str) -> None:
    assert private_reads(ast.parse(code)) == [1]
