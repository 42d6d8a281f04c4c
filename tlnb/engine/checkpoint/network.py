"""Networks in a checkpoint: built again without a line of code from the file.

What is kept is a name from a list, sizes, and the form of the heads, which are linear layers, 1×1
convolutions and ReLUs. A module of the user's own cannot be built from that; it has to be there already.

The network of before training in a checkpoint: only what training has changed since is written.

Forgetting, blends and the guards against forgetting are measured against that network, so a session that comes
back needs it. A tensor that still has its old bytes stands in the file once, as the network's own: a network
whose body is frozen costs nothing more, one that is trained as a whole its own size again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tlnb.display.tables import printable
from tlnb.engine.checkpoint.schema import NetworkRecord, OldNetworkRecord, below
from tlnb.engine.core.structure import Positive, structure
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.forgetting.old_network import OldNetwork
from tlnb.engine.models import hub, timm_models
from tlnb.engine.models.loaded import MOST_NUMBERS, LoadedModel
from tlnb.engine.models.published import (
    CONVNET5,
    Blueprint,
    blueprint,
    build,
    torchvision_names,
    without_storage,
)
from tlnb.engine.models.state_dicts import compare
from tlnb.engine.network.all_layers import AllLayers
from tlnb.engine.network.head import MOST_KEPT
from tlnb.engine.network.neighbours import Neighbours
from tlnb.errors import CheckpointError

WIDEST = 1 << 24  # outputs of a layer; more is no head but an attack on memory


def network_to(loaded: LoadedModel) -> NetworkRecord:
    """What has to be known to build and use a network again."""
    return NetworkRecord(
        loaded.name, type(loaded.model).__name__, loaded.own, loaded.weights, loaded.preprocess, loaded.categories,
        loaded.head, loaded.side_heads, loaded.notes, loaded.input, loaded.any_size, loaded.task,
        _image_size(loaded.model), loaded.behind, loaded.recipe,
    )  # fmt: skip


def network_from(
    record: NetworkRecord, own: LoadedModel | None, saved: Mapping[str, Tensor] | None = None
) -> LoadedModel:
    """The network, its weights still to be filled in and its heads those of the architecture.

    Args:
        record: what ``network_to`` gave.
        own: the network that the session has, for a module of the user's.
        saved: its tensors; nothing of its size is made where they do not fill it. None to build it in any case.

    Raises:
        CheckpointError: it cannot be built here.
    """
    preprocess = record.preprocess
    numbers = (*preprocess.mean, *preprocess.std) if isinstance(preprocess, Preprocess) else ()
    if isinstance(preprocess, Preprocess) and (
        preprocess.channels * math.prod(preprocess.size) > MOST_NUMBERS
        or max(map(abs, numbers)) > MOST_NUMBERS
    ):
        raise ValueError("no pictures are prepared so")
    model, fresh = (
        _own(own, record.kind)
        if record.own
        else _by_recipe(record.recipe, record.name, saved)
        if record.recipe is not None
        else _build(record.name, record.image_size, saved)
    )
    return LoadedModel(
        model, record.name, record.weights, preprocess, record.categories, record.head, record.side_heads, record.notes,
        record.input, record.any_size, record.own, record.task, fresh,
        own.fixed if own is not None and own.model is model else frozenset(), behind=record.behind,
        recipe=record.recipe,
    )  # fmt: skip


def _own(own: LoadedModel | None, kind: str) -> tuple[nn.Module, None]:
    if own is None or not own.own or type(own.model).__name__ != kind:
        raise CheckpointError(
            f"the checkpoint is of a module of your own, {kind}; load it first (%tl_load $net), then resume"
        )
    return own.model, None


def _check_filled(plan: Blueprint, saved: Mapping[str, Tensor] | None) -> None:
    if saved is None:
        return
    found = compare(plan.shapes, dict(saved)).without(lambda name: not plan.is_body(name))
    there = sum(tensor.numel() for tensor in found.tensors.values())
    if 2 * there < sum(math.prod(shape) for name, shape in plan.shapes.items() if plan.is_body(name)):
        raise CheckpointError(f"the checkpoint does not fill {plan.name}: {found.describe()}")


def _build(
    name: str, image_size: int | None, saved: Mapping[str, Tensor] | None
) -> tuple[nn.Module, Callable[[], nn.Module] | None]:
    with torch.random.fork_rng():
        if name.startswith(timm_models.PREFIX):
            _check_filled(timm_models.blueprint(name), saved)
            loaded = timm_models.load(name, timm_models.NO_WEIGHTS, lambda text: None)
            return loaded.model.eval(), loaded.fresh
        if name != CONVNET5 and name not in torchvision_names():
            raise CheckpointError(f"the checkpoint names a network that is not known here: {name!r}")
        _check_filled(blueprint(name, image_size), saved)
        fresh = partial(build, name, image_size=image_size)
        return fresh().eval(), fresh


def _by_recipe(
    recipe: Any, name: str, saved: Mapping[str, Tensor] | None
) -> tuple[nn.Module, Callable[[], nn.Module]]:
    """A network of transformers: its configuration names a class of that package, and no code of the file runs."""
    if not isinstance(recipe, dict) or not isinstance(recipe.get("config"), dict):
        raise ValueError("the recipe of the network is none")
    with without_storage():
        plan = Blueprint.of(name, hub.build(recipe), "")
    _check_filled(plan, saved)
    with torch.random.fork_rng():
        return hub.build(recipe), partial(hub.build, recipe)


def _image_size(model: nn.Module) -> int | None:
    size = getattr(model, "image_size", None)
    return size if isinstance(size, int) else None


# ---------------------------------------------------------------- heads


def head_to(module: nn.Module) -> Any:
    """The form of a head; None for one that only its architecture can build."""
    if type(module) is nn.Linear:
        return ["linear", module.in_features, module.out_features, module.bias is not None]
    if type(module) is nn.Conv2d and module.groups == 1 and module.padding_mode == "zeros":
        plain = ["convolution", module.in_channels, module.out_channels, module.bias is not None]
        return plain + _geometry(module)
    if type(module) is Neighbours:
        return ["neighbours", *module.weight.shape, module.classes, module.k]
    if type(module) is AllLayers:
        return [
            "all layers",
            [list(tap) for tap in module.taps],
            module.features,
            module.linear.out_features,
            module.places,
        ]
    if type(module) is nn.ReLU:
        return ["relu"]
    if type(module) is nn.Identity:
        return ["identity"]
    if type(module) is nn.Sequential:
        parts = [head_to(part) for part in module]
        return None if None in parts else ["sequence", *parts]
    return None


def head_from(plain: Any, depth: int = 0) -> nn.Module:
    """A head of that form; its weights are still to be filled in."""
    kind, *rest = plain
    if kind in ("linear", "convolution"):
        inputs, outputs = _positive(rest[0]), _positive(rest[1])
        if inputs * outputs > WIDEST * 64 or max(inputs, outputs) > WIDEST:
            raise ValueError("no head is so large")
        bias, sizes = structure(bool, rest[2]), _sizes(rest[3:]) if kind == "convolution" else ((1, 1),)
        if inputs * outputs * sizes[0][0] * sizes[0][1] > WIDEST * 64:
            raise ValueError("no head is so large")
        with torch.device("meta"):
            if kind == "linear":
                return nn.Linear(inputs, outputs, bias)
            kernel, *others = sizes
            named = dict(zip(("stride", "padding", "dilation"), others, strict=False))
            return nn.Conv2d(inputs, outputs, kernel, bias=bias, **named)
    if kind == "neighbours":
        samples, features, classes, k = map(_positive, rest)
        if samples * features > MOST_KEPT or max(classes, features) > WIDEST or k > samples:
            raise ValueError("no head is so large")
        with torch.device("meta"):
            return Neighbours(samples, features, classes, k)
    if kind == "all layers" and depth == 0:
        return _all_layers(*rest)
    if kind == "relu" and not rest:
        return nn.ReLU()
    if kind == "identity" and not rest:
        return nn.Identity()
    if kind == "sequence" and depth == 0:
        return nn.Sequential(*(head_from(part, 1) for part in rest))
    raise ValueError(f"{kind!r} is no part of a head")


def _all_layers(taps: Any, features: Any, classes: Any, places: Any) -> nn.Module:
    """A head of all layers; whether the network has them shows when it is put there."""
    known = structure(tuple[tuple[str, Positive, tuple[int, ...]], ...], taps)
    total = sum(size for _, size, _ in known) + _positive(features)
    if (
        total > WIDEST * 64
        or total * _positive(classes) > WIDEST * 64
        or any(len(cells) > 2 for _, _, cells in known)
    ):
        raise ValueError("no head is so large")
    with torch.device("meta"):
        return AllLayers(known, features, classes, structure(bool, places))


def _positive(value: Any) -> int:
    return structure(Positive, value)


def _geometry(module: nn.Conv2d) -> list[Any]:
    """Kernel, stride, padding and dilation; nothing for a 1×1 convolution as it usually is."""
    record = [module.kernel_size, module.stride, module.padding, module.dilation]
    if record == [(1, 1), (1, 1), (0, 0), (1, 1)]:
        return []
    return [value if isinstance(value, str) else list(value) for value in record]


def _sizes(plain: list[Any]) -> tuple[Any, ...]:
    if not plain:
        return ((1, 1),)
    kernel, stride, padding, dilation = plain
    pairs = [structure(tuple[int, ...], value) for value in (kernel, stride, dilation)]
    if not isinstance(padding, str):
        pairs.append(structure(tuple[int, ...], padding))
    elif padding not in ("same", "valid"):
        raise ValueError(f"{padding!r} is no padding")
    if any(len(pair) != 2 or max(pair) > 1024 for pair in pairs) or min(min(pair) for pair in pairs[:3]) < 1:
        raise ValueError("no convolution is like that")
    return pairs[0], pairs[1], padding if isinstance(padding, str) else pairs[3], pairs[2]


# ---------------------------------------------------------------- tensors


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Every weight and buffer, each once, also buffers that a state dict leaves out."""
    return dict(module.named_parameters()) | dict(module.named_buffers())


def check_fit(module: nn.Module, saved: Mapping[str, Tensor], what: str) -> None:
    """Names, shapes and types agree.

    Raises:
        CheckpointError: names the first that does not.
    """
    ours = tensors_of(module)
    for name in sorted(ours.keys() ^ saved.keys()):
        where = "the checkpoint" if name in ours else what
        raise CheckpointError(f"the checkpoint does not fit {what}: {where} has no {printable(name)!r}")
    for name, tensor in ours.items():
        if tensor.shape != saved[name].shape or tensor.dtype != saved[name].dtype:
            theirs = f"{tuple(saved[name].shape)} {saved[name].dtype}"
            raise CheckpointError(
                f"the checkpoint does not fit {what}: {name} is {theirs} there, "
                f"{tuple(tensor.shape)} {tensor.dtype} here"
            )


def fill(module: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Copy tensors that fit into a module, in place."""
    with torch.no_grad():
        for name, tensor in tensors_of(module).items():
            tensor.copy_(saved[name])


def filled_head(plain: Any, saved: Mapping[str, Tensor], what: str) -> nn.Module:
    """A head of that form with these weights.

    Raises:
        CheckpointError: they do not fit it.
    """
    module = head_from(plain)
    check_sizes(module, saved, what)
    module = module.to_empty(device="cpu")
    kinds = [tensor.dtype for tensor in saved.values() if tensor.is_floating_point()]
    module = module.to(kinds[0]) if kinds else module
    check_fit(module, saved, what)
    fill(module, saved)
    return module.eval()


def check_sizes(module: nn.Module, saved: Mapping[str, Tensor], what: str) -> None:
    """Names and shapes agree; read before anything of that size is made.

    Raises:
        CheckpointError: they do not.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors_of(module).items()}
    if shapes != {name: tuple(tensor.shape) for name, tensor in saved.items()}:
        raise CheckpointError(f"the checkpoint does not fit {what}: the weights have another form")


HeadFrom = Callable[[Any, Mapping[str, Tensor], str], nn.Module]


@dataclass(frozen=True)
class OldParts:
    """What a checkpoint says of the network of before training.

    Attributes:
        name: of the old task.
        heads: the modules at its head and side heads, by place.
        tensors: all its weights and buffers, by name.
    """

    name: str
    heads: dict[str, nn.Module]
    tensors: dict[str, Tensor]

    def network(self, loaded: LoadedModel) -> OldNetwork:
        """The network of before training, as a twin of the present one.

        Args:
            loaded: the present one, with its weights; it stays as it is.

        Raises:
            ModelError: the network cannot be copied.
        """
        old = OldNetwork.of(loaded.model, loaded.head, self.heads, self.name)
        fill(old.model, self.tensors)
        return old


def old_to(old: OldNetwork, loaded: LoadedModel) -> tuple[OldNetworkRecord, dict[str, Tensor]]:
    """The network of before training as plain values, and those of its tensors that are others now.

    Args:
        old: the network of before training.
        loaded: the network as it is now.
    """
    now, then = tensors_of(loaded.model), tensors_of(old.model)
    same = [name for name, tensor in then.items() if name in now and same_bytes(tensor, now[name])]
    kept = set(same)
    heads = {place: head_to(old.model.get_submodule(place)) for place in loaded.places}
    return OldNetworkRecord(old.name, heads, tuple(same)), {
        name: tensor for name, tensor in then.items() if name not in kept
    }


def old_from(
    record: OldNetworkRecord,
    saved: Mapping[str, Tensor],
    now: Mapping[str, Tensor],
    loaded: LoadedModel,
    head_from: HeadFrom,
) -> OldParts:
    """The way back from ``old_to``.

    Args:
        record, saved: what it gave.
        now: the network's own tensors in the checkpoint.
        loaded: the network, with the heads of its architecture.
        head_from: makes a head of its form, its tensors and its place.

    Raises:
        ValueError, KeyError, TypeError, CheckpointError: what the file says does not fit together.
    """
    tensors = dict(saved) | {name: now[name] for name in record.same}
    places, forms = loaded.places, record.heads
    if _forms(tensors, places) != _forms(now, places):
        raise ValueError("the network of before training has another form than the network")
    heads = {place: head_from(forms[place], below(tensors, place), place) for place in places}
    return OldParts(record.name, heads, tensors)


def same_bytes(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are of one type and shape and agree in every bit; -0 is not 0 here."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(_bytes(one), _bytes(other.to(one.device)))


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _forms(tensors: Mapping[str, Tensor], heads: Sequence[str]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape and type of each tensor outside the heads, by name."""
    starts = tuple(f"{place}." for place in heads)
    return {name: (t.shape, t.dtype) for name, t in tensors.items() if not name.startswith(starts)}
