"""How a stage was set up, in plain values: enough to do it again in a script.

A script is written from these values, and they may come with a file. So nothing may stand here that is not a number, a
word from a list, or a text that is quoted where it is written; code that makes a head does nothing else. A step of the
user's is code: a recipe remembers that it came with a file.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

from torch import nn

from tlnb.display.tables import printable
from tlnb.engine.core.structure import ASIDE, Exact, Plain, Positive, Unfit, one_of, structure
from tlnb.engine.data.request import HIDDEN, SourceRequest
from tlnb.engine.training.stage import read_adapter

_DEVICE = re.compile(r"[a-z]+(:\d{1,3})?")
_DATA_KEYS = frozenset(("source", "name", *(f.name for f in fields(SourceRequest)))) - set(HIDDEN)


def _arguments(value: Any) -> Plain:
    """The arguments that data was read with."""
    if not isinstance(value, Mapping) or "source" not in value:
        raise Unfit("is no table of arguments with a source")
    for name, word in value.items():
        if name not in _DATA_KEYS:
            raise Unfit("is no argument of the data", f".{printable(name)[:60]}")
        if not (word is None or isinstance(word, bool | int | float | str)):
            raise Unfit("is no plain value", f".{name}")
    return dict(value)


def _device(value: Any) -> str:
    if not isinstance(value, str) or not _DEVICE.fullmatch(value):
        raise Unfit("is no device")
    return value


def layer_code(value: Any) -> str:
    """Code that makes layers of torch from plain values, and does nothing else.

    Raises:
        Unfit: other code.
    """
    code = structure(Exact, value)
    try:
        _check_layer(ast.parse(code, mode="eval").body)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise Unfit(f"is no code that makes a head: {type(error).__name__}") from None
    return str(code)


def _check_layer(call: ast.expr) -> None:
    """Raise ``ValueError`` where this is no call of a layer with plain values."""
    if not isinstance(call, ast.Call):
        raise ValueError("a head is made by a call of a layer")
    arguments = [*call.args, *(named.value for named in call.keywords)]
    if isinstance(call.func, ast.Name) and call.func.id in ("Neighbours", "AllLayers") and not call.keywords:
        values = [ast.literal_eval(part) for part in arguments]
        if call.func.id == "Neighbours" and not all(type(value) is int for value in values):
            raise ValueError("neighbours are made of numbers")
        return
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    kind = getattr(nn, call.func.attr, None) if isinstance(call.func, ast.Attribute) else None
    if not (
        isinstance(owner, ast.Name)
        and owner.id == "nn"
        and isinstance(kind, type)
        and issubclass(kind, nn.Module)
    ):
        raise ValueError("a head is made of layers of torch")
    for part in arguments:
        if kind is nn.Sequential:
            _check_layer(part)
        else:
            ast.literal_eval(part)


@dataclass(frozen=True)
class NetworkRecipe:
    """The network that a stage trained.

    Attributes:
        name: that it was loaded by.
        weights: where they came from, in words.
        outputs: of the head that came with them; None where none is known.
        layers_from: whether weights of another network were kept.
    """

    name: str
    weights: str
    outputs: int | None
    layers_from: bool


@dataclass(frozen=True)
class HeadRecipe:
    """A head that did not come with the weights.

    Attributes:
        task: that it was made for.
        seed: that its weights were drawn with.
        drawn: whether they were, and no other weights were put there.
        outputs: how many.
        code: for the head and each side head, the code that makes it; None for one that has none.
        init: how its last layer began.
    """

    task: str
    seed: int
    drawn: bool
    outputs: int
    code: tuple[Annotated[str, layer_code] | None, ...]
    init: Annotated[str, one_of("zero", "he")] = "he"  # files of before this key


@dataclass(frozen=True)
class DataUsed:
    """What a stage learned from.

    Attributes:
        asked: the arguments by which it is read again; ``source`` is None for an object.
        fingerprint: of the samples.
        seed: of their order.
        until: the epochs and batches of the stage that had ended when it was left for other data, or ended.
    """

    asked: Annotated[dict[str, Any], _arguments]
    fingerprint: str
    seed: int
    until: tuple[int, int]

    @property
    def name(self) -> str:
        """What it was called."""
        return str(self.asked.get("name") or self.asked["source"])


@dataclass(frozen=True)
class Checksums:
    """Sums over the weights before and after a stage, which change when a weight does; None where not known."""

    body: tuple[float | None, float | None]
    head: tuple[float | None, float | None]


@dataclass(frozen=True)
class StageRecipe:
    """How a stage was set up.

    Attributes:
        checksums: of the weights.
        blend: how much of the new the body held, where it was blended just before; None elsewhere.
        whole: whether the weights of the start cannot be had again by loading the network once more.
        asked: epochs, rate (None for a range test) and patience.
        network: that was trained.
        layers: for each layer, the names of its modules and loose weights.
        head: a new one; None for the one that came with the weights.
        batch: samples a step.
        bn: what BatchNorm's statistics did, ``train`` or ``frozen``.
        micro: samples that passed the network at a time; None for the whole batch.
        step: source of a step of the user's; None for the usual one.
        moments: whether the stage began with the optimizer's moments of the one before.
        bfloat16: whether what trained computed in it.
        augment: the preset.
        epochs: after how many the weights are those of the end.
        cut: the first layer behind those that ran once; 0 where all ran.
        dtype: of what the cut part gave.
        channels_last: whether images, or features that are images, came so.
        device: that it ran on.
        threads: of the CPU.
        data: what it learned from, in order.
        kind: ``train`` or ``fit``.
        adapters: for the name of each weight that had one, the adapter's words.
        merged: whether these were merged after the stage.
        cache, keep_best: see ``Session.train``.
        from_file: whether this was read from a file.
    """

    checksums: Checksums
    blend: float | None
    whole: bool
    asked: tuple[Positive, float | None, int | None]
    network: NetworkRecipe
    layers: tuple[tuple[str, ...], ...]
    head: HeadRecipe | None
    batch: Positive
    bn: Annotated[str, one_of("train", "frozen")]
    micro: Positive | None
    step: Exact | None
    moments: bool
    bfloat16: bool
    augment: str
    epochs: int
    cut: int
    dtype: Annotated[str, one_of("float32", "float64", "float16", "bfloat16")]
    channels_last: bool
    device: Annotated[str, _device]
    threads: Positive
    data: tuple[DataUsed, ...]
    kind: Annotated[str, one_of("train", "fit")] = "train"
    adapters: Mapping[str, Annotated[str, read_adapter]] = field(default_factory=dict)
    merged: bool = False
    cache: bool = True
    keep_best: bool = False
    from_file: bool = field(default=False, metadata=ASIDE)
