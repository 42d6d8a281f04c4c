"""Weights of a user's file in an architecture: found, built to the file's sizes, filled, and reported on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from tlnb.display.tables import printable
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.models import weights as files
from tlnb.engine.models.published import Blueprint, blueprint, build
from tlnb.engine.models.recognise import fit_sized, recognise_any
from tlnb.engine.models.state_dicts import Match, StateDict, compare, first_few, shapes_of
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


Build = Callable[[int | None, int | None], nn.Module]
"""Makes an architecture for so many classes (None for its own) and an input of that size."""


def fill(path: str, arch: str | None = None, part: str | None = None) -> Filled:
    """Build the network that a file holds the weights of, and fill it.

    The body must be there completely. The head is built to the file's size; where the file has none, or one
    of another form, it has random weights. Auxiliary classifiers may be missing.

    Args:
        path: a safetensors file, or a ``.pth`` of a state dict.
        arch: ``convnet5`` or an architecture of torchvision; None to find it by names and shapes.
        part: which weights, where the file holds those of several networks (``teacher``); None to choose.

    Raises:
        WeightsError: an unsafe or broken file, no such architecture or part, or a body that does not fit.
    """
    found = files.read_parts(path, part)
    source = files.named_by_kind(path)
    name = arch or recognise_any([state for state, _ in found], source)
    keys, size, exact = best_part(found, lambda state: fit_sized(name, state))
    plan = blueprint(name, size)

    def make(classes: int | None, image_size: int | None) -> nn.Module:
        return build(name, classes=classes, image_size=image_size)

    return fill_plan(plan, exact, make, source, size, where=keys)


def fill_plan(
    plan: Blueprint, found: Match, make: Build, source: str, size: int | None = None, where: str = ""
) -> Filled:
    """Build an architecture to what a file holds, and fill it.

    Args:
        plan: of the architecture.
        found: how the file fits its body.
        make: builds it.
        source: the file, in words.
        size: of its input in pixels, where the file asks for another than usual.
        where: the keys that led to the weights in the file, as a part of a sentence.

    Raises:
        WeightsError: the body does not fit, or holds what is no weight.
    """
    if found.missing or found.reshaped:
        raise WeightsError(f"{source} does not fit {plan.name}: {found.describe()}")
    state, head, notes = found.named, _head_in(plan, found.named), []
    if head is not None and head != plan.head:
        notes.append(f"the file keeps its head as {head}")
        state = _moved(state, head, plan.head)
    classes = _classes(plan, state)
    model = make(classes, size)
    exact = compare(shapes_of(model), state, found.outside)
    try:
        exact.put_into(model)
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}") from None
    notes = [_where(where, found), *_report(plan, exact), *notes, _head_note(plan, classes)]
    return Filled(plan.name, model, tuple(filter(None, notes)), size, classes, classes is None)


def best_part(
    parts: Sequence[tuple[StateDict, str]], fits: Callable[[StateDict], tuple[int | None, Match]]
) -> tuple[str, int | None, Match]:
    """Which of a file's state dicts fits an architecture best.

    Returns:
        Its keys in the file in words, the input size that it asks for, and how it fits.
    """
    tried = [(keys, *fits(state)) for state, keys in parts]

    def worth(one: tuple[str, int | None, Match]) -> tuple[bool, int]:
        return not (one[2].missing or one[2].reshaped), len(one[2].tensors)

    best = max(tried, key=worth)  # of equal ones the first
    others = [
        keys for keys, *_ in (one for one in tried if one is not best and worth(one) == worth(best)) if keys
    ]
    words = f"under the key {best[0]!r}" if best[0] else ""
    if words and others:
        words += f" (--weights NAME takes those under {', '.join(map(repr, others))})"
    return words, best[1], best[2]


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


def _head_in(plan: Blueprint, named: StateDict) -> str | None:
    """Where the file's head stands, if it is one layer of the form of the architecture's own."""
    wanted = plan.shapes[f"{plan.head}.weight"]
    root = plan.head.split(".")[0]
    likely = [
        name.removesuffix(".weight")
        for name in named
        if name.endswith(".weight") and (name == f"{root}.weight" or name.startswith(f"{root}."))
        and (name.removesuffix(".weight") == plan.head or name not in plan.shapes)
    ]  # fmt: skip
    heads = [h for h in likely if named[f"{h}.weight"].dim() == len(wanted)]
    if len(heads) != 1 or named[f"{heads[0]}.weight"].shape[1:] != wanted[1:]:
        return None
    return heads[0]


def _moved(state: StateDict, old: str, new: str) -> StateDict:
    return {
        new + name.removeprefix(old) if name.startswith(old + ".") else name: t for name, t in state.items()
    }


def _classes(plan: Blueprint, named: StateDict) -> int | None:
    weight = named.get(f"{plan.head}.weight")
    wanted = plan.shapes[f"{plan.head}.weight"]
    return weight.shape[0] if weight is not None and weight.shape[1:] == wanted[1:] else None


def _where(wrapper: str, found: Match) -> str:
    parts = [wrapper] if wrapper else []
    parts += [f"below the prefix {found.prefix!r}"] if found.prefix else []
    parts += (
        ["with the parts of the network numbered, as in a Sequential of its children"]
        if found.by_place
        else []
    )
    if not parts:
        return ""
    others = ", ".join(repr(prefix.rstrip(".")) for prefix in found.also)
    choice = f"; so do those of {others}: --weights NAME takes them" if others else ""
    return f"the weights were found {' and '.join(parts)}{choice}"


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
