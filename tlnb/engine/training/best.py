"""The best epoch of a stage, kept to be put back at its end."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tlnb.engine.network import freezing
from tlnb.engine.network.layers import LayerMap


class Best:
    """Weights and buffers of the epoch with the lowest validation loss.

    Args:
        model: the network.
        layers: its layers.
        frozen: those that do not change.
    """

    def __init__(self, model: nn.Module, layers: LayerMap, frozen: tuple[int, ...]):
        trained = [layer.index for layer in layers if layer.index not in frozen]
        self._tensors = dict(freezing.state_of(model, layers, trained))
        self.loss, self.epoch = float("inf"), 0
        self.copies: dict[str, Tensor] = {}

    def take(self, loss: float, epoch: int) -> None:
        """Keep the weights as they are now, if no epoch before had so low a validation loss."""
        if loss < self.loss:
            self.loss, self.epoch = loss, epoch
            self.copies = {
                name: tensor.detach().to("cpu", copy=True) for name, tensor in self._tensors.items()
            }

    def put_back(self) -> bool:
        """Give the network the weights of the best epoch; False where there is none."""
        with torch.no_grad():
            for name, copy in self.copies.items():
                self._tensors[name].copy_(copy)
        return bool(self.copies)

    def load(self, epoch: int, loss: float, copies: dict[str, Tensor]) -> None:
        """Take over what was kept before a restart.

        Raises:
            KeyError: a name that the network does not have.
        """
        self.epoch, self.loss = epoch, loss
        self.copies = {name: copies[name] for name in self._tensors} if copies else {}
