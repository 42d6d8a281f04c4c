"""Train every procedure on every task, and note what the advisor would see: a line of JSON each.

    TLNB_PHOTOS=... python tests/benchmarks/advice/collect.py results.jsonl --seeds 2 [--set tune|held-out]

Lines that are there already are not computed again, so it can be stopped at any time and gone on with.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from procedures import procedures
from tasks import AMOUNTS, HELD_OUT, TUNE, TaskSet

from tlnb.engine.advice.figures import measure
from tlnb.engine.advice.rule import lengths
from tlnb.engine.advice.trial import TrialGround, try_plan
from tlnb.engine.data.samples import ImageSamples
from tlnb.engine.features.cache import FeatureCache
from tlnb.engine.features.route import Routes
from tlnb.engine.models.catalogue import load_model
from tlnb.engine.network.layers import find_layers
from tlnb.engine.training.tasks import Classification


def ground_of(task: TaskSet) -> TrialGround:
    """convnet5 as it ships, with the task's samples."""
    loaded = load_model("convnet5")
    samples = [
        ImageSamples(loaded.preprocess.fit(x), y, loaded.preprocess) for x, y in (task.train, task.valid)
    ]
    batch, _, _ = lengths(len(task.train[1]))
    return TrialGround(
        loaded.model, loaded.head, (samples[0], samples[1]), task.classes, Classification(), batch
    )


def rows(
    name: str, make: Callable[[int, int], TaskSet], amount: int, seed: int, done: set[str]
) -> Iterator[dict]:
    """The figures of a task, and each procedure's accuracy on it, as far as they are not known."""
    key = f"{name}/{amount}/{seed}"
    task = None
    for procedure in ("figures", *procedures(1)):
        if f"{key}/{procedure}" in done:
            continue
        task = task or make(amount, seed)
        ground = ground_of(task)
        began = time.perf_counter()
        row = {
            "key": f"{key}/{procedure}",
            "domain": name,
            "amount": amount,
            "seed": seed,
            "procedure": procedure,
        }
        if procedure == "figures":
            example = ground.samples[0].batch(torch.arange(1))
            layers = find_layers(ground.model, example, head=ground.head)
            routes = Routes(FeatureCache(None))
            figures = measure(ground.model, layers, ground.samples[0], routes, ground.device)
            row["figures"] = asdict(figures)
        else:
            text = procedures(len(task.train[1]))[procedure]
            kept = 0 if procedure == "scratch" else None
            result = try_plan(ground, text, kept=kept, seed=seed)
            row |= {"accuracy": result.accuracy, "loss": result.loss}
        yield row | {"seconds": round(time.perf_counter() - began, 2), "images": len(task.train[1])}


def main() -> None:
    """Compute what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--set", choices=("tune", "held-out"), default="tune")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    known = asked.results.read_text().splitlines() if asked.results.exists() else []
    done = {json.loads(line)["key"] for line in known}
    domains = TUNE if asked.set == "tune" else HELD_OUT
    photos = "TLNB_PHOTOS" in os.environ
    for seed in range(asked.seeds):
        for amount in AMOUNTS:
            for name, make in domains.items():
                if name in ("flowers", "mnist", "hymenoptera") and not photos:
                    continue
                with asked.results.open("a") as out:
                    for row in rows(name, make, amount, seed, done):
                        out.write(json.dumps(row) + "\n")
                        out.flush()


if __name__ == "__main__":
    main()
