"""The model's own graph, once as it runs in test mode and once as it runs in training.

Functional dropout and ``if self.training`` are read once, while the graph is traced. Two traces, one with
every ``training`` flag off and one with all on, keep both readings.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import fx, nn

ROOT = "model"


class Untraceable(Exception):
    """The forward of the model cannot be written as a graph; the message is half a sentence."""


class Holder(nn.Module):
    """Calls the model with one input, and keeps the constants that tracing finds in its stead."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, x: torch.Tensor) -> Any:
        """The model's answer to ``x``."""
        return self.model(x)

    def move_constants(self, device: torch.device) -> None:
        """Bring the constants of the graph to ``device``; the model's own tensors are not touched."""
        for name, value in list(vars(self).items()):
            if isinstance(value, torch.Tensor) and value.device != device:
                setattr(self, name, value.to(device))


def own_name(target: str) -> str:
    """A target of the traced holder as a name in the model: ``model.layer1.0`` is ``layer1.0``."""
    return "" if target == ROOT else target.removeprefix(ROOT + ".")


def innermost(node: fx.Node) -> str:
    """Qualified name, in the model, of the module whose code made this node."""
    stack = node.meta.get("nn_module_stack") or {}
    return own_name(next(reversed(stack.values()))[0]) if stack else ""


class _LayerTracer(fx.Tracer):
    """Opens the modules of the walk and no others; remembers the innermost one in which tracing failed."""

    def __init__(self, opened: set[int]):
        super().__init__(autowrap_modules=(math,))
        self.opened = opened
        self.failed: nn.Module | None = None

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return id(m) not in self.opened

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if isinstance(m, nn.TransformerEncoder):
            forward = partial(_encoder_loop, m)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed = self.failed or m
            raise


def _encoder_loop(
    encoder: nn.TransformerEncoder,
    src: Any,
    mask: Any = None,
    src_key_padding_mask: Any = None,
    is_causal: bool | None = None,
) -> Any:
    """What ``nn.TransformerEncoder`` computes, without the checks for its nested-tensor path."""
    for layer in encoder.layers:
        src = layer(src, src_mask=mask, src_key_padding_mask=src_key_padding_mask, is_causal=bool(is_causal))
    return src if encoder.norm is None else encoder.norm(src)


@contextmanager
def flags(model: nn.Module, training: bool) -> Iterator[None]:
    """Set every ``training`` flag for a while, past any ``train()`` that a model has of its own."""
    before = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in before:
            module.training = training
        yield
    finally:
        for module, flag in before:
            module.training = flag


def trace(holder: Holder, opened: set[str], *, training: bool) -> tuple[fx.Graph, set[str]]:
    """Trace the model; a module in which that fails is closed and becomes one node.

    Args:
        holder: the model in its holder.
        opened: names of the modules to go into.
        training: the value of every ``training`` flag while tracing. The flags are put back.

    Returns:
        The graph, and the names that were opened in the end.

    Raises:
        Untraceable: the forward of the root itself cannot be traced, or draws random numbers of its own.
    """
    opened = set(opened)
    modules = dict(holder.model.named_modules())
    while True:
        tracer = _LayerTracer({id(modules[name]) for name in opened} | {id(holder)})
        random_state = torch.get_rng_state()
        try:
            with flags(holder, training):
                graph = tracer.trace(holder)
            if not torch.equal(random_state, torch.get_rng_state()):
                raise Untraceable("its forward draws random numbers of its own")
            return graph, opened
        except Untraceable:
            raise
        except Exception as error:
            failed = next((n for n in opened if n and modules[n] is tracer.failed), None)
            if failed is None:
                raise Untraceable(_reason(error)) from error
            opened = {n for n in opened if n != failed and not n.startswith(failed + ".")}
        finally:
            torch.set_rng_state(random_state)


def _reason(error: Exception) -> str:
    if isinstance(error, fx.proxy.TraceError):
        return "its forward takes decisions that depend on the data"
    return f"its forward uses a call that needs real numbers ({type(error).__name__})"


def takes_one_input(model: nn.Module) -> bool:
    """Whether ``model(x)`` is a complete call."""
    try:
        inspect.signature(model.forward).bind(None)
    except (TypeError, ValueError):
        return False
    return True
