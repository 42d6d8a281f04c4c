"""What a pass over a million, or a hundred million, photos costs on N workers: a simulation from measured parts.

``python -m tests.benchmarks.cluster_scale FOLDER [--pairs 3]`` measures the parts on the training photos of the folder
(decoding and the frozen part of a ResNet-18, in seconds of a processor; sending, unpacking and writing what comes back;
what a task costs beside its work), predicts the pass over them on one and on two workers of this machine, measures
these passes, and prints the table for larger ones.
"""

from __future__ import annotations

import argparse
import heapq
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tests.benchmarks.cluster_speed import CPU, Hello, Pass, local
from tlnb.cluster.parcel import pack, unpack
from tlnb.cluster.tasks import AHEAD, TaskWorkers
from tlnb.display.tables import Table
from tlnb.engine.features.prefix import USUAL_PASS_BATCH, run_pass
from tlnb.engine.features.shards import Shards
from tlnb.engine.features.spread import SLICE_SECONDS, SLICES

GIGABIT = 1e9 / 8  # bytes a second
REPEATS = 5


@dataclass(frozen=True)
class Parts:
    """What was measured, in seconds.

    Attributes:
        decode: a photo, from its file to the input of the network.
        forward: a photo, through the frozen part.
        kept: bytes of a photo behind it.
        packed: a byte of them, by a worker, to bytes that are sent.
        sent: a byte, from a worker to the notebook.
        taken: a byte, by the notebook: unpacked, put into its place, and written to a file with a checksum.
        task: a task, by its worker, beside its work.
        asked: a task, by the notebook: sending it, and taking its answer.
        began: the first task of a worker, beside its work: it takes the network.
        beside: how many times as long decoding and the frozen part take where another core does the same.
    """

    decode: float
    forward: float
    kept: int
    packed: float
    sent: float
    taken: float
    task: float
    asked: float
    began: float
    beside: float


@dataclass(frozen=True)
class Predicted:
    """A pass.

    Attributes:
        seconds: it takes.
        working: share of that in which a worker works, over all workers.
        taking: share of that in which the notebook takes what comes back.
    """

    seconds: float
    working: float
    taking: float


def simulate(parts: Parts, photos: int, workers: int) -> Predicted:
    """Follow each slice from the notebook to a worker and back, by what the parts take.

    The notebook sends a few slices ahead and takes what comes back one after the other, workers take slices in turn,
    and all answers come over one line. Slices are cut as :mod:`tlnb.engine.features.spread` cuts them.
    """
    each = (parts.decode + parts.forward) * (parts.beside if workers > 1 else 1)
    most = min(SLICE_SECONDS / each, photos / (SLICES * workers))
    size = max(int(most) // USUAL_PASS_BATCH, 1) * USUAL_PASS_BATCH
    left, notebook, line, working, taking = photos, 0.0, 0.0, 0.0, 0.0
    free = [(0.0, number) for number in range(workers)]
    begun: set[int] = set()
    answers: list[tuple[float, int]] = []  # when it is there, and how many photos it is of

    def send() -> None:
        nonlocal left, notebook, line, working
        count = min(size, left)
        left -= count
        notebook += parts.asked / 2
        at, worker = heapq.heappop(free)
        took = parts.task + count * (each + parts.kept * parts.packed)
        if worker not in begun:
            begun.add(worker)
            took += parts.began
        done = max(at, notebook) + took
        working += took
        heapq.heappush(free, (done, worker))
        line = max(line, done) + count * parts.kept * parts.sent
        heapq.heappush(answers, (line, count))

    while left or answers:
        while left and len(answers) < AHEAD * workers:
            send()
        at, count = heapq.heappop(answers)
        took = parts.asked / 2 + count * parts.kept * parts.taken
        notebook = max(notebook, at) + took
        taking += took
    return Predicted(notebook, working / workers / notebook, taking / notebook)


def timed(what: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    """Seconds that a call takes: the median of a few."""
    found = []
    for _ in range(REPEATS):
        began = clock()
        what()
        found.append(clock() - began)
    return statistics.median(found)


class Piece:
    """A job that measures: seconds of the processor for a photo, to decode it, and to send it through the frozen part.

    Args:
        photos: what is measured on.
    """

    def __init__(self, photos: Pass):
        self.photos = photos

    def arrive(self, device: torch.device, folder: Path | None) -> None:
        """Nothing is needed."""

    def run(self, item: int) -> tuple[float, float]:
        """Measure on so many photos."""
        parcel = pack(self.photos.samples)  # with which no picture goes that is decoded already
        samples = unpack(parcel)
        began = time.process_time()
        for indices in torch.arange(item).split(USUAL_PASS_BATCH):
            samples.batch(indices)
        decode = (time.process_time() - began) / item
        first = _First(unpack(parcel), item)
        began = time.process_time()
        run_pass(self.photos.trial.parts, first, [self.photos.rows(item)], CPU)  # type: ignore[arg-type]
        return decode, (time.process_time() - began) / item - decode


def pieces(photos: Pass, workers: TaskWorkers, count: int) -> tuple[float, float]:
    """Seconds of the processor for a photo where all workers are at it: to decode it, and for the frozen part."""
    found = [took for _, took in workers.each(Piece(photos), [count] * 3 * workers.count, lambda: None)]
    return statistics.median(d for d, _ in found), statistics.median(f for _, f in found)


class _First:
    """The first of some samples."""

    def __init__(self, samples: object, count: int):
        self._samples, self._count, self.lengths = samples, count, None

    def __len__(self) -> int:
        return self._count

    def stream(self, batches: object) -> object:
        return self._samples.stream(batches)  # type: ignore[attr-defined]


class Echo(Hello):
    """A job that gives back so many bytes at once."""

    def run(self, item: int) -> torch.Tensor:  # type: ignore[override]
        """A tensor of so many bytes."""
        return torch.zeros(item, dtype=torch.uint8)


def measure(photos: Pass, workers: TaskWorkers, count: int) -> Parts:
    """The parts.

    Args:
        photos: of which one is measured.
        workers: one.
        count: photos to measure on.
    """
    decode, forward = pieces(photos, workers, count)
    rows = photos.rows(1024).uniform_()
    size = rows.numel() * rows.element_size()
    parcel = pack(([rows], [0.0]))
    packed = timed(lambda: pack(([rows], [0.0]))) / size
    place = photos.rows(1024)

    def take() -> None:
        (made,), _ = unpack(parcel)
        place.copy_(made)
        shards.add((0, 1024), [made])

    with tempfile.TemporaryDirectory() as folder:
        shards = Shards(Path(folder))
        taken = timed(take) / size

    def ask(bytes_each: int, tasks: int) -> None:
        list(workers.each(Echo(), [bytes_each] * tasks, lambda: None))

    ask(8, 1)
    one, many = (timed(lambda tasks=tasks: ask(8, tasks), time.perf_counter) for tasks in (1, 51))  # type: ignore[misc]
    asked = timed(lambda: ask(8, 51)) / 51
    large = timed(lambda: ask(16 << 20, 11), time.perf_counter) - timed(lambda: ask(8, 11), time.perf_counter)
    began = timed(lambda: unpack(pack(photos.trial.parts)))
    return Parts(
        decode, forward, size // 1024, packed, max(large / 10 / (16 << 20) - packed, 0.0), taken,
        max((many - one) / 50 - asked, 0.0), asked, one + began, 1.0,
    )  # fmt: skip


def table(parts: Parts) -> Table:
    """Larger passes, over a line of a gigabit a second."""
    far, lines = replace(parts, sent=1 / GIGABIT), []
    for photos in (10**6, 10**8):
        for workers in (1, 16, 128, 1024):
            found = simulate(far, photos, workers)
            told = next(
                f"{found.seconds / unit:.{found.seconds < 10 * unit:d}f} {name}"
                for unit, name in ((3600, "h"), (60, "min"), (1, "s"))
                if found.seconds >= unit
            )
            lines.append(
                (f"{photos:,}", f"{workers:,}", told, f"{found.working:.0%}", f"{found.taking:.0%}",
                 f"{photos * parts.kept / 1e9:,.0f} GB")
            )  # fmt: skip
    return Table(("photos", "workers", "pass", "workers busy", "notebook busy", "kept"), lines)


def main() -> None:
    """Print the parts, what they predict, what was measured, and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--photos", type=int, help="at most so many")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["TLNB_HOME"] = tempfile.mkdtemp(prefix="tlnb-scale-")
    photos = Pass.of(asked.folder, asked.photos)
    with local(1) as (_, workers):
        parts = measure(photos, workers, count := min(len(photos.samples), 96))
    with local(2) as (_, workers):
        parts = replace(parts, beside=sum(pieces(photos, workers, count)) / (parts.decode + parts.forward))
    print(parts)
    for count in (1, 2):
        foreseen = simulate(parts, len(photos.samples), count).seconds
        took = []
        for _ in range(asked.pairs):
            with local(count) as (_, workers):
                took.append(photos.on(workers))
        middle = statistics.median(took)
        print(
            f"{len(photos.samples)} photos on {count}: predicted {foreseen:.1f} s, measured {middle:.1f} s "
            f"({min(took):.1f} to {max(took):.1f}), off by {foreseen / middle - 1:+.0%}; load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
    print(table(parts))


if __name__ == "__main__":
    main()
