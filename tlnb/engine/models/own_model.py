"""A module of the user's own: what its input looks like, where its head is, what its pictures need."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from tlnb.engine.core.tree import IDS, call
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.data.tokens import INPUTS, AnyPreprocess
from tlnb.engine.models import hub
from tlnb.engine.models.answer import answer_to
from tlnb.engine.models.loaded import TOKENS, Input, LoadedModel
from tlnb.engine.network.all_layers import AllLayers
from tlnb.engine.network.head import auxiliary_heads, is_auxiliary
from tlnb.engine.network.trace import quiet
from tlnb.errors import ModelError, first_line

_SIDES = (32, 28, 64, 224, 96, 128, 299, 16, 8)
_LENGTHS = (16, 64, 128, 32, 256, 512)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def adopt(
    module: object, input_shape: tuple[int, ...] | None = None, name: str = "", tokenizer: object = None
) -> LoadedModel:
    """A module as a network of the session; it is not copied or changed.

    Args:
        module: answers ``module(x)`` with class scores.
        input_shape: shape of one sample, without the batch; None to guess it from the first layer.
        name: what the user calls it; the name of its class by default.
        tokenizer: of a text network: a ``tokenizer.json``, its folder, or a fast tokenizer. None to look for one where
            a module of transformers was loaded from.

    Raises:
        ModelError: it is no module, has no weights, or does not run on a sample of ``input_shape``.
    """
    if not isinstance(module, nn.Module):
        raise ModelError(f"a model is a name, a file or an nn.Module, not {type(module).__name__}")
    notes: list[str] = []
    inner = _unwrapped(module)
    if inner is not module:
        notes.append(f"taken out of its {type(module).__name__}")
    check_weights(inner)
    if not any(True for _ in inner.parameters()):
        raise ModelError(f"{type(inner).__name__} has no weights, so there is nothing to train or freeze")
    content = hub.tokenizer_of(inner) if tokenizer is None else hub.tokenizer_content(tokenizer)
    seen, flexible = _text_input(inner), False
    if seen is None:
        seen, flexible = _input_of(inner, input_shape)
    if seen is None:
        notes.append(
            "its input is not known yet: the layers are found when data is named, or by --input 1,28,28"
        )
    elif input_shape is None and not flexible and not seen.parts:
        notes.append(f"its input was guessed: {seen.describe()}")
    preprocess: AnyPreprocess = _preprocess(inner, seen)
    if content is not None and (seen is None or seen.parts):
        preprocess = hub.for_network(content, inner)
        seen = None  # follows from the inputs of the tokenizer
        notes = [note for note in notes if "not known yet" not in note]
    elif _takes_pictures(inner, seen):
        notes.append("its preprocessing is not known: pixels in 0..1 as they are, mean 0, std 1")
    loaded = LoadedModel(
        inner, name or type(inner).__name__, "its own", preprocess, None, "", auxiliary_heads(inner),
        tuple(notes), seen, flexible, own=True,
        fixed=frozenset(name for name, p in inner.named_parameters() if not p.requires_grad),
    )  # fmt: skip
    find_own_head(loaded)
    return loaded


def check_weights(module: nn.Module) -> None:
    """Refuse weights that cannot be trained as they are, before anything runs on them.

    Args:
        module: the network, when it is loaded and when a stage of it begins: it is the user's to change meanwhile.

    Raises:
        ModelError: they are not there yet, hold no numbers, cannot train or are of another precision.
    """
    name = type(module).__name__
    for weight, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if is_lazy(tensor):
            raise ModelError(
                f"{weight} of {name} is not made yet, as its layer has seen no sample; run it on one first, such as: "
                "net(torch.zeros(1, 3, 32, 32))"
            )
        if tensor.is_meta:
            raise ModelError(
                f"{weight} of {name} is on the device meta, without numbers; make the network on the CPU, and load "
                "its weights"
            )
        if tensor.is_inference():
            raise ModelError(
                f"{weight} of {name} was made under torch.inference_mode, so it can never train; make the network "
                "outside of it"
            )
        if _overlaps(tensor):
            raise ModelError(
                f"{weight} of {name} has entries that share one memory (as after expand), so it can neither be trained "
                f"nor put back; give it memory of its own: clone() it where the network is made"
            )
    kinds = {p.dtype for p in module.parameters() if p.is_floating_point()}
    if kinds and torch.float32 not in kinds:
        kind = str(next(iter(kinds))).removeprefix("torch.")
        raise ModelError(
            f"the weights of {name} are {kind}, and its samples come in float32; make them float32 first: net.float()"
        )


def _overlaps(tensor: Tensor) -> bool:
    """Whether several entries are certain to lie in one place: there are more of them than places that they span.

    A fused step of an optimizer would write beyond that memory.
    """
    if tensor.layout != torch.strided or tensor.is_quantized or not tensor.numel():
        return False
    span = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.numel() > span


def find_own_head(loaded: LoadedModel) -> None:
    """Set ``loaded.head``: the linear or convolution layer whose output the answer is.

    Where that cannot be told, since the module has not run yet, it is the last one that is defined; where no such
    layer alone makes the answer, the module has no head, and ``loaded.width`` says how many scores it answers.

    Raises:
        ModelError: the module does not run on its input, or answers no scores.
    """
    modules = dict(loaded.model.named_modules())
    names = [
        name for name, m in modules.items() if isinstance(m, nn.Linear | nn.Conv2d) and not is_auxiliary(name)
    ]
    if loaded.input is not None:
        trouble = _trouble(loaded.model, loaded.input)
        if trouble:
            raise ModelError(f"{loaded.name} does not run on samples of {loaded.input.describe()}: {trouble}")
        device = next(loaded.model.parameters()).device
        answer = answer_to(loaded.model, [name for name in names if name], loaded.input.example(device))
        loaded.head, loaded.width = _whole_head(modules, answer.layer), answer.width
        return
    loaded.head = names[-1] if names and names[-1] else ""


def _whole_head(modules: Mapping[str, nn.Module], name: str) -> str:
    """The head that ends in this layer: of a module that got a head of all layers before, that one."""
    outer = name.rpartition(".")[0]
    return outer if isinstance(modules.get(outer), AllLayers) else name


def _unwrapped(module: nn.Module) -> nn.Module:
    inner = getattr(module, "_orig_mod", module)  # torch.compile
    if type(module).__module__.startswith("peft."):
        base = getattr(getattr(module, "base_model", None), "model", None)
        return base if isinstance(base, nn.Module) else module
    if isinstance(inner, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return inner.module
    return inner if isinstance(inner, nn.Module) else module


def _text_input(module: nn.Module) -> Input | None:
    """The input of a text network of transformers, which says so itself; None for any other."""
    if getattr(module, "main_input_name", "") != IDS:
        return None
    config, takes = getattr(module, "config", None), inspect.signature(module.forward).parameters
    names = [
        name
        for name in INPUTS
        if name in takes and (name in INPUTS[:2] or getattr(config, "type_vocab_size", 0) > 1)
    ]
    return Input((), torch.int64, tuple((name, Input((TOKENS,), torch.int64)) for name in names))


def _input_of(module: nn.Module, shape: tuple[int, ...] | None) -> tuple[Input | None, bool]:
    """One sample of its input, and whether pictures of another size would do as well."""
    tokens = isinstance(_first(module), nn.Embedding | nn.EmbeddingBag)
    if shape is not None:
        given = Input(shape, torch.int64 if tokens else torch.float32)
        trouble = _trouble(module, given)
        if trouble:
            raise ModelError(
                f"{type(module).__name__} does not run on a sample of {given.describe()}: {trouble}"
            )
        return given, False
    fitting = _first_two(module, _guesses(module))
    if not fitting:
        return None, False
    sizes = {len(guess.shape) for guess in fitting}
    return fitting[0], len(fitting) == 2 and sizes == {3} and fitting[0].dtype.is_floating_point


def _first_two(module: nn.Module, guesses: Iterator[Input]) -> list[Input]:
    found: list[Input] = []
    for guess in guesses:
        if _trouble(module, guess) is None:
            found.append(guess)
        if len(found) == 2:
            break
    return found


def _guesses(module: nn.Module) -> Iterator[Input]:
    """Inputs that its first layer could take, the likeliest first."""
    first = _first(module)
    if isinstance(first, nn.Embedding | nn.EmbeddingBag):
        yield from (Input((length,), torch.int64) for length in _LENGTHS)
    elif isinstance(first, nn.Conv1d):
        yield from (Input((first.in_channels, length)) for length in _LENGTHS)
    elif isinstance(first, nn.Conv2d):
        own = getattr(getattr(module, "config", None), "image_size", None)  # as transformers' networks say it
        sides = (own, *_SIDES) if isinstance(own, int) else _SIDES
        yield from (Input((first.in_channels, side, side)) for side in sides)
    elif isinstance(first, nn.Conv3d):
        yield from (Input((first.in_channels, side // 2, side, side)) for side in (16, 32, 64))
    elif isinstance(first, nn.RNNBase):
        yield from (Input((length, first.input_size)) for length in _LENGTHS)
    elif isinstance(first, nn.Linear):
        for channels in (1, 3):
            side = round((first.in_features / channels) ** 0.5)
            if side > 3 and channels * side * side == first.in_features:
                yield Input((channels, side, side))
        yield Input((first.in_features,))


def _first(module: nn.Module) -> nn.Module | None:
    """The first module, in the order of definition, that tells what it takes."""
    kinds = (nn.Embedding, nn.EmbeddingBag, nn.Linear, nn.RNNBase, *_CONVOLUTIONS)
    return next((m for m in module.modules() if isinstance(m, kinds)), None)


def _trouble(module: nn.Module, guess: Input) -> str | None:
    """Why it does not run on a batch of such samples, in one line; None where it does."""
    device = next(module.parameters()).device
    shapes = [(name, buffer, buffer.shape) for name, buffer in module.named_buffers()]
    try:
        with quiet(module):
            call(module, guess.example(device))
            moved = [name for name, buffer, shape in shapes if buffer.shape != shape]
    except Exception as error:
        return first_line(error)
    if moved:
        return f"its buffer {moved[0]} gets another size in its forward; make it a plain attribute: self.x = tensor"
    return None


def _takes_pictures(module: nn.Module, seen: Input | None) -> bool:
    if seen is None:
        return isinstance(_first(module), nn.Conv2d)
    return len(seen.shape) == 3 and seen.dtype.is_floating_point and seen.shape[0] in (1, 3)


def _preprocess(module: nn.Module, seen: Input | None) -> Preprocess:
    first = _first(module)
    channels, size = first.in_channels if isinstance(first, nn.Conv2d) else 1, (32, 32)
    if seen is not None and len(seen.shape) == 3:
        channels, size = seen.shape[0], (seen.shape[1], seen.shape[2])
    return Preprocess(channels, size, None, (0.0,) * channels, (1.0,) * channels)
