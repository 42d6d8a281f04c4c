"""Train every procedure on every task, and note what the advisor would see: a line of JSON each.

    TLNB_PHOTOS=... python tests/benchmarks/advice/collect.py results.jsonl --set held-out --seeds 3

Lines that are there already are not computed again, so it can be stopped at any time and gone on with. Accuracy
is measured once, after the last epoch, on the images that nothing else looks at.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from procedures import lengths, procedures, variants
from tasks import AMOUNTS, LARGEST, SETS, Make, TaskSet

from tlnb.engine.advice.advice import decide, write_plan
from tlnb.engine.advice.figures import measure
from tlnb.engine.advice.trial import TrialGround, try_plan
from tlnb.engine.core.objectives import Classification
from tlnb.engine.data.samples import ImageSamples
from tlnb.engine.features.cache import FeatureCache
from tlnb.engine.features.planner import FeaturePlanner
from tlnb.engine.models.catalogue import load_model
from tlnb.engine.network.layers import find_layers
from tlnb.engine.training.plan import Traits

SCRATCH, ADVISED, FIGURES = "scratch", "advised", "figures"
BEHIND = 0.05  # of the best at the first seed, from which on a procedure is not run at further seeds


def ground_of(task: TaskSet) -> TrialGround:
    """convnet5 as it ships, with the task's samples; each epoch is measured on a few, since nobody asks."""
    loaded = load_model("convnet5")
    few = tuple(part[:32] for part in task.test)
    samples = [ImageSamples(loaded.preprocess.fit(x), y, loaded.preprocess) for x, y in (task.train, few)]
    batch, _, _ = lengths(len(task.train[1]))
    model = loaded.model.to(memory_format=torch.channels_last)  # a fifth faster
    return TrialGround(model, loaded.head, (samples[0], samples[1]), task.classes, Classification(), batch)


def right(model: torch.nn.Module, task: TaskSet) -> float:
    """The share of the test images that the network tells."""
    preprocess = load_model("convnet5").preprocess
    model = model.to(memory_format=torch.channels_last).eval()
    samples = ImageSamples(preprocess.fit(task.test[0]), task.test[1], preprocess)
    hits = []
    with torch.inference_mode():
        for rows in torch.arange(len(samples)).split(64):
            x = samples.batch(rows).contiguous(memory_format=torch.channels_last)
            hits.append(model(x).argmax(1) == samples.targets[rows])
    return torch.cat(hits).float().mean().item()


def seen(ground: TrialGround, task: TaskSet) -> dict:
    """What the advisor measures, and the plan that it writes."""
    layers = find_layers(ground.model, ground.samples[0].batch(torch.arange(1)), head=ground.head)
    figures = measure(
        ground.model, layers, ground.samples[0], FeaturePlanner(FeatureCache(None)), ground.device
    )
    counts = torch.bincount(task.test[1]).double()
    traits = Traits.of(ground.model, layers, trained=True)
    plan = write_plan(decide(figures, layers, traits), layers, figures.images, traits)
    chance = round(float(counts.max() / counts.sum()), 4)
    return {"figures": asdict(figures), "plan": plan, "chance": chance}


def usual(plan: str) -> str:
    """A plan in the words of the procedures, so that one that is among them is not trained twice."""
    for ours, theirs in (("train head", "freeze body"), ("train ", "unfreeze ")):
        plan = plan.replace(ours, theirs)
    return plan


class Known:
    """The lines that are there already."""

    def __init__(self, path: Path):
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows = {row["key"]: row for row in map(json.loads, lines)}

    def hopeless(self, task: str, procedure: str, seed: int) -> bool:
        """Whether this procedure was far behind the best at the first seed."""
        if seed == 0 or procedure in (ADVISED, FIGURES):
            return False
        first = {
            key.rpartition("/")[2]: row["accuracy"]
            for key, row in self.rows.items()
            if key.startswith(f"{task}/0/") and "accuracy" in row
        }
        return procedure in first and first[procedure] < max(first.values()) - BEHIND


def rows(name: str, make: Make, amount: int, seed: int, wanted: list[str], known: Known) -> Iterator[dict]:
    """The figures of a task, and each procedure's accuracy on it, as far as they are not known."""
    place = f"{name}/{amount}"
    missing = [
        procedure
        for procedure in wanted
        if f"{place}/{seed}/{procedure}" not in known.rows and not known.hopeless(place, procedure, seed)
    ]
    if not missing:
        return
    task = make(amount, seed)
    ground, images = ground_of(task), len(task.train[1])
    plans = procedures(images) | variants(images)
    for procedure in missing:
        began = time.perf_counter()
        if procedure == FIGURES:
            found = seen(ground, task)
        elif procedure == ADVISED:
            plan = known.rows[f"{place}/{seed}/{FIGURES}"]["plan"]
            same = next((other for other, text in plans.items() if text == usual(plan)), "")
            twin = known.rows.get(f"{place}/{seed}/{same}")
            accuracy = twin["accuracy"] if twin else right(try_plan(ground, plan, seed=seed).model, task)
            found = {"accuracy": round(accuracy, 5), "same as": same}
        else:
            kept = 0 if procedure == SCRATCH else None
            result = try_plan(ground, plans[procedure], kept=kept, seed=seed)
            found = {"accuracy": round(right(result.model, task), 5)}
        row = {
            "key": f"{place}/{seed}/{procedure}", "domain": name, "amount": amount, "seed": seed,
            "procedure": procedure, **found, "images": images, "test": len(task.test[1]),
            "seconds": round(time.perf_counter() - began, 2),
        }  # fmt: skip
        known.rows[row["key"]] = row
        yield row


def main() -> None:
    """Compute what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--amounts", type=int, nargs="+", default=AMOUNTS)
    parser.add_argument("--set", choices=tuple(SETS), nargs="+", default=["tune"])
    parser.add_argument("--domains", default="")
    parser.add_argument(
        "--procedures", default="", help="names with ; between them; the usual ones if left out"
    )
    asked = parser.parse_args()
    torch.set_num_threads(1)
    known = Known(asked.results)
    wanted = asked.procedures.split(";") if asked.procedures else [FIGURES, *procedures(1), ADVISED]
    domains = {name: make for part in asked.set for name, make in SETS[part].items()}
    photos = "TLNB_PHOTOS" in os.environ
    for seed in asked.seeds:
        for amount in asked.amounts:
            for name, make in domains.items():
                if not photos and any(word in name for word in ("flowers", "mnist", "hymenoptera")):
                    continue
                if amount > LARGEST.get(name, amount) or (
                    asked.domains and name not in asked.domains.split(";")
                ):
                    continue
                with asked.results.open("a") as out:
                    for row in rows(name, make, amount, seed, wanted, known):
                        out.write(json.dumps(row) + "\n")
                        out.flush()


if __name__ == "__main__":
    main()
