"""A trial run that leaves no trace: everything that training changes is put back, bit for bit.

A learning-rate range test trains for a hundred steps at rates that ruin the model. Afterwards the model, the
optimizer, the loss scaler and the random states must be those of a moment before, whichever way the trial
ended. That includes the stop button, pressed during the trial or during the putting back itself.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tlnb.engine.core.interrupts import ShieldedExit

Restore = Callable[[], Any]


def transaction(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    scaler: Any = None,
    *,
    trainable_only: bool = False,
    generators: Iterable[torch.Generator] = (),
) -> Transaction:
    """A ``with`` block after which model, optimizer, scaler and random states are what they were before it.

    Put back are: every parameter and buffer (into the same tensor objects), ``.grad`` (``None`` stays
    ``None``), ``requires_grad``, the train/eval flag of each module, the optimizer's state, groups and
    defaults (a fresh optimizer is fresh again), the ``GradScaler`` with its half-done steps, and the random
    states of torch on the CPU and on each CUDA and MPS device, of numpy's global generator and of Python's
    ``random``. It makes no difference whether the block ends, raises or is interrupted; exceptions pass
    through.

    Args:
        model: the network; parameters that only the optimizer holds are kept too.
        optimizer: the optimizer that the trial steps.
        scaler: a ``torch.amp.GradScaler``.
        trainable_only: copy only the parameters with ``requires_grad`` (and all buffers). Right where the
            trial cannot write to frozen weights; saves the memory of a second body.
        generators: torch generators of your own, such as the one that shuffles the data.

    The copies stand on the tensors' own devices and cost their memory once. A frozen weight changed inside a
    ``trainable_only`` block stays changed.
    """
    return Transaction(model, optimizer, scaler, trainable_only=trainable_only, generators=generators)


class Transaction(ShieldedExit):
    """The context manager behind :func:`transaction`; can be entered again after it has ended."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        scaler: Any = None,
        *,
        trainable_only: bool = False,
        generators: Iterable[torch.Generator] = (),
    ):
        super().__init__()
        self._parts = (model, optimizer, scaler, trainable_only, tuple(generators))
        self._restores: list[Restore] = []

    def __enter__(self) -> None:
        """Copy the state."""
        model, optimizer, scaler, trainable_only, generators = self._parts
        held = () if optimizer is None else (p for group in optimizer.param_groups for p in group["params"])
        parameters = list(dict.fromkeys((*model.parameters(), *held)))
        copied = [p for p in parameters if p.requires_grad or not trainable_only]
        self._restores = [
            *_keep_modules(model),
            *map(_keep, copied),
            *map(_keep, model.buffers()),
            *map(_keep_gradient, parameters),
        ]
        if optimizer is not None:
            self._restores += _keep_optimizer(optimizer)
        if scaler is not None:
            self._restores.append(_keep(vars(scaler)))
        self._restores += _keep_random(generators)
        self._shield()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the state back; an interrupt that comes meanwhile is raised when all is in place."""
        self._finish(self._put_back)
        self._restores = []

    def _put_back(self) -> None:
        # Each restore sets absolute values, so going through the list a second time does no harm.
        with torch.no_grad():
            for restore in self._restores:
                restore()


def _keep_modules(model: nn.Module) -> list[Restore]:
    """Which tensor objects stand in which module, and each module's train/eval flag."""
    restores: list[Restore] = []
    for module in model.modules():
        restores += [_keep_names(module._parameters), _keep_names(module._buffers)]
        # Not module.train(flag): that would walk down into the children.
        restores.append(_bind(setattr, module, "training", module.training))
    return restores


def _keep_names(tensors: dict[str, Any]) -> Restore:
    before = dict(tensors)

    def restore() -> None:
        tensors.clear()
        tensors.update(before)

    return restore


def _keep_gradient(parameter: Tensor) -> Restore:
    needed, gradient = parameter.requires_grad, parameter.grad
    refill = None if gradient is None else _keep(gradient)

    def restore() -> None:
        parameter.requires_grad_(needed)
        parameter.grad = gradient if refill is None else refill()

    return restore


def _keep_optimizer(optimizer: torch.optim.Optimizer) -> list[Restore]:
    """State, groups and defaults, in the very objects that schedulers and graphs may hold on to.

    ``load_state_dict`` is of no use here: it makes the saved state the live one, which the next step then
    changes, and casts it on the way.
    """
    return [_keep(optimizer.state), _keep(optimizer.param_groups), _keep(optimizer.defaults)]


def _keep_random(generators: Iterable[torch.Generator]) -> list[Restore]:
    restores: list[Restore] = [
        _bind(torch.set_rng_state, torch.get_rng_state()),
        _bind(np.random.set_state, np.random.get_state()),
        _bind(random.setstate, random.getstate()),
    ]
    restores += [_bind(generator.set_state, generator.get_state()) for generator in generators]
    # A device that nobody has used yet has no state to lose, and asking for one would start it.
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        restores.append(_bind(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
    if torch.backends.mps.is_available():
        restores.append(_bind(torch.mps.set_rng_state, torch.mps.get_rng_state()))
    return restores


def _keep(value: Any) -> Restore:
    """A function that puts ``value`` back as it is now and returns it.

    Tensors, dictionaries and lists are refilled in place and so keep their identity. Parameters inside a
    container are kept by reference: their content is looked after by the list of parameters.
    """
    if isinstance(value, Tensor):
        saved = value.detach().clone()
        return lambda: value.copy_(saved)
    if isinstance(value, dict):
        return _keep_dict(value)
    if isinstance(value, list):
        return _keep_list(value)
    if isinstance(value, tuple):
        return _keep_tuple(value)
    saved = copy.deepcopy(value)
    return lambda: saved


def _keep_inner(value: Any) -> Restore:
    return (lambda: value) if isinstance(value, nn.Parameter) else _keep(value)


def _keep_dict(value: dict[Any, Any]) -> Restore:
    kept = {key: _keep_inner(item) for key, item in value.items()}

    def restore() -> dict[Any, Any]:
        items = {key: item() for key, item in kept.items()}
        value.clear()
        value.update(items)
        return value

    return restore


def _keep_list(value: list[Any]) -> Restore:
    kept = [_keep_inner(item) for item in value]

    def restore() -> list[Any]:
        value[:] = [item() for item in kept]
        return value

    return restore


def _keep_tuple(value: tuple[Any, ...]) -> Restore:
    kept = [_keep_inner(item) for item in value]

    def restore() -> tuple[Any, ...]:
        for item in kept:
            item()
        return value

    return restore


def _bind(function: Callable[..., Any], *arguments: Any) -> Restore:
    return lambda: function(*arguments)
