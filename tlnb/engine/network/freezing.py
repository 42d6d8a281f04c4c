"""Frozen means frozen: no gradients, no optimizer, test mode, and a digest that proves it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
from torch import Tensor, nn

from tlnb.engine.hashing import tensors_digest
from tlnb.engine.network.layers import Layer, LayerMap
from tlnb.engine.network.modes import set_training
from tlnb.errors import TrainingError


def apply(model: nn.Module, layers: LayerMap, frozen: Collection[int]) -> None:
    """Switch gradients off in frozen layers and on in the others; drop gradients left in frozen ones.

    A gradient that stays behind would still move the weight: by momentum in an optimizer made earlier.
    Integer parameters (quantised weights) cannot have gradients and are left alone.
    """
    named = dict(model.named_parameters(remove_duplicate=False))
    still = layers.still(frozen)
    for layer in layers:
        for name in layer.parameter_names:
            parameter = named[name]
            if not parameter.is_floating_point():
                continue
            parameter.requires_grad_(name not in still)
            if name in still:
                parameter.grad = None


def set_modes(
    model: nn.Module, layers: LayerMap, frozen: Collection[int], *, training: bool, bn: str = "train"
) -> None:
    """Train or test mode for every module, frozen layers always in test mode.

    Args:
        model: the network.
        layers: its layers.
        frozen: indexes of frozen layers.
        training: False puts everything into test mode.
        bn: ``"frozen"`` leaves the statistics of unfrozen BatchNorm layers alone as well.
    """
    set_training(model, training)
    if not training:
        return
    modules = dict(model.named_modules())
    for layer in layers:
        if layer.index in frozen:
            for name in layer.module_names:
                # One dropout that serves a layer that trains acts there; see Tail for the frozen layers.
                modules[name].training = bool(set(layers.served.get(name, ())) - set(frozen))
    if len(frozen) == len(layers):
        model.training = False
    if bn == "frozen":
        for module in modules.values():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.training = False


def trainable_parameters(model: nn.Module, layer: Layer) -> list[nn.Parameter]:
    """The parameters of a layer that take gradients, each once, in the order of the model."""
    named = dict(model.named_parameters(remove_duplicate=False))
    unique = {id(named[name]): named[name] for name in layer.parameter_names}
    return [parameter for parameter in unique.values() if parameter.requires_grad]


def state_of(model: nn.Module, layers: LayerMap, indexes: Iterable[int]) -> list[tuple[str, Tensor]]:
    """Every weight and buffer of these layers with its name, also buffers that are never saved."""
    tensors: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    tensors |= dict(model.named_buffers(remove_duplicate=False))
    chosen = [layers[i] for i in sorted(indexes)]
    names = [n for layer in chosen for n in (*layer.parameter_names, *layer.buffer_names)]
    names += [n for layer in chosen for n in layer.tied]
    return [(name, tensors[name]) for name in dict.fromkeys(names)]


def digest(model: nn.Module, layers: LayerMap, indexes: Iterable[int]) -> str:
    """SHA-256 over name, dtype, shape and bytes of every weight and buffer of these layers, in hex."""
    return tensors_digest(state_of(model, layers, indexes))


def check_same_parameters(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Trainable parameters and the optimizer's parameters are the same set, compared by identity.

    Raises:
        TrainingError: names up to three parameters that are in one set only.
    """
    named = {id(p): name for name, p in model.named_parameters()}
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if trainable == held:
        return
    lost = [named[i] for i in trainable - held][:3]
    extra = [named.get(i, "a tensor outside the model") for i in held - trainable][:3]
    parts = [f"not in the optimizer: {', '.join(lost)}"] if lost else []
    parts += [f"frozen or foreign, yet in the optimizer: {', '.join(extra)}"] if extra else []
    raise TrainingError("the optimizer and the trainable layers differ; " + "; ".join(parts))


def check_gradients(model: nn.Module, layers: LayerMap) -> None:
    """After a backward pass: each trainable layer has gradients, and no frozen weight has.

    A weight that the network never uses gets none; it stays as it is while the rest of its layer trains.

    Raises:
        TrainingError: names up to three parameters that break this.
    """
    named = dict(model.named_parameters())
    missing: list[str] = []
    for layer in layers:
        trained = [name for name in layer.parameter_names if named[name].requires_grad]
        if all(named[name].grad is None for name in trained):
            missing += trained
    stray = [name for name, p in named.items() if not p.requires_grad and p.grad is not None]
    if missing:
        raise TrainingError(
            f"no gradient reached {', '.join(missing[:3])}{' …' if len(missing) > 3 else ''}: "
            "the loss does not depend on it; freeze that layer"
        )
    if stray:
        raise TrainingError(f"frozen, yet with a gradient: {', '.join(stray[:3])}")
