"""Kill a training kernel at random moments, resume it, and compare with the run that nobody stopped.

``python -m tests.faults.kills --count 200`` runs as many kills as asked for and reports them.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.job import JOBS, Job, carry_out, fork, outcome, report, undisturbed, wait

MOST_A_RUN = 6  # kills of one run before it is left to end
AT_ANY_TIME = (
    0.25  # share of the kills that may come before the first save; on a busy machine most of them do
)
MOST_SAVES = 12  # of a process before it is killed; it saves after each batch


def kill_and_resume(job: Job, folder: Path, rng: random.Random, seconds: float) -> Counter[str]:
    """One run, killed again and again, each time resumed from its autosave; counts of what happened.

    Args:
        job: what is trained.
        folder: for its autosaves; empty.
        rng: gives the moments.
        seconds: that the run takes undisturbed.
    """
    counts: Counter[str] = Counter()
    for _ in range(MOST_A_RUN):
        pid = fork(folder, lambda: outcome(carry_out(job)))
        if rng.random() < AT_ANY_TIME:
            time.sleep(rng.uniform(0, seconds))
        else:
            wait_for_saves(folder, pid, rng.randint(1, MOST_SAVES))
            time.sleep(rng.uniform(0, 0.02))
        os.kill(pid, signal.SIGKILL)
        status = wait(pid)
        if status == 0:
            counts["ended before the kill"] += 1
            break
        assert status == -signal.SIGKILL, f"exit status {status}"
        counts["kills"] += 1
        saves = list((folder / "autosave").glob("*.safetensors"))
        counts["kills before the first save"] += not saves
        counts["kills in the middle of a save"] += bool(list((folder / "autosave").glob(".*.part")))
        for part in (folder / "autosave").glob(".*.part"):
            part.unlink()  # so that the next one is counted as its own
    else:
        assert wait(fork(folder, lambda: outcome(carry_out(job)))) == 0
    counts["runs"] += 1
    return counts


def wait_for_saves(folder: Path, pid: int, number: int) -> None:
    """Wait until a process has saved so often, or has ended."""
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        names = [path.stem for path in (folder / "autosave").glob(f"*-{pid}-*.safetensors")]
        if max((int(name.rpartition("-")[2]) for name in names), default=0) >= number:
            return
        time.sleep(1e-3)


def campaign(count: int, seed: int = 0, say: bool = False, jobs: Mapping[str, Job] = JOBS) -> Counter[str]:
    """At least ``count`` kills over these jobs; every run must come to what the undisturbed one came to."""
    rng, total = random.Random(seed), Counter[str]()
    known: dict[str, tuple[object, float]] = {}
    while total["kills"] < count:
        for name, job in jobs.items():
            with tempfile.TemporaryDirectory() as place:
                if name not in known:
                    known[name] = undisturbed(job, Path(place))
                    for path in Path(place).rglob("*.*"):
                        path.unlink() if path.is_file() else None
                expected, seconds = known[name]
                total += kill_and_resume(job, Path(place), rng, seconds)
                got = json.loads((Path(place) / "outcome.json").read_text())
            total["runs that came to other weights or another history"] += got != expected
            if got != expected:
                print(f"{name}: not the same", file=sys.stderr)
            if total["kills"] >= count:
                break
        if say:
            print(dict(total), flush=True)
    return total


if __name__ == "__main__":
    report(campaign, "kills", __doc__)
