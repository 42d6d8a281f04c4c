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

import nodes

import tlnb.cluster.training as spread

PLAN = "freeze 0:2 epochs 20 lr 1e-2 batch 8 bn frozen"
NEAR = 1e-5


def killer(after: float, over: threading.Event) -> None:
    """Kill a worker so many seconds after there is one, unless the run is over."""
    while not (found := nodes.processes("ray::RayTrainWorker")):
        if over.wait(0.05):
            return
    if not over.wait(after):
        os.kill(random.choice(found), signal.SIGKILL)


def main() -> None:
    """Print a line a run, and how many ended elsewhere than said."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    random.seed(asked.seed)
    os.environ["TLNB_HOME"] = tempfile.mkdtemp(prefix="tlnb-kills-")
    spread.REPORT = 0.5
    wrong, alone = 0, nodes.small_session()
    alone.run(PLAN)
    with nodes.two_nodes() as address:
        for number in range(asked.count):
            over, after = threading.Event(), random.uniform(0, 8)
            thread = threading.Thread(target=killer, args=(after, over))
            there = nodes.small_session()
            there.cluster(address, workers=2)
            began = time.perf_counter()
            thread.start()
            run = there.run(PLAN)
            over.set()
            thread.join()
            there.cluster("off")
            apart = nodes.distance(alone, there)
            good = not run.stopped and apart < NEAR
            wrong += not good
            took = time.perf_counter() - began
            print(
                f"{number + 1}: killed after {after:.1f} s, {took:.1f} s in all, apart by {apart:.1e}: {good}"
            )
    print(f"{wrong} of {asked.count} ended elsewhere than a run in one process")


if __name__ == "__main__":
    main()
