"""The notebook tests can fail: each ``test-*-fail-*`` notebook goes red in its last cell, for its reason.

They run in a pytest of their own with the project's configuration, so this tests the harness as it is used.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "nbs_tests").glob("test-*-fail-*.ipynb"))
REASONS = {
    "test-addresses-fail-outside": "AddressError: no layer '9:12'",
    "test-freezing-fail-report": "-  layers 0–4 (features.0 … features.15); 600,873",
    "test-harness-fail-assert": "AssertionError: 4 layers kept",
    "test-harness-fail-no-error": "Missing output fields from running code",
    "test-harness-fail-output": r"'5 layers kept\n' == '4 layers kept\n'",
    "test-magics-fail-misspelt": "UsageError: Line magic function `%tl_freez` not found",
    "test-magics-fail-misspelt-cell": "UsageError: Cell magic `%%tl_trian` not found",
    "test-training-fail-assert": "AssertionError: the head has moved",
}


def run_pytest(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A pytest of its own, from the root, whatever options this one was given by the environment."""
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str | None]]:
    """For each notebook the report of each cell in order: None where the cell passed."""
    report = tmp_path_factory.mktemp("notebooks") / "report.xml"
    done = run_pytest(f"--junitxml={report}", *map(str, NOTEBOOKS))
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    cells: dict[str, list[str | None]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.attrib["classname"].removeprefix("nbs_tests.").removesuffix(".ipynb")
        failure = case.find("failure")
        # IPython colours its tracebacks, also in the middle of a message.
        text = None if failure is None else re.sub(r"(\x1b|#x1B)\[[\d;]*m", "", failure.text or "")
        cells.setdefault(name, []).append(text)
    return cells


def test_every_failing_notebook_has_its_reason() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(REASONS)


@pytest.mark.parametrize("name", REASONS)
def test_goes_red_in_its_last_cell(name: str, failures: dict[str, list[str | None]]) -> None:
    *before, last = failures[name]
    assert before, "a cell that passes must come first: it shows that the kernel works"
    assert before == [None] * len(before)
    assert last is not None, "the last cell passed"
    assert REASONS[name] in last


def test_the_usual_run_leaves_them_out() -> None:
    done = run_pytest("--collect-only", "nbs_tests")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "-pass-" in done.stdout
    assert "-fail-" not in done.stdout
