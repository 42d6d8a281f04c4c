"""What the tests share: a shell that raises, and the mark of tests that need a browser."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import Any

import forked
import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config


class RaisingShell(InteractiveShell):
    """A shell whose cells raise what goes wrong in them and return what their last line returns."""

    def run(self, cell: str) -> Any:
        """Run one cell as a notebook would; its result, or its own exception."""
        outcome = self.run_cell(cell, store_history=False)
        outcome.raise_error()
        return outcome.result


@pytest.fixture
def shell() -> RaisingShell:
    """A new shell without history and without a global ``get_ipython()``."""
    return RaisingShell(config=Config(HistoryManager={"enabled": False}))


@pytest.fixture(autouse=True)
def _exports_are_checked_in_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """An export is loaded again in a fork, which saves seconds; ``new_process`` takes a new process, as users have."""
    check = sys.modules.get("tlnb.engine.export.check")
    if check is not None:
        monkeypatch.setattr(check, "subprocess", InForks)


class InForks:
    """What the check of an export needs of :mod:`subprocess`."""

    @staticmethod
    def run(command: list[str], *, cwd: str, **_: bool) -> subprocess.CompletedProcess[str]:
        """The outcome of a command, from a fork that cannot import tlnb."""
        return forked.run(command, tlnb=False, cwd=cwd)


@pytest.fixture
def new_process(monkeypatch: pytest.MonkeyPatch, _exports_are_checked_in_forks: None) -> None:
    """Exports are loaded again in a process of their own, as without the tests."""
    from tlnb.engine.export import check

    monkeypatch.setattr(check, "subprocess", subprocess)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked ``browser`` where there is no Chromium."""
    if item.get_closest_marker("browser") and not shutil.which("chromium"):
        pytest.skip("Chromium is not installed")
