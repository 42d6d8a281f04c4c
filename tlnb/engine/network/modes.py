"""Train and test mode of a module whose ``train()`` somebody else wrote."""

from __future__ import annotations

import inspect

from torch import nn


def set_training(model: nn.Module, training: bool) -> None:
    """Set the mode of a model, by its own ``train(mode)`` where it has one.

    Nothing is done with what ``train()`` gives back: those that keep BatchNorm still often give back nothing. A
    ``train`` that is something else, such as a loop over batches, is not called; the flags are set past it.

    Args:
        model: any module.
        training: True for train mode.
    """
    modules = list(model.modules())
    if all(sets_mode(module) for module in modules):
        model.train(training)
        return
    for module in modules:
        module.training = training
    for module in modules:
        own = type(module).train is not nn.Module.train or "train" in vars(module)
        if own and all(sets_mode(part) for part in module.modules()):
            module.train(training)


def sets_mode(module: nn.Module) -> bool:
    """Whether the module's ``train`` is the switch that torch means by it: ``train(mode=True)``."""
    if type(module).train is nn.Module.train and "train" not in vars(module):
        return True
    try:
        signature = inspect.signature(module.train)
        signature.bind(True)
    except (TypeError, ValueError):
        return False
    first = next(iter(signature.parameters.values()))
    return first.name == "mode" or first.default is True or first.kind is inspect.Parameter.VAR_POSITIONAL
