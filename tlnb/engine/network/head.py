"""The head: where it is, a new one sized by the data, and the classifiers beside it (Inception, GoogLeNet)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tlnb.engine.network.all_layers import AllLayers, listen, pooled_to
from tlnb.engine.network.neighbours import Neighbours
from tlnb.engine.network.trace import name_ends, own_name, quiet
from tlnb.errors import ModelError

if TYPE_CHECKING:
    from tlnb.engine.network.graph import Graph
    from tlnb.engine.network.layers import LayerMap
    from tlnb.engine.network.replay import Replay


AUXILIARY_WEIGHT = 0.3
"""Share of each auxiliary loss in the whole (Szegedy et al. 2015, "Going deeper with convolutions")."""

_AUXILIARY = re.compile(r"(.*\.)?aux[^.]*", re.IGNORECASE)


def is_auxiliary(name: str) -> bool:
    """Whether the module of this qualified name is, or stands in, an auxiliary classifier."""
    return any(_AUXILIARY.fullmatch(name[:end]) for end in name_ends(name))


def auxiliary_heads(model: nn.Module) -> tuple[str, ...]:
    """The last linear layer of each auxiliary classifier, by qualified name."""
    last: dict[str, str] = {}
    for name, module in model.named_modules():
        root = next((name[:end] for end in name_ends(name) if _AUXILIARY.fullmatch(name[:end])), None)
        if root is not None and isinstance(module, nn.Linear | nn.Conv2d):
            last[root] = name
    return tuple(last.values())


def auxiliary_scores(output: object, model: nn.Module) -> tuple[Tensor, ...]:
    """The class scores of the auxiliary classifiers that train, in what a network returns in training.

    A classifier in a frozen layer is left out: it could teach nothing and would only add to the loss. So the
    loss is the same whether or not a frozen first part is computed anew.

    Args:
        output: of the network; a named tuple whose further fields are called ``aux…``, or anything else.
        model: the network.
    """
    names = getattr(output, "_fields", ())
    if not isinstance(output, tuple) or not names:
        return ()
    training = {_key(name) for name, child in model.named_children() if _trains(child)}
    return tuple(
        scores
        for name, scores in zip(names, output, strict=True)
        if isinstance(scores, Tensor) and is_auxiliary(name) and _key(name) in training
    )


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _key(name: str) -> str:
    """``aux_logits2`` is what the module ``aux2`` gives, ``aux_logits`` what ``AuxLogits`` gives."""
    return name.lower().replace("_", "").replace("logits", "")


INITS = ("zero", "he", "fit")  # how the last layer of a new head starts
_CLIPPING = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Softplus, nn.Softmax,
    nn.Softmax2d, nn.LogSoftmax, nn.Sigmoid, nn.LogSigmoid, nn.Hardsigmoid, nn.Tanh, nn.Hardtanh,
)  # fmt: skip
_MLP = re.compile(r"mlp:\d{1,9}(,\d{1,9})*")
WIDEST = 1 << 16  # more hidden features than any head needs; a slip of the finger would take all memory


def find_head(model: nn.Module) -> str:
    """Qualified name of the module that turns features into class scores.

    That is the last linear or 1×1 convolution layer in definition order, auxiliary classifiers aside, which
    torchvision, timm and hand-written classifiers all share.

    Raises:
        ModelError: there is neither.
    """
    candidates = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and not is_auxiliary(name)
    ]
    if not candidates:
        raise ModelError("this model ends in no linear or convolution layer that a head could replace")
    return candidates[-1]


def behind_head(graph: Graph | Replay | None, head: str) -> str:
    """Name of an activation module that nothing but the head feeds, and that changes its scores; else empty.

    SqueezeNet has one: scores below zero are cut off there, and a head that starts at zero would never learn.
    """
    if graph is None or not head or not hasattr(graph, "traces"):
        return ""
    nodes = graph.traces.test.nodes
    inside = [
        n for n in nodes if n.op == "call_module" and f"{own_name(str(n.target))}.".startswith(f"{head}.")
    ]
    if not inside or len(inside[-1].users) != 1:
        return ""
    after = next(iter(inside[-1].users))
    name = own_name(str(after.target)) if after.op == "call_module" else ""
    alone = [node for node in nodes if node.op == "call_module" and node.target == after.target] == [after]
    return (
        name
        if name and alone and isinstance(graph.traces.holder.model.get_submodule(name), _CLIPPING)
        else ""
    )


NEAREST, KNN, ALL_LAYERS = "nearest", "knn", "all-layers"
MOST_KEPT = 1 << 28  # numbers that a head of neighbours may keep
POOLED = 512  # numbers to which what a layer gives is averaged, where it has no more channels
Taps = tuple[tuple[str, int, tuple[int, ...]], ...]
"""For each layer that a head hears: the name of the module, numbers of a sample there, and cells a side."""


def neighbours_in(spec: str) -> int:
    """How many neighbours vote in a head of this spec; 0 for a head of another kind.

    Raises:
        ModelError: not a whole number from 1 up.
    """
    if spec != KNN and not str(spec).startswith(f"{KNN}:"):
        return 0
    number = spec.partition(":")[2] or "5"
    if not number.isdecimal() or not 0 < int(number) <= WIDEST:
        raise ModelError(f"knn: takes how many neighbours vote, such as knn:5; not {spec!r}")
    return int(number)


def new_head(
    old: nn.Module, spec: str, outputs: int, generator: torch.Generator | None = None, init: str = "zero",
    samples: int = 0, taps: Taps = (),
) -> nn.Module:  # fmt: skip
    """A fresh head: its last layer starts at zero, what is before it with He normal weights and zero biases.

    From zero the first scores are all alike and the first loss is that of guessing; random scores have to be
    unlearned first, for which few images do not suffice. He et al. 2015: std = sqrt(2 / fan_in). A convolution
    keeps its kernel, stride, padding and dilation.

    Args:
        old: the module that it replaces; gives the number of features, the device, and train or test mode.
        spec: ``linear``, ``nearest`` (a linear one that is to be fitted to class means), ``mlp:512,256`` for hidden
            layers of those widths with ReLU between, ``knn:5`` for neighbours among the samples, or ``all-layers``.
        outputs: number of class scores.
        generator: source of the random weights.
        init: ``he`` gives the last layer He normal weights too.
        samples: how many a head of neighbours keeps.
        taps: what a head of all layers hears, see :func:`find_taps`.

    Raises:
        ModelError: an unknown spec, or a head whose input size cannot be told.
    """
    k = neighbours_in(spec)
    widths = [] if k or spec in (NEAREST, ALL_LAYERS) else _widths(spec)
    convolution, linear = _first_layers(old)
    if spec == ALL_LAYERS:
        head: nn.Module = _of_all_layers(taps, linear, convolution, outputs)
    elif k and linear is not None:
        if k > samples:
            raise ModelError(f"{spec}: there are {samples:,} training samples, so that {k} cannot vote")
        if samples * _features(linear) > MOST_KEPT:
            raise ModelError(
                f"{spec} would keep {samples:,} times {_features(linear):,} numbers; take nearest"
            )
        head = Neighbours(samples, _features(linear), outputs, k)
    elif k:
        raise ModelError("knn needs a head of vectors, and this one is a convolution; nearest takes that")
    elif linear is not None:
        head = _stack([_features(linear), *widths, outputs], nn.Linear)
    elif convolution is not None:
        head = _stack([convolution.in_channels, *widths, outputs], lambda a, b: nn.Conv2d(a, b, 1))
        first = next(m for m in head.modules() if isinstance(m, nn.Conv2d))
        head = _with_first(head, _in_place_of(convolution, first.out_channels))
    else:
        raise ModelError(f"cannot tell how many features reach the head {type(old).__name__}")
    start(head, generator, init)
    like = next(old.parameters())
    return head.to(device=like.device, dtype=like.dtype).train(old.training)


@torch.no_grad()
def start(head: nn.Module, generator: torch.Generator | None, init: str) -> None:
    """Give a head the weights that a new one has, in place; the same numbers are drawn for each ``init``."""
    layers = [m for m in head.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    for module in layers:
        he_normal(module, generator)
    if init != "he":
        for module in layers[-1:]:
            module.weight.zero_()
    for kept in (m for m in head.modules() if isinstance(m, Neighbours)):
        kept.remember(torch.zeros_like(kept.weight), torch.zeros_like(kept.labels))


def he_normal(module: nn.Linear | nn.Conv2d, generator: torch.Generator | None = None) -> None:
    """He normal weights and zero biases, in place."""
    nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def outputs_of(head: nn.Module) -> int:
    """Number of class scores that a head gives."""
    last = [m for m in head.modules() if isinstance(m, nn.Linear | nn.Conv2d | Neighbours)][-1]
    if isinstance(last, Neighbours):
        return last.classes
    return last.out_features if isinstance(last, nn.Linear) else last.out_channels


def replace(model: nn.Module, name: str, module: nn.Module) -> nn.Module:
    """Put a module in the place of another, and return the one that was there.

    A head of all layers hears the network from then on, as long as it stands in it.

    Raises:
        ModelError: it hears layers that the network does not have; the other one is back then.
    """
    parent, _, leaf = name.rpartition(".")
    holder = model.get_submodule(parent)
    old = getattr(holder, leaf)
    setattr(holder, leaf, module)
    try:
        listen(model)
    except AttributeError as error:
        setattr(holder, leaf, old)
        listen(model)
        raise ModelError(f"the head {name} is for another network: {error}") from None
    return old


def _first_layers(old: nn.Module) -> tuple[nn.Conv2d | None, nn.Module | None]:
    """The first convolution and the first linear layer (or neighbours) of a head.

    In place of a head of all layers they are as what it replaced would be.
    """
    hears = next((m for m in old.modules() if isinstance(m, AllLayers)), None)
    if hears is not None:
        with torch.device("meta"):
            if hears.places:
                return nn.Conv2d(hears.features, 1, 1), None
            return None, nn.Linear(hears.features, 1)
    convolution = next((m for m in old.modules() if isinstance(m, nn.Conv2d)), None)
    return convolution, next((m for m in old.modules() if isinstance(m, nn.Linear | Neighbours)), None)


def _of_all_layers(
    taps: Taps, linear: nn.Module | None, convolution: nn.Conv2d | None, outputs: int
) -> AllLayers:
    if linear is not None:
        return AllLayers(taps, _features(linear), outputs)
    if convolution is None or convolution.kernel_size != (1, 1):
        raise ModelError("all-layers needs a head of vectors or of single pixels; take linear")
    return AllLayers(taps, convolution.in_channels, outputs, True)


@torch.no_grad()
def find_taps(model: nn.Module, layers: LayerMap, example: Tensor) -> Taps:
    """What a head of all layers hears: what enters each layer of the body but the first, pooled.

    Images and rows are averaged over as many cells, 1, 2 or 4 a side, as leave at most ``POOLED`` numbers. A module
    that does not run once a batch, or takes no tensor of numbers first, is left out.

    Args:
        model: in which nothing changes.
        layers: its layers.
        example: a batch (B, ...) of its input.

    Raises:
        ModelError: there is no such layer.
    """
    modules = dict(model.named_modules())
    names = [layers[i].name for i in layers.body[1:] if layers[i].name in modules]
    seen: dict[str, list[object]] = {name: [] for name in names}
    hooks = [
        modules[name].register_forward_pre_hook(
            lambda module, inputs, name=name: seen[name].append(inputs[0] if inputs else None)
        )
        for name in names
    ]
    try:
        with quiet(model):
            model(example)
    finally:
        for hook in hooks:
            hook.remove()
    found = []
    for name in names:
        x = seen[name][0] if len(seen[name]) == 1 else None
        if isinstance(x, Tensor) and x.is_floating_point() and x.dim() > 1 and len(x) == len(example):
            cells = _cells(x, rows=isinstance(modules[name], nn.Conv1d))
            found.append((name, pooled_to(x, cells).shape[1], cells))
    if not found:
        raise ModelError("no layer before the last is one that a head could hear; take linear")
    return tuple(found)


def _cells(x: Tensor, *, rows: bool) -> tuple[int, ...]:
    """Cells a side to which what enters a layer is averaged."""
    if not (x.dim() == 4 or (x.dim() == 3 and rows)):
        return ()
    cells = tuple(1 for _ in x.shape[2:])
    for side in (2, 4):
        finer = tuple(min(side, size) for size in x.shape[2:])
        if x.shape[1] * math.prod(finer) <= POOLED:
            cells = finer
    return cells


def _features(layer: nn.Module) -> int:
    """Numbers that enter a layer for each sample."""
    count: int = layer.weight.shape[1] if isinstance(layer, Neighbours) else layer.in_features  # type: ignore[assignment]
    return count


def _widths(spec: str) -> list[int]:
    if spec == "linear":
        return []
    widths = [int(width) for width in spec[4:].split(",")] if _MLP.fullmatch(str(spec)) else [0]
    if not all(0 < width <= WIDEST for width in widths):
        raise ModelError(
            f"a head is linear, nearest, knn:5, all-layers, or mlp: and widths such as mlp:512,256; not {spec!r}"
        )
    return widths


def _in_place_of(old: nn.Conv2d, outputs: int) -> nn.Conv2d:
    same: Any = {name: getattr(old, name) for name in ("stride", "padding", "dilation", "padding_mode")}
    kernel: Any = old.kernel_size
    return nn.Conv2d(old.in_channels, outputs, kernel, **same)


def _with_first(head: nn.Module, first: nn.Module) -> nn.Module:
    return nn.Sequential(first, *list(head)[1:]) if isinstance(head, nn.Sequential) else first


def _stack(sizes: list[int], make: Callable[[int, int], nn.Module]) -> nn.Module:
    pairs = list(pairwise(sizes))
    if len(pairs) == 1:
        return make(*pairs[0])
    parts: list[nn.Module] = []
    for inputs, outputs in pairs:
        parts += [make(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*parts[:-1])
