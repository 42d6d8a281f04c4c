"""A head epoch on kept features against the same epoch written by hand on a tensor in memory.

python -m tests.benchmarks.head_epoch [--samples 1000] [--pairs 9]

It also shows that the epoch does not depend on the depth of the body.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import torchvision
from torch import nn

from tlnb.engine.core.interrupts import StopRequest
from tlnb.engine.core.objectives import Classification
from tlnb.engine.data.samples import TensorSamples
from tlnb.engine.features.cache import FeatureCache
from tlnb.engine.features.planner import CacheRequest, FeaturePlanner, ForwardPlan
from tlnb.engine.network import freeze
from tlnb.engine.network.layers import find_layers
from tlnb.engine.training.stage import Stage
from tlnb.engine.training.trainer import StageTrainer

BATCH, SIDE = 32, 32


def trainer(name: str, count: int) -> StageTrainer:
    """A head stage on a torchvision network, with warm features."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None)
    layers = find_layers(model.eval(), torch.zeros(1, 3, SIDE, SIDE))
    frozen = tuple(range(len(layers) - 1))
    freeze.apply(model, layers, frozen)
    images = TensorSamples(torch.randn(count, 3, SIDE, SIDE), torch.randint(0, 1000, (count,)))
    cpu = torch.device("cpu")
    planner = FeaturePlanner(FeatureCache())
    stage = Stage("head", frozen, epochs=100, lr=1e-3)
    made = StageTrainer(
        model, layers, stage, ForwardPlan(images, images, model), number=1, batch=BATCH, seed=0, task=Classification(),
        shortcut=lambda log, on_progress: planner.forward_plan(
            model, layers, CacheRequest(frozen), (images, images), cpu
        ),
    )  # fmt: skip
    made.take_shortcut(print, lambda done, total: None)
    return made


def ours(one: StageTrainer) -> None:
    """An epoch with validation, as a stage runs it."""
    one.train_epoch(1e-3, StopRequest(), lambda done, total: None)
    one.evaluate()


def by_hand(
    head: nn.Module, optimizer: torch.optim.Optimizer, features: torch.Tensor, targets: torch.Tensor
) -> None:
    """The same epoch, as short as it can be written."""
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    total = 0.0
    for indices in torch.randperm(len(features)).split(BATCH):
        loss = nn.functional.cross_entropy(head(features[indices]), targets[indices])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        total += loss.item() * len(indices)
    with torch.no_grad():
        for x, y in zip(features.split(BATCH), targets.split(BATCH), strict=True):
            scores = head(x)
            total += nn.functional.cross_entropy(scores, y).item()
            int((scores.argmax(1) == y).sum())


def compare(name: str, count: int, pairs: int) -> str:
    """Processor seconds of both, in turn; one line."""
    one = trainer(name, count)
    features, targets = one.forward_plan.train.batch(torch.arange(count)), one.forward_plan.train.targets
    head = nn.Sequential(nn.Flatten(), nn.Linear(features[0].numel(), 1000))
    optimizer = torch.optim.AdamW(head.parameters(), fused=True)
    sides: tuple[list[float], list[float]] = ([], [])
    for pair in range(pairs + 1):
        for side, run in zip(
            sides, (lambda: ours(one), lambda: by_hand(head, optimizer, features, targets)), strict=True
        ):
            began = time.process_time()
            run()
            if pair:  # the first is for warming up
                side.append(1000 * (time.process_time() - began))
    ratios = [a / b for a, b in zip(*sides, strict=True)]
    medians = [statistics.median(side) for side in sides]
    return (
        f"{name:12s} tlnb {medians[0]:6.1f} ms, by hand {medians[1]:6.1f} ms, ratio {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=9)
    given = parser.parse_args()
    for name in ("resnet18", "resnet34"):  # heads of the same size behind bodies of different depth
        print(compare(name, given.samples, given.pairs))


if __name__ == "__main__":
    main()
