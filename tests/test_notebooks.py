"""How notebooks are committed: run in order, without errors, readable without a kernel, free of paths."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tlnb import errors

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted([*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "nbs_tests").glob("*.ipynb")])
MUST_FAIL = re.compile(r"test-.*-fail-")
NAMES = {"notebooks": r"\d\d_[a-z0-9_]+", "nbs_tests": r"test-[a-z0-9]+-(pass|fail)-[a-z0-9-]+"}
WIDGET = "application/vnd.jupyter.widget-view+json"
# A path of somebody's machine: from the root, a home folder or a drive; "a/b" and "loss/epoch" are none.
ABSOLUTE_PATH = re.compile(
    r"(?<![\w.:/<])/(?:home|root|tmp|usr|opt|work|var|mnt|Users|private)/|(?<!\w)[A-Za-z]:\\\w|(?<![\w/])~/"
)

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[Any]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def texts(output: Any) -> list[str]:
    """All text of one output: streams, tracebacks, and each text form of shown data."""
    data = [value for kind, value in output.get("data", {}).items() if kind.startswith("text/")]
    return [output.get("text", ""), output.get("evalue", ""), *output.get("traceback", []), *data]


@every_notebook
def test_is_valid_and_well_named(path: Path) -> None:
    nbformat.validate(nbformat.read(path, as_version=4))
    assert re.fullmatch(NAMES[path.parent.name], path.stem)


@every_notebook
def test_metadata_names_the_plain_kernel_and_holds_no_widgets(path: Path) -> None:
    metadata = nbformat.read(path, as_version=4).metadata
    assert metadata.kernelspec.name == "python3"
    assert set(metadata) <= {"kernelspec", "language_info"}


@every_notebook
def test_was_run_in_order(path: Path) -> None:
    # nbval does not compare a cell without a count: it would pass whatever it prints.
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


@every_notebook
def test_holds_no_error_that_is_not_expected(path: Path) -> None:
    for cell in code_cells(path):
        expected = "raises-exception" in cell.metadata.get("tags", [])
        assert expected or not any(output.output_type == "error" for output in cell.outputs), cell.source
        assert not any(output.get("name") == "stderr" for output in cell.outputs), cell.source


@every_notebook
def test_errors_of_tlnb_are_one_line(path: Path) -> None:
    for cell in code_cells(path):
        for output in cell.outputs:
            if output.output_type == "error" and hasattr(errors, output.ename):
                assert output.traceback == [f"{output.ename}: {output.evalue}"]
                assert "\n" not in output.evalue


@every_notebook
def test_holds_no_absolute_path(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        for text in [cell.source, *(text for output in cell.get("outputs", []) for text in texts(output))]:
            assert not ABSOLUTE_PATH.search(text), text


@every_notebook
def test_each_widget_has_a_static_twin(path: Path) -> None:
    for cell in code_cells(path):
        for output in cell.outputs:
            if WIDGET in output.get("data", {}):
                assert "text/plain" in output.data, cell.source
                assert {"text/html", "image/png"} & set(output.data), cell.source


@pytest.mark.parametrize(
    "path", [path for path in NOTEBOOKS if MUST_FAIL.match(path.stem)], ids=lambda p: p.stem
)
def test_notebook_that_fails_says_so_on_top(path: Path) -> None:
    first = nbformat.read(path, as_version=4).cells[0]
    assert first.cell_type == "markdown"
    assert "must turn red" in first.source


@pytest.mark.parametrize("path", ["/home/ann/digits", "see /tmp/x.pth", r"C:\Users\ann", "'~/.cache'"])
def test_absolute_paths_are_seen(path: str) -> None:
    assert ABSOLUTE_PATH.search(path)


@pytest.mark.parametrize(
    "text", ["0.1/s", "</var>/", "https://example.org/home/x", "and/or", "3:5", "data/tmp/x"]
)
def test_other_text_is_no_absolute_path(text: str) -> None:
    assert not ABSOLUTE_PATH.search(text)
