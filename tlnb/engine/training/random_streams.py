"""A random stream of one's own for code that draws from torch's global one.

torchvision's transforms draw from torch's global generator. Seeding that for each picture would disturb
dropout, and could not be done in threads. A ``TorchFunctionMode`` is private to its thread and sees each call
that draws, so it can hand in a generator: any v2 transform then follows the seed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_DRAWING = {
    torch.rand, torch.randn, torch.randint, torch.randperm, torch.normal, torch.bernoulli, torch.multinomial,
    torch.poisson, Tensor.uniform_, Tensor.normal_, Tensor.random_, Tensor.bernoulli_, Tensor.exponential_,
    Tensor.bernoulli, Tensor.multinomial, Tensor.geometric_, Tensor.log_normal_, Tensor.cauchy_,
}  # fmt: skip
_LIKE: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.rand_like: Tensor.uniform_,
    torch.randn_like: Tensor.normal_,
}


class _OwnStream(TorchFunctionMode):
    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DRAWING and kwargs.get("generator") is None:
            return func(*args, **{**kwargs, "generator": self.generator})
        if func in _LIKE and kwargs.get("generator") is None:
            return _LIKE[func](torch.empty_like(*args, **kwargs), generator=self.generator)
        return func(*args, **kwargs)


def own_stream(seed: int) -> TorchFunctionMode:
    """A context in which what is drawn on the CPU in this thread follows ``seed`` alone."""
    return _OwnStream(torch.Generator().manual_seed(seed))
