"""A few of each fault in every test run; hundreds by ``python -m tests.faults.kills --count 200``."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tlnb.engine.saving import autosave, checkpoint

ROOT = Path(__file__).parents[2]


def run(module: str, count: int) -> dict[str, int]:
    """A campaign in an interpreter of its own: forks of a process that has trained lack its threads."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.faults.{module}", "--count", str(count), "--seed", "7"],
        cwd=ROOT, capture_output=True, text=True, timeout=600, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return ast.literal_eval(done.stdout.strip().splitlines()[-1])


def test_killed_runs_come_to_the_same_weights_and_history() -> None:
    counts = run("kills", 6)
    assert counts["kills"] >= 6
    assert counts["runs that came to other weights or another history"] == 0


def test_interrupted_runs_come_to_the_same_weights_and_history() -> None:
    counts = run("interrupts", 6)
    assert counts["presses"] >= 6
    assert counts["stopped"] >= 1
    assert counts["runs that came to other weights or another history"] == 0


SMALL_DISK = """
import json, resource, sys
sys.path.insert(0, "tests")
from faults.job import JOBS, outcome, session_for
job, said = JOBS["adamw, accumulation, best epoch"], []
session = session_for(job)
class Ear:
    def on_message(self, text): said.append(text)
session.listeners = [Ear()]
session.train(1, 0.01)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
session.train(2, 0.01)
print(json.dumps({"said": said, "weights": outcome(session)["weights"]}))
"""


def test_a_disk_that_takes_no_more_costs_the_save_and_nothing_else(tmp_path: Path) -> None:
    def train(code: str, home: str) -> dict[str, object]:
        env = {
            **os.environ,
            "TLNB_HOME": str(tmp_path / home),
            "TLNB_AUTOSAVE": "0.0001",
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.splitlines()[-1])

    small = train(SMALL_DISK, "small")
    roomy = train(SMALL_DISK.replace("(2000, ", "(resource.RLIM_INFINITY, "), "roomy")
    assert small["weights"] == roomy["weights"]
    assert len(small["said"]) == 1
    assert "File too large" in str(small["said"])
    assert not roomy["said"]
    # The last good one is that of the first stage; no half file stands beside it.
    good = autosave.files(tmp_path / "small" / "autosave")
    assert checkpoint.read(good[0]).about["history"][0]["number"] == 1
    assert not list((tmp_path / "small" / "autosave").glob(".*.part"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to any folder")
def test_a_folder_that_is_read_only(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    auto = autosave.Autosave(tmp_path / "autosave")
    with pytest.raises(checkpoint.CheckpointError, match="Permission denied"):
        auto.save(lambda: checkpoint.Checkpoint({}, {}))
