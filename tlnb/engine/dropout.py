"""Whether a network draws random numbers in an order that depends on how its images lie in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from tlnb.engine.layers import LayerMap
from tlnb.engine.tracing import flags

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
def draws_by_place(
    tail: nn.Module, layers: LayerMap, cut: int, model: nn.Module, device: torch.device
) -> bool:
    """Whether elementwise dropout acts on images (B, C, H, W) behind the cut.

    It draws in the order of memory, so with channels last each element gets another number: the training is
    as good, but not the same.

    Args:
        tail: the part behind the cut; runs once, on zeros and in test mode.
        layers: of the model.
        cut: where the tail starts.
        model: the whole; its modes are put back.
        device: where it is.
    """
    shape = layers[cut - 1].shape
    if shape is None or len(shape) != 3:
        return False
    watch = _Watch()
    with flags(model, training=False), watch:
        tail.eval()(torch.zeros(1, *shape, device=device))
    return watch.found
