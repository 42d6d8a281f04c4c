"""The switches that torch keeps for a whole process or thread, as tlnb expects them, whatever a notebook has set."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch

T = TypeVar("T")


@contextmanager
def usual_switches() -> Iterator[None]:
    """Inside, new tensors are float32 on the CPU, gradients are on, and no precision is chosen automatically.

    Networks, heads and samples are made for that; afterwards the notebook's own switches are back.
    """
    dtype = torch.get_default_dtype()
    with ExitStack() as switches:
        if dtype != torch.float32:
            switches.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        if torch.get_default_device().type != "cpu":
            switches.enter_context(torch.device("cpu"))
        if torch.is_inference_mode_enabled():
            switches.enter_context(torch.inference_mode(False))
        if not torch.is_grad_enabled():
            switches.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                switches.enter_context(torch.autocast(device, enabled=False))
        yield


def shielded(cls: type[T]) -> type[T]:
    """Let every public method of a class run under :func:`usual_switches`."""
    for name in dir(cls):
        method = inspect.getattr_static(cls, name)
        ours = isinstance(method, types.FunctionType) and method.__module__.startswith("tlnb.")
        if ours and not name.startswith("_"):
            setattr(cls, name, _shielded(method))
    return cls


def _shielded(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def run(*args: Any, **named: Any) -> Any:
        with usual_switches():
            return method(*args, **named)

    return run
