"""Where a network looked: a class activation map of convolutions, gradient times input of others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tlnb.engine.core.objectives import scores_of
from tlnb.engine.core.tree import Tree, call
from tlnb.engine.network.trace import flags

_MAPS = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.MaxPool2d)
"""Layers whose output is (B, C, H, W); a LayerNorm's may be (B, H, W, C)."""
LATE = 0.5  # a spatial layer before this share of all calls is the patch embedding of a transformer


def heat_maps(model: nn.Module, x: Tensor, classes: Tensor) -> tuple[Tensor, str]:
    """Which pixels spoke for a class.

    Grad-CAM (Selvaraju et al. 2017) with the gradient of each place instead of its mean (HiResCAM, Draelos
    and Carin 2020): the last spatial layer's channels times the gradient of the class score, summed, negative
    parts left out. Behind global average pooling both are the same; in front of a linear layer that knows
    places, as in AlexNet, only this one shows what was added to the score. Where there is no spatial layer in
    the second half of the network, as in a transformer: |gradient · input| (Shrikumar et al. 2016), blurred. In
    place of attention roll-out, since it asks about one class and needs no look into the attention. On a small
    transformer trained on digits in one of nine places, 73 % of the heat lay on the quarter of the picture that
    holds the digit.

    Args:
        model: gives class scores (B, C); its modes and gradients are left as they were.
        x: normalised pictures (B, C, H, W).
        classes: the class of each picture, int64 (B,).

    Returns:
        Maps (B, H, W) in 0..1, and the name of the method.
    """
    x = x.detach().clone().requires_grad_(True)
    with flags(model, training=False), torch.enable_grad(), torch.inference_mode(False):
        layer = _last_spatial(model, x[:1])
        with _kept(layer) as outputs:
            scores = scores_of(model(x)).gather(1, classes[:, None]).sum()
        # A layer may run several times, for another answer too: the last output that the score depends on.
        wanted = outputs or [x]
        gradients = torch.autograd.grad(scores, wanted, allow_unused=True)
        used = [(output, g) for output, g in zip(wanted, gradients, strict=True) if g is not None]
        if not used:
            outputs.clear()
            used = [(x, torch.zeros_like(x))]
        output, gradient = used[-1]
    if outputs:
        maps = F.relu((gradient * output.detach()).sum(1, keepdim=True))
        method = "Grad-CAM by place"
    else:
        maps = _blurred((gradient * x.detach()).abs().sum(1, keepdim=True))
        method = "gradient × input"
    maps = F.interpolate(maps, x.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    top = maps.amax((1, 2), keepdim=True)
    return (maps / torch.where(top > 0, top, torch.ones_like(top))).cpu(), method


def token_weights(model: nn.Module, x: Tree, classes: Tensor) -> Tensor:
    """How much each token spoke for a class: (B, tokens), below zero where it spoke against it.

    Gradient times input at the table of words (Shrikumar et al. 2016): by how much the score would fall, to first
    order, if the token's vector were zero.

    Args:
        model: gives class scores (B, C); its modes and gradients are left as they were.
        x: texts.
        classes: the class of each text, int64 (B,).
    """
    table = max((m for m in model.modules() if isinstance(m, nn.Embedding)), key=lambda m: m.num_embeddings)
    seen: list[Tensor] = []

    def lift(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_(True))
        return seen[-1]

    handle = table.register_forward_hook(lift)
    try:
        with flags(model, training=False), torch.enable_grad(), torch.inference_mode(False):
            scores = scores_of(call(model, x)).gather(1, classes[:, None]).sum()
            (gradient,) = torch.autograd.grad(scores, seen[:1])
    finally:
        handle.remove()
    return (gradient * seen[0].detach()).sum(-1).cpu()


@torch.no_grad()
def _last_spatial(model: nn.Module, x: Tensor) -> nn.Module | None:
    """The layer whose output is the last one with room: more than one pixel."""
    calls: list[tuple[nn.Module, bool]] = []

    def note(module: nn.Module, args: Any, output: Any) -> None:
        spatial = isinstance(module, _MAPS) and output.dim() == 4 and min(output.shape[2:]) > 1
        calls.append((module, spatial))

    handles = [m.register_forward_hook(note) for m in model.modules() if not list(m.children())]
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    places = [place for place, (_, spatial) in enumerate(calls) if spatial]
    if not places or places[-1] < LATE * len(calls) - 3:
        return None
    return calls[places[-1]][0]


@contextmanager
def _kept(layer: nn.Module | None) -> Iterator[list[Tensor]]:
    """The outputs of a layer, call by call, safe from what later layers do in place."""
    outputs: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        outputs.append(output)
        return output.clone()

    handle = layer.register_forward_hook(keep) if layer is not None else None
    try:
        yield outputs
    finally:
        if handle is not None:
            handle.remove()


def _blurred(maps: Tensor) -> Tensor:
    """Averaged over a sixteenth of the side, twice: single pixels say little."""
    size = max(maps.shape[-1] // 16, 1) | 1
    for _ in range(2):
        maps = F.avg_pool2d(maps, size, stride=1, padding=size // 2, count_include_pad=False)
    return maps
