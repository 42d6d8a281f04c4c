"""Adapters: what is learned beside weights that stay as they are, and is added to them wherever they are read.

An adapter of a weight ``W`` is a few numbers of its own in the same module: of a matrix the two factors of
``SCALE * B @ A`` of rank r (LoRA, Hu et al. 2022; of a convolution the matrix of its filters, groups and all), of a
bias (BitFit, Ben Zaken et al. 2022) or of the two vectors of a norm a vector as long. The module gets a class in which
the name ``W`` reads the sum, so whoever reads it adapts: the module's own forward, an attention that takes its
projections' weights, a cut graph. The weight itself keeps its name and its bits, and the module
stays the object that it was.

A gradient passes the sum, so it costs what that of the weight would; the optimizer and the file hold the factors alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tlnb.engine.core.fingerprint import tensors_digest
from tlnb.engine.core.modules import duplicate
from tlnb.engine.core.seeds import seed_for

RANK, BIAS, NORM = "rank", "bias", "norm"
KINDS = (BIAS, NORM)  # the words that stand for a whole adapter; rank takes a number
USUAL_RANK = 4  # about one part in a hundred of the weights of a ResNet
WIDEST = 4096
SCALE = 2.0  # alpha / r of Hu et al. with alpha = 2 r
_MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention)
_PROJECTIONS = ("weight", "in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def words_of(kind: str | None, rank: int | None) -> str:
    """An adapter in the words of a plan: ``rank 8``, ``bias`` or ``norm``."""
    return kind if kind in KINDS else f"{RANK} {rank or USUAL_RANK}"


def rank_of(words: str) -> int:
    """The rank in an adapter's words; 0 for one that has none.

    Raises:
        ValueError: they are no adapter's.
    """
    if words in KINDS:
        return 0
    kind, _, number = words.partition(" ")
    if kind != RANK or not number.isdecimal() or not 0 < int(number) <= WIDEST:
        raise ValueError(f"{words!r} is no adapter: rank 8, bias or norm")
    return int(number)


@dataclass(frozen=True)
class Adapter:
    """How a layer is adapted.

    Attributes:
        words: as in a plan.
        on: names of the weights that it is added to.
        names: names of its own tensors.
        parameters: numbers in those.
    """

    words: str
    on: tuple[str, ...]
    names: tuple[str, ...]
    parameters: int


# ---------------------------------------------------------------- reading a weight: scripts carry this part


def adapter_names(leaf: str, words: str) -> tuple[str, ...]:
    """What the tensors of an adapter are called in the module of the weight ``leaf``."""
    return (f"adapt_{leaf}_a", f"adapt_{leaf}_b") if words.startswith("rank") else (f"adapt_{leaf}",)


def effective(module: nn.Module, leaf: str) -> Tensor:
    """A weight with what its adapter adds; in the weight's own precision, also under autocast."""
    own: dict[str, Any] = module._parameters
    weight: Tensor = own[leaf]
    if f"adapt_{leaf}" in own:
        added: Tensor = own[f"adapt_{leaf}"]
        return weight + added
    with torch.autocast(weight.device.type, enabled=False):
        product: Tensor = own[f"adapt_{leaf}_b"] @ own[f"adapt_{leaf}_a"]
        return weight + (SCALE * product).reshape(weight.shape)


_classes: dict[tuple[type, tuple[str, ...]], type] = {}


def adapted_class(base: type, leaves: tuple[str, ...]) -> type:
    """A class of the same name in which these weights read as the sums that they are part of."""
    if (base, leaves) not in _classes:

        def reading(leaf: str) -> property:
            return property(lambda module: effective(module, leaf))

        def reduced(module: Any, protocol: Any) -> tuple[Any, ...]:
            return adapted_again, (base, leaves), module.__getstate__()

        own: dict[str, Any] = {leaf: reading(leaf) for leaf in leaves}
        own |= {"__reduce_ex__": reduced, "adapts": (base, leaves)}
        made = type(base)(base.__name__, (base,), own)
        made.__module__, made.__qualname__ = base.__module__, base.__qualname__
        _classes[base, leaves] = made
    return _classes[base, leaves]


def adapted_again(base: type, leaves: tuple[str, ...]) -> nn.Module:
    """An empty module of an adapted class, for copies and pickles."""
    made: Any = adapted_class(base, leaves)
    empty: nn.Module = made.__new__(made)
    return empty


def words_in(module: nn.Module) -> dict[str, str]:
    """The adapters in a module: for the name of each weight in it, the words."""
    return dict(vars(module).get("adapter_words", {}))


def set_adapted(module: nn.Module, words: dict[str, str]) -> None:
    """Let the weights of a module that have adapters of these words, and no others, read as sums."""
    base, leaves = getattr(type(module), "adapts", (type(module),))[0], tuple(sorted(words))
    module.__class__ = adapted_class(base, leaves) if leaves else base
    vars(module).pop("adapter_words", None)
    if leaves:
        vars(module)["adapter_words"] = words


def attach(model: nn.Module, spec: Mapping[str, str]) -> None:
    """Give weights the adapters that they lack; the network answers as before, since each adds zero at first.

    The first factor of a matrix is drawn as ``nn.Linear`` draws weights, by the weight's name; the second is zero.

    Args:
        model: the network.
        spec: for each weight's name the adapter's words.
    """
    for name, words in spec.items():
        place, _, leaf = name.rpartition(".")
        module = model.get_submodule(place)
        own: Any = module._parameters
        names, weight = adapter_names(leaf, words), own[leaf].detach()
        if names[-1] in own:
            continue
        if len(names) == 1:
            made = [torch.zeros_like(weight)]
        else:
            rank, rows = int(words.split()[1]), len(weight)
            columns = weight.numel() // rows
            generator = torch.Generator().manual_seed(seed_for(name))
            drawn = torch.empty(rank, columns).uniform_(-1, 1, generator=generator) / math.sqrt(columns)
            made = [drawn.to(weight), weight.new_zeros(rows, rank)]
        for each, tensor in zip(names, made, strict=True):
            module.register_parameter(each, nn.Parameter(tensor))
        set_adapted(module, {**words_in(module), leaf: words})


def detach(model: nn.Module, names: Iterable[str]) -> None:
    """Take adapters away; the weights of these names read as they are again."""
    for name in names:
        place, _, leaf = name.rpartition(".")
        module = model.get_submodule(place)
        left = words_in(module)
        for own in adapter_names(leaf, left.pop(leaf)):
            del module._parameters[own]
        set_adapted(module, left)


def attached(model: nn.Module) -> dict[str, str]:
    """For the name of each weight that has an adapter, the adapter's words."""
    return {
        f"{place}.{leaf}" if place else leaf: words
        for place, module in model.named_modules()
        for leaf, words in words_in(module).items()
    }


@torch.no_grad()
def merge(model: nn.Module) -> dict[str, str]:
    """Write into each weight the sum that it reads as, and take the adapters away; which there were."""
    found = attached(model)
    for name in found:
        place, _, leaf = name.rpartition(".")
        module = model.get_submodule(place)
        weight: Any = module._parameters[leaf]
        weight.copy_(effective(module, leaf))
    detach(model, found)
    return found


# ---------------------------------------------------------------- which weights


def weights_for(model: nn.Module, names: Collection[str], words: str) -> list[str]:
    """The weights among these that an adapter of these words is for.

    Left out are weights that several modules share, those that are made by a hook or parametrized, and matrices that
    are no larger than their factors would be (depthwise convolutions).

    Args:
        model: the network.
        names: of weights.
        words: of the adapter.
    """
    rank, found = rank_of(words), []
    counts: dict[int, int] = {}
    for _, parameter in model.named_parameters(remove_duplicate=False):
        counts[id(parameter)] = counts.get(id(parameter), 0) + 1
    for name in names:
        place, _, leaf = name.rpartition(".")
        module = model.get_submodule(place)
        if isinstance(module, torch.jit.ScriptModule):
            continue
        weight = module._parameters.get(leaf)
        base = getattr(type(module), "adapts", (type(module),))[0]
        if weight is None or not weight.is_floating_point() or counts[id(weight)] > 1 or hasattr(base, leaf):
            continue
        if words == BIAS:
            fits = leaf == "bias" or leaf.endswith("_bias")
        elif words == NORM:
            fits = (isinstance(module, _NORMS) or "Norm" in base.__name__) and weight.dim() == 1
        else:
            fits = leaf in _PROJECTIONS and isinstance(module, _MATRICES) and weight.dim() > 1
            rows = len(weight) if weight.dim() else 1
            fits = fits and rank * (rows + weight.numel() // max(rows, 1)) < weight.numel()
        if fits:
            found.append(name)
    return found


# ---------------------------------------------------------------- a network with adapters, and without


def tensor_names(spec: Mapping[str, str]) -> frozenset[str]:
    """The names of all tensors of the adapters in ``spec``, as :func:`attached` gives it."""
    names = set()
    for name, words in spec.items():
        place, _, leaf = name.rpartition(".")
        names |= {f"{place}.{own}" if place else own for own in adapter_names(leaf, words)}
    return frozenset(names)


def adapters_in(model: nn.Module, names: Collection[str]) -> Adapter | None:
    """The adapter of the weights of these names, taken together; None where there is none."""
    spec = {name: words for name, words in attached(model).items() if name in set(names)}
    if not spec:
        return None
    own, parameters = sorted(tensor_names(spec)), dict(model.named_parameters())
    return Adapter(
        next(iter(spec.values())), tuple(spec), tuple(own), sum(parameters[n].numel() for n in own)
    )


def learned(model: nn.Module, spec: Mapping[str, str]) -> bool:
    """Whether any of these adapters adds something other than zero."""
    for name, words in spec.items():
        place, _, leaf = name.rpartition(".")
        own: Any = model.get_submodule(place)._parameters
        if own[adapter_names(leaf, words)[-1]].any():
            return True
    return False


def keeper(model: nn.Module) -> Callable[[], None]:
    """Puts back which adapters the network has now, with the very tensors; what those hold stays."""
    kept = [
        (module, type(module), dict(module._parameters), vars(module).get("adapter_words"))
        for module in model.modules()
        if not isinstance(module, torch.jit.ScriptModule)
    ]

    def put_back() -> None:
        for module, kind, parameters, words in kept:
            bare = words is None and "adapter_words" not in vars(module)
            if bare and module._parameters.keys() == parameters.keys():
                continue
            for name in [n for n in module._parameters if n not in parameters]:
                del module._parameters[name]
            module._parameters.update(parameters)
            module.__class__ = kind
            vars(module).pop("adapter_words", None)
            if words is not None:
                vars(module)["adapter_words"] = words

    return put_back


def match(model: nn.Module, spec: Mapping[str, str]) -> None:
    """Give the network these adapters and no others; those that it has already keep their numbers."""
    there = attached(model)
    detach(model, [name for name, words in there.items() if spec.get(name) != words])
    attach(model, spec)


def merged_copy(model: nn.Module) -> nn.Module:
    """A copy with all adapters in its weights."""
    copy: nn.Module = duplicate(model)
    merge(copy)
    return copy


def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict that the network would have merged; without adapters it is its own."""
    state, spec = model.state_dict(), attached(model)
    own = tensor_names(spec)
    state = {name: tensor for name, tensor in state.items() if name not in own}
    with torch.no_grad():
        for name in spec:
            place, _, leaf = name.rpartition(".")
            state[name] = effective(model.get_submodule(place), leaf)
    return state


def body_digest(model: nn.Module, places: Collection[str]) -> str:
    """SHA-256 over every weight and buffer outside the heads, adapters left out: of the body that they are for.

    Args:
        model: the network.
        places: qualified names of its heads.
    """
    own, starts = tensor_names(attached(model)), tuple(f"{place}." for place in places)
    tensors: dict[str, Tensor] = dict(model.named_parameters()) | dict(model.named_buffers())
    kept = sorted(name for name in tensors if name not in own and not name.startswith(starts))
    return tensors_digest((name, tensors[name]) for name in kept)
