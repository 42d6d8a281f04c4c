"""The optimizer of a stage: a parameter group a layer, its state by the parameters' names, its schedule."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tlnb.engine.network import freeze
from tlnb.engine.network.layers import LayerMap
from tlnb.engine.training.stage import Stage

USUAL_WEIGHT_DECAY = {"adamw": 0.01, "sgd": 0.0}
USUAL_MOMENTUM = 0.9


def make_optimizer(model: nn.Module, layers: LayerMap, stage: Stage) -> torch.optim.Optimizer:
    """An optimizer over what the stage trains.

    Each group holds one layer and carries, beside torch's own keys, ``layer`` (its index), ``name`` and
    ``ratio`` (its share of the stage's rate). With ``decay`` d the layer k places before the last trainable
    one has the ratio d^-k (discriminative rates, Howard and Ruder 2018).
    """
    groups = []
    for index, ratio in ratios(layers, stage).items():
        parameters = freeze.trainable_parameters(model, layers, index)
        groups.append({"params": parameters, "layer": index, "name": layers[index].name, "ratio": ratio})
    momentum = USUAL_MOMENTUM if stage.momentum is None else stage.momentum
    weight_decay = USUAL_WEIGHT_DECAY[stage.optimizer] if stage.weight_decay is None else stage.weight_decay
    usual: dict[str, Any] = {"lr": 0.0, "weight_decay": weight_decay, "fused": _can_fuse(model)}
    if stage.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=momentum, **usual)
    return torch.optim.AdamW(groups, betas=(momentum, 0.999), **usual)


def ratios(layers: LayerMap, stage: Stage) -> dict[int, float]:
    """Each trainable layer's share of the stage's rate, by index, in data order."""
    trainable = trainable_layers(layers, stage.frozen)
    return {index: stage.decay ** (index - trainable[-1]) for index in trainable}


def trainable_layers(layers: LayerMap, frozen: Collection[int]) -> list[int]:
    """Indexes of the layers that are not frozen and have parameters, or an adapter's, that train."""
    return [i for i in range(len(layers)) if i not in frozen and layers.learning(i, frozen)]


def _can_fuse(model: nn.Module) -> bool:
    # One kernel for all parameters of a group; torch has it for these devices, and for no complex numbers.
    return all(p.device.type in ("cpu", "cuda") and not p.is_complex() for p in model.parameters())


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give each group its share of a rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["ratio"]


ByName = dict[str, dict[str, Tensor]]
"""For each parameter's name: ``exp_avg``, ``exp_avg_sq``, ``step`` (AdamW) or ``momentum_buffer`` (SGD)."""


def named_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> ByName:
    """Copies of the optimizer's state, in main memory.

    Positions in a list of groups change with what is frozen; names stay.
    """
    return {
        name: {
            key: value.detach().to("cpu", copy=True)
            for key, value in optimizer.state[parameter].items()
            if isinstance(value, Tensor)
        }
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
    }


def load_named_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Mapping[str, Tensor]]
) -> int:
    """Copy state into an optimizer, for the parameters that it holds; how many of them found theirs.

    Parameters of another shape than their state start anew. The state given stays the caller's own: an
    optimizer that took it over would change it by its next step.
    """
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    found = 0
    for name, parameter in model.named_parameters():
        saved = state.get(name)
        if id(parameter) not in held or not saved or not _fits(saved, parameter):
            continue
        fused = any(group.get("fused") for group in optimizer.param_groups)
        optimizer.state[parameter] = {
            # The step counter stays in main memory unless a fused kernel counts on the device.
            key: value.to(parameter.device if key != "step" or fused else "cpu", copy=True)
            for key, value in saved.items()
        }
        found += 1
    return found


def size_of_state(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of an optimizer's state."""
    tensors = (v for state in optimizer.state.values() for v in state.values() if isinstance(v, Tensor))
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _fits(saved: Mapping[str, Tensor], parameter: nn.Parameter) -> bool:
    return all(value.dim() == 0 or value.shape == parameter.shape for value in saved.values())
