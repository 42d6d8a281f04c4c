"""Flip labels, look for them, and train again: a table of figures, beside cleanlab's on the same features.

    python -m tests.benchmarks.cleaning.flips flowers digits banking77 --data FOLDER --models FOLDER

FOLDER of the data holds the sets, and networks' weights in ``weights``; that of the models a folder ``minilm``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ["TLNB_HOME"] = tempfile.mkdtemp(prefix="tlnb-flips-")

import numpy as np
import torch
from torch import Tensor

from tlnb.engine.cleaning.out_of_fold import standard_axes
from tlnb.engine.cleaning.suspects import Evidence, find
from tlnb.engine.data.dataset import Data
from tlnb.engine.features.layer_features import pooled
from tlnb.engine.features.planner import CacheRequest
from tlnb.engine.training.linear_fit import fit_linear
from tlnb.session import Session

RATES, KINDS, SHOWN = (0.1, 0.2), ("uniform", "confused"), {0.1: 0.15, 0.2: 0.3}


def session_of(name: str, data: Path, models: Path) -> Session:
    """The data with a network that was trained on something else."""
    tl = Session([])
    if name == "digits":
        tl.load("convnet5")
        tl.data("digits")
    elif name == "banking77":
        tl.load(str(models / "minilm"))
        tl.data(str(data / name), per_class=40)
    else:
        tl.load("mobilenet_v2", weights=str(data / "weights" / "mobilenet_v2.pth"))
        tl.data(str(data / name))
    return tl


def features_of(tl: Session) -> tuple[Tensor, Tensor]:
    """What enters the head for training and validation samples, in which nothing is flipped."""
    view = tl.view
    layers = view.need_layers()
    cut = max(cut for cut in layers.graph.cuts if cut <= max(layers.body) + 1)
    forward_plan = view.planner.forward_plan(
        tl.model, layers, CacheRequest(range(cut)), view.need_samples(), view.device
    )
    parts = []
    for part in (forward_plan.train, forward_plan.valid):
        parts.append(torch.cat([pooled(x) for x in part.stream(torch.arange(len(part)).split(64))]))
    return parts[0], parts[1]


def flipped(
    labels: Tensor, classes: int, rate: float, kind: str, seed: int, features: Tensor
) -> tuple[Tensor, Tensor]:
    """Labels of which a share is wrong, and which ones: uniformly, or the class that is likeliest confused."""
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.randperm(len(labels), generator=generator)[: round(rate * len(labels))]
    found = labels.clone()
    if kind == "uniform":
        found[wrong] = (
            labels[wrong] + torch.randint(1, classes, (len(wrong),), generator=generator)
        ) % classes
    else:
        means = torch.stack([features[labels == c].mean(0) for c in range(classes)])
        apart = torch.cdist(means, means)
        apart.fill_diagonal_(float("inf"))
        found[wrong] = apart.argmin(1)[labels[wrong]]
    return found, wrong


def accuracy(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], classes: int) -> float:
    """Of a linear layer fitted to convergence, on samples that nobody flipped."""
    head = fit_linear(train[0], train[1], classes)
    guess = (test[0].double() @ head["weight"].T + head["bias"]).argmax(1)
    return float((guess == test[1]).double().mean())


def by_cleanlab(features: Tensor, labels: Tensor) -> np.ndarray:
    """Places by cleanlab's quality of labels, the worst first, as its ``CleanLearning`` does it by itself."""
    from cleanlab.rank import get_label_quality_scores
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    standard = ((features - features.mean(0)) / features.std(0).clamp(min=1e-6)).numpy()
    answers = cross_val_predict(
        LogisticRegression(max_iter=200), standard, labels.numpy(), cv=5, method="predict_proba"
    )
    return np.argsort(get_label_quality_scores(labels.numpy(), answers), kind="stable")


def one(
    data: Data, train: Tensor, test: tuple[Tensor, Tensor], rate: float, kind: str, seed: int
) -> dict[str, float]:
    """The figures of one flip."""
    clean, classes = data.train.targets, len(data.classes)
    labels, wrong = flipped(clean, classes, rate, kind, seed, train)
    part = data.train.subset(torch.arange(len(labels)))
    part.targets = labels
    # Samples to look among are the flipped ones alone: the others stay clean, to measure on.
    alone = replace(data, train=part, valid=part.subset(torch.arange(0)), split=None, groups=None)
    began = time.perf_counter()
    found = find(alone, Evidence(train, digests=[""] * len(labels)))
    seconds = time.perf_counter() - began
    rows = [row for row in found.rows if "label" in row.kinds]
    most = round(SHOWN[rate] * len(labels))
    hidden = set(wrong.tolist())
    share = len({row.sample for row in rows[:most]} & hidden) / len(hidden)
    theirs = by_cleanlab(train, labels)
    names = {name: number for number, name in enumerate(data.classes)}
    sure = [row for row in rows if row.why.startswith("likely")]
    keep = torch.ones(len(labels), dtype=torch.bool)
    keep[[row.sample for row in sure]] = False
    taken = labels.clone()
    for row in sure:
        taken[row.sample] = names[row.likely]
    seen = labels.clone()
    for row in rows[:most]:
        seen[row.sample] = clean[row.sample]
    return {
        "shown": share,
        "shown, cleanlab": len(set(theirs[:most].tolist()) & hidden) / len(hidden),
        "sure": len(sure), "sure, right": sum(row.sample in hidden for row in sure) / max(len(sure), 1),
        "as flipped": accuracy((train, labels), test, classes),
        "sure dropped": accuracy((train[keep], labels[keep]), test, classes),
        "sure relabelled": accuracy((train, taken), test, classes),
        "shown looked through": accuracy((train, seen), test, classes),
        "none flipped": accuracy((train, clean), test, classes),
        "seconds": seconds,
    }  # fmt: skip


def main() -> None:
    """Print a line a cell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("TLNB_DATA", "")))
    parser.add_argument("--models", type=Path, default=Path(os.environ.get("TLNB_MODELS", "")))
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    for name in given.sets:
        tl = session_of(name, given.data, given.models)
        data = tl.view.need_data()
        train, valid = features_of(tl)
        _ = standard_axes(train[:2])  # the first call of a solver takes longer
        for rate in RATES:
            for kind in KINDS:
                runs = [
                    one(data, train, (valid, data.valid.targets), rate, kind, s) for s in range(given.seeds)
                ]
                cells = [f"{key} {np.mean([r[key] for r in runs]):.3f}" for key in runs[0]]
                spread = np.std([r["shown"] for r in runs])
                print(f"{name}, {rate:.0%} {kind}: {', '.join(cells)}; shown ±{spread:.3f}", flush=True)


if __name__ == "__main__":
    main()
