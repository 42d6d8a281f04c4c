"""From the steps of a run to layers: where each starts, and what belongs to it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from torch import nn

from tlnb.engine.network.walk import is_container, starts_layer


@dataclass(frozen=True)
class Step:
    """One thing that happens in a run of the model.

    Attributes:
        path: name of the module that is called, or in whose code this happens.
        call: whether ``path`` itself is called (as a whole).
        weight: name of a loose weight or buffer that is read here.
        clean: whether a layer may start here.
        position: index of the node of the graph in which this happens; None without a graph.
        shape: shape of what the step gives, with the batch dimension, if it is a tensor.
    """

    path: str
    call: bool = False
    weight: str | None = None
    clean: bool = True
    position: int | None = None
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Span:
    """A layer as a run of steps: ``steps[start:stop]``; ``name`` is the module that starts it."""

    name: str
    start: int
    stop: int


def is_under(name: str, parent: str) -> bool:
    """Whether ``name`` is ``parent`` or lies inside it, at dot boundaries."""
    return name == parent or parent == "" or name.startswith(parent + ".")


def find_spans(steps: Sequence[Step], model: nn.Module, head: str | None) -> list[Span]:
    """Divide the steps into layers.

    A step that calls a module with a weight matrix starts a layer where that is clean. What comes before the
    first start belongs to the first layer. The head starts with its first step, so that a norm or a dropout
    in front of its weights is not taken for the end of the body. Layers between two calls of one module with
    weights become one, for they cannot be frozen apart.
    """
    modules = dict(model.named_modules())
    starters = {name for name, module in modules.items() if starts_layer(module)}
    starts: list[tuple[int, str]] = []
    for i, step in enumerate(steps):
        if step.call and step.path in starters and (step.clean or not starts):
            starts.append((i, step.path))
    starts = starts or [(0, type(model).__name__)]
    starts = _start_head_early(starts, steps, head)
    starts = [(0 if k == 0 else i, name) for k, (i, name) in enumerate(starts)]
    starts = _merge_repeats(starts, steps, modules)
    stops = [i for i, _ in starts[1:]] + [len(steps)]
    spans = [Span(name, i, stop) for (i, name), stop in zip(starts, stops, strict=True)]
    calls = [i for i, step in enumerate(steps) if step.call and step.path in starters]
    return [replace(span, name=_whole_name(span, steps, calls, modules)) for span in spans]


def _whole_name(
    span: Span, steps: Sequence[Step], calls: Sequence[int], modules: dict[str, nn.Module]
) -> str:
    """The outermost module that starts the span and lies in it with two or more heavy parts, or its own."""
    parts = span.name.split(".")
    for parent in (".".join(parts[:k]) for k in range(1, len(parts))):
        inside = [i for i in calls if is_under(steps[i].path, parent)]
        whole = all(span.start <= i < span.stop for i in inside)
        if whole and len({steps[i].path for i in inside}) > 1 and not is_container(modules[parent]):
            return parent
    return span.name


def _start_head_early(
    starts: list[tuple[int, str]], steps: Sequence[Step], head: str | None
) -> list[tuple[int, str]]:
    under = [k for k, (_, name) in enumerate(starts) if head and is_under(name, head)]
    if not under or under[0] == 0:
        return starts
    k = under[0]
    before, (own, name) = starts[k - 1][0], starts[k]
    early = [i for i in range(before + 1, own) if head and is_under(steps[i].path, head)]
    if early and steps[early[0]].clean:
        starts = [*starts[:k], (early[0], name), *starts[k + 1 :]]
    return starts


def _merge_repeats(
    starts: list[tuple[int, str]], steps: Sequence[Step], modules: dict[str, nn.Module]
) -> list[tuple[int, str]]:
    firsts = [i for i, _ in starts]
    first_layer: dict[int, int] = {}
    joined: set[int] = set()
    for i, step in enumerate(steps):
        if not step.call:
            continue
        layer = bisect_right(firsts, i) - 1
        for part in modules[step.path].modules():
            if part._parameters or part._buffers:
                joined.update(range(first_layer.setdefault(id(part), layer) + 1, layer + 1))
    return [start for k, start in enumerate(starts) if k not in joined]


class Owners:
    """Which layer each weight, buffer and module belongs to.

    A tied weight belongs to the first layer that uses it; ``users`` has the others. What never runs in test
    mode (an auxiliary head, a module that is left over) goes by ``extra``, the layer where training runs it, or
    else to the first layer of the module that holds it, or of what was registered before it.

    Args:
        model: the model.
        steps: the steps of a run in test mode.
        spans: the layers.
        extra: module names that only run in training, each with its layer.
    """

    def __init__(
        self,
        model: nn.Module,
        steps: Sequence[Step],
        spans: Sequence[Span],
        extra: Iterable[tuple[str, int]] = (),
    ):
        self.model = model
        self.modules = dict(model.named_modules())
        self.names = {id(tensor): name for name, tensor in _tensors(model)}
        self.tensor_layer: dict[str, int] = {}
        self.module_layers: dict[str, set[int]] = {}
        self.users: dict[str, set[int]] = {}  # of each weight and buffer
        self.served: dict[str, set[int]] = {}  # by each module, however often it is called
        for layer, span in enumerate(spans):
            for step in steps[span.start : span.stop]:
                self._take(step, layer)
        for name, layer in extra:
            if name not in self.module_layers:
                self._take(Step(name, call=True), layer)
        self._place_rest()

    def _take(self, step: Step, layer: int) -> None:
        if step.weight is not None:
            self._use(step.weight, layer)
        if not step.call:
            return
        module = self.modules[step.path]
        for part_name, part in module.named_modules(prefix=step.path):
            # A module without weights that serves several layers (one shared dropout) goes with the last of
            # them: a frozen first part runs in test mode anyhow, and the part that trains keeps its dropout.
            self.module_layers[part_name.strip(".")] = {layer}
            self.served.setdefault(part_name.strip("."), set()).add(layer)
            for tensor in (*part._parameters.values(), *part._buffers.values()):
                if tensor is not None:
                    self._use(self.names[id(tensor)], layer)

    def _use(self, tensor: str, layer: int) -> None:
        self.tensor_layer.setdefault(tensor, layer)
        self.users.setdefault(tensor, set()).add(layer)

    def _place_rest(self) -> None:
        layer = 0
        for name, module in self.modules.items():
            inside = [min(layers) for part, layers in self.module_layers.items() if is_under(part, name)]
            layer = min(inside, default=layer)
            for tensor in (*module._parameters.values(), *module._buffers.values()):
                if tensor is not None:
                    layer = self.tensor_layer.setdefault(self.names[id(tensor)], layer)
            if not any(module.children()):
                self.module_layers.setdefault(name, {layer})

    def content(self, name: str) -> set[int]:
        """The layers of everything in the module: weights, buffers, modules that it holds."""
        module = self.modules[name]
        own = {self.tensor_layer[self.names[id(t)]] for _, t in _tensors(module)}
        for part_name, part in module.named_modules(prefix=name):
            part_name = part_name.strip(".")
            if part_name in self.module_layers and (part_name == name or not any(part.children())):
                own |= self.module_layers[part_name]
        return own


def _tensors(module: nn.Module) -> list[tuple[str, object]]:
    return [*module.named_parameters(), *module.named_buffers()]
