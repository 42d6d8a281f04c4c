"""Frozen means frozen: no gradients, no optimizer, test mode whatever a step calls, and a digest as proof.

The same holds of the weights and buffers of an adapted layer; what its adapter adds to them trains.

Whether a network draws random numbers in an order that depends on how its images lie in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from tlnb.engine.core.fingerprint import tensors_digest
from tlnb.engine.core.interrupts import to_the_end
from tlnb.engine.core.modules import set_training
from tlnb.engine.network import adapters
from tlnb.engine.network.graph import Graph
from tlnb.engine.network.layers import LayerMap
from tlnb.engine.network.trace import flags, quiet
from tlnb.errors import ModelError, TrainingError


def apply(model: nn.Module, layers: LayerMap, frozen: Collection[int]) -> None:
    """Switch gradients off in frozen layers and on in the others; drop gradients left in frozen ones.

    A gradient that stays behind would still move the weight: by momentum in an optimizer made earlier.
    Integer parameters (quantised weights) cannot have gradients and are left alone.

    Raises:
        ModelError: a weight of the layers is not in the model any more.
    """
    named = dict(model.named_parameters(remove_duplicate=False))
    for layer in layers:
        for name in (*layer.parameter_names, *layers.added(layer.index)):
            if name not in named:
                raise ModelError(
                    f"{name} is not in the network any more: its modules were changed since it was loaded; load it "
                    "again: %tl_load $net"
                )
    still = layers.frozen_parameter_names(frozen)
    for layer in layers:
        for name in (*layer.parameter_names, *layers.added(layer.index)):
            parameter = named[name]
            if not parameter.is_floating_point():
                continue
            parameter.requires_grad_(name not in still)
            if name in still:
                parameter.grad = None


def set_states(
    model: nn.Module,
    layers: LayerMap,
    frozen: Collection[int],
    adapted: Mapping[int, str],
    *,
    merges: bool = False,
) -> LayerMap:
    """Freeze layers, adapt others, and let the rest train; the layers with the adapters that there are then.

    Args:
        model: the network.
        layers: its layers.
        frozen: indexes of the frozen ones.
        adapted: of the adapted ones, each with its adapter's words; those that it lacks are attached.
        merges: whether the adapters that there are become a part of the weights first.
    """
    if merges:
        adapters.merge(model)
        layers = layers.with_adapters(model, ())
    wanted = [(i, words) for i, words in adapted.items() if i not in layers.adapters]
    adapters.attach(model, {n: words for i, words in wanted for n in layers.adaptable(model, [i], words)})
    layers = layers.with_adapters(model, adapted)
    apply(model, layers, frozen)
    return layers


def set_modes(
    model: nn.Module, layers: LayerMap, frozen: Collection[int], *, training: bool, bn: str = "train"
) -> None:
    """Train or test mode for every module, frozen and adapted layers always in test mode.

    Args:
        model: the network.
        layers: its layers.
        frozen: indexes of frozen layers.
        training: False puts everything into test mode.
        bn: ``"frozen"`` leaves the statistics of unfrozen BatchNorm layers alone as well.
    """
    set_training(model, training)
    if not training:
        return
    modules, held = dict(model.named_modules()), layers.held(frozen)
    for layer in layers:
        if layer.index in held:
            for name in layer.module_names:
                # One dropout that serves a layer that trains acts there; see Tail for the frozen layers.
                modules[name].training = bool(set(layers.served.get(name, ())) - held)
    if len(held) == len(layers):
        model.training = False
    if bn == "frozen":
        for module in modules.values():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.training = False


def trainable_parameters(model: nn.Module, layers: LayerMap, index: int) -> list[nn.Parameter]:
    """The parameters of a layer, and of its adapter, that take gradients, each once, in the order of the model."""
    named = dict(model.named_parameters(remove_duplicate=False))
    names = (*layers[index].parameter_names, *layers.added(index))
    unique = {id(named[name]): named[name] for name in names}
    return [parameter for parameter in unique.values() if parameter.requires_grad]


def state_of(model: nn.Module, layers: LayerMap, indexes: Iterable[int]) -> list[tuple[str, Tensor]]:
    """Every weight and buffer of these layers and their adapters with its name, also buffers that are never saved."""
    chosen = list(indexes)
    return _tensors(model, [*_own(layers, chosen), *(n for i in sorted(chosen) for n in layers.added(i))])


def moving_state(model: nn.Module, layers: LayerMap, frozen: Collection[int]) -> list[tuple[str, Tensor]]:
    """All that training may change: the state of layers that train, and of the others what adapts them."""
    train = [i for i in range(len(layers)) if i not in layers.held(frozen)]
    added = [n for i in range(len(layers)) if i not in frozen for n in layers.added(i)]
    return _tensors(model, [*_own(layers, train), *added])


def fixed_state(model: nn.Module, layers: LayerMap, frozen: Collection[int]) -> list[tuple[str, Tensor]]:
    """All that must not change: the state of frozen layers, and the weights and buffers of adapted ones."""
    added = [n for i in sorted(frozen) for n in layers.added(i)]
    return _tensors(model, [*_own(layers, layers.held(frozen)), *added])


def _own(layers: LayerMap, indexes: Iterable[int]) -> list[str]:
    chosen = [layers[i] for i in sorted(indexes)]
    names = [n for layer in chosen for n in (*layer.parameter_names, *layer.buffer_names)]
    return [*names, *(n for layer in chosen for n in layer.tied)]


def _tensors(model: nn.Module, names: Iterable[str]) -> list[tuple[str, Tensor]]:
    tensors: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    tensors |= dict(model.named_buffers(remove_duplicate=False))
    return [(name, tensors[name]) for name in dict.fromkeys(names)]


def digest(model: nn.Module, layers: LayerMap, indexes: Iterable[int]) -> str:
    """SHA-256 over name, dtype, shape and bytes of every weight and buffer of these layers, in hex."""
    return tensors_digest(state_of(model, layers, indexes))


def fixed_digest(model: nn.Module, layers: LayerMap, frozen: Collection[int]) -> str:
    """The same over all that must not change, see :func:`fixed_state`."""
    return tensors_digest(fixed_state(model, layers, frozen))


def check_same_parameters(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Trainable parameters and the optimizer's parameters are the same set, compared by identity.

    Raises:
        TrainingError: names up to three parameters that are in one set only.
    """
    named = {id(p): name for name, p in model.named_parameters()}
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if trainable == held:
        return
    lost = [named[i] for i in trainable - held][:3]
    extra = [named.get(i, "a tensor outside the model") for i in held - trainable][:3]
    parts = [f"not in the optimizer: {', '.join(lost)}"] if lost else []
    parts += [f"frozen or foreign, yet in the optimizer: {', '.join(extra)}"] if extra else []
    raise TrainingError("the optimizer and the trainable layers differ; " + "; ".join(parts))


def check_gradients(
    model: nn.Module, layers: LayerMap, reached: Collection[int] = (), *, wait: bool = False
) -> set[int]:
    """After a backward pass: each trainable layer has gradients, and no frozen weight has.

    A weight that the network never uses gets none; it stays as it is while the rest of its layer trains.

    Args:
        model: the network.
        layers: its layers.
        reached: indexes of layers that had gradients in an earlier pass.
        wait: another pass may reach what this one did not, as where a forward skips layers at random.

    Returns:
        Indexes of the layers that had gradients in this pass or before.

    Raises:
        TrainingError: names up to three parameters that break this.
    """
    done = set(reached)
    named = dict(model.named_parameters())
    missing: list[str] = []
    for layer in layers:
        names = (*layer.parameter_names, *layers.added(layer.index))
        trained = [name for name in names if named[name].requires_grad]
        if any(named[name].grad is not None for name in trained) or not trained:
            done.add(layer.index)
        elif layer.index not in done:
            missing += trained
    stray = [name for name, p in named.items() if not p.requires_grad and p.grad is not None]
    if missing and not wait:
        raise TrainingError(
            f"no gradient reached {', '.join(missing[:3])}{' …' if len(missing) > 3 else ''}: "
            "the loss does not depend on it; freeze that layer"
        )
    if stray:
        raise TrainingError(f"frozen, yet with a gradient: {', '.join(stray[:3])}")
    return done


_MISSING = object()


class FrozenBuffers:
    """The buffers of frozen layers, which a forward may write to in any mode: a running mean, a memory of its own.

    Args:
        model: the network.
        layers: its layers.
        frozen: indexes of frozen layers.
    """

    def __init__(self, model: nn.Module, layers: LayerMap, frozen: Collection[int]):
        names = [name for index in layers.held(frozen) for name in layers[index].buffer_names]
        modules = dict(model.named_modules())
        self._kept: list[tuple[nn.Module, str, torch.Tensor, int]] = []
        for path, _, leaf in (name.rpartition(".") for name in names):
            module = modules[path]
            buffer = module._buffers.get(leaf)
            if isinstance(buffer, torch.Tensor) and not buffer.is_inference():
                self._kept.append((module, leaf, buffer, buffer._version))
        self._copies = [buffer.detach().clone() for _, _, buffer, _ in self._kept]

    def put_back(self) -> None:
        """Set what was written to back; what a graph for the backward pass holds of it stays as it is."""
        for at, (module, leaf, buffer, version) in enumerate(self._kept):
            if buffer._version != version:
                buffer = self._copies[at].clone()
                self._kept[at] = module, leaf, buffer, buffer._version
            if module._buffers.get(leaf) is not buffer:
                module._buffers[leaf] = buffer


class FrozenEvalMode:
    """While it is entered, no call of the model, and no ``train()``, moves its frozen layers.

    Modules in test mode take no other mode from ``train()``; ``model(x)`` computes functional dropout,
    ``if self.training`` and a shared dropout of frozen layers as in test mode, where the model has a graph.
    What the forward writes to their buffers is put back. Afterwards the model is as it was.

    Args:
        model: in the modes of training.
        layers: its layers.
        frozen: indexes of frozen layers.
    """

    def __init__(self, model: nn.Module, layers: LayerMap, frozen: Collection[int]):
        self._model = model
        self._own: dict[nn.Module, dict[str, Any]] = {
            m: {"train": partial(_keep_mode, m)} for m in model.modules() if not m.training
        }
        held = layers.held(frozen)
        if isinstance(layers.graph, Graph) and layers.mode_dependent_layers & held:
            self._tail = layers.graph.tail(0, frozen=held)
            self._forward = model.forward
            self._own.setdefault(model, {})["forward"] = self._call
        self._before: list[tuple[nn.Module, str, Any]] = []
        self.buffers = FrozenBuffers(model, layers, frozen)

    def _call(self, *args: Any, **named: Any) -> Any:
        if named or len(args) != 1 or not isinstance(args[0], torch.Tensor):
            return self._forward(*args, **named)
        return self._tail.train(self._model.training)(args[0])

    def __enter__(self) -> None:
        try:
            for module, own in self._own.items():
                for name, function in own.items():
                    self._before.append((module, name, vars(module).get(name, _MISSING)))
                    vars(module)[name] = function
        except BaseException:  # what breaks off here is not followed by an exit
            to_the_end(self._put_back)
            raise

    def __exit__(self, *error: object) -> None:
        interrupted = to_the_end(self._put_back)
        if interrupted is not None:
            raise interrupted

    def _put_back(self) -> None:
        self.buffers.put_back()
        while self._before:
            module, name, function = self._before[-1]
            if function is _MISSING:
                vars(module).pop(name, None)
            else:
                vars(module)[name] = function
            self._before.pop()


def _keep_mode(module: nn.Module, mode: bool = True) -> nn.Module:
    """Stands for ``train`` in a module of a frozen layer."""
    return module


_BY_ELEMENT = (F.dropout, F.alpha_dropout, F.rrelu)


class _Watch(TorchFunctionMode):
    """Notes dropout that draws a number for each element of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.found = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _BY_ELEMENT:
            tensor = args[0] if args else kwargs.get("input")
            self.found |= isinstance(tensor, Tensor) and tensor.dim() == 4 and kwargs.get("p", 1.0) != 0
        return func(*args, **kwargs)


@torch.no_grad()
def draws_by_place(part: nn.Module, x: Tensor, model: nn.Module) -> bool:
    """Whether elementwise dropout acts on images (B, C, H, W) in a part of a model.

    It draws in the order of memory, so with channels last each element gets another number: the training is
    as good, but not the same.

    Args:
        part: runs once, in test mode.
        x: a batch of what enters it.
        model: the whole; its modes are put back.
    """
    watch = _Watch()
    with flags(part, training=False), quiet(model), watch:
        part(x)
    return watch.found
