"""Whether a network answers the same in another form than the one that it was written for.

Networks whose code is known: written for every layout and for tracing, by torch, torchvision, timm and tlnb.

Other forms are faster: images that lie with channels last, a traced graph. A form that fails, or gives other numbers
or gradients, is not used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tlnb.engine.core.modules import exact
from tlnb.engine.network.trace import flags, quiet

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


FAR = 1e-3  # relative error, from which on numbers are others; sums in another order stay far below
_SEED = 0

Form = Callable[[Tensor], Any]


def alike(model: nn.Module, plain: Form, other: Form, x: Tensor) -> bool:
    """Whether another form gives the numbers and the gradients of the plain one, as they train.

    Both run with the same random numbers. Weights, gradients, buffers, attributes, modes and random states are as
    before when it ends.

    Args:
        model: whose weights both use.
        plain: the form that the model was written for.
        other: gives the same for ``x``.
        x: a batch (B, ...).

    Returns:
        Also False where the plain form itself does not run in training.
    """
    try:
        wanted = _trained(model, plain, x)
    except Exception:  # whatever a forward raises, its own or torch's; the caller goes the plain way
        return False
    try:
        return _near(wanted, _trained(model, other, x))
    except Exception:  # whatever a forward raises on what it was not written for
        return False


def _trained(model: nn.Module, form: Form, x: Tensor) -> list[Tensor | None]:
    """The tensors of the answer in training, and the gradient of each weight."""
    weights = [p for p in model.parameters() if p.requires_grad]
    with quiet(model), torch.enable_grad(), flags(model, training=True):
        torch.manual_seed(_SEED)
        answers = tensors_in(form(x.clone()))
        loss = sum(a.float().square().mean() for a in answers if a.requires_grad)
        gradients = torch.autograd.grad(loss, weights, allow_unused=True) if isinstance(loss, Tensor) else ()
    return [*(a.detach() for a in answers), *gradients]


def tensors_in(answer: Any) -> list[Tensor]:
    """Every floating-point tensor in an answer, in order."""
    if isinstance(answer, Tensor):
        return [answer] if answer.is_floating_point() else []
    if isinstance(answer, dict):
        return [t for value in answer.values() for t in tensors_in(value)]
    if isinstance(answer, list | tuple):
        return [t for value in answer for t in tensors_in(value)]
    named = getattr(answer, "__dict__", {})
    return [] if isinstance(answer, nn.Module) else [t for value in named.values() for t in tensors_in(value)]


def _near(wanted: list[Tensor | None], found: list[Tensor | None]) -> bool:
    if len(wanted) != len(found):
        return False
    return all(_one_near(a, b) for a, b in zip(wanted, found, strict=True))


def _one_near(wanted: Tensor | None, found: Tensor | None) -> bool:
    if wanted is None or found is None:
        return wanted is found
    if wanted.shape != found.shape:
        return False
    a, b = exact(wanted), exact(found)
    if not a.isfinite().all():
        return bool((a.isfinite() == b.isfinite()).all())
    # The floor is for what should be zero, such as the gradient of a bias before BatchNorm.
    return bool((b - a).norm() <= FAR * a.norm() + 1e-5 * max(1.0, a.numel() ** 0.5))
