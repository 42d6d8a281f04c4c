"""Networks by name, with the weights and the preprocessing that belong to them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

from tlnb.assets import WEIGHTS
from tlnb.engine import weights as files
from tlnb.engine.convnet5 import convnet5
from tlnb.engine.head import find_head, outputs_of
from tlnb.engine.preprocess import Preprocess
from tlnb.errors import ModelError, WeightsError, did_you_mean

NO_WEIGHTS = "none"


@dataclass
class LoadedModel:
    """A network, and what has to be known to use it.

    Attributes:
        model: in test mode, on the CPU.
        name: what the user called it.
        weights: where its weights came from, in words.
        preprocess: what its input must look like.
        categories: names of the classes that its head knows, or None where nobody told.
        head: qualified name of the classifier module.
    """

    model: nn.Module
    name: str
    weights: str
    preprocess: Preprocess
    categories: tuple[str, ...] | None
    head: str

    def __repr__(self) -> str:
        count = sum(p.numel() for p in self.model.parameters())
        classes = f"{outputs_of(self.model.get_submodule(self.head))} classes"
        return (
            f"{self.name}: {count:,} parameters, weights {self.weights}, {classes}\n"
            f"input {self.preprocess.describe()}"
        )


def names() -> tuple[str, ...]:
    """Every network that can be loaded by name."""
    return ("convnet5", *_torchvision_names())


def load_model(
    name: str,
    *,
    weights: str | None = None,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> LoadedModel:
    """Build a network and give it weights.

    Args:
        name: one of ``names()``.
        weights: None for the published default, ``none`` for random ones, the name of a published entry
            (``IMAGENET1K_V2``), or a file.
        seed: of random weights.
        say: is told about downloads.

    Raises:
        ModelError: no such network.
        WeightsError: no such weights, or they do not fit.
    """
    if name not in names():
        raise ModelError(
            f"no model {name!r}{did_you_mean(name, names())}; %tl_load convnet5 needs no download"
        )
    entry = _convnet5 if name == "convnet5" else _torchvision
    # Random weights come from a stream of their own, so that loading neither depends on the user's random
    # state nor moves it.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        loaded = entry(name, weights, say)
    loaded.model.eval()
    return loaded


def _convnet5(name: str, weights: str | None, say: Callable[[str], None]) -> LoadedModel:
    about = files.metadata(WEIGHTS)
    classes = tuple(json.loads(about["classes"]))
    model = convnet5(num_classes=len(classes))
    categories: tuple[str, ...] | None = classes
    if weights is None:
        files.load_into(model, files.read_weights(WEIGHTS), "convnet5's own file")
        label = f"glyphs, version {about['version']} (ship with tlnb)"
    elif weights == NO_WEIGHTS:
        label, categories = "random", None
    else:
        files.load_into(model, _from_file(weights, ()), weights)
        label = weights
    preprocess = Preprocess.from_dict(json.loads(about["preprocess"]))
    return LoadedModel(model, name, label, preprocess, categories, find_head(model))


def _torchvision(name: str, weights: str | None, say: Callable[[str], None]) -> LoadedModel:
    entries = torchvision.models.get_model_weights(name)
    default = entries.DEFAULT
    options: dict[str, Any] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = torchvision.models.get_model(name, weights=None, **options)
    chosen, label, categories = default, "random", None
    if weights != NO_WEIGHTS:
        by_name = {entry.name: entry for entry in entries}
        chosen = default if weights is None else by_name.get(weights, default)
        if weights is None or weights in by_name:
            state, label = files.download(chosen.url, say), chosen.name
            categories = tuple(chosen.meta["categories"])
        else:
            state, label = _from_file(weights, tuple(by_name)), weights
        files.load_into(model, state, label)
    head = find_head(model)
    if (
        categories is None
        and label != "random"
        and outputs_of(model.get_submodule(head)) == len(chosen.meta["categories"])
    ):
        categories = tuple(chosen.meta["categories"])
    return LoadedModel(model, name, label, _preset(chosen.transforms()), categories, head)


def _from_file(weights: str, entries: tuple[str, ...]) -> files.StateDict:
    if Path(weights).expanduser().is_file():
        return files.read_weights(weights)
    known = ", ".join((*entries, NO_WEIGHTS))
    raise WeightsError(
        f"no weights {weights!r}{did_you_mean(weights, entries)}; there are {known}, or a file"
    )


def _preset(transforms: Any) -> Preprocess:
    crop, resize = transforms.crop_size[0], transforms.resize_size[0]
    return Preprocess(
        channels=3,
        size=(crop, crop),
        resize=resize,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=transforms.interpolation.value,
    )


@cache
def _torchvision_names() -> tuple[str, ...]:
    return tuple(torchvision.models.list_models(module=torchvision.models))
