"""Every layer's features of a set of samples, pooled to vectors, from one pass through the frozen network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tlnb.engine.core.tree import CROSSING, MASK, Batch, Tree, call, width_of
from tlnb.engine.data.samples import Samples, SubsetSamples
from tlnb.engine.features.planner import CacheRequest, FeaturePlanner
from tlnb.engine.network.layers import LayerMap
from tlnb.engine.network.trace import quiet

WIDEST = 512  # numbers a vector may have; more are projected at random
GRID = 2048  # numbers that pooling may leave
BATCH = 64


@dataclass(frozen=True)
class LayerFeatures:
    """What comes out of the body after each number of layers.

    Attributes:
        kept: how many layers lie before each entry, rising.
        vectors: for each of these, float32 of shape (n, d).
        targets: of the samples, (n,) or (n, outputs).
    """

    kept: tuple[int, ...]
    vectors: tuple[Tensor, ...]
    targets: Tensor


def layer_features(
    model: nn.Module,
    layers: LayerMap,
    samples: Samples,
    planner: FeaturePlanner,
    device: torch.device,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> LayerFeatures:
    """The features at each cut of the body.

    The first cut that is asked for is the deepest; that pass writes down all the others too, where there is
    room, so that nothing runs twice and training that starts from one of these cuts finds it filled. A
    network that has no cut is watched by hooks instead.

    Args:
        model: in which nothing changes.
        layers: its layers.
        samples: a view that does not change.
        planner: of the session, with its cache.
        device: where the model is.
        on_progress: called as ``on_progress(done, total)`` in samples meanwhile; what it raises ends the pass.
    """
    last = max(layers.body, default=-1) + 1
    cuts = [cut for cut in layers.graph.cuts if 0 < cut <= last] if layers.graph else []
    if not cuts:
        found = hooked_features(model, layers, samples, device)
        return LayerFeatures(tuple(i + 1 for i in found), tuple(found.values()), samples.targets)
    vectors = {}
    for place, cut in enumerate(reversed(cuts)):
        coming = [range(k) for k in cuts if k < cut]
        pair = (samples, SubsetSamples(samples, torch.arange(1)))
        forward_plan = planner.forward_plan(
            model, layers, CacheRequest(range(cut), coming[::-1]), pair, device, on_progress=on_progress
        )
        parts = [pooled(x) for x in _stream(forward_plan.train)]
        vectors[cut] = narrowed(torch.cat(parts), seed=place)
    return LayerFeatures(tuple(cuts), tuple(vectors[k] for k in cuts), samples.targets)


def _stream(samples: Samples) -> Iterator[Batch]:
    return samples.stream(torch.arange(len(samples)).split(BATCH))


def pooled(features: Batch) -> Tensor:
    """Features as vectors on the CPU: (B, d), float32.

    Images (B, C, H, W) are averaged over the finest grid of 1, 2 or 4 cells a side that leaves at most
    ``GRID`` numbers; sequences (B, T, D) over their length, padding left out (probes on pooled layers: Alain and
    Bengio 2016).
    """
    if isinstance(features, Tree):
        return _pooled_tokens(features)
    if features.dim() == 4:
        channels = features.shape[1]
        side = next((g for g in (4, 2) if channels * g * g <= GRID and g <= min(features.shape[2:])), 1)
        features = functional.adaptive_avg_pool2d(features.float(), side)
    elif features.dim() == 3:
        features = features.mean(1)
    return features.detach().flatten(1).float().cpu()


def _pooled_tokens(features: Tree) -> Tensor:
    crossing: Tensor = features[CROSSING]
    if crossing.dim() != 3 or MASK not in features or crossing.shape[1] != width_of(features):
        return pooled(crossing)
    mask = features[MASK].to(crossing.device)[:, :, None].float()
    mean = (crossing.float() * mask).sum(1) / mask.sum(1).clamp(min=1)
    return mean.detach().cpu()


def narrowed(vectors: Tensor, seed: int = 0) -> Tensor:
    """Vectors of at most ``WIDEST`` numbers.

    Wider ones are multiplied by a random normal matrix, which keeps distances up to a few per cent (Johnson
    and Lindenstrauss 1984).
    """
    if vectors.shape[1] <= WIDEST:
        return vectors
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(vectors.shape[1], WIDEST, generator=generator) / WIDEST**0.5
    return vectors @ matrix


def hooked_features(
    model: nn.Module, layers: LayerMap, samples: Samples, device: torch.device
) -> dict[int, Tensor]:
    """What the module that starts each layer of the body gives out, as vectors (n, d), by layer.

    It needs no graph. A layer whose module does not run once a batch, or gives no tensor, is left out.

    Args:
        model: in which nothing changes; it may be a copy of the network that ``layers`` are of.
        layers: the layers.
        samples: a view that does not change.
        device: where the model is.
    """
    seen: dict[int, list[Tensor]] = {index: [] for index in layers.body}

    def note(index: int) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.dim() > 1:
                seen[index].append(pooled(output))

        return hook

    hooks = [model.get_submodule(layers[i].name).register_forward_hook(note(i)) for i in layers.body]
    try:
        with quiet(model):
            for x in _stream(samples):
                call(model, x.to(device))
    finally:
        for hook in hooks:
            hook.remove()
    whole = {i: torch.cat(parts) for i, parts in seen.items() if sum(map(len, parts)) == len(samples)}
    return {i: narrowed(vectors, seed=i) for i, vectors in whole.items()}
