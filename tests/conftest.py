"""What the tests share: a shell that raises, and the mark of tests that need a browser."""

from __future__ import annotations

import shutil
from typing import Any

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


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked ``browser`` where there is no Chromium."""
    if item.get_closest_marker("browser") and not shutil.which("chromium"):
        pytest.skip("Chromium is not installed")
