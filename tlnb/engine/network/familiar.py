"""Networks whose code is known: written for every layout and for tracing, by torch, torchvision, timm and tlnb."""

from __future__ import annotations

from torch import nn

AUTHORS = ("torch", "torchvision", "timm", "tlnb")


def is_familiar(model: nn.Module) -> bool:
    """Whether no module of the model runs code of somebody else: a class, a hook or a forward of its own.

    What is familiar was tried in every form that it may run in, so it need not be tried again at each load.
    """
    return all(_is_known(module) for module in model.modules())


def has_hooks(module: nn.Module) -> bool:
    """Whether something runs before or after the module's own forward, or in its backward pass."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind, None) for kind in kinds)


def _is_known(module: nn.Module) -> bool:
    author = type(module).__module__.partition(".")[0]
    return author in AUTHORS and not has_hooks(module) and "forward" not in vars(module)
