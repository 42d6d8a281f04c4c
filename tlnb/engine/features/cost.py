"""What an epoch costs with some layers frozen, relative to training all of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tlnb.engine.core.modules import set_training
from tlnb.engine.core.tree import Batch, call
from tlnb.engine.network.layers import LayerMap


@torch.no_grad()
def forward_flops(model: nn.Module, layers: LayerMap, example: Batch) -> tuple[int, ...]:
    """Floating-point operations of each layer for a batch, in matrix products and convolutions.

    Args:
        model: in any mode; it runs once in test mode, and its modes are put back.
        layers: its layers.
        example: a batch (B, ...) of its input.
    """
    modes = [(module, module.training) for module in model.modules()]
    set_training(model, False)
    try:
        with FlopCounterMode(display=False) as counter:
            call(model, example)
    finally:
        for module, flag in modes:
            module.training = flag
    root = type(model).__name__
    counts = {
        name.removeprefix(f"{root}."): sum(ops.values()) for name, ops in counter.get_flop_counts().items()
    }
    return tuple(sum(counts.get(name, 0) for name in _topmost(layer.module_names)) for layer in layers)


def _topmost(names: Collection[str]) -> list[str]:
    """The names without those of modules inside another of them, which count with it."""
    held = set(names)
    return [n for n in held if not any(n[:i] in held for i, char in enumerate(n) if char == ".")]


def relative_cost(
    flops: Sequence[int], frozen: Sequence[bool], cut: int, adapted: Collection[int] = ()
) -> float:
    """Cost of an epoch relative to one that trains every layer.

    A layer that trains costs its forward pass and twice that again backward, for its input and its weights. A
    frozen layer behind a trainable one passes the gradient on and costs two thirds of it. Layers before the
    cut run once, not in each epoch, and count nothing; frozen ones that no cut can leave out cost a forward
    pass.

    Args:
        flops: forward cost of each layer.
        frozen: for each layer, whether it is frozen.
        cut: how many layers at the front are left out.
        adapted: indexes of layers that train only what is added to them, which costs next to nothing itself.
    """
    first = next((i for i, fixed in enumerate(frozen) if not fixed), len(frozen))
    passes = [
        0 if i < cut else 1 if i < first else 2 if fixed or i == first or i in adapted else 3
        for i, fixed in enumerate(frozen)
    ]
    everything = sum(cost * (3 if i else 2) for i, cost in enumerate(flops))
    return (
        sum(cost * times for cost, times in zip(flops, passes, strict=True)) / everything
        if everything
        else 1.0
    )


def best_cut(layers: LayerMap, frozen: Sequence[bool]) -> int:
    """How many layers at the front run once: the last possible cut inside the frozen prefix, 0 for none."""
    prefix = next((i for i, fixed in enumerate(frozen) if not fixed), len(frozen))
    cuts = layers.graph.cuts if layers.graph is not None else ()
    return max((cut for cut in cuts if cut <= prefix), default=0)
