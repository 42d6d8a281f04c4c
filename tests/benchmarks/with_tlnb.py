"""The same work with tlnb; each process has an empty cache folder."""

from __future__ import annotations

import os
import tempfile
import time

from tests.benchmarks.jobs import Settings

os.environ["TLNB_HOME"] = tempfile.mkdtemp(prefix="tlnb-benchmark-")

import torch

from tlnb.session import Session


def session() -> Session:
    torch.manual_seed(0)
    tl = Session()
    tl.load("resnet18", weights="none")
    return tl


def name_data(tl: Session, settings: Settings) -> None:
    tl.data(settings.data, batch=settings.batch, size=settings.size)


def _timed(settings: Settings, plan: str, *, cache: bool = True) -> float:
    tl = session()
    began = time.perf_counter()
    name_data(tl, settings)
    tl.run(plan, cache=cache)
    return time.perf_counter() - began


def head(settings: Settings) -> float:
    return _timed(settings, f"train {settings.frozen}: epochs {settings.epochs} lr 1e-3")


def head_without_cache(settings: Settings) -> float:
    plan = f"train {settings.frozen}: epochs {settings.epochs} lr 1e-3"
    return _timed(settings, plan, cache=False)


def range_test(settings: Settings) -> float:
    tl = session()
    name_data(tl, settings)
    tl.freeze("body")
    tl.find_lr()  # the cache is warm now
    began = time.perf_counter()
    tl.find_lr()
    return time.perf_counter() - began


def gradual(settings: Settings) -> float:
    plan = "train 9: epochs 3 lr 1e-3\ntrain 7: epochs 3 lr 1e-3\ntrain all epochs 2 lr 1e-3"
    return _timed(settings, plan)


def full(settings: Settings) -> float:
    return _timed(settings, "train all epochs 1 lr 1e-3")


def full_bf16(settings: Settings) -> float:
    return _timed(settings, "train all epochs 1 lr 1e-3 precision bf16")
