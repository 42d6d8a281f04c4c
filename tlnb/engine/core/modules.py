"""Modules that somebody else wrote: their train and test mode, and copies of them."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tlnb.errors import ModelError, first_line


def set_training(model: nn.Module, training: bool) -> None:
    """Set the mode of a model, by its own ``train(mode)`` where it has one.

    Nothing is done with what ``train()`` gives back: those that keep BatchNorm still often give back nothing. A
    ``train`` that is something else, such as a loop over batches, is not called; the flags are set past it.

    Args:
        model: any module.
        training: True for train mode.

    Raises:
        ModelError: its own ``train`` raised something.
    """
    modules = list(model.modules())
    if all(sets_mode(module) for module in modules):
        try:
            model.train(training)
        except Exception as error:  # a graph of torch.export has no modes
            raise ModelError(
                f"{type(model).__name__} takes no train and test mode ({type(error).__name__}: {first_line(error)}); "
                "load the module that it was made from"
            ) from error
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


_PLAIN = (bool, int, float, complex, str, bytes, type(None), nn.Module, nn.Parameter, type)
_DEPTH = 3


def duplicate(module: nn.Module) -> Any:
    """A deep copy of a module that shares no weight with it.

    Weights that a hook makes at each call (weight norm, spectral norm) are copied without the graph that made them.
    What cannot be copied (a lock, an open file, an executor) is shared.

    Args:
        module: any module; its modes are those of the copy.

    Raises:
        ModelError: it has a ``__deepcopy__`` of its own that raises something.
    """
    memo: dict[int, Any] = {}
    for part in module.modules():
        for value in vars(part).values():
            for item in _items(value, _DEPTH):
                if isinstance(item, Tensor) and not item.is_leaf:
                    memo[id(item)] = item.detach().clone()
                elif not isinstance(item, Tensor) and not _can_be_copied(item):
                    memo[id(item)] = item
    try:
        with torch.no_grad():  # the copy of a scripted weight would else be one that follows from it
            other = copy.deepcopy(module, memo)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise ModelError(
            f"{type(module).__name__} cannot be copied, which is needed here: {type(error).__name__}: "
            f"{first_line(error)}"
        ) from error
    for old, new in zip(module.parameters(), other.parameters(), strict=True):
        if new.is_floating_point() and new.requires_grad != old.requires_grad:
            new.requires_grad_(old.requires_grad)
    return other


def _items(value: Any, depth: int) -> Iterator[Any]:
    if isinstance(value, _PLAIN):
        return
    if depth and isinstance(value, dict):
        for item in value.values():
            yield from _items(item, depth - 1)
    elif depth and isinstance(value, list | tuple | set):
        for item in value:
            yield from _items(item, depth - 1)
    else:
        yield value


def _can_be_copied(item: Any) -> bool:
    if isinstance(item, torch._C.ScriptModule):
        return True
    try:
        copy.deepcopy(item)
    except Exception:  # each kind of thing refuses in its own way
        return False
    return True


def exact(tensor: Tensor) -> Tensor:
    """The tensor in float64: on its own device where that is known to have it; Apple's GPUs have none.

    A complex one has one dimension more, of 2: its real and imaginary parts.
    """
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return (tensor if tensor.device.type in ("cpu", "cuda") else tensor.cpu()).double()
