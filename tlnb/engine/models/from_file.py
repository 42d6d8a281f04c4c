"""Weights of a user's file in an architecture: found, built to the file's sizes, filled, and reported on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.models import weights as files
from tlnb.engine.models.matching import Match, first_few, match, shapes_of
from tlnb.engine.models.published import Blueprint, blueprint, build
from tlnb.engine.models.recognise import fit, image_size_in, recognise
from tlnb.engine.models.unwrap import StateDict
from tlnb.engine.printable import printable
from tlnb.errors import WeightsError

LARGEST = 2048  # pixels of a side, that a file may ask for; the network is tried at that size


@dataclass(frozen=True)
class Filled:
    """A network filled from a file.

    Attributes:
        name: of the architecture.
        model: with the weights of the file.
        notes: what did not fit, and what was done about it.
        image_size: input size in pixels where the file asks for another than the architecture's own.
        classes: how many class scores the head has.
        head_is_new: whether the file had no head that could be used.
    """

    name: str
    model: nn.Module
    notes: tuple[str, ...]
    image_size: int | None
    classes: int | None
    head_is_new: bool


def fill(path: str, arch: str | None = None) -> Filled:
    """Build the network that a file holds the weights of, and fill it.

    The body must be there completely. The head is built to the file's size; where the file has none, or one
    of another form, it has random weights. Auxiliary classifiers may be missing.

    Args:
        path: a safetensors file, or a ``.pth`` of a state dict.
        arch: ``convnet5`` or an architecture of torchvision; None to find it by names and shapes.

    Raises:
        WeightsError: an unsafe or broken file, no such architecture, or a body that does not fit.
    """
    state, wrapper = files.read_wrapped(path)
    source = Path(path).name
    name = arch or recognise(state, source)
    plan, size = blueprint(name), image_size_in(name, state)
    found = fit(name, state)
    if found.missing or found.reshaped:
        raise WeightsError(f"{source} does not fit {name}: {found.describe()}")
    head, notes = _head_in(plan, state, found), []
    if head is not None and head != plan.head:
        notes.append(f"the file keeps its head as {head}")
        state = _moved(state, found.prefix + head, found.prefix + plan.head)
    classes = _classes(plan, state, found)
    model = build(name, classes=classes, image_size=size)
    exact = match(shapes_of(model), state)
    exact.put_into(model)
    notes = [_where(wrapper, exact.prefix), *_report(plan, exact), *notes, _head_note(plan, classes)]
    return Filled(name, model, tuple(filter(None, notes)), size, classes, classes is None)


def told_by(path: str) -> tuple[tuple[str, ...] | None, Preprocess | None]:
    """Class names and preprocessing that a safetensors file says of itself, where it does.

    The values come from outside: whatever has another form than it should is passed over.
    """
    about = files.metadata(path)
    try:
        classes: Any = json.loads(about.get("classes", "null"))
        values: Any = json.loads(about.get("preprocess", "null"))
        names = tuple(printable(str(name)) for name in classes) if isinstance(classes, list) else None
        found = Preprocess.from_dict(values) if isinstance(values, dict) else None
        return names, found if found is not None and max(found.size) <= LARGEST else None
    except (ValueError, TypeError, RecursionError):
        return None, None


def _head_in(plan: Blueprint, state: StateDict, found: Match) -> str | None:
    """Where the file's head stands, if it is one layer of the form of the architecture's own."""
    wanted = plan.shapes[f"{plan.head}.weight"]
    root = plan.head.split(".")[0]
    names = [name.removeprefix(found.prefix) for name in state if name.startswith(found.prefix)]
    likely = [
        name.removesuffix(".weight")
        for name in names
        if name.endswith(".weight") and (name == f"{root}.weight" or name.startswith(f"{root}."))
        and (name.removesuffix(".weight") == plan.head or name not in plan.shapes)
    ]  # fmt: skip
    heads = [h for h in likely if state[f"{found.prefix}{h}.weight"].dim() == len(wanted)]
    if len(heads) != 1 or state[f"{found.prefix}{heads[0]}.weight"].shape[1:] != wanted[1:]:
        return None
    return heads[0]


def _moved(state: StateDict, old: str, new: str) -> StateDict:
    return {
        new + name.removeprefix(old) if name.startswith(old + ".") else name: t for name, t in state.items()
    }


def _classes(plan: Blueprint, state: StateDict, found: Match) -> int | None:
    weight = state.get(f"{found.prefix}{plan.head}.weight")
    wanted = plan.shapes[f"{plan.head}.weight"]
    return weight.shape[0] if weight is not None and weight.shape[1:] == wanted[1:] else None


def _where(wrapper: str, prefix: str) -> str:
    parts = [f"under the key {wrapper!r}"] if wrapper else []
    parts += [f"below the prefix {prefix!r}"] if prefix else []
    return f"the weights were found {' and '.join(parts)}" if parts else ""


def _report(plan: Blueprint, exact: Match) -> list[str]:
    pairs = (
        (exact.missing, "missing, so random"),
        (exact.unexpected, "unexpected, so left out"),
        (exact.reshaped, "of another shape, so random"),
    )
    notes = [f"{len(names)} names {word}: {first_few(names)}" for names, word in pairs if names]
    total = len(exact.tensors) + len(exact.missing) + len(exact.reshaped)
    return [f"{len(exact.tensors)} of {total} names fit {plan.name}", *notes] if notes else []


def _head_note(plan: Blueprint, classes: int | None) -> str:
    own = plan.shapes[f"{plan.head}.weight"][0]
    if classes is None:
        return "the file has no head that fits, so the head is random"
    return f"the file's head has {classes} classes, not {own}: built to that size" if classes != own else ""
