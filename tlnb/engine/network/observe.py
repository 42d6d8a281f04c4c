"""Run the example once and look on: shapes of values, order of calls; nothing of the model changes."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from tlnb.engine.network.tracing import Holder, flags
from tlnb.engine.network.untouched import untouched


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
                if not _equal(buffer, before):
                    buffer.copy_(before)


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())


def few(example: torch.Tensor) -> torch.Tensor:
    """Three samples of the batch (repeated if there are fewer), to know the batch dimension from others."""
    return torch.cat([example] * 3)[:3] if len(example) < 3 else example[:3]


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
    model: nn.Module, names: Collection[str], x: torch.Tensor
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
            model(x)
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
