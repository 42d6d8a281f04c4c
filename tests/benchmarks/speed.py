"""tlnb against a plain loop and fastai: ratios of the same work, pair by pair.

python -m tests.benchmarks.speed --data FOLDER [--pairs 5] [--rows head5 range] [--peers plain] [--plot FILE]

Each job runs in a process of its own, tlnb and its peer in turn, so that a busy moment hits both.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from tests.benchmarks.jobs import Settings, command
from tlnb.display.tables import Table

EVERY = 0.2  # seconds between two looks at the memory


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        text: what is done.
        job: its name in ``with_*.py``.
        epochs: of a head job.
        wanted: the ratio to reach against each peer.
        ours: tlnb's job, where it has another name.
    """

    text: str
    job: str
    wanted: dict[str, float]
    epochs: int = 5
    ours: str = ""


ROWS = {
    "head5": Row("5 head epochs, everything counted", "head", {"plain": 17, "fastai": 28}),
    "head20": Row("20 head epochs", "head", {"plain": 50, "fastai": 80}, epochs=20),
    "range": Row("range test on the head, cache warm", "range_test", {"fastai": 100}),
    "gradual": Row("gradual plan 3 + 3 + 2 epochs", "gradual", {"plain": 3, "fastai": 4}),
    "full": Row("one epoch, all trains, fp32", "full", {"plain": 1.15, "fastai": 1.3}),
    "bf16": Row("one epoch, all trains, bf16", "full_bf16", {"plain": 2.5, "fastai": 3}),
    "nocache": Row("2 head epochs, cache off", "head", {"plain": 1}, epochs=2, ours="head_without_cache"),
}


def measure(
    contestant: str,
    job: str,
    settings: Settings,
    wait: Callable[[subprocess.Popen[bytes]], object] | None = None,
) -> dict[str, float]:
    """Seconds of one job in a new process.

    Args:
        contestant, job, settings: what is run.
        wait: waits for the process; as it ends by itself if left out.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        work = subprocess.Popen(command(contestant, job, settings), stdout=out, stderr=errors)
        (wait or subprocess.Popen.wait)(work)
        out.seek(0), errors.seek(0)
        if work.returncode:
            raise SystemExit(f"{contestant} {job} failed:\n{errors.read()[-2000:]}")
        answer: dict[str, float] = json.loads(out.read().splitlines()[-1])
    return answer


def peak_memory(contestant: str, job: str, settings: Settings) -> float:
    """The most memory in MB that a job and its loader workers held together, in a run of its own.

    Pages that several of them share count once (PSS), so that a fork is not counted as a copy. Counting holds
    up the process, so this run is not timed.
    """
    seen: list[float] = []
    measure(contestant, job, settings, lambda work: seen.append(_watched(work)))
    return seen[0]


def _watched(work: subprocess.Popen[bytes]) -> float:
    root, most = psutil.Process(work.pid), 0.0
    while work.poll() is None:
        total = 0.0
        with contextlib.suppress(psutil.Error):
            for process in [root, *root.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    total += process.memory_full_info().pss / 2**20
        most = max(most, total)
        time.sleep(EVERY)
    return most


def compare(row: Row, peer: str, settings: Settings, pairs: int) -> tuple[object, ...]:
    """Run the pairs; a line of the table."""
    settings = replace(settings, epochs=row.epochs)
    ours, theirs = [], []
    for pair in range(pairs):
        ours.append(measure("tlnb", row.ours or row.job, settings))
        theirs.append(measure(peer, row.job, settings))
        seconds = f"tlnb {ours[-1]['seconds']:.2f} s, {peer} {theirs[-1]['seconds']:.2f} s"
        print(f"  {row.text}, pair {pair + 1}: {seconds}", flush=True)
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(ours, theirs, strict=True)]
    processor = statistics.median(b["processor"] / a["processor"] for a, b in zip(ours, theirs, strict=True))
    times = [statistics.median(m["seconds"] for m in side) for side in (ours, theirs)]
    memory = [peak_memory(*side, settings) for side in (("tlnb", row.ours or row.job), (peer, row.job))]
    return (
        row.text, peer, f"{times[0]:.2f}", f"{times[1]:.2f}", f"{statistics.median(ratios):.1f}",
        f"{min(ratios):.1f} to {max(ratios):.1f}", f"{processor:.1f}", f"{row.wanted[peer]:g}",
        f"{memory[0]:.0f}", f"{memory[1]:.0f}",
    )  # fmt: skip


HEADERS = (
    "work",
    "peer",
    "tlnb s",
    "peer s",
    "ratio",
    "spread",
    "processor ratio",
    "wanted",
    "tlnb MB",
    "peer MB",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", default=os.environ.get("TLNB_BENCH_DATA"), help="folder with train and val")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--peers", nargs="+", choices=("plain", "fastai"), default=["plain", "fastai"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--plot", type=Path, help="write a plot of cost to this file")
    given = parser.parse_args()
    if not given.data:
        parser.error("name the photos: --data FOLDER or TLNB_BENCH_DATA")
    settings = Settings(given.data, batch=given.batch, size=given.size)
    lines = [
        compare(row, peer, settings, given.pairs)
        for row in map(ROWS.__getitem__, given.rows)
        for peer in given.peers
        if peer in row.wanted
    ]
    print(Table(HEADERS, lines))
    if given.plot:
        from tests.benchmarks.plot import draw

        draw(settings, given.plot)


if __name__ == "__main__":
    main()
