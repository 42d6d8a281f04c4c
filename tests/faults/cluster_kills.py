"""Kill a worker, or a node, of a two-node cluster at random moments of training; compare with a run in one process.

``PYTHONPATH=tests:tests/cluster python -m tests.faults.cluster_kills --count 20``, and ``--what node --count 5``: a
node that is lost is replaced by another one.
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
from typing import Any

import nodes

import tlnb.cluster.training as spread
from tlnb.errors import TlnbError

PLAN = "freeze 0:2 epochs 20 lr 1e-2 batch 8 bn frozen"
NEAR = 1e-5


class Killer(threading.Thread):
    """Kills a worker, or a node, so many seconds after there is a worker, unless the run is over.

    Attributes:
        done: what was killed; empty for nothing.
    """

    def __init__(self, what: str, after: float, over: threading.Event, cluster: Any):
        super().__init__()
        self.what, self.after, self.over, self.cluster, self.done = what, after, over, cluster, ""

    def run(self) -> None:
        while not nodes.processes("ray::RayTrainWorker"):
            if self.over.wait(0.05):
                return
        if self.over.wait(self.after):
            return
        if self.what == "node":
            nodes.lose(self.cluster)
            self.done = "a node"
            nodes.add(self.cluster)
        elif found := nodes.processes("ray::RayTrainWorker"):
            with suppress(ProcessLookupError):
                os.kill(random.choice(found), signal.SIGKILL)
                self.done = "a worker"


def run_with(killer: Killer, address: str) -> tuple[Any, str]:
    """The session after a run on the cluster, and what went wrong; empty for nothing."""
    there, trouble = nodes.small_session(), ""
    there.cluster(address, workers=2)
    killer.start()
    try:
        if there.run(PLAN).stopped:
            trouble = "it stopped"
    except TlnbError as error:
        trouble = str(error)
    finally:
        killer.over.set()
        killer.join()
        nodes.wait_for(2)
        there.cluster("off")
    return there, trouble


def main() -> None:
    """Print a line a run, and how many ended elsewhere than said."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--what", choices=("worker", "node"), default="worker")
    asked = parser.parse_args()
    random.seed(asked.seed)
    os.environ["TLNB_HOME"] = tempfile.mkdtemp(prefix="tlnb-kills-")
    spread.REPORT = 0.5
    wrong, killed, alone = 0, 0, nodes.small_session()
    alone.run(PLAN)
    with nodes.two_nodes() as cluster:
        for number in range(asked.count):
            killer = Killer(asked.what, random.uniform(0, 8), threading.Event(), cluster)
            began = time.perf_counter()
            there, trouble = run_with(killer, cluster.address)
            took, apart = time.perf_counter() - began, nodes.distance(alone, there)
            good = not trouble and apart < NEAR
            wrong += not good
            killed += bool(killer.done)
            print(
                f"{number + 1}: {killer.done or 'nothing'} was killed, after {killer.after:.1f} s; {took:.1f} s in "
                f"all, apart by {apart:.1e}: {good} {trouble}",
                flush=True,
            )
    print(
        f"{wrong} of {asked.count} ended elsewhere than a run in one process; {killed} had something killed"
    )


if __name__ == "__main__":
    main()
