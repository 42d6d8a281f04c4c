"""Networks by name or by file, with the weights and the preprocessing that belong to them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torchvision

from tlnb.display.tables import printable
from tlnb.engine.core.arguments import path_of, shown
from tlnb.engine.core.modules import set_training
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.models import from_file, hub, timm_models
from tlnb.engine.models import weights as files
from tlnb.engine.models.convnet5 import WEIGHTS
from tlnb.engine.models.loaded import RANDOM, LoadedModel
from tlnb.engine.models.published import CONVNET5, IMAGENET, build, is_vit, preset, torchvision_names
from tlnb.engine.network.head import auxiliary_heads, find_head
from tlnb.errors import ModelError, WeightsError, did_you_mean

__all__ = ["LoadedModel", "load_model", "names", "weight_names"]

NO_WEIGHTS, USUAL_WEIGHTS = "none", "DEFAULT"
Log = Callable[[str], None]


def names() -> tuple[str, ...]:
    """Every network that can be loaded by name, timm's aside (``timm_models.names()``)."""
    return (CONVNET5, *torchvision_names())


def weight_names(name: str) -> tuple[str, ...]:
    """What ``--weights`` takes for a network besides files: its entries, the default, and none.

    Args:
        name: one of ``names()``, or ``timm/NAME``; any other name has random weights only.
    """
    if name.startswith(timm_models.PREFIX):
        entries = timm_models.entries(name.partition(".")[0])
    elif name in torchvision_names():
        entries = tuple(entry.name for entry in torchvision.models.get_model_weights(name))
    else:
        entries = ()
    usual = (USUAL_WEIGHTS,) if entries or name == CONVNET5 else ()
    return (*usual, *entries, NO_WEIGHTS)


def check_name(name: str) -> None:
    """See that there may be a network of this name, without loading anything.

    Args:
        name: as :func:`load_model` takes it; whether the Hub has it shows when it is loaded.

    Raises:
        ModelError, WeightsError: there is none, in the words of :func:`load_model`.
    """
    if name.startswith(hub.PREFIX):
        repository = name.removeprefix(hub.PREFIX).strip("/")
        if not hub.is_folder(name) and (repository.count("/") > 1 or not repository):
            raise ModelError(hub.unnamed(name))
    elif not hub.is_folder(name) and not _is_file(name):
        if name.startswith(timm_models.PREFIX):
            timm_models.check_name(name)
        elif name not in names():
            raise _no_model(name)


def _no_model(name: str) -> ModelError:
    return ModelError(f"no model {name!r}{did_you_mean(name, names())}; %tl_load convnet5 needs no download")


def load_model(
    name: str,
    *,
    weights: str | None = None,
    arch: str | None = None,
    revision: str | None = None,
    seed: int = 0,
    log: Log = lambda text: None,
) -> LoadedModel:
    """Build a network and give it weights.

    Args:
        name: one of ``names()``, ``timm/NAME``, ``hf/OWNER/NAME``, a folder with a ``config.json``, or a file of
            weights.
        weights: None or ``DEFAULT`` for the published default, ``none`` for random ones, the name of a
            published entry (``IMAGENET1K_V2``), or a file. Where ``name`` is a file that holds several networks, the
            key or prefix of the one that is meant (``teacher``).
        arch: for a file, the architecture that it belongs to; None to find it by names and shapes.
        revision: of a network of the Hub: branch, tag or commit.
        seed: of random weights.
        log: is told about downloads.

    Raises:
        ModelError: no such network.
        WeightsError: no such weights, or they do not fit.
    """
    # Random weights come from a stream of their own, so that loading neither depends on the user's random
    # state nor moves it.
    if weights is not None and not isinstance(weights, str | os.PathLike):
        raise WeightsError(
            f"weights takes a name or a file, not {shown(weights)}; weights in memory go into a network of your own: "
            "net.load_state_dict(...), then tl.load(net)"
        )
    name, weights = os.fspath(name), None if weights is None else os.fspath(weights)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        loaded = _load(name, None if weights == USUAL_WEIGHTS else weights, arch, log, revision)
    set_training(loaded.model, False)
    return loaded


def _load(name: str, weights: str | None, arch: str | None, log: Log, revision: str | None) -> LoadedModel:
    if name.startswith(hub.PREFIX) or hub.is_folder(name):
        if arch is not None:
            raise ModelError("--arch names the architecture of a file; a config.json says its own")
        folder, commit = hub.folder_of(name, revision, log)
        if hub.library_of(folder):
            return _from_folder(name, folder, weights, log)
        return hub.load(name, weights, folder, commit)
    if revision is not None:
        raise ModelError("--revision is for a network of the Hub: hf/OWNER/NAME")
    part = None
    if _is_file(name):
        part, name, weights = weights, arch or "", name
    elif arch is not None:
        raise ModelError(f"--arch names the architecture of a file, and {name!r} is no file")
    if name.startswith(timm_models.PREFIX):
        return timm_models.load(name, weights, log, part)
    if name not in names() and (name or weights is None):
        raise _no_model(name)
    if weights is not None and path_of(weights, WeightsError).is_file():
        return _filled(name or None, weights, part)
    return (_convnet5 if name == CONVNET5 else _torchvision)(name, weights, log)


def _from_folder(name: str, folder: Path, weights: str | None, log: Log) -> LoadedModel:
    """A network of torchvision or timm, or convnet5, as the Hub keeps it."""
    if weights not in (None, NO_WEIGHTS):
        raise WeightsError(f"--weights takes none (random) for a network of Hugging Face, not {weights!r}")
    architecture, file = hub.architecture_of(folder), folder / hub.WEIGHTS
    timm = hub.library_of(folder) == hub.TIMM
    if not timm and architecture not in names():
        raise ModelError(
            f"{printable(name)!r} holds {printable(architecture)!r}, which is no network known here"
        )
    full = timm_models.PREFIX + architecture if timm else architecture
    if weights is not None:
        return _load(full, weights, None, log, None)
    if not file.is_file():
        raise WeightsError(f"{printable(name)!r} has no weights as safetensors")
    loaded = timm_models.load(full, str(file), log, None) if timm else _filled(full, str(file), None)
    if timm:
        classes, preprocess = from_file.told_by(str(file))
        known = classes if classes and len(classes) == loaded.outputs else loaded.categories
        loaded = replace(loaded, categories=known, preprocess=preprocess or loaded.preprocess, input=None)
    loaded.task = name
    return loaded


def _is_file(name: str) -> bool:
    if "\0" in name:
        return False  # no file, and no name that is known
    path = path_of(name, ModelError)
    if path.suffix.lower() in files.SUFFIXES and not name.startswith(timm_models.PREFIX):
        if not path.is_file():
            raise WeightsError(f"no weights file {name!r}")
        return True
    return path.is_file() and name not in names()


def _convnet5(name: str, weights: str | None, log: Log) -> LoadedModel:
    about = files.metadata(WEIGHTS)
    classes = tuple(json.loads(about["classes"]))
    model = build(CONVNET5, classes=len(classes))
    preprocess = Preprocess.from_dict(json.loads(about["preprocess"]))
    if weights is None:
        files.load_into(model, files.read_weights(WEIGHTS), "convnet5's own file")
        label = f"glyphs, version {about['version']} (ship with tlnb)"
        return LoadedModel(
            model, name, label, preprocess, classes, find_head(model), task="glyphs",
            fresh=lambda: build(CONVNET5, classes=len(classes)),
        )  # fmt: skip
    if weights != NO_WEIGHTS:
        raise _no_weights(weights, ())
    return LoadedModel(model, name, RANDOM, preprocess, None, find_head(model), fresh=lambda: build(CONVNET5))


def _torchvision(name: str, weights: str | None, log: Log) -> LoadedModel:
    entries = torchvision.models.get_model_weights(name)
    by_name = {entry.name: entry for entry in entries}
    entry = entries.DEFAULT if weights in (None, NO_WEIGHTS) else by_name.get(weights)
    if entry is None:
        raise _no_weights(str(weights), tuple(by_name))
    size = _fixed_size(name, entry) if weights != NO_WEIGHTS else None
    preprocess = preset(entry.transforms())
    if weights == NO_WEIGHTS and is_vit(name):
        preprocess = preprocess.at(224)
    # Published weights are fetched before anything large is built: without a network that fails at once.
    state = None if weights == NO_WEIGHTS else files.download(entry.url, log)
    model = build(name, image_size=size)
    label, categories, task = RANDOM, None, ""
    if state is not None:
        files.load_into(model, state, entry.name)
        label, categories, task = entry.name, tuple(entry.meta["categories"]), IMAGENET
    return LoadedModel(
        model, name, label, preprocess, categories, find_head(model), auxiliary_heads(model), task=task,
        fresh=lambda: build(name, image_size=size),
    )  # fmt: skip


def _filled(arch: str | None, path: str, part: str | None) -> LoadedModel:
    filled = from_file.fill(path, arch, part)
    classes, preprocess = from_file.told_by(path)
    known, usual, entry = _known_of(filled.name)
    if preprocess is not None and preprocess.channels != usual.channels:
        preprocess = None
    notes = filled.notes if preprocess else (*filled.notes, f"its preprocessing is taken from {entry}")
    preprocess = preprocess or usual
    if filled.image_size is not None:
        preprocess = preprocess.at(filled.image_size)
    model, name, count = filled.model, filled.name, filled.classes
    categories = next((c for c in (classes, known) if c and len(c) == count), None)
    task = _known_task(name) if categories is known and known else Path(path).stem
    return LoadedModel(
        model, name, path, preprocess, categories, find_head(model), auxiliary_heads(model), notes,
        task=task, fresh=lambda: build(name, classes=count, image_size=filled.image_size),
    )  # fmt: skip


def _known_of(name: str) -> tuple[tuple[str, ...], Preprocess, str]:
    """Published classes and preprocessing of an architecture, and the entry that they come from."""
    if name == CONVNET5:
        about = files.metadata(WEIGHTS)
        preprocess = Preprocess.from_dict(json.loads(about["preprocess"]))
        return tuple(json.loads(about["classes"])), preprocess, "convnet5's own weights"
    entries = torchvision.models.get_model_weights(name)
    # The recipe of the first entry is what most people trained with since.
    entry = {e.name: e for e in entries}.get("IMAGENET1K_V1", entries.DEFAULT)
    preprocess = preset(entry.transforms())
    preprocess = preprocess.at(224) if is_vit(name) else preprocess
    return tuple(entry.meta["categories"]), preprocess, entry.name


def _known_task(name: str) -> str:
    return "glyphs" if name == CONVNET5 else IMAGENET


def _fixed_size(name: str, entry: Any) -> int | None:
    """ViT's position embedding has the size of the pictures that the entry was trained on."""
    return entry.meta["min_size"][0] if is_vit(name) else None


def _no_weights(weights: str, entries: tuple[str, ...]) -> WeightsError:
    known = ", ".join((*entries, NO_WEIGHTS))
    return WeightsError(
        f"no weights {weights!r}{did_you_mean(weights, entries)}; there are {known}, or a file"
    )
