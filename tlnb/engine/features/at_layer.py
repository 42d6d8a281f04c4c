"""What comes out of one layer for training and validation samples, pooled to vectors, with the scores behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tlnb.engine.core.objectives import scores_of
from tlnb.engine.core.tree import call
from tlnb.engine.data.samples import Samples
from tlnb.engine.features.layer_features import BATCH, hooked_features, pooled
from tlnb.engine.features.planner import CacheRequest, FeaturePlanner
from tlnb.engine.network.layers import LayerMap
from tlnb.engine.network.trace import quiet
from tlnb.errors import ModelError

Pair = tuple[Samples, Samples]
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class AtLayer:
    """Features of two parts of the data.

    Attributes:
        vectors: of the training and of the validation samples, float32 (n, d) each, on the CPU.
        scores: of the whole network for the same, (n, outputs) each.
        layer: the layer that they come out of, which may lie before the one that was asked for.
    """

    vectors: tuple[Tensor, Tensor]
    scores: tuple[Tensor, Tensor]
    layer: int


def features_at(
    model: nn.Module, layers: LayerMap, layer: int, samples: Pair, planner: FeaturePlanner, device: torch.device,
    on_progress: OnProgress = lambda done, total: None,
) -> AtLayer:  # fmt: skip
    """Features behind a layer; what training keeps there serves, and what runs now is kept for training.

    Where the network cannot be cut behind the layer, the nearest cut before it is taken. A network that has no cut is
    watched by hooks instead. Behind the last layer features are scores.

    Args:
        model: in which nothing changes.
        layers: its layers.
        layer: number of the layer.
        samples: to learn from and to measure on, without random changes.
        planner: of the session, with its cache.
        device: where the model is.
        on_progress: called as ``on_progress(done, total)`` in samples meanwhile; what it raises ends the pass.

    Raises:
        ModelError: nothing that could be drawn comes out of this layer.
    """
    last = layer == len(layers) - 1
    cuts = [cut for cut in layers.graph.cuts if 0 < cut <= layer + 1] if layers.graph else []
    if cuts:
        cut = max(cuts)
        forward_plan = planner.forward_plan(
            model, layers, CacheRequest(range(cut)), samples, device, on_progress=on_progress
        )
        if forward_plan.forward is not model:
            found = [
                _walk(forward_plan.forward, part, device, on_progress)
                for part in (forward_plan.train, forward_plan.valid)
            ]
            scores = (found[0][1], found[1][1])
            return AtLayer(scores if last else (found[0][0], found[1][0]), scores, layer if last else cut - 1)
    both = [_walk(model, part, device, on_progress)[1] for part in samples]
    if last:
        return AtLayer((both[0], both[1]), (both[0], both[1]), layer)
    train, valid = (hooked_features(model, layers, part, device) for part in samples)
    near = max((i for i in train.keys() & valid.keys() if i <= layer), default=None)
    if near is None:
        raise ModelError(f"what comes out of {layers.describe([layer])} cannot be drawn; take a later layer")
    return AtLayer((train[near], valid[near]), (both[0], both[1]), near)


def _walk(
    part: nn.Module, samples: Samples, device: torch.device, on_progress: OnProgress
) -> tuple[Tensor, Tensor]:
    """What goes into a part of a network, pooled, and the scores that come out of it; texts of like length together."""
    lengths = samples.lengths
    turn = torch.arange(len(samples)) if lengths is None else lengths.argsort(stable=True)
    vectors, scores, done = [], [], 0
    with quiet(part):
        for x in samples.stream(turn.split(BATCH)):
            vectors.append(pooled(x))
            scores.append(scores_of(call(part, x.to(device))).float().cpu())
            done += len(scores[-1])
            on_progress(done, len(samples))
    back = turn.argsort()
    return torch.cat(vectors)[back], torch.cat(scores)[back]
