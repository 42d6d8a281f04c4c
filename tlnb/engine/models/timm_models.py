"""timm's networks, by ``timm/NAME``: built, filled and prepared for as timm says (needs ``tlnb[timm]``)."""

from __future__ import annotations

import importlib.util
import logging
import math
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torchvision
from torch import nn

from tlnb.engine.core.arguments import path_of
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.models import weights as files
from tlnb.engine.models.from_file import best_part, fill_plan
from tlnb.engine.models.loaded import RANDOM, LoadedModel
from tlnb.engine.models.published import IMAGENET, Blueprint, without_storage
from tlnb.engine.models.state_dicts import Match, StateDict, match
from tlnb.engine.network.head import find_head
from tlnb.errors import ModelError, WeightsError, did_you_mean

PREFIX = "timm/"
NO_WEIGHTS = "none"


def installed() -> bool:
    """Whether timm can be imported; does not import it."""
    return importlib.util.find_spec("timm") is not None


def names() -> tuple[str, ...]:
    """timm's architectures as ``timm/NAME``; none where timm is not installed."""
    return tuple(PREFIX + name for name in _timm().list_models()) if installed() else ()


def entries(name: str) -> tuple[str, ...]:
    """The published weights of an architecture, the default first.

    Args:
        name: ``timm/NAME``.
    """
    base = name.removeprefix(PREFIX)
    found = _timm().list_pretrained(base + ".*") if installed() else []
    return tuple(tag.partition(".")[2] for tag in found)


def check_name(name: str) -> None:
    """See that timm has such a network.

    Raises:
        ModelError: it is not installed, or has none.
    """
    base = name.removeprefix(PREFIX).partition(".")[0]
    known = _timm().list_models()
    if base not in known:
        raise ModelError(f"timm has no model {base!r}{did_you_mean(base, known)}")


def load(name: str, weights: str | None, log: Callable[[str], None], part: str | None = None) -> LoadedModel:
    """Build one of timm's networks and give it weights.

    Args:
        name: ``timm/NAME`` or ``timm/NAME.TAG``.
        weights: None for the published default, ``none`` for random ones, the tag of an entry, or a file.
        log: is told about downloads.
        part: which weights of a file that holds those of several networks; None to choose.

    Raises:
        ModelError: timm is not installed, or has no such network.
        WeightsError: no such weights, they cannot be had, or do not fit.
    """
    check_name(name)
    base, _, tag = name.removeprefix(PREFIX).partition(".")
    file = weights is not None and weights != NO_WEIGHTS and path_of(weights, WeightsError).is_file()
    if weights is not None and weights != NO_WEIGHTS and not file:
        tag = weights
    tags = entries(name.split(".")[0])
    if tag and tag not in tags:
        known_tags = ", ".join((*tags, NO_WEIGHTS))
        raise WeightsError(f"no weights {tag!r}{did_you_mean(tag, tags)}; there are {known_tags}, or a file")
    if weights is None and not tags:
        raise WeightsError(f"nobody has published weights for {name}; add --weights none or --weights FILE")
    full = f"{base}.{tag}" if tag else base
    if weights == NO_WEIGHTS or file:
        return _with_file(full, weights if file else None, part)
    log(f"downloading the weights of {full}, where they are not in the cache yet")
    model = _pretrained(full)
    cfg = model.pretrained_cfg
    return _loaded(full, model, f"{cfg.get('tag') or 'default'} (timm)", trained=True)


def _with_file(full: str, path: str | None, part: str | None) -> LoadedModel:
    timm = _timm()
    if path is None:
        return _loaded(full, timm.create_model(full, pretrained=False), RANDOM, trained=False)
    found, plan = files.read_parts(path, part), _blueprint(full)

    def make(classes: int | None, image_size: int | None) -> nn.Module:
        options = {} if classes is None else {"num_classes": classes}
        model: nn.Module = timm.create_model(full, pretrained=False, **options)
        return model

    def fits(state: StateDict) -> tuple[int | None, Match]:
        return None, match(plan.shapes, state, plan.children).without(lambda key: not plan.is_body(key))

    keys, size, exact = best_part(found, fits)
    filled = fill_plan(plan, exact, make, files.named_by_kind(path), size, where=keys)
    loaded = _loaded(full, filled.model, path, trained=False)
    for note in filled.notes:
        loaded.tell(note)
    return loaded


def blueprint(name: str) -> Blueprint:
    """Names and shapes of an architecture, made without its weights where that can be done.

    Args:
        name: ``timm/NAME`` or ``timm/NAME.TAG``.

    Raises:
        ModelError: timm is not installed, or has no such network.
    """
    full = name.removeprefix(PREFIX)
    base, known = full.partition(".")[0], _timm().list_models()
    if base not in known:
        raise ModelError(f"timm has no model {base!r}{did_you_mean(base, known)}")
    return _blueprint(full)


@cache
def _blueprint(full: str) -> Blueprint:
    """Names and shapes of an architecture, where that works without storage for its weights."""
    timm = _timm()
    try:
        with without_storage():
            model = timm.create_model(full, pretrained=False)
    except Exception:  # some compute with the numbers of what they make
        model = timm.create_model(full, pretrained=False)
    return Blueprint.of(PREFIX + full, model, _heads(model)[0])


def _loaded(full: str, model: nn.Module, label: str, *, trained: bool) -> LoadedModel:
    head, *side = _heads(model)
    labels = _imagenet(model) if trained else None
    return LoadedModel(
        model,
        PREFIX + full,
        label,
        preprocess_of(model),
        labels,
        head,
        side_heads=tuple(side),
        task=IMAGENET if labels else "",
        fresh=lambda: _timm().create_model(full, pretrained=False),
    )


def preprocess_of(model: nn.Module) -> Preprocess:
    """The preprocessing that timm's own ``resolve_data_config`` finds for a network."""
    _timm()
    from timm.data import resolve_data_config

    cfg: dict[str, Any] = resolve_data_config(model=model, pretrained_cfg=model.pretrained_cfg)
    channels, height, width = cfg["input_size"]
    squash = cfg["crop_mode"] == "squash"
    return Preprocess(
        channels=channels,
        size=(height, width),
        # As timm's own transforms round it.
        resize=None if squash else math.floor(min(height, width) / cfg["crop_pct"]),
        mean=tuple(cfg["mean"]),
        std=tuple(cfg["std"]),
        interpolation=cfg["interpolation"] if cfg["interpolation"] != "random" else "bilinear",
    )


def _heads(model: Any) -> tuple[str, ...]:
    """The classifiers, the main one first (distilled DeiT has two)."""
    named = (model.pretrained_cfg or {}).get("classifier") or ()
    named = (named,) if isinstance(named, str) else tuple(named)
    modules = dict(model.named_modules())
    found: list[str] = []
    for name in named:
        inner = find_head(modules[name]) if isinstance(modules.get(name), nn.Module) else None
        if inner is not None:
            found.append(f"{name}.{inner}".strip("."))
    return tuple(found) or (find_head(model),)


def _imagenet(model: Any) -> tuple[str, ...] | None:
    """The thousand classes of ImageNet where the head knows them; torchvision and timm order them alike."""
    from timm.data import infer_imagenet_subset

    if infer_imagenet_subset(model) not in ("imagenet-1k", "imagenet") or model.num_classes != 1000:
        return None
    return tuple(torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"])


def _pretrained(full: str) -> Any:
    timm = _timm()
    try:
        with _quiet():
            return timm.create_model(full, pretrained=True)
    except Exception as error:
        # The hub's client raises its own errors, urllib's or requests' by how far it came; all mean the same.
        text = str(error).strip().splitlines()
        reason = text[0][:160] if text else type(error).__name__
        raise WeightsError(
            f"cannot get the weights of {PREFIX}{full} ({reason}); give them with --weights FILE, "
            "or take random weights with --weights none"
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and no log lines of the hub's client, and no minutes of retries where there is no network."""
    loggers = [logging.getLogger(name) for name in ("timm", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    try:
        from huggingface_hub import constants, utils
    except ImportError:
        yield
        return
    shown, offline = not utils.are_progress_bars_disabled(), constants.HF_HUB_OFFLINE
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        utils.disable_progress_bars()
        constants.HF_HUB_OFFLINE = offline or not _reachable(constants.ENDPOINT)
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if shown:
            utils.enable_progress_bars()


def _reachable(url: str) -> bool:
    """Whether the name of the host can be looked up; True behind a proxy, which looks it up itself."""
    if getproxies():
        return True
    try:
        socket.getaddrinfo(urlsplit(url).hostname, None)
    except OSError:
        return False
    return True


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError:
        raise ModelError("timm is not installed; get it with: pip install 'tlnb[timm]'") from None
    return timm
