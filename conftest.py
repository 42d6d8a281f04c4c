"""What every notebook under test shares: a cell goes red when IPython complains about one of its magics.

A magic that does not exist, or a ``UsageError`` from one that does, only prints a line to stderr; the kernel
sends no error message, so nbval would pass such a cell whenever its output is not compared or was stored so.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

# Before torch starts, in kernels too: a test process has one core to itself.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What sessions save by themselves goes to a folder of the test run, in the kernels of notebooks too.
if "TLNB_HOME" not in os.environ:
    os.environ["TLNB_HOME"] = tempfile.mkdtemp(prefix="tlnb-tests-")
    atexit.register(shutil.rmtree, os.environ["TLNB_HOME"], ignore_errors=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--all``: every network of torchvision with numbers, and the main job from each of five seeds."""
    parser.addoption("--all", action="store_true", help="run what takes long or much memory too (16 GB)")


def pytest_configure(config: pytest.Config) -> None:
    """Before tests are collected, in each worker process."""
    import forked

    kernels = tempfile.mkdtemp(prefix="tlnb-kernels-")
    atexit.register(shutil.rmtree, kernels, ignore_errors=True)
    forked.kernel_folder(Path(kernels))
    os.environ["JUPYTER_PATH"] = kernels
    if config.getoption("--all"):
        os.environ["TLNB_TEST_ALL"] = "1"
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell does that to what it starts with "&"
        signal.signal(signal.SIGINT, signal.default_int_handler)


SLOW = (
    "notebooks",
    "nbs_tests",
    "tests/browser",
    "tests/cluster",
    "tests/faults/test_faults.py",
    "tests/test_architectures.py",
    "tests/test_banking.py",
    "tests/test_convnet5.py",
    "tests/test_device.py",
    "tests/test_main_job.py",
    "tests/test_measuring.py",
    "tests/test_notebooks_can_fail.py",
    "tests/test_photos.py",
    "tests/engine/test_architectures.py",
    "tests/engine/test_hub.py",
    "tests/engine/test_prefix.py",
    "tests/engine/test_weight_files.py",
    "tests/session/test_export.py",
    "tests/session/test_export_edge.py",
    "tests/session/test_folds.py",
    "tests/session/test_hub_folder.py",
    "tests/session/test_script.py",
    "tests/session/test_text.py",
    "tests/session/test_tracking.py",
    "tests/session/test_transactions.py",
)
"""Folders and files whose tests are left out by ``-m "not slow"``; single ones elsewhere carry the mark themselves."""


BEFORE: pytest.StashKey[Any] = pytest.StashKey()
"""The state of the process before its first test."""


NEEDS = {"08_text.ipynb": "banking77", "09_sound.ipynb": "spoken_digits"}
"""Notebooks that need data which does not ship with tlnb: a folder of ``TLNB_DATA``, or of ``shared/data`` beside the
clone."""
MODELS = {"08_text.ipynb": "minilm"}
"""Notebooks that need a real network: a folder of ``TLNB_MODELS``, or of ``shared/models`` beside the clone."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what takes long, and skip notebooks whose data or network is not here."""
    places = [config.rootpath / place for place in SLOW]
    data = Path(os.environ.get("TLNB_DATA") or config.rootpath.parent / "shared" / "data")
    models = Path(os.environ.get("TLNB_MODELS") or config.rootpath.parent / "shared" / "models")
    for item in items:
        needed = NEEDS.get(item.path.name)
        if needed is not None and not (data / needed).is_dir():
            item.add_marker(
                pytest.mark.skip(reason=f"the data {needed} is not here; TLNB_DATA names its folder")
            )
        network = MODELS.get(item.path.name)
        if network is not None and not (models / network / "config.json").is_file():
            item.add_marker(
                pytest.mark.skip(reason=f"the network {network} is not here; TLNB_MODELS names its folder")
            )
        if any(place == item.path or place in item.path.parents for place in places):
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(tryfirst=True)  # before the kernel of a notebook starts
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give each notebook a home of its own: what another test leaves, such as marks of the same data, is not found."""
    if item.config.stash.get(BEFORE, None) is None:
        from left_behind import LeftBehind

        item.config.stash[BEFORE] = LeftBehind()
    if item.path.suffix == ".ipynb":
        import forked

        forked.start()
        home = Path(item.config.stash[BEFORE].environment["TLNB_HOME"])
        os.environ["TLNB_HOME"] = str(home / "notebooks" / item.path.stem)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # after all fixtures of the file have ended
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, Any, Any]:
    """After the last test of a file, put back what it left behind in this process, and warn of it."""
    result = yield
    before = item.config.stash.get(BEFORE, None)
    if before is not None and (nextitem is None or nextitem.path != item.path):
        if item.path.suffix == ".ipynb":
            os.environ["TLNB_HOME"] = before.environment["TLNB_HOME"]
        if left := before.put_back():
            warnings.warn(
                f"{item.path.name} leaves {', '.join(left)} behind", pytest.PytestWarning, stacklevel=1
            )
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """After a cell has run, fail it if its stderr holds a line that starts with ``UsageError:``."""
    result = yield
    # Only nbval's cells have outputs; those of a skipped cell are None.
    for output in getattr(item, "test_outputs", None) or ():
        if output.get("name") == "stderr":
            for line in output["text"].splitlines():
                if line.startswith("UsageError:"):
                    item.raise_cell_error(line)  # type: ignore[attr-defined]
    return result
