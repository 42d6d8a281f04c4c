"""What a model does: its traced graph, and a run that is watched.

The model's own graph, once as it runs in test mode and once as it runs in training.

Functional dropout and ``if self.training`` are read once, while the graph is traced. Two traces, one with
every ``training`` flag off and one with all on, keep both readings.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import fx, nn

from tlnb.engine.core.tree import Tree, call, repeated
from tlnb.engine.network.untouched import Attributes, untouched

ROOT = "model"


class Untraceable(Exception):
    """The forward of the model cannot be written as a graph; the message is half a sentence."""


class Holder(nn.Module):
    """Calls the model with one input, and keeps the constants that tracing finds in its stead."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.training = model.training
        self._answer_class: type | None = (
            None  # of the answer, where a graph gives a plain dictionary in its place
        )

    def forward(self, x: torch.Tensor) -> Any:
        """The model's answer to ``x``."""
        return self.model(x)

    def remember_class(self, answer: Any, copied: Any) -> None:
        """Note the class of an answer that is a dictionary with attributes, of which a graph keeps the items."""
        if isinstance(answer, dict) and isinstance(copied, dict):
            self._answer_class = type(answer)

    def as_answered(self, copied: Any) -> Any:
        """The answer of a graph in the class of the model's own; as it is where that cannot be made."""
        if self._answer_class in (None, type(copied)) or not isinstance(copied, dict):
            return copied
        for make in (lambda: self._answer_class(copied), lambda: self._answer_class(**copied)):
            try:
                made = make()
                if made.keys() == copied.keys() and all(made[key] is copied[key] for key in copied):
                    return made
            except Exception:  # its constructor takes something else
                continue
        return copied

    def move_constants(self, device: torch.device) -> None:
        """Bring the constants of the graph to ``device``; the model's own tensors are not touched."""
        for name, value in list(vars(self).items()):
            if isinstance(value, torch.Tensor) and value.device != device:
                setattr(self, name, value.to(device))


def own_name(target: str) -> str:
    """A target of the traced holder as a name in the model: ``model.layer1.0`` is ``layer1.0``."""
    return "" if target == ROOT else target.removeprefix(ROOT + ".")


def name_ends(name: str) -> list[int]:
    """Where the names of a module and of those around it end in its dotted name, the outermost first."""
    return [*(i for i, letter in enumerate(name) if letter == "."), len(name)]


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
        self.switched: set[str] = set()  # modules in whose forward a switch of torch stands otherwise
        self._switches = _switches()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return id(m) not in self.opened

    def create_node(self, *args: Any, **named: Any) -> fx.Node:
        """A node of the graph, which does not know under which switches of torch its work was asked for."""
        if _switches() != self._switches:
            stack = [own_name(name) for name, _ in self.module_stack.values()]
            self.switched.add(stack[-1] if stack else "")
        return super().create_node(*args, **named)

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


def _switches() -> tuple[bool, ...]:
    """What a forward may switch for a while: gradients, inference mode, automatic precision, what backward keeps.

    The last is how a checkpointed block runs (``torch.utils.checkpoint``): again in the backward pass, in which its
    BatchNorm counts the batch a second time.
    """
    precision = (torch.is_autocast_enabled(device) for device in ("cpu", "cuda"))
    hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    kept = hooks is not None and hooks(False) is not None
    return (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), kept, *precision)


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

    So does a module whose forward keeps something in itself, which a graph would not do, or switches gradients or
    precision for a while, which a graph would forget. What tracing writes into modules is taken back.

    Args:
        holder: the model in its holder.
        opened: names of the modules to go into.
        training: the value of every ``training`` flag while tracing. The flags are put back.

    Returns:
        The graph, and the names that were opened in the end.

    Raises:
        Untraceable: the forward of the root itself cannot be traced, draws random numbers of its own, keeps
            something in itself, or switches gradients or precision.
    """
    opened = set(opened)
    modules = dict(holder.model.named_modules())
    while True:
        tracer = _LayerTracer({id(modules[name]) for name in opened} | {id(holder)})
        random_state, attributes = torch.get_rng_state(), Attributes(holder.model, buffers=True)
        written: list[tuple[str, str]] = []
        try:
            with flags(holder, training), torch.enable_grad():
                graph = tracer.trace(holder)
            if not torch.equal(random_state, torch.get_rng_state()):
                raise Untraceable("its forward draws random numbers of its own")
        except (Untraceable, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            failed = {n for n in opened if n and modules[n] is tracer.failed}
            if not failed:
                raise Untraceable(_reason(error)) from error
            opened = _without(opened, failed)
            continue
        finally:
            torch.set_rng_state(random_state)
            written = attributes.put_back()
        written += [
            (innermost(node), own_name(str(node.args[0].target))) for node in graph.nodes if _writes(node)
        ]
        if not written and not tracer.switched:
            return graph, opened
        if tracer.switched:
            closed, reason = (
                tracer.switched,
                "a part of its forward runs under switches or a backward pass of its own",
            )
        else:
            closed = {name for name, _ in written}
            reason = f"its forward keeps something in itself ({written[0][1]})"
        if not closed <= opened - {""}:
            raise Untraceable(reason)
        opened = _without(opened, closed)


def _writes(node: fx.Node) -> bool:
    """Whether the node changes a weight or a buffer of the model in place."""
    first = node.args[0] if node.args else None
    if not isinstance(first, fx.Node) or first.op != "get_attr":
        return False
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
    return (name.endswith("_") and not name.endswith("__")) or name in (
        "setitem",
        "iadd",
        "isub",
        "imul",
        "itruediv",
    )


def _without(opened: set[str], closed: set[str]) -> set[str]:
    return {name for name in opened if not any(name == c or name.startswith(f"{c}.") for c in closed)}


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


@dataclass(frozen=True)
class Seen:
    """What a node of the graph gave: its shape (B, ...) if it is a tensor, and its type."""

    shape: tuple[int, ...] | None
    type: type


@contextmanager
def quiet(model: nn.Module) -> Iterator[None]:
    """Test mode without gradients; modes, buffers, attributes and random states are as before when it ends."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers() if not buffer.is_meta]
    devices = {t.device for t in (*model.parameters(), *model.buffers()) if t.is_cuda}
    with (
        untouched(model),
        torch.random.fork_rng(sorted(d.index or 0 for d in devices)),
        torch.no_grad(),
        flags(model, False),
    ):
        try:
            yield
        finally:
            for buffer, before in buffers:
                if buffer.shape != before.shape:
                    buffer.resize_(before.shape)
                if not _equal(buffer, before):
                    buffer.copy_(before)


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())


def few(example: Any) -> Any:
    """Three samples of the batch (repeated if there are fewer), to know the batch dimension from others."""
    return repeated(example, 3)


def shape_of(value: Any) -> tuple[int, ...] | None:
    """The shape of a tensor; None for anything else, and for a nested tensor, which has no one shape."""
    return tuple(value.shape) if isinstance(value, torch.Tensor) and not value.is_nested else None


class _Watcher(fx.Interpreter):
    """Runs a graph node by node and notes what each node gave."""

    def __init__(self, holder: Holder, graph: fx.Graph):
        super().__init__(holder, graph=graph)
        self.seen: dict[fx.Node, Seen] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.seen[n] = Seen(shape_of(value), type(value))
        return value


def watch_graph(holder: Holder, graph: fx.Graph, x: torch.Tensor) -> tuple[dict[fx.Node, Seen], Any]:
    """What each node of the graph gives for ``x`` (B, ...) in test mode, and the answer of the graph."""
    watcher = _Watcher(holder, graph)
    with quiet(holder):
        answer = watcher.run(x)
    return watcher.seen, answer


def watch_calls(
    model: nn.Module, names: Collection[str], x: torch.Tensor | Tree
) -> list[tuple[str, tuple[int, ...] | None]]:
    """The named modules in the order in which ``model(x)`` calls them, each with the shape of its answer."""
    calls: list[tuple[str, tuple[int, ...] | None]] = []
    modules = dict(model.named_modules())

    def note(name: str) -> tuple[Any, Any]:
        slots: list[int] = []

        def before(module: nn.Module, args: Any) -> None:
            slots.append(len(calls))
            calls.append((name, None))

        def after(module: nn.Module, args: Any, answer: Any) -> None:
            first = answer[0] if isinstance(answer, (tuple, list)) and answer else answer
            if slots:
                calls[slots.pop()] = (name, shape_of(first))

        return before, after

    handles = []
    try:
        for name in names:
            before, after = note(name)
            handles.append(modules[name].register_forward_pre_hook(before))
            handles.append(modules[name].register_forward_hook(after))
        with quiet(model):
            call(model, x)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def same(a: Any, b: Any) -> bool:
    """Whether two answers hold the same numbers in the same kind of thing; on the device ``meta`` the same shapes."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        return a.is_meta or bool(((a == b) | ((a != a) & (b != b))).all())
    if isinstance(a, dict) and type(a) is type(b):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):  # torch.fx has lists of its own
        return len(a) == len(b) and all(same(p, q) for p, q in zip(a, b, strict=True))
    if isinstance(a, tuple) and type(a) is type(b):
        return len(a) == len(b) and all(same(p, q) for p, q in zip(a, b, strict=True))
    if a is b or type(a) is not type(b):
        return a is b
    if getattr(a, "__dict__", None):
        return same(vars(a), vars(b))
    try:
        return bool(a == b)
    except Exception:  # a comparison of somebody else's
        return False
