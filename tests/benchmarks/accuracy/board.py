"""Run recipes on the cells of the board: a line of JSON each, and nothing twice.

    python -m tests.benchmarks.accuracy.board results.jsonl --data FOLDER --seeds 5

FOLDER holds the sets, and the networks' weights in ``weights``. Lines that are there already are not computed again,
so it can be stopped at any time and gone on with; several processes may share the work with ``--share 1/2`` and
``--share 2/2``. ``python -m tests.benchmarks.accuracy.report results.jsonl`` makes the tables.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import asdict
from itertools import product
from pathlib import Path

os.environ["TLNB_HOME"] = tempfile.mkdtemp(prefix="tlnb-board-")  # no features of another run

import torch

from tests.benchmarks.accuracy.cells import AMOUNTS, NETWORKS, SETS, Cell, files_of
from tests.benchmarks.accuracy.recipes import RECIPES, Job, epochs_for
from tlnb.errors import PlanError


def run(cell: Cell, recipe: str, root: Path) -> dict:
    """One recipe on one cell."""
    with files_of(cell, root) as files:
        job = Job(cell, files, root, epochs_for(files.train))
        began, clock = time.process_time(), time.perf_counter()
        outcome = RECIPES[recipe](job)
        seconds, wall = time.process_time() - began, time.perf_counter() - clock
    right = sum(a == b for a, b in zip(outcome.guesses, files.test[1], strict=True))
    return asdict(cell) | {
        "recipe": recipe, "accuracy": right / len(files.test[1]), "valid": outcome.valid, "seconds": seconds,
        "wall": wall, "train": files.train, "test": len(files.test[1]), "note": outcome.note,
    }  # fmt: skip


def main() -> None:
    """Run what is not there yet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("TLNB_BENCH_DATA", "")))
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--amounts", nargs="+", default=AMOUNTS)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--share", default="1/1")
    given = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    mine, of = map(int, given.share.split("/"))
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    todo = product(seeds, given.amounts, given.sets, given.networks, given.recipes)
    for number, (seed, amount, data, network, recipe) in enumerate(todo):
        cell = Cell(data, amount, network, seed)
        key = asdict(cell) | {"recipe": recipe}
        known = given.results.read_text().splitlines() if given.results.exists() else []
        if number % of != mine - 1 or any(key.items() <= json.loads(line).items() for line in known):
            continue
        try:
            line = run(cell, recipe, given.data)
        except PlanError as error:  # such as norms to adapt where there are none
            print(f"{cell} {recipe}: {error}", flush=True)
            continue
        with given.results.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{cell} {recipe}: {100 * line['accuracy']:.1f} %, {line['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
