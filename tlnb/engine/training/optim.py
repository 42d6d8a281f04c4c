"""The optimizer of a stage: one parameter group a layer, each with its share of the rate."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from tlnb.engine.network import freezing
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
        parameters = freezing.trainable_parameters(model, layers[index])
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
    """Indexes of the layers that are not frozen and have parameters that train."""
    still = layers.still(frozen)
    return [i for i, layer in enumerate(layers) if i not in frozen and set(layer.parameter_names) - still]


def _can_fuse(model: nn.Module) -> bool:
    # One kernel for all parameters of a group; torch has it for these devices.
    return all(p.device.type in ("cpu", "cuda") for p in model.parameters())


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give each group its share of a rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["ratio"]
