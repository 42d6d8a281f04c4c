"""What a large table costs: a CSV of a million rows over 2,000 pictures, from its name to the end of an epoch.

``python -m tests.benchmarks.large_table --rows 1000000 --files 2000``: seconds of the processor and memory (RSS), from
a process of its own, so that what making the pictures took is not counted.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image


def make(folder: Path, rows: int, files: int) -> Path:
    """The table."""
    draw = np.random.default_rng(0)
    (folder / "pictures").mkdir()
    for number in range(files):
        pixels = draw.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{number:05d}.jpg")
    with open(folder / "table.csv", "w", encoding="utf-8") as file:
        file.write("path,label\n")
        for row in range(rows):
            number = row * 7919 % files
            file.write(f"pictures/{number:05d}.jpg,c{number % 10}\n")
    return folder / "table.csv"


def measure(table: Path, plan: str) -> None:
    """Print a line a step of a session."""
    from tlnb.session import Session

    def say(what: str) -> None:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)
        print(f"{what:<24} {time.process_time():7.1f} s of the processor, at most {most:.2f} GB", flush=True)

    class First:
        """Tells when the first batch is through."""

        told = False

        def on_batch(self, done: int, total: int) -> None:
            if not self.told:
                self.told = True
                say(f"batch 1 of {total:,}")

    tl = Session([First()])
    tl.load("convnet5")
    say("torch and the network")
    tl.data(str(table))
    say("the data is named")
    tl.run(plan)
    say("the stage has ended")


def main() -> None:
    """Make the table and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--plan", default="freeze body epochs 1 lr 1e-2")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TLNB_HOME"] = folder
        table = make(Path(folder), asked.rows, asked.files)
        process = multiprocessing.get_context("spawn").Process(target=measure, args=(table, asked.plan))
        process.start()
        process.join()
        sys.exit(process.exitcode)


if __name__ == "__main__":
    main()
