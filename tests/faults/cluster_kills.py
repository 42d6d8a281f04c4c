"""Kill a worker of a two-node cluster at random moments of training, and compare with a run in one process.

``PYTHONPATH=tests:tests/cluster python -m tests.faults.cluster_kills --count 20``
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import threading
import time
from contextlib import suppress

import nodes

import tlnb.cluster.training as spread

PLAN = "freeze 0:2 epochs 20 lr 1e-2 batch 8 bn frozen"
NEAR = 1e-5


class Killer(threading.Thread):
    """Kills a worker so many seconds after there is one, unless the run is over.

    Attributes:
        done: whether one was killed.
    """

    def __init__(self, after: float, over: threading.Event):
        super().__init__()
        self.after, self.over, self.done = after, over, False

    def run(self) -> None:
        while not nodes.processes("ray::RayTrainWorker"):
            if self.over.wait(0.05):
                return
        if self.over.wait(self.after):
            return
        if found := nodes.processes("ray::RayTrainWorker"):
            with suppress(ProcessLookupError):
                os.kill(random.choice(found), signal.SIGKILL)
                self.done = True


def main() -> None:
    """Print a line a run, and how many ended elsewhere than said."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    random.seed(asked.seed)
    os.environ["TLNB_HOME"] = tempfile.mkdtemp(prefix="tlnb-kills-")
    spread.REPORT = 0.5
    wrong, killed, alone = 0, 0, nodes.small_session()
    alone.run(PLAN)
    with nodes.two_nodes() as address:
        for number in range(asked.count):
            over = threading.Event()
            killer = Killer(random.uniform(0, 8), over)
            there = nodes.small_session()
            there.cluster(address, workers=2)
            began = time.perf_counter()
            killer.start()
            run = there.run(PLAN)
            over.set()
            killer.join()
            there.cluster("off")
            apart = nodes.distance(alone, there)
            good = not run.stopped and apart < NEAR
            wrong += not good
            killed += killer.done
            took, what = time.perf_counter() - began, "a worker" if killer.done else "nothing"
            print(
                f"{number + 1}: {what} was killed, after {killer.after:.1f} s; {took:.1f} s in all, apart by "
                f"{apart:.1e}: {good}",
                flush=True,
            )
    print(
        f"{wrong} of {asked.count} ended elsewhere than a run in one process; {killed} had something killed"
    )


if __name__ == "__main__":
    main()
