"""Read a model: its graph where it has one, the order of its calls where it has none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from tlnb.engine.network.familiar import has_hooks
from tlnb.engine.network.flow import Flow, single_tensor
from tlnb.engine.network.observe import Seen, few, quiet, same, shape_of, watch_calls, watch_graph
from tlnb.engine.network.spans import Step, is_under
from tlnb.engine.network.tracing import Holder, Untraceable, innermost, own_name, takes_one_input, trace
from tlnb.engine.network.walk import opened_modules, whole_modules
from tlnb.errors import ModelError

QUOTING = set("\"'\\\n\r{}")  # what would end a string in the source that torch.fx writes
Calls = Sequence[tuple[str, tuple[int, ...] | None]]


@dataclass(frozen=True)
class Traces:
    """The graphs of one model.

    Attributes:
        holder: the model with the constants of its graphs.
        test: the graph in test mode.
        train: the graph in training; the same object where training does nothing else.
        seen: what each node of ``test`` gave for the example.
        batch: number of samples of that example.
    """

    holder: Holder
    test: Flow
    train: Flow
    seen: Mapping[fx.Node, Seen]
    batch: int


@dataclass(frozen=True)
class Reading:
    """What a run of the model showed: its steps, its graphs (or why there are none)."""

    steps: Sequence[Step]
    traces: Traces | None
    note: str | None
    answer: tuple[int, ...] | None

    def shape_before(self, stop: int) -> tuple[int, ...] | None:
        """Shape per sample of what is handed on at step ``stop``."""
        if stop >= len(self.steps):
            shape = self.answer
        elif self.traces is not None and self.steps[stop].position != self.steps[stop - 1].position:
            position = self.steps[stop].position or 0
            heavy = self.traces.test.weighted(dict(self.traces.holder.named_modules()))
            live = [n for n in self.traces.test.crossing(position) if n in heavy]
            node = single_tensor(live, self.traces.seen)
            shape = self.traces.seen[node].shape if node else None
        else:
            shape = self.steps[stop - 1].shape
        return shape[1:] if shape is not None else None


def read(model: nn.Module, example: torch.Tensor) -> Reading:
    """Run and trace the model.

    Args:
        model: any module that answers ``model(x)``.
        example: a batch (B, ...) of input.

    Raises:
        ModelError: the model cannot run on the example.
    """
    x = few(example)
    opened = opened_modules(model)
    answer = _answer(model, x)
    try:
        return _read_graph(model, x, opened, answer)
    except Untraceable as reason:
        calls = watch_calls(model, [name for name, _ in whole_modules(model, opened)], x)
        steps = [Step(name, call=True, shape=shape) for name, shape in calls]
        return Reading(steps, None, f"no cut: {reason}, so it trains the ordinary way", shape_of(answer))


def _answer(model: nn.Module, x: torch.Tensor) -> Any:
    before = {name for name, _ in model.named_parameters()}
    try:
        with quiet(model):
            answer = model(x)
            made = next((name for name, _ in model.named_parameters() if name not in before), None)
    except Exception as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"the model cannot run on a batch of shape {tuple(x.shape)} ({x.dtype}): {line}"
        ) from error
    if made is not None:
        raise ModelError(
            f"the model makes the weight {made!r} in its first forward; run one batch through it, then load it"
        )
    return answer


def _read_graph(model: nn.Module, x: torch.Tensor, opened: set[str], answer: Any) -> Reading:
    if not takes_one_input(model):
        raise Untraceable("it takes more than one input")
    if has_hooks(model):
        raise Untraceable("hooks run before or after its forward")
    named = (*model.named_modules(), *model.named_parameters(), *model.named_buffers())
    if any(QUOTING & set(name) for name, _ in named):
        # torch.fx writes names into source code as they are: such a one would end its string there.
        raise Untraceable("the name of one of its modules holds a quote, a backslash or a line end")
    holder = Holder(model)
    graph, in_training, reached = _both_graphs(holder, opened)
    try:
        seen, copied = watch_graph(holder, graph, x)
    except Exception as error:
        raise Untraceable("a traced copy of its forward does not run") from error
    holder.remember_class(answer, copied)
    if not same(answer, holder.as_answered(copied)):
        raise Untraceable("a traced copy of its forward gives other numbers")
    test, train = Flow(graph), Flow(in_training)
    traces = Traces(holder, test, test if train.same_as(test) else train, seen, len(x))
    return Reading(_steps(model, x, traces, opened, reached), traces, None, shape_of(answer))


def _both_graphs(holder: Holder, opened: set[str]) -> tuple[fx.Graph, fx.Graph, set[str]]:
    """The graphs in test mode and in training, with the same modules opened."""
    while True:
        test, reached = trace(holder, opened, training=False)
        train, opened = trace(holder, reached, training=True)
        if opened == reached:
            return test, train, reached


def _steps(
    model: nn.Module, x: torch.Tensor, traces: Traces, opened: set[str], reached: set[str]
) -> list[Step]:
    closed = opened - reached
    inside = [name for name, _ in whole_modules(model, opened) if any(is_under(name, c) for c in closed)]
    calls = watch_calls(model, inside, x) if inside else []
    heavy = traces.test.weighted(dict(traces.holder.named_modules()))
    steps: list[Step] = []
    for position, node in enumerate(traces.test.nodes):
        live = [n for n in traces.test.crossing(position) if n in heavy]
        clean = single_tensor(live, traces.seen) is not None
        shape, name = traces.seen[node].shape if node in traces.seen else None, own_name(str(node.target))
        if node.op == "call_module" and name in closed:
            steps.extend(_inner_steps(name, calls, clean, position))
        elif node.op == "call_module":
            steps.append(Step(name, call=True, clean=clean, position=position, shape=shape))
        else:
            weight = name if node.op == "get_attr" and not name.startswith("_") else None
            steps.append(Step(innermost(node), weight=weight, clean=clean, position=position, shape=shape))
    return steps


def _inner_steps(name: str, calls: Calls, clean: bool, position: int) -> list[Step]:
    """The calls inside a module that could not be traced; layers may start there, cuts may not."""
    own = [(path, shape) for path, shape in calls if is_under(path, name)]
    if not own:
        return [Step(name, call=True, clean=clean, position=position)]
    return [Step(path, call=True, clean=clean, position=position, shape=shape) for path, shape in own]
