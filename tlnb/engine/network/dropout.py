"""Whether a network draws random numbers in an order that depends on how its images lie in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from tlnb.engine.network.observe import quiet
from tlnb.engine.network.tracing import flags

_BY_ELEMENT = (F.dropout, F.alpha_dropout, F.rrelu)


class _Watch(TorchFunctionMode):
    """Notes dropout that draws a number for each element of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.found = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _BY_ELEMENT:
            tensor = args[0] if args else kwargs.get("input")
            self.found |= isinstance(tensor, Tensor) and tensor.dim() == 4 and kwargs.get("p", 1.0) != 0
        return func(*args, **kwargs)


@torch.no_grad()
def draws_by_place(part: nn.Module, x: Tensor, model: nn.Module) -> bool:
    """Whether elementwise dropout acts on images (B, C, H, W) in a part of a model.

    It draws in the order of memory, so with channels last each element gets another number: the training is
    as good, but not the same.

    Args:
        part: runs once, in test mode.
        x: a batch of what enters it.
        model: the whole; its modes are put back.
    """
    watch = _Watch()
    with flags(part, training=False), quiet(model), watch:
        part(x)
    return watch.found
