"""What advice rests on: every figure that is measured before anything trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from tlnb.engine.advice.layer_features import LayerFeatures, layer_features, narrowed, pooled
from tlnb.engine.advice.probe import ridge_probe
from tlnb.engine.advice.similarity import norm_similarity
from tlnb.engine.advice.transferability import h_score, logme
from tlnb.engine.data.chosen import choose
from tlnb.engine.data.samples import Samples, TensorSamples
from tlnb.engine.features.routes import Routes
from tlnb.engine.network.layers import LayerMap

SCORED = 1000  # samples that scores are taken from; beyond that they hardly move


@dataclass(frozen=True)
class LayerScore:
    """What the features behind the first layers are worth for the new task.

    Attributes:
        kept: how many layers lie before.
        probe: accuracy of a linear probe on samples that it never saw.
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

    def of_all(self, samples: Samples) -> Figures:
        """The same scores, with the amounts of all samples where a part of them was looked at."""
        amount, chance, _ = _amounts(samples.targets)
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
    routes: Routes,
    device: torch.device,
    *,
    features: LayerFeatures | None = None,
    seed: int = 0,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Figures:
    """All figures, from one pass of the samples through the network.

    Args:
        model: in which nothing changes.
        layers: its layers.
        samples: to learn from; random ones are taken in one view.
        routes: keep the features that the pass gives.
        device: where the model is.
        features: of the samples, where they are known already.
        seed: of the choice of samples that scores are taken from.
        tick: called as ``tick(done, total)`` meanwhile.
    """
    samples = samples.view(0, 0)
    found = features or layer_features(model, layers, samples, routes, device, tick)
    rows = _rows(samples, seed)
    targets = found.targets[rows]
    scores = tuple(
        _score(kept, vectors[rows], targets) for kept, vectors in zip(found.kept, found.vectors, strict=True)
    )
    alike = norm_similarity(model, samples, device)
    per_class, chance, classes = _amounts(samples.targets)
    return Figures(
        images=len(samples),
        per_class=per_class,
        classes=classes,
        chance=chance,
        scores=scores,
        similarity=alike.value if alike else None,
        measured_on=alike.measured_on if alike else "",
        norms=alike.layers if alike else {},
        pixels=_pixels(samples, rows, targets),
    )


def _rows(samples: Samples, seed: int) -> Tensor:
    """The samples that scores are taken from."""
    every = TensorSamples(torch.arange(len(samples)), samples.targets)
    return choose(every, SCORED, seed).batch(torch.arange(min(SCORED, len(samples))))


def _score(kept: int, vectors: Tensor, targets: Tensor) -> LayerScore:
    probe = ridge_probe(vectors, targets)
    classes = not targets.is_floating_point()
    return LayerScore(
        kept,
        probe.accuracy,
        probe.error,
        logme(vectors, targets),
        h_score(vectors, targets) if classes else None,
    )


def _pixels(samples: Samples, rows: Tensor, targets: Tensor) -> float:
    """What the input itself tells a probe: the floor for every layer."""
    parts = [pooled(_small(samples.batch(part))) for part in rows.split(64)]
    return ridge_probe(narrowed(torch.cat(parts)), targets).accuracy


def _small(x: Tensor) -> Tensor:
    if x.dim() == 4:
        return functional.adaptive_avg_pool2d(x.float(), min(16, *x.shape[2:])).flatten(1)
    return x
