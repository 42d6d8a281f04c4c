"""Read a model: its graph where it has one, the order of its calls where it has none; and where to cut it."""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from tlnb.engine.core.objectives import scores_of
from tlnb.engine.core.tree import Tree, call
from tlnb.engine.network.forms import has_hooks
from tlnb.engine.network.replay import Recording
from tlnb.engine.network.spans import Step, is_under
from tlnb.engine.network.trace import (
    Holder,
    Seen,
    Untraceable,
    few,
    innermost,
    own_name,
    quiet,
    same,
    shape_of,
    takes_one_input,
    trace,
    watch_calls,
    watch_graph,
)
from tlnb.engine.network.walk import is_container, opened_modules, starts_layer, whole_modules
from tlnb.errors import ModelError, first_line


class Flow:
    """A traced graph with, for every value, the place of its last use.

    Args:
        graph: a graph with one placeholder.
    """

    def __init__(self, graph: fx.Graph):
        self.graph = graph
        self.nodes: list[fx.Node] = list(graph.nodes)
        self.index = {node: i for i, node in enumerate(self.nodes)}
        self.last_use = {n: max((self.index[user] for user in n.users), default=-1) for n in self.nodes}
        self.free: set[fx.Node] = set()
        for node in self.nodes:
            if (
                is_batch_size(node)
                or reads_device(node)
                or (_is_fixed(node) and all(n in self.free for n in node.all_input_nodes))
            ):
                self.free.add(node)

    def keys(self) -> list[str]:
        """For each node the work it does, without its arguments."""
        return [f"{node.op} {node.target}" for node in self.nodes]

    def live(self, position: int) -> list[fx.Node]:
        """Values made before ``position`` and used at or after it, without weights and buffers."""
        return [n for n in self.nodes[:position] if n.op != "get_attr" and self.last_use[n] >= position]

    def crossing(self, position: int, *, results: bool = False) -> list[fx.Node]:
        """The live values that a cut at ``position`` has to hand on.

        What depends on batch size and device alone (the first state of a recurrent layer) can be made again
        from what crosses. With ``results`` a value that is only part of the answer (an auxiliary head that
        ended before the cut) is left out too.
        """
        live = [n for n in self.live(position) if n not in self.free]
        if results:
            live = [n for n in live if not self._only_answered(n, position)]
        return live

    def _only_answered(self, node: fx.Node, position: int) -> bool:
        return all(is_answer(user) for user in node.users if self.index[user] >= position)

    def weighted(self, modules: Mapping[str, nn.Module]) -> set[fx.Node]:
        """The nodes whose value depends on a weight of the model; a shape does not."""
        found: set[fx.Node] = set()
        for node in self.nodes:
            own = node.op == "get_attr" or (
                node.op == "call_module" and any(True for _ in modules[str(node.target)].parameters())
            )
            if not reads_shape(node) and (own or any(source in found for source in node.all_input_nodes)):
                found.add(node)
        return found

    def same_as(self, other: Flow) -> bool:
        """Whether both graphs do the same, node by node, with the same constants."""
        if len(self.nodes) != len(other.nodes):
            return False
        twin = dict(zip(self.nodes, other.nodes, strict=True))
        return all(
            (a.op, a.target) == (b.op, b.target)
            and fx.map_arg((a.args, a.kwargs), lambda n: twin[n]) == (b.args, b.kwargs)
            for a, b in twin.items()
        )


def is_answer(node: fx.Node) -> bool:
    """Whether the node only puts the answer together: the output itself, or a named tuple for it."""
    if node.op == "output":
        return True
    made = node.op == "call_function" and isinstance(node.target, type) and issubclass(node.target, tuple)
    return made and all(is_answer(user) for user in node.users)


def reads_shape(node: fx.Node) -> bool:
    """Whether the node reads the shape of a tensor or a length of it: ``x.shape``, ``x.size(1)``."""
    return _reads(node, "shape") or (node.op == "call_method" and node.target == "size")


def reads_device(node: fx.Node) -> bool:
    """Whether the node is ``x.device``."""
    return _reads(node, "device")


def is_batch_size(node: fx.Node) -> bool:
    """Whether the node reads dimension 0 of a tensor: ``x.size(0)``, ``x.shape[0]``."""
    if node.op == "call_method" and node.target == "size":
        return node.args[1:] == (0,)
    if node.op != "call_function" or node.target is not operator.getitem or node.args[1:] != (0,):
        return False
    source = node.args[0]
    return isinstance(source, fx.Node) and reads_shape(source) and not is_batch_size(source)


def _reads(node: fx.Node, attribute: str) -> bool:
    return node.op == "call_function" and node.target is getattr and node.args[1:] == (attribute,)


def _is_fixed(node: fx.Node) -> bool:
    """Whether the node computes something from its inputs alone: no input, no module, nothing random."""
    random = any(word in str(node.target) for word in ("rand", "normal", "bernoulli", "dropout"))
    return node.op in ("call_function", "call_method") and not random and not str(node.target).endswith("_")


def single_tensor(nodes: Collection[fx.Node], seen: Mapping[fx.Node, Seen]) -> fx.Node | None:
    """The one node of ``nodes``, if it is one and gave a tensor."""
    if len(nodes) != 1:
        return None
    (node,) = nodes
    return node if seen[node].shape is not None else None


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
    """What a run of the model showed: its steps, its graphs (or why there are none), or its calls to be replayed."""

    steps: Sequence[Step]
    traces: Traces | None
    note: str | None
    answer: tuple[int, ...] | None
    recording: Recording | None = None

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


def read(model: nn.Module, example: torch.Tensor | Tree) -> Reading:
    """Run and trace the model; one that takes a tree, or is made of transformers' modules, is replayed.

    Args:
        model: any module that answers ``model(x)``.
        example: a batch (B, ...) of input, or a tree.

    Raises:
        ModelError: the model cannot run on the example.
    """
    x = few(example)
    opened = opened_modules(model)
    answer = _answer(model, x)
    if isinstance(x, Tree) or is_of_transformers(model):
        return _read_calls(model, x, opened, answer)
    try:
        return _read_graph(model, x, opened, answer)
    except Untraceable as reason:
        calls = watch_calls(model, [name for name, _ in whole_modules(model, opened)], x)
        steps = [Step(name, call=True, shape=shape) for name, shape in calls]
        return Reading(steps, None, f"no cut: {reason}, so it trains the ordinary way", shape_of(answer))


def described_batch(x: torch.Tensor | Tree) -> str:
    """A batch in words, for errors."""
    return repr(x) if isinstance(x, Tree) else f"shape {tuple(x.shape)} ({x.dtype})"


def is_of_transformers(model: nn.Module) -> bool:
    """Whether most weights of the model stand in modules of transformers, whose forwards no trace can follow."""
    return any(type(module).__module__.startswith("transformers.") for module in model.modules())


def _read_calls(model: nn.Module, x: torch.Tensor | Tree, opened: set[str], answer: Any) -> Reading:
    """The calls of the model's modules; a layer may start where one tensor crosses."""
    modules = dict(model.named_modules())
    tables = {name for name in opened - {""} if _are_tables(modules[name])}
    opened = {name for name in opened if not any(is_under(name, table) for table in tables)}
    names = [name for name, _ in whole_modules(model, opened)]
    shape = _shape_of_answer(answer)
    try:
        recording = Recording(model, names, x)
    except ModelError as reason:
        calls = watch_calls(model, names, x)
        steps = [Step(name, call=True, shape=shape) for name, shape in calls]
        return Reading(steps, None, f"no cut: {reason}, so it trains the ordinary way", shape)
    steps, joins = [], not is_of_transformers(model)
    for number, name in enumerate(recording.names):
        # A table of distances belongs to the layer in which it is read first.
        starts = starts_layer(modules[name]) and not isinstance(modules[name], nn.Embedding)
        # In a network of several inputs two tensors may cross: its layers can be frozen there, though not cut.
        clean = number == 0 or (starts and (joins or recording.crossing(number) is not None))
        steps.append(Step(name, call=True, clean=clean, shape=recording.shape_of(number)))
    return Reading(steps, None, None, shape, recording)


def _are_tables(module: nn.Module) -> bool:
    """Whether a module only joins tables of embeddings (words, places, kinds): one layer, however large they are."""
    children = list(module.children())
    return any(isinstance(child, nn.Embedding) for child in children) and not any(map(is_container, children))


def _shape_of_answer(answer: Any) -> tuple[int, ...] | None:
    try:
        return shape_of(scores_of(answer))
    except ModelError:
        return None


def _answer(model: nn.Module, x: torch.Tensor | Tree) -> Any:
    before = {name for name, _ in model.named_parameters()}
    try:
        with quiet(model):
            answer = call(model, x)
            made = next((name for name, _ in model.named_parameters() if name not in before), None)
    except Exception as error:
        line = first_line(error)
        raise ModelError(f"the model cannot run on a batch of {described_batch(x)}: {line}") from error
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
