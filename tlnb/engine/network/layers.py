"""Layers, taken from the model itself: the units that are addressed, frozen and shown."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from tlnb.engine.core.tree import Tree
from tlnb.engine.network.adapters import Adapter, adapters_in, attached, tensor_names, weights_for
from tlnb.engine.network.all_layers import AllLayers
from tlnb.engine.network.forms import alike, is_familiar
from tlnb.engine.network.graph import Graph
from tlnb.engine.network.reading import Reading, read
from tlnb.engine.network.replay import Replay
from tlnb.engine.network.spans import Owners, Span, find_spans, is_under
from tlnb.engine.network.trace import few, name_ends, own_name
from tlnb.errors import ModelError, did_you_mean

FROZEN, ADAPTED, TRAINS = "frozen", "adapted", "trains"  # the states of a layer
OTHERWISE = (
    "no cut: a traced copy of its forward trains otherwise than it does, so it trains the ordinary way"
)
ONE_LAYER = "no cut: the network is a single layer"
HEARS_ALL = "no cut: the head sees what every layer gives, so the whole network runs"
NO_PLACE = "no cut: at no place does a single tensor carry all that the rest of the network needs"


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        index: number of the layer, from 0 in the order in which data flows.
        name: qualified name of the module that starts it.
        kind: class name of that module.
        parameter_names: qualified names of its weights; each weight of the model is in exactly one layer.
        buffer_names: likewise for buffers.
        module_names: every module whose whole content is in this layer, so that modes can be set: norms,
            dropout and containers too. A module that reaches over several layers is in none.
        shape: shape of its output for one sample, without the batch dimension; None where that is no tensor.
        parameters: how many single weights it has.
        tied: weights and buffers of layers before it that it uses too.
    """

    index: int
    name: str
    kind: str
    parameter_names: tuple[str, ...]
    buffer_names: tuple[str, ...]
    module_names: tuple[str, ...]
    shape: tuple[int, ...] | None
    parameters: int
    tied: tuple[str, ...] = ()


class LayerMap(Sequence[Layer]):
    """The layers of a model in the order in which data flows, and which of them are adapted.

    A layer is in one of three states. *Frozen*, nothing of it moves; *adapted*, what is added to its weights does, and
    they and its buffers do not; else it *trains*, adapters that it may have included. What freezing fixes is said with
    each call (``frozen``), since a stage has its own; which of the others are adapted is said here.

    Attributes:
        head: numbers of the layers that answer the task (made new for a new one).
        body: numbers of all others.
        graph: the model as a graph that can be cut, or None.
        note: one sentence that says why there is no cut, or None.
        fixed: weights that are never trained, whichever layers are.
        served: for modules that are called in several layers (one dropout for all), the layers.
        adapters: of the layers that have any, in whichever state those are, by their numbers.
        adapted: numbers of the layers that are adapted where they are not frozen.
    """

    def __init__(
        self,
        layers: Iterable[Layer],
        head: Sequence[int],
        graph: Graph | Replay | None = None,
        note: str | None = None,
        fixed: Iterable[str] = (),
        served: Mapping[str, Collection[int]] | None = None,
    ):
        self._layers = tuple(layers)
        self.head = tuple(head)
        self.body = tuple(layer.index for layer in self._layers if layer.index not in self.head)
        self.graph = graph
        self.note = note
        self.fixed = frozenset(fixed)
        self.served = dict(served or {})
        self.adapters: Mapping[int, Adapter] = {}
        self.adapted: frozenset[int] = frozenset()

    def with_adapters(self, model: nn.Module, adapted: Iterable[int]) -> LayerMap:
        """The same layers with the adapters that the model has now.

        Args:
            model: whose layers these are.
            adapted: numbers of those that are adapted.
        """
        spec = attached(model)
        found = {layer.index: adapters_in(model, layer.parameter_names) for layer in self} if spec else {}
        there = {index: adapter for index, adapter in found.items() if adapter is not None}
        chosen = frozenset(adapted) & set(there)
        if (there, chosen) == (self.adapters, self.adapted):
            return self
        other = copy.copy(self)
        other.adapters, other.adapted = there, chosen
        return other

    def adaptable(self, model: nn.Module, indexes: Iterable[int], words: str) -> list[str]:
        """Names of the weights of these layers that an adapter of these words is for; none of the head.

        Left out are weights that are never trained, and those that the graph itself reads, and no module that it calls.
        """
        names = [name for i in indexes if i not in self.head for name in self[i].parameter_names]
        names = [name for name in names if name not in self.fixed]
        found = weights_for(model, names, words)
        if not isinstance(self.graph, Graph):
            return found
        called = {own_name(str(n.target)) for n in self.graph.traces.test.nodes if n.op == "call_module"}
        return [name for name in found if any(name[:end] in called for end in name_ends(name))]

    def held(self, frozen: Collection[int]) -> frozenset[int]:
        """The layers whose own weights and buffers stay, and that run in test mode: frozen and adapted ones."""
        return frozenset(frozen) | self.adapted

    def state(self, index: int, frozen: Collection[int]) -> str:
        """``frozen``, ``adapted`` or ``trains``."""
        return FROZEN if index in frozen else ADAPTED if index in self.adapted else TRAINS

    def added(self, index: int) -> tuple[str, ...]:
        """Names of the tensors of a layer's adapter."""
        return self.adapters[index].names if index in self.adapters else ()

    def learning(self, index: int, frozen: Collection[int]) -> tuple[str, ...]:
        """Names of the parameters of a layer that take gradients."""
        still = self.frozen_parameter_names(frozen)
        return tuple(n for n in (*self[index].parameter_names, *self.added(index)) if n not in still)

    @overload
    def __getitem__(self, index: int) -> Layer: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Layer]: ...
    def __getitem__(self, index: int | slice) -> Layer | Sequence[Layer]:
        return self._layers[index]

    def __len__(self) -> int:
        return len(self._layers)

    def __repr__(self) -> str:
        return f"<{len(self)} layers: {', '.join(self.names)}>"

    @property
    def runs_plain(self) -> bool:
        """Whether the model always runs by its own forward, since a graph of it would do something else."""
        return self.note is not None and self.note not in (NO_PLACE, ONE_LAYER)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all layers in order."""
        return tuple(layer.name for layer in self._layers)

    def frozen_parameter_names(self, frozen: Collection[int]) -> frozenset[str]:
        """Names of the weights and buffers that do not change where these layers are frozen.

        A tied weight stands still as soon as one of the layers that use it is frozen or adapted.
        """
        names = [(*self[i].parameter_names, *self[i].buffer_names, *self[i].tied) for i in self.held(frozen)]
        return self.fixed.union(*names, *(self.added(i) for i in frozen))

    @cached_property
    def mode_dependent_layers(self) -> frozenset[int]:
        """Layers that compute something else in training than the modes of their own modules say.

        Their dropout is a function or one that other layers use too, or they ask for ``self.training``.
        """
        if self.graph is None:
            return frozenset()
        modules = dict(self.graph.model.named_modules())
        shared = [users for name, users in self.served.items() if isinstance(modules[name], _DropoutNd)]
        return frozenset(self.graph.mode_dependent_layers()).union(*shared)

    def holders(self, name: str) -> tuple[int, ...]:
        """The layers that hold the module, weight or buffer ``name``, or parts of it."""
        return tuple(
            layer.index
            for layer in self._layers
            if any(
                is_under(own, name)
                for own in (*layer.parameter_names, *layer.buffer_names, *layer.module_names, layer.name)
                if name
            )
        )

    def describe(self, indexes: Iterable[int]) -> str:
        """Layers in words: ``layers 0–4 (features.0 … features.12)``, ``layer 7 (classifier.6)``."""
        chosen = sorted(set(indexes))
        if not chosen:
            return "no layers"
        runs: list[list[int]] = []
        for index in chosen:
            if runs and index == runs[-1][-1] + 1:
                runs[-1].append(index)
            else:
                runs.append([index])
        numbers = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)
        names = [self.names[index] for index in chosen]
        if len(runs) == 1:
            shown = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"
        else:
            shown = ", ".join(names if len(names) <= 4 else [*names[:2], "…", names[-1]])
        return f"layer{'s' if len(chosen) > 1 else ''} {numbers} ({shown})"

    def describe_held(self, frozen: Collection[int]) -> str:
        """What stays as it is, in words; empty where all trains."""
        adapted = self.adapted - set(frozen)
        parts = [self.describe(frozen)] if frozen else []
        parts += [f"under adapters {self.describe(adapted)}"] if adapted else []
        return " and ".join(parts)


def find_layers(
    model: nn.Module, example: torch.Tensor | Tree, head: str | None = None, fixed: Collection[str] = ()
) -> LayerMap:
    """The layers of a model, and the graph in which it can be cut.

    The walk goes from the root down through containers and through modules that hold more than half of the
    weights. Each weight-bearing module that it meets starts a layer if the graph before it is clean: one
    value that depends on weights is alive. Else it joins the layer before it. Norms, activations, pooling,
    dropout and loose weights belong to the layer in whose span of the graph they stand: from its start to
    just before the next start. An auxiliary head that only runs in training belongs to the layer it branches
    off from.

    The example runs at most three times, in test mode and without gradients, with three samples; weights,
    buffers, gradients, modes and random states are as before.

    Args:
        model: any module that answers ``model(x)``.
        example: a batch of input (B, ...), on the device of the model.
        head: name of the module that answers the task; all layers under it are the head. None: the last
            layer.
        fixed: weights that are never to be trained; those of a layer that has no others can be unfrozen.

    Returns:
        The layers. ``graph`` is None, and ``note`` says why, where the model cannot be cut.

    Raises:
        ModelError: the model cannot run on the example, has lazy weights, or has no module ``head``.
    """
    modules = dict(model.named_modules())
    if head is not None and head not in modules:
        raise ModelError(f"the model has no module {head!r} for its head{did_you_mean(head, modules)}")
    reading = read(model, example)
    spans = find_spans(reading.steps, model, head)
    graph: Graph | Replay | None = None
    note = reading.note
    if reading.traces is not None:
        graph = Graph(reading.traces, [reading.steps[span.start].position or 0 for span in spans])
        if not (is_familiar(model) or _trains_alike(model, graph, few(example))):
            graph, note = None, OTHERWISE
    elif reading.recording is not None:
        graph = Replay(reading.recording, [span.start for span in spans])
    extra = graph.only_in_training() if graph else ()
    owners = Owners(model, reading.steps, spans, extra)
    layers = _describe_layers(model, reading, spans, owners)
    if hears_all(model):
        graph, note = None, HEARS_ALL
    if graph is not None and graph.cuts == (0,):
        graph, note = None, NO_PLACE if len(spans) > 1 else ONE_LAYER
    part = {
        n for layer in layers for n in layer.parameter_names if not set(layer.parameter_names) <= set(fixed)
    }
    served = {name: found for name, found in owners.served.items() if len(found) > 1}
    found = LayerMap(layers, _head_layers(layers, head), graph, note, part & set(fixed), served)
    return found.with_adapters(model, ())


def hears_all(model: nn.Module) -> bool:
    """Whether a head of all layers stands in the model, so that no part of it can run without the others."""
    return any(isinstance(module, AllLayers) for module in model.modules())


def _trains_alike(model: nn.Module, graph: Graph, x: torch.Tensor) -> bool:
    return x.is_meta or alike(model, model, graph.tail(0), x)


def _describe_layers(
    model: nn.Module, reading: Reading, spans: Sequence[Span], owners: Owners
) -> list[Layer]:
    modules = dict(model.named_modules())
    parameters: list[list[tuple[str, int]]] = [[] for _ in spans]
    added = tensor_names(attached(model))
    for name, parameter in model.named_parameters():
        if name not in added:
            parameters[owners.tensor_layer[name]].append((name, parameter.numel()))
    buffers: list[list[str]] = [[] for _ in spans]
    for name, _ in model.named_buffers():
        buffers[owners.tensor_layer[name]].append(name)
    held: list[list[str]] = [[] for _ in spans]
    for name in modules:
        content = owners.content(name)
        if len(content) == 1:
            held[content.pop()].append(name)
    return [
        Layer(
            index=i,
            name=span.name,
            kind=type(modules[span.name]).__name__ if span.name in modules else span.name,
            parameter_names=tuple(name for name, _ in parameters[i]),
            buffer_names=tuple(buffers[i]),
            module_names=tuple(held[i]),
            shape=reading.shape_before(span.stop),
            parameters=sum(count for _, count in parameters[i]),
            tied=tuple(n for n, users in owners.users.items() if i in users and owners.tensor_layer[n] != i),
        )
        for i, span in enumerate(spans)
    ]


def _head_layers(layers: Sequence[Layer], head: str | None) -> tuple[int, ...]:
    if head is None:
        return (layers[-1].index,)
    under = [layer.index for layer in layers if is_under(layer.name, head)]
    if not under:
        under = [layer.index for layer in layers if any(is_under(n, head) for n in layer.parameter_names)]
    return tuple(under) or (layers[-1].index,)
