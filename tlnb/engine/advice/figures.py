"""What advice rests on: every figure that is measured before anything trains, similarity among them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from tlnb.engine.advice.transferability import h_score, logme, ridge_probe
from tlnb.engine.core.objectives import Objective, floor_of
from tlnb.engine.core.tree import IDS, MASK, Batch, Tree, call
from tlnb.engine.data.samples import Samples, TensorSamples, choose
from tlnb.engine.features.layer_features import WIDEST, LayerFeatures, layer_features, narrowed, pooled
from tlnb.engine.features.planner import FeaturePlanner
from tlnb.engine.network.layers import LayerMap
from tlnb.engine.network.trace import quiet

SEEN = 256  # samples that are looked at
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Similarity:
    """How alike the new data and the old are.

    Attributes:
        value: between 0 and 1; 1 where each channel has the mean and spread that it had in training.
        layers: the same for each norm layer, by name.
        measured_on: how it was found, in words.
    """

    value: float
    layers: dict[str, float]
    measured_on: str


def norm_similarity(model: nn.Module, samples: Samples, device: torch.device) -> Similarity | None:
    """Similarity by the statistics that BatchNorm layers remember of the data they were trained on.

    A channel that had mean m and standard deviation s in training, and has m' and s' now, lies the squared
    Fréchet distance ``(m - m')^2 + (s - s')^2`` of two normal distributions away (Dowson and Landau 1982; the
    FID of Heusel et al. 2017 channel by channel), here in units of ``s^2``. With D its mean over a layer's
    channels, a layer's similarity is ``exp(-D)``; the value is that of the mean D over all norm layers. That
    these statistics describe the old data is what AdaBN (Li et al. 2016) and DeepInversion (Yin et al. 2020)
    rest on.

    Args:
        model: in which nothing changes.
        samples: of the new data.
        device: where the model is.

    Returns:
        None for a network without BatchNorm statistics.
    """
    norms = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, NORMS) and module.running_mean is not None
    }
    if not norms:
        return None
    sums: dict[str, list[Tensor]] = {name: [] for name in norms}
    hooks = [module.register_forward_pre_hook(_note(sums[name])) for name, module in norms.items()]
    try:
        with quiet(model):
            for indices in _some(samples).split(64):
                call(model, samples.batch(indices).to(device))
    finally:
        for hook in hooks:
            hook.remove()
    distances = {name: _distance(norms[name], parts) for name, parts in sums.items() if parts}
    if not distances:
        return None
    middle = sum(distances.values()) / len(distances)
    return Similarity(
        math.exp(-middle),
        {name: math.exp(-d) for name, d in distances.items()},
        f"means and spreads at {len(distances)} BatchNorm layers against those of the old data",
    )


def _note(parts: list[Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    """Gathers count, sum and sum of squares of each channel."""

    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].detach().float().transpose(0, 1).flatten(1)
        count = torch.full((len(x),), x.shape[1], dtype=torch.float64)
        parts.append(torch.stack([count, x.sum(1).cpu().double(), x.square().sum(1).cpu().double()]))

    return hook


def _distance(norm: nn.Module, parts: list[Tensor]) -> float:
    count, total, squares = torch.stack(parts).sum(0)
    mean = total / count
    spread = (squares / count - mean.square()).clamp(min=0).sqrt()
    old_mean, old_var = norm.running_mean, norm.running_var
    assert isinstance(old_mean, Tensor)
    assert isinstance(old_var, Tensor)
    old_spread = (old_var.cpu().double() + float(norm.eps)).sqrt()  # type: ignore[arg-type]
    return float(
        (((mean - old_mean.cpu().double()) / old_spread).square() + (spread / old_spread - 1).square()).mean()
    )


def _some(samples: Samples) -> Tensor:
    return torch.linspace(0, len(samples) - 1, min(SEEN, len(samples))).long().unique()


SCORED = 1000  # samples that scores are taken from; beyond that they hardly move


@dataclass(frozen=True)
class LayerScore:
    """What the features behind the first layers are worth for the new task.

    Attributes:
        kept: how many layers lie before.
        probe: accuracy of a linear probe on samples that it never saw, or the score that was asked for.
        error: its standard error.
        logme: logarithm of maximum evidence.
        h_score: H-score; None for measured values and several labels.
    """

    kept: int
    probe: float
    error: float
    logme: float
    h_score: float | None


@dataclass(frozen=True)
class Figures:
    """The figures of one network and one task.

    Attributes:
        images: training samples.
        per_class: of the smallest class; None for measured values.
        classes: outputs of the task.
        chance: what the largest class alone would score; 0 for measured values.
        scores: of each depth, rising.
        similarity: to the old data, between 0 and 1; None where the network does not tell.
        measured_on: how the similarity was found.
        norms: similarity at each norm layer.
        pixels: what a probe on the pooled input alone scores.
        metric: name of the score that was asked for; empty for the usual one.
        larger: whether more of it is better.
    """

    images: int
    per_class: int | None
    classes: int
    chance: float
    scores: tuple[LayerScore, ...]
    similarity: float | None
    measured_on: str
    norms: dict[str, float]
    pixels: float
    metric: str = ""
    larger: bool = True

    def of_all(self, samples: Samples) -> Figures:
        """The same scores, with the amounts of all samples where a part of them was looked at."""
        amount, chance, _ = _amounts(samples.targets)
        chance = self.chance if self.metric else chance
        return replace(self, images=len(samples), per_class=amount, chance=chance)


def chance_of(targets: Tensor) -> float:
    """What naming the largest class alone would score; 0 for measured values and several labels."""
    return _amounts(targets)[1]


def _amounts(targets: Tensor) -> tuple[int | None, float, int]:
    """Samples of the smallest class, share of the largest, and number of classes."""
    if targets.is_floating_point():
        return None, 0.0, int(targets[0].numel())
    counts = torch.bincount(targets)
    present = counts[counts > 0]
    return int(present.min()), float(counts.max() / counts.sum()), len(present)


def measure(
    model: nn.Module,
    layers: LayerMap,
    samples: Samples,
    planner: FeaturePlanner,
    device: torch.device,
    *,
    features: LayerFeatures | None = None,
    task: Objective | None = None,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Figures:
    """All figures, from one pass of the samples through the network.

    Args:
        model: in which nothing changes.
        layers: its layers.
        samples: to learn from; random ones are taken in one view.
        planner: keep the features that the pass gives.
        device: where the model is.
        features: of the samples, where they are known already.
        task: what is learned, where a score is asked for.
        seed: of the choice of samples that scores are taken from.
        on_progress: called as ``on_progress(done, total)`` meanwhile.
    """
    samples = samples.view(0, 0)
    found = features or layer_features(model, layers, samples, planner, device, on_progress)
    rows = _rows(samples, seed)
    targets = found.targets[rows]
    scores = tuple(
        _score(kept, vectors[rows], targets, task)
        for kept, vectors in zip(found.kept, found.vectors, strict=True)
    )
    alike = norm_similarity(model, samples, device)
    per_class, chance, classes = _amounts(samples.targets)
    score = task.score if task is not None else None
    return Figures(
        images=len(samples),
        per_class=per_class,
        classes=classes,
        chance=chance if score is None or task is None else floor_of(task, targets),
        scores=scores,
        similarity=alike.value if alike else None,
        measured_on=alike.measured_on if alike else "",
        norms=alike.layers if alike else {},
        pixels=_pixels(samples, rows, targets, task),
        metric=score.name if score is not None else "",
        larger=score is None or score.larger,
    )


def _rows(samples: Samples, seed: int) -> Tensor:
    """The samples that scores are taken from."""
    every = TensorSamples(torch.arange(len(samples)), samples.targets)
    return choose(every, SCORED, seed).batch(torch.arange(min(SCORED, len(samples))))


def _score(kept: int, vectors: Tensor, targets: Tensor, task: Objective | None) -> LayerScore:
    probe = ridge_probe(vectors, targets, task)
    classes = not targets.is_floating_point()
    return LayerScore(
        kept,
        probe.accuracy,
        probe.error,
        logme(vectors, targets),
        h_score(vectors, targets) if classes else None,
    )


def _pixels(samples: Samples, rows: Tensor, targets: Tensor, task: Objective | None) -> float:
    """What the input itself tells a probe: the floor for every layer."""
    parts = [pooled(_small(_vectors(samples.batch(part)))) for part in rows.split(64)]
    return ridge_probe(narrowed(torch.cat(parts)), targets, task).accuracy


def _vectors(x: Batch) -> Tensor:
    """Inputs as one tensor: of texts which tokens are in them, counted in as many places as a vector may have."""
    if not isinstance(x, Tree):
        return x
    if IDS in x:
        counts = torch.zeros(len(x), WIDEST)
        there = x[MASK] if MASK in x else torch.ones_like(x[IDS])
        return counts.scatter_add_(1, x[IDS] % WIDEST, there.float())
    return torch.cat([part.float().flatten(1) for part in x.values()], 1)


def _small(x: Tensor) -> Tensor:
    if x.dim() == 4:
        return functional.adaptive_avg_pool2d(x.float(), min(16, *x.shape[2:])).flatten(1)
    return x
