"""Which values are alive at a place of a graph, and so where it can be cut."""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping

from torch import fx, nn

from tlnb.engine.network.observe import Seen


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
