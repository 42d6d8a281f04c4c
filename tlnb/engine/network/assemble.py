"""Put new graphs together from the spans of the traced ones."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import fx
from torch.nn.modules.dropout import _DropoutNd

from tlnb.engine.network.flow import Flow, is_answer, is_batch_size, reads_device
from tlnb.engine.network.reading import Traces

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
