"""The same work with fastai's own learner: its head, one-cycle, norms of the body trained as usual."""

from __future__ import annotations

import time

import torch
from fastai.vision.all import (
    CropPad,
    ImageDataLoaders,
    Learner,
    Resize,
    ResizeMethod,
    params,
    resnet18,
    vision_learner,
)  # fmt: skip

from tests.benchmarks.jobs import Settings


def splitter(model: torch.nn.Module) -> list[list[torch.nn.Parameter]]:
    """Stem to layer3, layer4 (the last two blocks), head."""
    return [params(model[0][:7]), params(model[0][7:]), params(model[1])]


def learner(settings: Settings) -> Learner:
    side = round(settings.size * 256 / 224)
    dls = ImageDataLoaders.from_folder(
        settings.data, train="train", valid="val", bs=settings.batch, num_workers=settings.workers,
        item_tfms=[Resize(side, method=ResizeMethod.Crop), CropPad(settings.size)],
    )  # fmt: skip
    return vision_learner(dls, resnet18, pretrained=False, splitter=splitter, n_out=2)


def _quiet(learn: Learner) -> Learner:
    learn.remove_cbs([cb for cb in learn.cbs if type(cb).__name__ == "ProgressCallback"])
    return learn


def _timed(settings: Settings, *stages: tuple[int, int]) -> float:
    torch.manual_seed(0)
    began = time.perf_counter()
    learn = _quiet(learner(settings))
    for groups, epochs in stages:
        learn.freeze_to(-groups)
        learn.fit_one_cycle(epochs, 1e-3)
    return time.perf_counter() - began


def head(settings: Settings) -> float:
    return _timed(settings, (1, settings.epochs))


def gradual(settings: Settings) -> float:
    return _timed(settings, (1, 3), (2, 3), (3, 2))


def full(settings: Settings) -> float:
    return _timed(settings, (3, 1))


full_bf16 = full


def range_test(settings: Settings) -> float:
    learn = _quiet(learner(settings))
    learn.freeze_to(-1)
    began = time.perf_counter()
    learn.lr_find(show_plot=False)
    return time.perf_counter() - began
