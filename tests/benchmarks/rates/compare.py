"""What a found rate costs against the best fixed one: a line of JSON for each stage, seed and rate.

    python -m tests.benchmarks.rates.compare results.jsonl --data FOLDER --networks FOLDER2
    python -m tests.benchmarks.rates.compare results.jsonl --report

FOLDER holds photo sets and ``weights``; FOLDER2 what ``tests.benchmarks.rates.networks`` wrote. Each stage is trained
at each of a row of fixed rates, and at the rate that ``lr auto`` finds, from the same weights; accuracy and loss are
those of the validation samples. What is in the file already is not run again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["TLNB_HOME"] = tempfile.mkdtemp(prefix="tlnb-rates-")
os.environ["TLNB_AUTOSAVE"] = "0"

import numpy as np
import torch

HEAD = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
MORE = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
PHOTOS = 96  # pixels
FIRST = "freeze body epochs 3 lr 3e-3"


@dataclass(frozen=True)
class Kind:
    """A stage of the table.

    Attributes:
        network, data: what is trained on what.
        line: the stage.
        before: stages before it.
        rates: fixed rates that it is trained at.
        seeds: how many.
        per_class: training samples a class; None for all.
    """

    network: str
    data: str
    line: str
    before: tuple[str, ...] = ()
    rates: tuple[float, ...] = MORE
    seeds: int = 5
    per_class: int | None = None


KINDS = {
    "SqueezeNet 1.1, ants and bees: the head": Kind(
        "squeezenet1_1", "hymenoptera", "freeze body epochs 5", (), HEAD
    ),
    "MobileNetV2, ants and bees: the head": Kind(
        "mobilenet_v2", "hymenoptera", "freeze body epochs 5", (), HEAD
    ),
    "MobileNetV2, flowers: the head": Kind("mobilenet_v2", "flowers", "freeze body epochs 5", (), HEAD),
    "convnet5, digits: the head": Kind("convnet5", "digits", "freeze body epochs 3", (), HEAD),
    "convnet5, digits: layers 3 on": Kind("convnet5", "digits", "unfreeze 3: epochs 2", (FIRST,)),
    "convnet5, digits: all layers": Kind(
        "convnet5",
        "digits",
        "unfreeze all epochs 2 decay 2.6",
        (FIRST, "unfreeze 3: epochs 2 lr 1e-3"),
        seeds=3,
    ),
    "SqueezeNet 1.1, flowers, 20 a class: all": Kind(
        "squeezenet1_1", "flowers", "train all epochs 5", ("fit head",), seeds=2, per_class=20
    ),
    "MobileNetV2, flowers, 20 a class: all": Kind(
        "mobilenet_v2", "flowers", "train all epochs 5 bn frozen", ("fit head",), seeds=2, per_class=20
    ),
    "residual, digits, 50 a class: the head": Kind("res8", "digits", "freeze body epochs 5", (), HEAD, 5, 50),
    "residual, digits, 50 a class: all": Kind(
        "res8", "digits", "train all epochs 3", ("fit head",), MORE, 3, 50
    ),
    "transformer, digits, 50 a class: the head": Kind(
        "vit", "digits", "freeze body epochs 5", (), HEAD, 5, 50
    ),
    "transformer, digits, 50 a class: all": Kind(
        "vit", "digits", "train all epochs 3", ("fit head",), MORE, 3, 50
    ),
}


def session(kind: Kind, seed: int, data: Path, networks: Path) -> Any:
    """A session that stands before the stage."""
    from tests.benchmarks.rates.networks import NETWORKS
    from tlnb.session import Session

    tl = Session([])
    named: dict[str, Any] = {"seed": seed, "per_class": kind.per_class}
    if kind.network in NETWORKS:
        net = NETWORKS[kind.network][0]()
        net.load_state_dict(torch.load(networks / f"{kind.network}.pt", weights_only=True))
        tl.load(net, input="1,32,32")
        tl.data(_drawn_like_letters(named), seed=seed, batch=64)
    elif kind.data == "digits":
        tl.load(kind.network)
        tl.data("digits", **named)
    else:
        tl.load(kind.network, weights=os.fspath(data / "weights" / f"{kind.network}.pth"))
        tl.data(os.fspath(data / kind.data), size=PHOTOS, **named)
    for line in kind.before:
        tl.run(line, guard=False)
    return tl


def _drawn_like_letters(named: dict[str, Any]) -> Any:
    """Digits as the networks that learned drawn letters take them."""
    from tlnb.session import Session

    tl = Session([])
    tl.load("convnet5")
    tl.data("digits", **named)
    return tuple((part.batch(torch.arange(len(part))), part.targets) for part in tl._samples)


def run(name: str, seed: int, data: Path, networks: Path, known: set[tuple]) -> list[dict]:
    """The stage at each fixed rate, and at the one that is found."""
    kind, lines = KINDS[name], []
    wanted: list[float | None] = [None, *kind.rates]
    if all((name, seed, rate) in known for rate in wanted):
        return []
    tl = session(kind, seed, data, networks)
    for rate in wanted:
        if (name, seed, rate) in known:
            continue
        began = time.perf_counter()
        stage = tl.run(f"{kind.line} lr {rate or 'auto'} guard off").stages[-1]
        last, steps = stage.final, (stage.seconds - stage.test_seconds) / max(len(stage.records), 1)
        lines.append({
            "kind": name, "seed": seed, "rate": rate, "found": stage.rate, "epoch": steps, "test": stage.test_seconds,
            "accuracy": last.accuracy if last else math.nan, "loss": last.valid_loss if last else math.nan,
            "seconds": time.perf_counter() - began,
        })  # fmt: skip
        if stage.records:
            tl.undo()
    return lines


def report(lines: list[dict]) -> str:
    """Points lost against the best rate of the same seed, and loss as a multiple of the lowest."""
    rows = [
        "| stage (seeds) | best fixed | found | points lost: mean, worst | loss | test, epochs |",
        "|---|---|---|---|---|---|",
    ]
    every = []
    for name in KINDS:
        seeds: dict[int, dict[float | None, dict]] = defaultdict(dict)
        for line in lines:
            if line["kind"] == name:
                seeds[line["seed"]][line["rate"]] = line
        whole = [s for s in seeds.values() if None in s and len(s) > 1]
        if not whole:
            continue
        lost, times, found, cost, best = [], [], [], [], []
        for runs in whole:
            auto, fixed = (
                runs[None],
                [r for rate, r in runs.items() if rate is not None and math.isfinite(r["loss"])],
            )
            top = max(fixed, key=lambda r: (r["accuracy"], -r["loss"]))
            lost.append(100 * (top["accuracy"] - auto["accuracy"]))
            times.append(auto["loss"] / min(r["loss"] for r in fixed))
            found.append(auto["found"])
            cost.append(auto["test"] / statistics.median(r["epoch"] for r in fixed))
            best.append(top["rate"])
        every.append(statistics.mean(lost))
        rows.append(
            f"| {name} ({len(whole)}) | {_middle(best):.0e} | {_middle(found):.0e} | "
            f"{statistics.mean(lost):.1f}, {max(lost):.1f} | {statistics.mean(times):.2f} | "
            f"{statistics.mean(cost):.2f} |"
        )
    return "\n".join(
        [*rows, "", f"mean over the stages: {statistics.mean(every):.2f} points" if every else ""]
    )


def _middle(rates: list[float]) -> float:
    return float(np.exp(np.mean(np.log(rates))))


def main() -> None:
    """Run what is not there yet, or print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("TLNB_BENCH_DATA", "")))
    parser.add_argument("--networks", type=Path, default=Path())
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--report", action="store_true")
    given = parser.parse_args()
    lines = (
        [json.loads(line) for line in given.results.read_text().splitlines()]
        if given.results.exists()
        else []
    )
    if given.report:
        print(report(lines))
        return
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    known = {(line["kind"], line["seed"], line["rate"]) for line in lines}
    for name in given.kinds:
        for seed in range(KINDS[name].seeds):
            for line in run(name, seed, given.data, given.networks, known):
                with given.results.open("a") as file:
                    file.write(json.dumps(line) + "\n")
            print(f"{name}, seed {seed}", flush=True)


if __name__ == "__main__":
    main()
