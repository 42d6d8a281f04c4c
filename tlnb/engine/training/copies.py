"""The weights that a stage may change, copied and put back."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn

from tlnb.engine.network import freezing
from tlnb.engine.network.layers import LayerMap


def copies_of_trainable(
    model: nn.Module, layers: LayerMap, frozen: Collection[int]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Each tensor that training may change, with a copy of it: weights and buffers of layers that train."""
    trained = [layer.index for layer in layers if layer.index not in frozen]
    for _, tensor in freezing.state_of(model, layers, trained):
        yield tensor, tensor.detach().clone()


def put_back(copies: list[tuple[Tensor, Tensor]]) -> None:
    """Undo what happened since the copies were made."""
    with torch.no_grad():
        for tensor, copy in copies:
            tensor.copy_(copy)
