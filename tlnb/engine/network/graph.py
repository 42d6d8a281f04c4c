"""The clean cut: a model as a first part that is frozen and a second part that trains."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from difflib import SequenceMatcher

from torch import fx, nn

from tlnb.engine.network.described import described, names_read
from tlnb.engine.network.parts import Assembly, Prefix, Tail
from tlnb.engine.network.reading import Flow, Traces, is_batch_size, reads_shape, single_tensor
from tlnb.engine.network.trace import name_ends, own_name
from tlnb.errors import ModelError

CHANGED = "the network computes otherwise than when it was loaded"


class Graph:
    """A model as a graph that can be cut between layers.

    Both parts share the sub-modules of the model and copy nothing. ``tail(prefix(x))`` is ``model(x)`` bit
    for bit in test mode, and in training too as long as the prefix is frozen.

    Args:
        traces: the graphs of the model.
        starts: for each layer the index of the node of ``traces.test`` in which it starts.
    """

    def __init__(self, traces: Traces, starts: Sequence[int]):
        self.traces = traces
        self.starts = tuple(starts)
        test, train = traces.test, traces.train
        self.twins = _twins(test, train)
        self._traced_with = self._settings()[0]
        self._bounds = {0: Bound.at_input(traces)}
        for cut in range(1, len(starts)):
            bound = self._find_bound(cut)
            if bound is not None:
                self._bounds[cut] = bound

    def outdated(self) -> str:
        """Why the graph may no longer be the model's, in half a sentence; empty where it is.

        A graph holds attributes and globals as they were when it was traced.
        """
        texts, unknown = self._settings()
        if unknown:
            return f"the network reads something that cannot be compared ({unknown[0]})"
        return "" if texts == self._traced_with else CHANGED

    def _settings(self) -> tuple[list[str], list[str]]:
        """What the code that stands in the graph computes with; of the modules that are called it looks nothing up."""
        model = self.traces.holder.model
        called = {own_name(str(n.target)) for n in self.traces.test.nodes if n.op == "call_module"}
        read = names_read(model)
        found = [
            described(module, read)
            for name, module in model.named_modules()
            if not any(name[:end] in called for end in name_ends(name))
        ]
        return [each.text for each in found], [kind for each in found for kind in each.unknown]

    @property
    def model(self) -> nn.Module:
        """The whole model."""
        return self.traces.holder.model

    def ragged(self, cut: int) -> bool:
        """False: a graph is of a network whose samples have one size."""
        return False

    @property
    def cuts(self) -> tuple[int, ...]:
        """The possible cuts in rising order. Cut k has layers 0..k-1 before it; 0 is always one."""
        return tuple(self._bounds)

    def split(self, cut: int) -> tuple[Prefix, Tail]:
        """The model in two parts.

        Args:
            cut: one of ``cuts``; layers 0..cut-1 go into the prefix.

        Returns:
            The prefix (always in test mode) and the tail (training or test mode by its own ``training``
            flag).

        Raises:
            ModelError: there is no clean cut at this place.
        """
        self._check(cut)
        return Prefix(self.traces.holder, self._assembly().prefix(cut)), self.tail(cut)

    def segment(self, start: int, cut: int) -> Prefix:
        """Layers start..cut-1 in test mode: takes what crosses at ``start``, gives what crosses at ``cut``.

        Raises:
            ModelError: there is no clean cut at one of these places.
        """
        self._check(start)
        self._check(cut)
        return Prefix(self.traces.holder, self._assembly().prefix(cut, start))

    def tail(self, cut: int, frozen: Collection[int] = ()) -> Tail:
        """The part from layer ``cut`` on.

        Args:
            cut: one of ``cuts``.
            frozen: layers behind a trainable one that stay in test mode. Their modules obey their own flags;
                this keeps functional dropout, ``if self.training`` and a dropout that other layers use too in
                test mode there.

        Raises:
            ModelError: there is no clean cut at this place.
        """
        self._check(cut)
        assembly = self._assembly()
        test = assembly.tail(cut, training=False)
        same = self.traces.train is self.traces.test and not any(layer >= cut for layer in frozen)
        return Tail(
            self.traces.holder, test, test if same else assembly.tail(cut, training=True, frozen=frozen)
        )

    def only_in_training(self) -> list[tuple[str, int]]:
        """Modules that run in training alone (auxiliary heads), each with the layer it stands in."""
        if self.traces.train is self.traces.test:
            return []
        run = {node.target for node in self.traces.test.nodes if node.op == "call_module"}
        starts = self.train_starts()
        return [
            (own_name(str(node.target)), max(bisect_right(starts, i) - 1, 0))
            for i, node in enumerate(self.traces.train.nodes)
            if node.op == "call_module" and node.target not in run
        ]

    def mode_dependent_layers(self) -> set[int]:
        """Layers in which a step of the training graph has other constants than in test mode."""
        starts, back = self.train_starts(), {train: test for test, train in self.twins.items()}
        constants = {
            node: str(fx.map_arg((node.args, node.kwargs), lambda n: None))
            for flow in (self.traces.test, self.traces.train)
            for node in flow.nodes
        }
        return {
            max(bisect_right(starts, place) - 1, 0)
            for place, node in enumerate(self.traces.train.nodes)
            if node in back and constants[node] != constants[back[node]]
        }

    def train_starts(self) -> list[int]:
        """For each layer the index of the node of the training graph in which it starts."""
        found: list[int] = []
        for start in self.starts:
            twin = self.twins.get(self.traces.test.nodes[start])
            found.append(self.traces.train.index[twin] if twin else (found[-1] if found else 0))
        return found

    def _assembly(self) -> Assembly:
        bounds = {cut: (bound.test, bound.train) for cut, bound in self._bounds.items()}
        places = {cut: (bound.test_place, bound.train_place) for cut, bound in self._bounds.items()}
        return Assembly(self.traces, bounds, places, self.twins, self.starts, self.train_starts())

    def _check(self, cut: int) -> None:
        if cut not in self._bounds:
            places = ", ".join(str(k) for k in self.cuts)
            raise ModelError(f"the network has no clean cut before layer {cut}; cuts are {places}")

    def _find_bound(self, cut: int) -> Bound | None:
        test, train, start = self.traces.test, self.traces.train, self.starts[cut]
        if start == self.starts[cut - 1]:
            return None
        node = single_tensor(test.crossing(start), self.traces.seen)
        shape = self.traces.seen[node].shape if node else None
        if node is None or not shape or shape[0] != self.traces.batch:
            return None
        twin = self.twins.get(test.nodes[start])
        if twin is None:
            return None
        place = train.index[twin]
        crossing = train.crossing(place, results=train is not test)
        if len(crossing) != 1 or not self._batch_sizes_hold(start):
            return None
        return Bound(start, place, node, crossing[0])

    def _batch_sizes_hold(self, start: int) -> bool:
        """Whether each batch size needed after ``start`` was read from a tensor with samples in front."""
        test = self.traces.test
        ahead = [node for node in test.live(start) if node in test.free]
        while ahead:
            node = ahead.pop()
            if not is_batch_size(node):
                ahead.extend(n for n in node.all_input_nodes if n in test.free)
            elif not self._has_samples(node.all_input_nodes[0]):
                return False
        return True

    def _has_samples(self, source: fx.Node) -> bool:
        tensor = source.all_input_nodes[0] if reads_shape(source) else source
        shape = self.traces.seen[tensor].shape
        return shape is not None and shape[:1] == (self.traces.batch,)


class Bound:
    """A place where the graphs can be cut, and the value that crosses there, in test mode and in training."""

    def __init__(self, test_place: int, train_place: int, test: fx.Node, train: fx.Node):
        self.test_place, self.train_place, self.test, self.train = test_place, train_place, test, train

    @classmethod
    def at_input(cls, traces: Traces) -> Bound:
        """The cut with nothing before it."""
        inputs = [
            next(n for n in flow.nodes if n.op == "placeholder") for flow in (traces.test, traces.train)
        ]
        return cls(1, 1, inputs[0], inputs[1])


def _twins(test: Flow, train: Flow) -> dict[fx.Node, fx.Node]:
    """For nodes of the test graph the node of the training graph that does the same work."""
    keys = [flow.keys() for flow in (test, train)]
    if keys[0] == keys[1]:
        return dict(zip(test.nodes, train.nodes, strict=True))
    blocks = SequenceMatcher(None, keys[0], keys[1], autojunk=False).get_matching_blocks()
    return {test.nodes[b.a + i]: train.nodes[b.b + i] for b in blocks for i in range(b.size)}
