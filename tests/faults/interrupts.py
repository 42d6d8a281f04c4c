"""Press the stop button at random moments, go on, and compare with the run that nobody stopped.

``python -m tests.faults.interrupts --count 200`` presses as often as asked for and reports.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.job import JOBS, Job, fork, outcome, report, session_for, undisturbed, wait


def pressed_and_continued(job: Job, seed: int, seconds: float, presses: int) -> dict[str, object]:
    """In a fork: a run with a press of the button every now and then; what it came to, and what happened.

    Args:
        job: what is trained.
        seed: of the moments.
        seconds: that the run takes undisturbed.
        presses: how many at most.
    """
    rng, counts, session = random.Random(seed), Counter[str](), session_for(job)

    def at_rest(number: int, frame: object) -> None:
        counts["presses while nothing trained"] += 1

    signal.signal(signal.SIGINT, at_rest)
    begun = False
    while not begun or session._paused is not None:
        timer = threading.Timer(rng.uniform(0, seconds), os.kill, (os.getpid(), signal.SIGINT))
        if counts["presses"] < presses:
            timer.start()
            counts["presses"] += 1
        run = session.go_on() if begun else session.run(job.plan, keep_best=job.keep_best)
        if timer.is_alive():
            timer.cancel()
            counts["presses"] -= 1
        begun = True
        counts["stopped"] += run.stopped
        assert not any(module.training for module in session.model.modules()), "left in train mode"
        assert signal.getsignal(signal.SIGINT) is at_rest, "the handler of before is not back"
        assert all(p.grad is None for p in session.model.parameters()), "gradients left behind"
    end = time.monotonic() + 10
    while any("ahead" in thread.name for thread in threading.enumerate()):
        assert time.monotonic() < end, "a thread that decodes ahead is left behind"
        time.sleep(0.01)
    return {"outcome": outcome(session), "counts": counts}


def campaign(count: int, seed: int = 0, say: bool = False, jobs: Mapping[str, Job] = JOBS) -> Counter[str]:
    """At least ``count`` presses over these jobs; every run must come to what the undisturbed one came to."""
    rng, total = random.Random(seed), Counter[str]()
    known: dict[str, tuple[object, float]] = {}
    while total["presses"] < count:
        for name, job in jobs.items():
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place)
                if name not in known:
                    known[name] = undisturbed(job, folder)
                expected, seconds = known[name]
                once = rng.randrange(1 << 30)
                status = wait(fork(folder, partial(pressed_and_continued, job, once, seconds / 2, 4)))
                assert status == 0, f"{name}, seed {once}: exit status {status}"
                got = json.loads((folder / "outcome.json").read_text())
            total += Counter(got["counts"])
            total["runs"] += 1
            different = got["outcome"] != expected
            total["runs that came to other weights or another history"] += different
            if different:
                print(f"{name}, seed {once}: not the same", file=sys.stderr)
            if total["presses"] >= count:
                break
        if say:
            print(dict(total), flush=True)
    return total


if __name__ == "__main__":
    report(campaign, "presses", __doc__)
