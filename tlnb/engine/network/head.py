"""The head: where it is, and a new one sized by the data."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from tlnb.engine.network.auxiliary import is_auxiliary
from tlnb.errors import ModelError

_MLP = re.compile(r"mlp:\d{1,9}(,\d{1,9})*")
WIDEST = 1 << 16  # more hidden features than any head needs; a slip of the finger would take all memory


def find_head(model: nn.Module) -> str:
    """Qualified name of the module that turns features into class scores.

    That is the last linear or 1×1 convolution layer in definition order, auxiliary classifiers aside, which
    torchvision, timm and hand-written classifiers all share.

    Raises:
        ModelError: there is neither.
    """
    candidates = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and not is_auxiliary(name)
    ]
    if not candidates:
        raise ModelError("this model ends in no linear or convolution layer that a head could replace")
    return candidates[-1]


def new_head(old: nn.Module, spec: str, outputs: int, generator: torch.Generator | None = None) -> nn.Module:
    """A fresh head with He normal weights and zero biases (He et al. 2015: std = sqrt(2 / fan_in)).

    A convolution keeps its kernel, stride, padding and dilation.

    Args:
        old: the module that it replaces; gives the number of features and the device.
        spec: ``linear``, or ``mlp:512,256`` for hidden layers of those widths with ReLU between.
        outputs: number of class scores.
        generator: source of the random weights.

    Raises:
        ModelError: an unknown spec, or a head whose input size cannot be told.
    """
    widths = _widths(spec)
    convolution = next((m for m in old.modules() if isinstance(m, nn.Conv2d)), None)
    linear = next((m for m in old.modules() if isinstance(m, nn.Linear)), None)
    if linear is not None:
        head: nn.Module = _stack([linear.in_features, *widths, outputs], nn.Linear)
    elif convolution is not None:
        head = _stack([convolution.in_channels, *widths, outputs], lambda a, b: nn.Conv2d(a, b, 1))
        first = next(m for m in head.modules() if isinstance(m, nn.Conv2d))
        head = _with_first(head, _in_place_of(convolution, first.out_channels))
    else:
        raise ModelError(f"cannot tell how many features reach the head {type(old).__name__}")
    for module in head.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            he_normal(module, generator)
    like = next(old.parameters())
    return head.to(device=like.device, dtype=like.dtype)


def he_normal(module: nn.Linear | nn.Conv2d, generator: torch.Generator | None = None) -> None:
    """He normal weights and zero biases, in place."""
    nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def outputs_of(head: nn.Module) -> int:
    """Number of class scores that a head gives."""
    last = [m for m in head.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    return last.out_features if isinstance(last, nn.Linear) else last.out_channels


def replace(model: nn.Module, name: str, module: nn.Module) -> nn.Module:
    """Put a module in the place of another, and return the one that was there."""
    parent, _, leaf = name.rpartition(".")
    holder = model.get_submodule(parent)
    old = getattr(holder, leaf)
    setattr(holder, leaf, module)
    return old


def _widths(spec: str) -> list[int]:
    if spec == "linear":
        return []
    widths = [int(width) for width in spec[4:].split(",")] if _MLP.fullmatch(str(spec)) else [0]
    if not all(0 < width <= WIDEST for width in widths):
        raise ModelError(f"a head is linear, or mlp: and widths such as mlp:512,256; not {spec!r}")
    return widths


def _in_place_of(old: nn.Conv2d, outputs: int) -> nn.Conv2d:
    same: Any = {name: getattr(old, name) for name in ("stride", "padding", "dilation", "padding_mode")}
    kernel: Any = old.kernel_size
    return nn.Conv2d(old.in_channels, outputs, kernel, **same)


def _with_first(head: nn.Module, first: nn.Module) -> nn.Module:
    return nn.Sequential(first, *list(head)[1:]) if isinstance(head, nn.Sequential) else first


def _stack(sizes: list[int], make: Callable[[int, int], nn.Module]) -> nn.Module:
    pairs = list(pairwise(sizes))
    if len(pairs) == 1:
        return make(*pairs[0])
    parts: list[nn.Module] = []
    for inputs, outputs in pairs:
        parts += [make(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*parts[:-1])
