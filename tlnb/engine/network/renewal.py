"""Layers made new: He normal weights, zero biases, norms that do nothing yet."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from tlnb.engine.network.layers import LayerMap

_WEIGHTED = (
    nn.Linear,
    nn.modules.conv._ConvNd,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
    nn.Bilinear,
)
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
_LOOSE_STD = 0.02


def reinitialize(
    model: nn.Module,
    layers: LayerMap,
    kept: Collection[int],
    *,
    fresh: Mapping[str, Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> None:
    """Give every layer that is not kept new weights, in place.

    Weights are He normal (He et al. 2015, std = sqrt(2 / fan_in)), biases zero; norm layers become the
    identity with their statistics reset; embeddings and loose weights (a class token, a scale) are taken from
    ``fresh``, or drawn from N(0, 0.02²) as in most transformers where there is none.

    Args:
        model: the network.
        layers: its layers.
        kept: indexes of the layers that stay as they are, bit for bit.
        fresh: weights of the same architecture as its own constructor makes them.
        generator: source of the random weights.
    """
    changed = {n for i, layer in enumerate(layers) if i not in kept for n in layer.parameter_names}
    buffers = {n for i, layer in enumerate(layers) if i not in kept for n in layer.buffer_names}
    done: set[str] = set()
    with torch.no_grad():
        for path, module in model.named_modules():
            own = {f"{path}.{n}".strip("."): p for n, p in module.named_parameters(recurse=False)}
            own = {name: p for name, p in own.items() if name in changed}
            if isinstance(module, _NORMS):
                _reset_norm(module, path, own, buffers)
            elif isinstance(module, _WEIGHTED):
                _he(own, generator)
            else:
                _loose(own, fresh or {}, done, generator)
            done |= own.keys()


def _he(own: Mapping[str, Tensor], generator: torch.Generator | None) -> None:
    for name, tensor in own.items():
        if tensor.dim() < 2 or "bias" in name.rpartition(".")[2]:
            tensor.zero_()
        else:
            nn.init.kaiming_normal_(tensor, nonlinearity="relu", generator=generator)


def _reset_norm(module: nn.Module, path: str, own: Mapping[str, Tensor], buffers: Collection[str]) -> None:
    for name, tensor in own.items():
        tensor.fill_(0.0 if name.rpartition(".")[2] == "bias" else 1.0)
    for name, tensor in module.named_buffers(recurse=False):
        if f"{path}.{name}".strip(".") in buffers:
            tensor.fill_(1 if name == "running_var" else 0)


def _loose(
    own: Mapping[str, Tensor],
    fresh: Mapping[str, Tensor],
    done: Collection[str],
    generator: torch.Generator | None,
) -> None:
    for name, tensor in own.items():
        if name in done:
            continue
        if name in fresh and fresh[name].shape == tensor.shape:
            tensor.copy_(fresh[name])
        else:
            tensor.normal_(0.0, _LOOSE_STD, generator=generator)
