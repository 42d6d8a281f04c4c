"""A network as a straight line of steps, where it is one: then it can be cut anywhere in plain code."""

from __future__ import annotations

import operator
from itertools import groupby

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from tlnb.engine.network.graph import Graph
from tlnb.engine.network.replay import Replay
from tlnb.engine.network.trace import own_name


class Chain:
    """The steps of a network, each of which sees only what the one before gave.

    Args:
        graph: the network.
        model: its modules.
        steps: for each step the module's name, or code that makes a module of it.
        starts: number of steps before each layer.
    """

    def __init__(self, graph: Graph, model: nn.Module, steps: list[str | tuple[str]], starts: dict[int, int]):
        self.graph, self.model, self.steps, self.starts = graph, model, steps, starts

    @property
    def code(self) -> str:
        """The steps as items of a list; a container that is passed through as a whole is one item."""
        items: list[str] = []
        for parent, group in groupby(self.steps, _parent):
            if parent is None:
                items += [step[0] for step in group]
                continue
            names = [str(step) for step in group]
            if parent and self._whole(parent, names):
                items.append(f"*{expression(parent, self.model)}")
            else:
                items += [expression(name, self.model) for name in names]
        return ", ".join(items)

    def _whole(self, parent: str, names: list[str]) -> bool:
        module = self.model.get_submodule(parent)
        return (
            isinstance(module, nn.Sequential)
            and [f"{parent}.{n}" for n, _ in module.named_children()] == names
        )

    def normed(self, cut: int) -> bool:
        """Whether a BatchNorm stands before layer ``cut``."""
        names = [step for step in self.steps[: self.starts[cut]] if isinstance(step, str)]
        return any(isinstance(m, _BatchNorm) for n in names for m in self.model.get_submodule(n).modules())


def _parent(step: str | tuple[str]) -> str | None:
    return None if isinstance(step, tuple) else step.rpartition(".")[0]


def find_chain(graph: Graph | Replay | None, model: nn.Module) -> Chain | None:
    """The network as a straight line; None where it branches, or does other things in training."""
    if not isinstance(graph, Graph) or graph.traces.train is not graph.traces.test:
        return None
    nodes = graph.traces.test.nodes
    inner = [node for node in nodes if node.op not in ("placeholder", "output")]
    if [node.op for node in nodes[:1]] != ["placeholder"] or len(inner) != len(nodes) - 2:
        return None
    steps: list[str | tuple[str]] = []
    for node, before in zip(inner, nodes, strict=False):
        step = _step(node)
        if step is None or node.all_input_nodes != [before]:
            return None
        steps.append(step)
    named = [step for step in steps if isinstance(step, str)]
    if len(set(named)) != len(named):
        return None
    return Chain(graph, model, steps, {cut: max(graph.starts[cut] - 1, 0) for cut in graph.cuts})


def _step(node: fx.Node) -> str | tuple[str] | None:
    if node.op == "call_module":
        return own_name(str(node.target))
    if node.target in (torch.flatten, "flatten") and node.args[1:] == (1,) and not node.kwargs:
        return ("nn.Flatten(1)",)
    if node.target is F.adaptive_avg_pool2d and not node.kwargs:
        return (f"nn.AdaptiveAvgPool2d({node.args[1]!r})",)
    if node.target in (F.relu, torch.relu, "relu") and not node.args[1:]:
        return ("nn.ReLU()",)
    return None


def expression(name: str, model: nn.Module, root: str = "model") -> str:
    """A module as one writes it: ``model.layer1[0].conv1``."""
    text, module = root, model
    for part in name.split(".") if name else []:
        indexed = isinstance(module, nn.Sequential | nn.ModuleList) and part.isdigit()
        text += f"[{part}]" if indexed else f".{part}" if part.isidentifier() else f"._modules[{part!r}]"
        module = operator.getitem(module._modules, part)  # type: ignore[assignment]
    return text
