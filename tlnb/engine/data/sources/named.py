"""Data sets by name: those that ship with tlnb, and torchvision's."""

from __future__ import annotations

import contextlib
import inspect
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision import datasets

from tlnb.engine.core.machine import user_folder
from tlnb.engine.data.partition import TEST, TRAIN, VALID
from tlnb.engine.data.raw import Pictures
from tlnb.engine.data.request import COLUMNS, OWN, SourceRequest
from tlnb.engine.data.sources import objects
from tlnb.engine.data.sources.found import Found
from tlnb.engine.data.sources.published import NAMES
from tlnb.errors import DataError, did_you_mean, first_line

GLYPHS_PER_CLASS = 100
_NONE = (*COLUMNS, "links", "range", "bands")


def digits(request: SourceRequest) -> Found:
    """scikit-learn's 1,797 handwritten digits, 8×8 pixels of 0..16 (Alpaydin and Kaynak 1998)."""
    from sklearn.datasets import load_digits

    request.refuse(_NONE, "digits are pictures with one class each")
    found = load_digits()
    images = torch.from_numpy(found.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
    pictures = Pictures(images, torch.from_numpy(found.target).long())
    return Found(pictures, None, tuple(map(str, found.target_names)))


def glyphs(request: SourceRequest) -> Found:
    """Letters drawn now from matplotlib's fonts: the task that ``convnet5`` was trained on."""
    from tlnb.engine.data import glyphs as drawing

    request.refuse(_NONE, "glyphs are pictures with one class each")
    images, targets = drawing.draw(GLYPHS_PER_CLASS * len(drawing.CLASSES), seed=request.seed)
    return Found(Pictures(images, targets), None, drawing.CLASSES)


BUILTIN = {"digits": digits, "glyphs": glyphs}

_TRAIN, _VALID = ("train", "trainval"), ("val", "valid", "test")


def folder() -> Path:
    """Where downloads are kept: ``datasets`` in ``TLNB_HOME``, else in the user's cache folder."""
    return user_folder() / "datasets"


def read(source: str, request: SourceRequest) -> Found:
    """A data set of torchvision, from the cache folder, or downloaded into it.

    Args:
        source: ``torchvision/NAME``.
        request: how targets are to be understood.

    Raises:
        DataError: an unknown name, or a data set that is not there and cannot be downloaded.
    """
    name = source.partition("/")[2]
    if name not in NAMES:
        known = [f"torchvision/{known}" for known in NAMES]
        raise DataError(f"no data {source!r}{did_you_mean(source, known)}; there are {', '.join(NAMES)}")
    maker = getattr(datasets, name)
    choices = _choices(maker, own_test=request.test == OWN)
    parts = [_open(maker, name, choice) for _, choice in choices]
    made = [_in_memory(part) or part for part in parts]
    roles = [role for role, _ in choices]
    found = objects.read_parts(made, roles, request) if len(made) > 1 else objects.read(made[0], request)
    names = _names(parts[0])
    if names is not None and len(names) == len(found.classes):
        found.classes = names
    return found


def _choices(maker: Any, *, own_test: bool = False) -> list[tuple[int, dict[str, Any]]]:
    """What each part is for, and the arguments that ask for it; one without any for a set in one piece.

    Args:
        maker: the class of the data set.
        own_test: whether its own test part is to be kept for the end.
    """
    more = {"split": "balanced"} if maker is datasets.EMNIST else {}  # its split says which classes
    parameters = inspect.signature(maker).parameters
    if "train" in parameters or more:  # EMNIST hands it on among further arguments
        held = TEST if own_test else VALID
        return [(TRAIN, {**more, "train": True}), (held, {**more, "train": False})]
    if "split" in parameters:
        allowed = _splits(maker)
        roles = {next(name for name in _TRAIN if name in allowed): TRAIN}
        if own_test and "test" in allowed:
            roles |= {name: VALID for name in _VALID[:2] if name in allowed} | {"test": TEST}
        else:
            roles[next(name for name in _VALID if name in allowed)] = VALID
        return [(role, {"split": name}) for name, role in roles.items()]
    return [(TRAIN, {})]


def _splits(maker: Any) -> tuple[str, ...]:
    table = {
        "FGVCAircraft": ("train", "val", "test"), "Flowers102": ("train", "val", "test"),
        "DTD": ("train", "val", "test"), "Country211": ("train", "valid", "test"),
        "RenderedSST2": ("train", "val", "test"), "OxfordIIITPet": ("trainval", "test"),
    }  # fmt: skip
    return table.get(maker.__name__, ("train", "test"))


def _open(maker: Any, name: str, choice: dict[str, Any]) -> Any:
    root = folder()
    # torchvision prints what it does; the session says that itself.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        with contextlib.suppress(RuntimeError, OSError, ValueError):
            return maker(root=str(root), **choice)  # a copy that is there needs no network
        try:
            root.mkdir(parents=True, exist_ok=True)
            return maker(root=str(root), download=True, **choice)
        except Exception as error:  # each mirror fails in a way of its own
            reason = first_line(error)[:120]
            files = ", ".join(_files(maker)) or "its files"
            raise DataError(
                f"torchvision/{name} is not in {root} and could not be downloaded ({reason}); "
                f"put {files} into {_place(maker, root)}"
            ) from None


def _files(maker: Any) -> list[str]:
    for attribute in ("resources", "split_list"):
        table = getattr(maker, attribute, None)
        if isinstance(table, list):
            return [Path(str(row[0])).name for row in table]
        if isinstance(table, dict) and attribute == "split_list":
            return [str(row[1]) for row in table.values()]
    names = getattr(maker, "filename", None)
    return [names] if isinstance(names, str) else []


def _place(maker: Any, root: Path) -> Path:
    if issubclass(maker, datasets.MNIST):
        return root / maker.__name__ / "raw"
    return root


def _in_memory(part: Any) -> tuple[Any, Any] | None:
    """Pictures and targets of a set that keeps both as arrays; None for the others."""
    data = getattr(part, "data", None)
    targets = getattr(part, "targets", getattr(part, "labels", None))
    if not isinstance(data, torch.Tensor | np.ndarray) or targets is None or len(data) != len(targets):
        return None
    return data, np.asarray(targets)


def _names(part: Any) -> tuple[str, ...] | None:
    names = getattr(part, "classes", None) or getattr(part, "categories", None)
    return tuple(map(str, names)) if names else None
