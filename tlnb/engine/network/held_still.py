"""Frozen layers compute as in test mode, whatever a training step calls."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

import torch
from torch import nn

from tlnb.engine.network.layers import LayerMap

_MISSING = object()


class FrozenBuffers:
    """The buffers of frozen layers, which a forward may write to in any mode: a running mean, a memory of its own.

    Args:
        model: the network.
        layers: its layers.
        frozen: indexes of frozen layers.
    """

    def __init__(self, model: nn.Module, layers: LayerMap, frozen: Collection[int]):
        names = [name for index in frozen for name in layers[index].buffer_names]
        modules = dict(model.named_modules())
        self._kept: list[tuple[nn.Module, str, torch.Tensor, int]] = []
        for path, _, leaf in (name.rpartition(".") for name in names):
            module = modules[path]
            buffer = module._buffers.get(leaf)
            if isinstance(buffer, torch.Tensor) and not buffer.is_inference():
                self._kept.append((module, leaf, buffer, buffer._version))
        self._copies = [buffer.detach().clone() for _, _, buffer, _ in self._kept]

    def put_back(self) -> None:
        """Set what was written to back; what a graph for the backward pass holds of it stays as it is."""
        for at, (module, leaf, buffer, version) in enumerate(self._kept):
            if buffer._version != version:
                buffer = self._copies[at].clone()
                self._kept[at] = module, leaf, buffer, buffer._version
            if module._buffers.get(leaf) is not buffer:
                module._buffers[leaf] = buffer


class HeldStill:
    """While it is entered, no call of the model, and no ``train()``, moves its frozen layers.

    Modules in test mode take no other mode from ``train()``; ``model(x)`` computes functional dropout,
    ``if self.training`` and a shared dropout of frozen layers as in test mode, where the model has a graph.
    What the forward writes to their buffers is put back. Afterwards the model is as it was.

    Args:
        model: in the modes of training.
        layers: its layers.
        frozen: indexes of frozen layers.
    """

    def __init__(self, model: nn.Module, layers: LayerMap, frozen: Collection[int]):
        self._model = model
        self._own: dict[nn.Module, dict[str, Any]] = {
            m: {"train": partial(_keep_mode, m)} for m in model.modules() if not m.training
        }
        if layers.graph is not None and layers.act_otherwise & set(frozen):
            self._tail = layers.graph.tail(0, frozen=frozen)
            self._forward = model.forward
            self._own.setdefault(model, {})["forward"] = self._call
        self._before: list[tuple[nn.Module, str, Any]] = []
        self.buffers = FrozenBuffers(model, layers, frozen)

    def _call(self, *args: Any, **named: Any) -> Any:
        if named or len(args) != 1 or not isinstance(args[0], torch.Tensor):
            return self._forward(*args, **named)
        return self._tail.train(self._model.training)(args[0])

    def __enter__(self) -> None:
        for module, own in self._own.items():
            for name, function in own.items():
                self._before.append((module, name, vars(module).get(name, _MISSING)))
                vars(module)[name] = function

    def __exit__(self, *error: object) -> None:
        self.buffers.put_back()
        while self._before:
            module, name, function = self._before.pop()
            if function is _MISSING:
                vars(module).pop(name, None)
            else:
                vars(module)[name] = function


def _keep_mode(module: nn.Module, mode: bool = True) -> nn.Module:
    """Stands for ``train`` in a module of a frozen layer."""
    return module
