"""Accuracy on photos with the same weights, split and budget: tlnb with found rates, and fastai's recipes.

python -m tests.benchmarks.photos --data FOLDER --weights FILE [--seeds 5] [--jobs head] [--peers fastai]

FOLDER holds ``train`` and ``val``; FILE is a state dict of torchvision's ``mobilenet_v2``. A line a run, then
a table. Without fastai (``pip install ".[bench]"``), photos or weights it says so in a line and ends.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlnb.display.tables import Table

MODEL = "mobilenet_v2"


@dataclass(frozen=True)
class Job:
    """What every run of the table shares: photos, weights, samples a step, side in pixels."""

    data: str
    weights: str
    batch: int = 32
    size: int = 224


def tlnb_session(job: Job, seed: int) -> Any:
    """A silent session on the photos, every layer trainable."""
    from tlnb.session import Session

    tl = Session([])
    tl.load(MODEL, weights=job.weights)
    tl.data(job.data, batch=job.batch, size=job.size, seed=seed)
    return tl


def tlnb_head(job: Job, seed: int) -> tuple[float, str]:
    """Five epochs of a linear head on a frozen body; the rate by the range test."""
    run = tlnb_session(job, seed).run("freeze body epochs 5")
    return run.accuracy, f"{run.stages[0].rate:.1e}"


def tlnb_tuned(job: Job, seed: int) -> tuple[float, str]:
    """Three epochs of the head, then two of all layers, the earliest about a hundred times slower."""
    run = tlnb_session(job, seed).run("freeze body epochs 3\nunfreeze all epochs 2 decay 1.1")
    return run.accuracy, ", ".join(f"{stage.rate:.1e}" for stage in run.stages)


def fastai_learner(job: Job, seed: int) -> Any:
    """fastai's head on the same body; norm layers of the body train, as is its default."""
    import torch
    from fastai.vision.all import (
        CropPad,
        ImageDataLoaders,
        Normalize,
        Resize,
        ResizeMethod,
        accuracy,
        imagenet_stats,
        set_seed,
        vision_learner,
    )
    from torch import nn
    from torchvision.models import mobilenet_v2

    def network(pretrained: bool = False) -> nn.Module:
        """The network in a row, so that fastai finds the pooling before which it cuts."""
        whole = mobilenet_v2()
        whole.load_state_dict(torch.load(job.weights, map_location="cpu", weights_only=True))
        return nn.Sequential(whole.features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), whole.classifier)

    set_seed(seed, reproducible=True)
    loaders = ImageDataLoaders.from_folder(
        job.data, train="train", valid="val", bs=job.batch, num_workers=0,
        item_tfms=[Resize(round(job.size * 256 / 224), method=ResizeMethod.Crop), CropPad(job.size)],
        batch_tfms=[Normalize.from_stats(*imagenet_stats)], seed=seed,
    )  # fmt: skip
    learn = vision_learner(loaders, network, pretrained=False, normalize=False, metrics=accuracy)
    learn.remove_cbs([cb for cb in learn.cbs if type(cb).__name__ == "ProgressCallback"])
    learn.freeze()
    return learn


def _fastai(job: Job, seed: int, train: Callable[[Any, float], None], find: bool) -> tuple[float, str]:
    learn = fastai_learner(job, seed)
    with learn.no_bar(), learn.no_logging():
        rate = float(learn.lr_find(show_plot=False).valley) if find else 2e-3
        train(learn, rate)
        measured = learn.validate()
    return float(measured[1]), f"{rate:.1e}"


def fastai_head(job: Job, seed: int) -> tuple[float, str]:
    """Five epochs of the head at ``fine_tune``'s default rate."""
    return _fastai(job, seed, lambda learn, rate: learn.fit_one_cycle(5, rate), False)


def fastai_head_found(job: Job, seed: int) -> tuple[float, str]:
    """Five epochs of the head at the rate of ``lr_find``'s rule ``valley``."""
    return _fastai(job, seed, lambda learn, rate: learn.fit_one_cycle(5, rate), True)


def fastai_tuned(job: Job, seed: int) -> tuple[float, str]:
    """``fine_tune`` as it comes: three epochs of the head, two of all."""
    return _fastai(job, seed, lambda learn, rate: learn.fine_tune(2, rate, freeze_epochs=3), False)


def fastai_tuned_found(job: Job, seed: int) -> tuple[float, str]:
    """``fine_tune`` at the rate of ``lr_find``'s rule ``valley``."""
    return _fastai(job, seed, lambda learn, rate: learn.fine_tune(2, rate, freeze_epochs=3), True)


RUNS: dict[str, dict[str, dict[str, Callable[[Job, int], tuple[float, str]]]]] = {
    "head": {
        "tlnb": {"tlnb, auto": tlnb_head},
        "fastai": {"fastai, 2e-3": fastai_head, "fastai, valley": fastai_head_found},
    },
    "tuned": {
        "tlnb": {"tlnb, auto": tlnb_tuned},
        "fastai": {"fastai, fine_tune": fastai_tuned, "fastai, valley": fastai_tuned_found},
    },
}


def line(name: str, run: Callable[[Job, int], tuple[float, str]], job: Job, seeds: int) -> tuple[str, ...]:
    """Run all seeds of one contestant; a line of the table."""
    found = []
    for seed in range(seeds):
        began = time.perf_counter()
        accuracy, rates = run(job, seed)
        found.append(100 * accuracy)
        seconds = time.perf_counter() - began
        print(f"  {name}, seed {seed}: {found[-1]:.1f} % at {rates}, {seconds:.0f} s", flush=True)
    each = (f"{value:.1f}" for value in found)
    return (name, *each, f"{statistics.mean(found):.1f}", f"{min(found):.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", default=os.environ.get("TLNB_BENCH_DATA", ""), help="has train, val")
    parser.add_argument("--weights", default=os.environ.get("TLNB_BENCH_WEIGHTS", ""), help="state dict")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--jobs", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--peers", nargs="+", choices=("tlnb", "fastai"), default=["tlnb", "fastai"])
    given = parser.parse_args()
    for path, what in ((given.data, "--data"), (given.weights, "--weights")):
        if not path or not Path(path).exists():
            raise SystemExit(f"skipped: {what} names nothing that is there")
    peers = list(given.peers)
    if "fastai" in peers and importlib.util.find_spec("fastai") is None:
        print('fastai is skipped: it is not installed (pip install ".[bench]")')
        peers.remove("fastai")
    job, seeds = Job(given.data, given.weights, size=given.size), given.seeds
    for word in given.jobs:
        print(f"{word}:")
        runs = {name: run for peer in peers for name, run in RUNS[word][peer].items()}
        lines = [line(name, run, job, seeds) for name, run in runs.items()]
        print(Table((word, *(f"seed {seed}" for seed in range(seeds)), "mean", "least"), lines), flush=True)


if __name__ == "__main__":
    main()
