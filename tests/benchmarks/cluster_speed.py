"""What a second worker on a second core is worth: one against two, pair by pair, in one run.

``python -m tests.benchmarks.cluster_speed FOLDER [--pairs 3] [--what pass sweep]``: the pass of a frozen ResNet-18 over
the training photos of the folder, and a sweep of ``convnet5`` on digits. Each worker is held to a core of its own, so
that one has one. It needs two cores that nobody else uses; the load is printed beside each figure.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tlnb.cluster.tasks import TaskWorkers
from tlnb.engine.data.samples import Samples, SubsetSamples
from tlnb.engine.features import prefix
from tlnb.engine.features.shards import Shards
from tlnb.engine.features.spread import spread_pass
from tlnb.session import Session

CPU = torch.device("cpu")


@dataclass
class Pass:
    """A pass of a frozen part over photos.

    Attributes:
        samples: the photos.
        trial: the part, and what a row of its output is.
    """

    samples: Samples
    trial: prefix.Trial

    @classmethod
    def of(cls, folder: Path, most: int | None = None) -> Pass:
        """That of the body of a ResNet-18 with random weights, over the training photos of a folder."""
        tl = Session()
        tl.load("resnet18", weights="none")
        tl.data(str(folder))
        layers, samples = tl.view.need_layers(), tl.view.need_samples()[0]
        if most is not None:
            samples = SubsetSamples(samples, torch.arange(min(most, len(samples))))
        cut = prefix.cut_for(layers, range(len(layers) - 1))
        assert layers.graph is not None
        return cls(samples, prefix.try_out(layers.graph, 0, [cut], samples, CPU, "fp32"))

    def rows(self, count: int | None = None) -> Tensor:
        """Room for what crosses the cut."""
        return torch.empty((len(self.samples) if count is None else count, *self.trial.shapes[0]))

    def on(self, workers: TaskWorkers) -> float:
        """Seconds of the pass on workers."""
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            spread_pass(
                workers, self.trial.parts, self.samples, [self.rows()], self.trial.seconds[-1],
                lambda done, total: None, [None], Shards(Path(folder) / "shards"),
            )  # fmt: skip
            return time.perf_counter() - began


class Hello:
    """A job that says which process took a piece."""

    def arrive(self, device: torch.device, folder: Path | None) -> None:
        """Nothing is needed."""

    def run(self, item: float) -> int:
        """Wait for so many seconds; the number of the process."""
        time.sleep(item)
        return os.getpid()


def hold(workers: TaskWorkers) -> None:
    """Start the processes, and hold each of them to a core of its own."""
    found: set[int] = set()
    while len(found) < workers.count:
        found |= {pid for _, pid in workers.each(Hello(), [0.5] * workers.count, lambda: None)}
    cores = sorted(os.sched_getaffinity(0))
    for core, pid in zip(cores, sorted(found), strict=False):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})


@contextmanager
def local(count: int) -> Iterator[tuple[Session, TaskWorkers]]:
    """A session with so many workers on this machine."""
    tl = Session()
    tl.cluster("local", workers=count)
    workers = tl.view.planner.workers
    assert isinstance(workers, TaskWorkers)
    try:
        hold(workers)
        yield tl, workers
    finally:
        tl.cluster("off")


def sweep(tl: Session) -> float:
    """Seconds of a sweep."""
    tl.load("convnet5")
    tl.data("digits")
    began = time.perf_counter()
    tl.sweep(epochs=2, seeds=2, images=200)
    return time.perf_counter() - began


def main() -> None:
    """Print a line a measurement, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--photos", type=int, help="at most so many")
    parser.add_argument("--what", nargs="+", choices=("pass", "sweep"), default=["pass", "sweep"])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["TLNB_HOME"] = tempfile.mkdtemp(prefix="tlnb-speed-")
    photos = Pass.of(asked.folder, asked.photos)
    for what in asked.what:
        ratios = []
        for pair in range(asked.pairs):
            took = {}
            for count in (1, 2) if pair % 2 == 0 else (2, 1):
                with local(count) as (tl, workers):
                    took[count] = photos.on(workers) if what == "pass" else sweep(tl)
            ratios.append(took[1] / took[2])
            print(
                f"{what}, pair {pair + 1}: {took[1]:.1f} s with one, {took[2]:.1f} s with two, "
                f"{ratios[-1]:.2f} times; load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
        print(f"{what}: {statistics.median(ratios):.2f} times, {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main()
