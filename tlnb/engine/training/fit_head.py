"""Fitting the last layer of a network to convergence on what enters it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tlnb.engine.core.objectives import Classification, MultiLabel, Objective, scores_of
from tlnb.engine.core.tree import call
from tlnb.engine.data.samples import Samples
from tlnb.engine.network.all_layers import AllLayers
from tlnb.engine.network.neighbours import Neighbours
from tlnb.engine.network.trace import quiet
from tlnb.engine.training.layer_fit import fit_layers
from tlnb.engine.training.linear_fit import fit_linear, fit_nearest
from tlnb.engine.training.stage import NEAREST
from tlnb.errors import TrainingError

BATCH = 32
ALIKE = 1e-3  # of the largest score, by which the network may answer otherwise than the layer alone
SOFT = 1e-4  # strength of a head that leaves something to learn
INSTEAD = "train it: freeze body  epochs 5"


@dataclass(frozen=True)
class HeadFit:
    """How a head was fitted.

    Attributes:
        strength: the inverse penalty chosen, as scikit-learn's ``C``.
        folds: how many folds chose it; 0 where a class has a single sample, so that there are none.
        loss: mean training loss.
        words: how, where it is not a fit of this strength.
    """

    strength: float
    folds: int
    loss: float
    words: str = ""

    @property
    def note(self) -> str:
        """In one line."""
        if self.words:
            return self.words
        how = f"chosen by {self.folds} folds" if self.folds else "assumed, as a class has a single sample"
        return f"fitted with strength {self.strength:g}, {how}"


def last_layer(head: nn.Module) -> Any:
    """The layer of a head that gives its scores: linear, a convolution, or neighbours."""
    return [m for m in head.modules() if isinstance(m, nn.Linear | nn.Conv2d | Neighbours)][-1]


@torch.no_grad()
def clear(head: nn.Module) -> None:
    """Set the layer that gives the scores to zero; neighbours stay."""
    layer = last_layer(head)
    if isinstance(layer, Neighbours):
        return
    layer.weight.zero_()
    if layer.bias is not None:
        layer.bias.zero_()


@torch.no_grad()
def fit_head(
    model: nn.Module,
    head: nn.Module,
    forward: nn.Module,
    views: list[Samples],
    task: Objective,
    device: torch.device,
    on_batch: Callable[[], None] = lambda: None,
    *,
    strength: float | None = None,
    by: str = "",
) -> HeadFit:
    """Fit the last layer of a head; the rest of the network stays as it is.

    Classes are told by multinomial logistic regression, labels by one against the rest, values by ridge
    regression, see :func:`tlnb.engine.training.linear_fit.fit_linear`. Nothing is changed before the fit is done.

    Args:
        model: the whole network.
        head: its head.
        forward: from a batch of the samples to scores; the model, or the part of it behind a cut.
        views: the training samples, once or under several changes.
        task: what is learned.
        device: where the model is.
        on_batch: called before each batch; what it raises passes through.
        strength: see ``fit_linear``; None to choose it by folds.
        by: ``nearest`` for the means of the classes, see ``fit_nearest``; a head of neighbours keeps the samples,
            one of all layers chooses among their features, see ``fit_layers``.

    Raises:
        TrainingError: the head is for classes, or for another number of samples; the scores are not linear in what
            enters the last layer, or that is not finite.
    """
    layer = last_layer(head)
    if isinstance(layer, Neighbours) or by == NEAREST:
        _need_classes(task)
    if isinstance(layer, Neighbours):
        return _remember(model, layer, forward, views[0], task, device, on_batch)
    if layer.bias is None:
        raise TrainingError("fit head needs a head with a bias; %tl_head linear makes one")
    if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1):
        raise TrainingError(f"fit head needs a head of single pixels, not of {layer.kernel_size}; {INSTEAD}")
    batches = _batches(views, device, on_batch)
    features = torch.cat([f.cpu() for f, _ in _entering(model, layer, forward, batches)])
    if not torch.isfinite(features).all():
        raise TrainingError("what enters the head is not finite for some samples, so it cannot be fitted")
    targets = torch.cat([view.targets for view in views])
    weights = task.weights if isinstance(task, Classification | MultiLabel) else None
    each = None if weights is None else torch.tensor(weights)
    goal = targets.to(torch.uint8) if isinstance(task, MultiLabel) else targets
    words = ""
    if by == NEAREST:
        found = fit_nearest(features, targets, len(layer.bias))
        words = f"fitted to the means of the classes, at the scale {found['strength']:.2g}"
    elif isinstance(head, AllLayers):
        found = fit_layers(features, head.features, goal, len(layer.bias), each, strength)
        words = f"fitted to {len(found['kept']):,} of {features.shape[1]:,} features of {len(head.taps) + 1} layers"
    else:
        found = fit_linear(features, goal, len(layer.bias), each, strength)
    before = layer.weight.clone(), layer.bias.clone()
    layer.weight.copy_(found["weight"].reshape(layer.weight.shape))
    layer.bias.copy_(found["bias"])
    try:
        some = torch.arange(min(BATCH, len(views[0])))
        _check_linear(model, layer, forward, views[0].batch(some).to(device))
    except TrainingError:
        layer.weight.copy_(before[0])
        layer.bias.copy_(before[1])
        raise
    scores = (features.double() @ found["weight"].T + found["bias"]).float()
    loss = float(task.loss(scores.to(device), targets.to(device)))
    return HeadFit(found["strength"], found["folds"], loss, words)


def _need_classes(task: Objective) -> None:
    if not isinstance(task, Classification):
        raise TrainingError(
            "nearest and knn tell classes apart; for labels or values: %tl_head linear --init fit"
        )


def _remember(
    model: nn.Module,
    layer: Neighbours,
    forward: nn.Module,
    samples: Samples,
    task: Objective,
    device: torch.device,
    on_batch: Callable[[], None],
) -> HeadFit:
    """Keep what enters the head for each training sample."""
    kept, size = layer.weight.shape
    if kept != len(samples):
        raise TrainingError(
            f"this head keeps {kept:,} samples, and there are {len(samples):,} now; %tl_head knn:{layer.k} makes one "
            "for them"
        )
    batches = _batches([samples], device, on_batch)
    features = torch.cat([f.cpu() for f, _ in _entering(model, layer, forward, batches)])
    if features.shape != (kept, size):
        raise TrainingError(f"{tuple(features.shape[1:])} numbers enter the head for a sample, not {size}")
    if not torch.isfinite(features).all():
        raise TrainingError("what enters the head is not finite for some samples, so it cannot be kept")
    layer.remember(features.to(device), samples.targets.to(device))
    scores = torch.cat([layer(part.to(device)) for part in features.split(BATCH)])
    loss = float(task.loss(scores, samples.targets.to(device)))
    return HeadFit(0.0, 0, loss, f"fitted by keeping {kept} samples, {layer.k} of which vote")


def _batches(views: list[Samples], device: torch.device, on_batch: Callable[[], None]) -> Iterator[Tensor]:
    for view in views:
        for x in view.stream(torch.arange(len(view)).split(BATCH)):
            on_batch()
            yield x.to(device)


def _entering(
    model: nn.Module, layer: nn.Module, forward: nn.Module, batches: Iterable[Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """What enters the layer for each batch, as vectors (B, d), and the network's scores (B, outputs)."""
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        with quiet(model):
            for x in batches:
                seen.clear()
                scores = scores_of(call(forward, x))
                if len(seen) != 1 or len(seen[0]) != len(x):
                    raise TrainingError(f"fit head needs a head that runs once for each sample; {INSTEAD}")
                yield as_vectors(seen[0], layer), scores
    finally:
        handle.remove()


def as_vectors(features: Tensor, layer: nn.Module) -> Tensor:
    """What enters a layer as vectors (B, d): places whose answers are averaged may be averaged before it."""
    if features.dim() == 2:
        return features
    return features.flatten(2).mean(2) if isinstance(layer, nn.Conv2d) else features.flatten(1, -2).mean(1)


def _check_linear(model: nn.Module, layer: nn.Linear | nn.Conv2d, forward: nn.Module, x: Tensor) -> None:
    """Whether the network answers what the layer alone says of what enters it."""
    assert layer.bias is not None
    for features, scores in _entering(model, layer, forward, [x]):
        alone = features @ layer.weight.flatten(1).T + layer.bias
        near = ALIKE * float(alone.abs().max().clamp(min=1))
        if alone.shape != scores.shape or not torch.allclose(alone, scores, rtol=0, atol=near):
            raise TrainingError(
                f"something behind the head changes its scores, so it cannot be fitted alone; {INSTEAD}"
            )
