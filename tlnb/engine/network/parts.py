"""The two parts of a cut model: graphs put together from spans, and modules that own nothing.

The two parts of a cut model as modules that share everything with it and own nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Self

import torch
from torch import fx, nn
from torch.nn.modules.dropout import _DropoutNd

from tlnb.engine.network.reading import Flow, Traces, is_answer, is_batch_size, reads_device
from tlnb.engine.network.trace import Holder, own_name

Pair = tuple[fx.Node, fx.Node]


class Assembly:
    """Builds prefixes and tails.

    A tail in training takes each span between two cuts from the training graph, or, where all its layers are
    frozen, from the test graph.

    Args:
        traces: the graphs of the model.
        bounds: for each cut the value that crosses, in the test graph and in the training graph.
        places: for each cut the index of the first node behind it, in both graphs.
        twins: for nodes of the test graph the node of the training graph that does the same work.
        starts: for each layer the index of its first node in the test graph.
        train_starts: likewise in the training graph.
    """

    def __init__(
        self,
        traces: Traces,
        bounds: Mapping[int, Pair],
        places: Mapping[int, tuple[int, int]],
        twins: Mapping[fx.Node, fx.Node],
        starts: Sequence[int],
        train_starts: Sequence[int],
    ):
        self.traces, self.bounds, self.places = traces, bounds, places
        self.twins, self.back = twins, {train: test for test, train in twins.items()}
        self.starts, self.train_starts = starts, train_starts
        self.modules = dict(traces.holder.named_modules())
        self.parallel = traces.test.keys() == traces.train.keys()

    def prefix(self, cut: int, start: int = 0) -> fx.Graph:
        """The graph of layers start..cut-1 in test mode; its answer is the value that crosses at ``cut``."""
        copy = _Copy(self)
        copy.bind(start)
        for first, last in self._spans(start):
            if last is not None and last <= cut:
                copy.span(first, last, training=False, frozen=())
        copy.graph.output(copy.env[self.bounds[cut][0]])
        return copy.graph

    def tail(self, cut: int, *, training: bool, frozen: Collection[int] = ()) -> fx.Graph:
        """The graph of the layers from ``cut`` on.

        In training a result that was finished before the cut (an auxiliary head) is None in the answer.
        """
        copy = _Copy(self)
        copy.bind(cut)
        for first, last in self._spans(cut):
            layers = range(first, len(self.starts) if last is None else last)
            test_mode = not training or all(layer in frozen for layer in layers)
            copy.span(first, last, training=not test_mode, frozen=frozen)
        flow = self.traces.train if training else self.traces.test
        copy.graph.output(fx.map_arg(flow.nodes[-1].args[0], copy.value))
        return copy.graph

    def _spans(self, cut: int) -> list[tuple[int, int | None]]:
        cuts = [k for k in self.bounds if k >= cut]
        return list(zip(cuts, [*cuts[1:], None], strict=True))


class _Copy:
    """A graph in the making; ``env`` maps nodes of both traced graphs to nodes of the new one."""

    def __init__(self, plan: Assembly):
        self.plan = plan
        self.flows = (plan.traces.test, plan.traces.train)
        self.graph = fx.Graph()
        self.input = self.graph.placeholder("x")
        self.env: dict[fx.Node, fx.Node] = {}
        self.bind(0)

    def bind(self, cut: int) -> None:
        """Let the input of the new graph be what crosses at ``cut``."""
        self.env = dict.fromkeys(self.plan.bounds[cut], self.input)

    def value(self, node: fx.Node) -> Any:
        """The new node for a traced one.

        Weights, batch sizes, devices, what depends on them alone, and the named tuple of an answer are made
        anew; a result that was finished before the cut is None.
        """
        if node in self.env:
            return self.env[node]
        if is_batch_size(node):
            self.env[node] = self.graph.call_method("size", (self.input, 0))
        elif reads_device(node):
            self.env[node] = self.graph.call_function(getattr, (self.input, "device"))
        elif node.op == "get_attr" or is_answer(node) or any(node in flow.free for flow in self.flows):
            self.env[node] = self.graph.node_copy(node, self.value)
        return self.env.get(node)

    def span(self, first: int, last: int | None, *, training: bool, frozen: Collection[int]) -> None:
        """Copy the nodes between two cuts from one of the traced graphs."""
        plan, side = self.plan, int(training)
        flow: Flow = plan.traces.train if training else plan.traces.test
        stop = len(flow.nodes) - 1 if last is None else plan.places[last][side]
        for place in range(plan.places[first][side], stop):
            node = flow.nodes[place]
            fixed = self._layer(place, training) in frozen
            twin = plan.back.get(node) if training else plan.twins.get(node)
            if fixed and node.op == "call_module" and isinstance(plan.modules[str(node.target)], _DropoutNd):
                self.env[node] = self.value(node.all_input_nodes[0])  # it may be one that acts elsewhere
            else:
                same = training and fixed and plan.parallel  # the graphs differ in constants only
                self.env[node] = self.graph.node_copy(plan.back[node] if same else node, self.value)
            if twin is not None:
                self.env[twin] = self.env[node]
        if last is not None:
            crossing = self.env[plan.bounds[last][side]]
            self.env.update(dict.fromkeys(plan.bounds[last], crossing))

    def _layer(self, place: int, training: bool) -> int:
        """The layer in which the node at this place stands."""
        return bisect_right(self.plan.train_starts if training else self.plan.starts, place) - 1


class Part(nn.Module):
    """A view of some layers of a model.

    ``parameters()`` and ``buffers()`` list the model's own tensors under the model's own names, as far as
    this part uses them. It holds none itself: ``state_dict()`` is empty, ``to()`` moves nothing, ``train()``
    and ``eval()`` set the flag of the part alone and leave the modules in it as they are. A module of the
    model that is moved, loaded or put in another mode is so here too.
    """

    def __init__(self, holder: Holder, graph: fx.Graph):
        super().__init__()
        self._holder = (holder,)  # in a tuple, so that it is not registered as a sub-module
        self.graph = graph
        self._run = _compile(graph)

    @property
    def model(self) -> nn.Module:
        """The whole model."""
        return self._holder[0].model

    def graph_module(self) -> fx.GraphModule:
        """The part in test mode as a ``GraphModule`` of the shared modules, for passes that rewrite it."""
        return fx.GraphModule(self._holder[0], self.graph)

    def shared_modules(self) -> dict[str, nn.Module]:
        """The modules of the model that this part calls, by their names in the model."""
        modules = dict(self._holder[0].named_modules())
        names = dict.fromkeys(str(n.target) for n in self.graph.nodes if n.op == "call_module")
        return {own_name(name): modules[name] for name in names}

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """The model's parameters that this part uses, under their names in the model."""
        return self._used("named_parameters", prefix)

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """The model's buffers that this part uses, under their names in the model."""
        return self._used("named_buffers", prefix)

    def _used(self, method: str, prefix: str) -> Iterator[Any]:
        loose = {own_name(str(n.target)) for n in self.graph.nodes if n.op == "get_attr"}
        inside = {id(t) for m in self.shared_modules().values() for _, t in getattr(m, method)()}
        for name, tensor in getattr(self._holder[0].model, method)():
            if id(tensor) in inside or name in loose:
                yield (f"{prefix}.{name}" if prefix else name), tensor

    def train(self, mode: bool = True) -> Self:
        """Set the flag of this part alone; the shared modules keep their modes."""
        self.training = mode
        return self


class Prefix(Part):
    """The frozen first part: always in test mode, whatever the modes of its modules are.

    ``prefix(x)`` takes a batch of input (B, ...) and gives the one tensor (B, ...) that crosses the cut.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What crosses the cut for the batch ``x``."""
        self._holder[0].move_constants(x.device)
        active = [m for part in self.shared_modules().values() for m in part.modules() if m.training]
        try:
            for module in active:
                module.training = False
            return self._run(self._holder[0], x)
        finally:
            for module in active:
                module.training = True


class Tail(Part):
    """The second part: takes what crosses the cut (B, ...) and gives what the model gives.

    In training it runs the graph of training, so functional dropout acts; in test mode the other one. Modules
    obey their own flags. The input is never changed, also where the first operation works in place. What an
    auxiliary head that lies before the cut would add to the answer is None.
    """

    def __init__(self, holder: Holder, test: fx.Graph, train: fx.Graph):
        super().__init__(holder, test)
        self.train_graph = train
        self._run_train = self._run if train is test else _compile(train)
        self._keeps_input: dict[bool, bool] = {}
        # Dropout that works in place writes in training alone, so no look at a single call can tell.
        parts = (part for module in self.shared_modules().values() for part in module.modules())
        self._always_copy = any(isinstance(part, _DropoutNd) and part.inplace for part in parts)

    def forward(self, x: torch.Tensor) -> Any:
        """The model's answer, from the tensor ``x`` that crosses the cut."""
        self._holder[0].move_constants(x.device)
        run = self._run_train if self.training else self._run
        # The first call works on a copy and looks whether anything wrote into it; the version counter of a
        # tensor tells. A tensor of inference mode has none, so it is always copied.
        if self._keeps_input.get(self.training):
            return self._holder[0].as_answered(run(self._holder[0], x))
        copy = x.clone()
        answer = run(self._holder[0], copy)
        if not (copy.is_inference() or self._always_copy):
            self._keeps_input[self.training] = copy._version == 0
        return self._holder[0].as_answered(answer)


def _compile(graph: fx.Graph) -> Callable[[nn.Module, torch.Tensor], Any]:
    """The graph as a function of (holder, input). Names are looked up in the holder at every call."""
    graph.lint()
    code = graph.python_code("self")
    names: dict[str, Any] = dict(code.globals)
    exec(compile(code.src, "<tlnb graph>", "exec"), names)  # source that torch.fx wrote from the graph
    run: Callable[[nn.Module, torch.Tensor], Any] = names["forward"]
    return run
