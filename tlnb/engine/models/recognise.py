"""Which architecture a state dict belongs to, told by its names and shapes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import torchvision

from tlnb.engine.models.published import CONVNET5, blueprint, is_vit, torchvision_names
from tlnb.engine.models.state_dicts import Match, StateDict, match
from tlnb.errors import WeightsError

_TRIED = 4  # state dicts of one file
_SMALLEST = ("densenet121", "efficientnet_b0", "efficientnet_v2_s", "mobilenet_v3_small", "regnet_x_400mf",
             "regnet_y_400mf", "resnet18", "resnet50", "swin_t", "swin_v2_t", "vgg11", "vgg11_bn", "vit_b_32",
             "convnext_tiny", "mnasnet0_5", "shufflenet_v2_x0_5", "squeezenet1_1")  # fmt: skip


def recognise(state: StateDict, source: str) -> str:
    """The architecture whose body this state dict fills completely.

    The name of the file is tried first. Then one member of each family is built, and the families whose
    names look most like the file's are gone through member by member.

    Args:
        state: names and tensors.
        source: name of the file, for the first guess and for messages.

    Raises:
        WeightsError: there is none; says which came nearest.
    """
    complete: list[tuple[int, str]] = []
    best: tuple[float, str, Match] | None = None
    for name in _candidates(state, source):
        found = fit(name, state)
        if not (found.missing or found.reshaped):
            # A deeper network holds all names of a shallow one, and more.
            if not found.unexpected:
                return name
            complete.append((len(found.unexpected), name))
        share = len(found.tensors) / max(len(blueprint(name).shapes), 1)
        if best is None or share > best[0]:
            best = (share, name, found)
    if complete:
        return min(complete)[1]
    raise WeightsError(f"{source} fits no architecture that tlnb knows; {_nearest(best)}")


def recognise_any(states: Sequence[StateDict], source: str) -> str:
    """The architecture of the first of these state dicts that fills one.

    Args:
        states: in the order in which they are tried.
        source: name of the file, for the first guess and for messages.

    Raises:
        WeightsError: none does; says what came nearest to the first.
    """
    errors = []
    for state in states[:_TRIED]:
        try:
            return recognise(state, source)
        except WeightsError as error:
            errors.append(error)
    raise errors[0]


def fit_sized(name: str, state: StateDict) -> tuple[int | None, Match]:
    """The input size that a state dict asks for, where it is not the usual one, and how the state dict fits."""
    return image_size_in(name, state), fit(name, state)


def fit(name: str, state: StateDict) -> Match:
    """How a state dict fits the body of an architecture; its head and auxiliary classifiers do not count."""
    plan = blueprint(name, image_size_in(name, state))
    return match(plan.shapes, state, plan.children).without(lambda key: not plan.is_body(key))


def image_size_in(name: str, state: StateDict) -> int | None:
    """The input size, in pixels, that a file's position embedding was made for, if not the usual one."""
    if not is_vit(name):
        return None
    plan = blueprint(name)
    embedding = next((t for key, t in state.items() if key.endswith("encoder.pos_embedding")), None)
    if embedding is None or embedding.dim() != 3:
        return None
    side = round((embedding.shape[1] - 1) ** 0.5)
    size = side * plan.shapes["conv_proj.weight"][-1]
    own = plan.shapes["encoder.pos_embedding"][1]
    return size if side * side + 1 == embedding.shape[1] != own else None


def _nearest(best: tuple[float, str, Match] | None) -> str:
    advice = "say which by --arch NAME (such as --arch resnet18 or --arch timm/NAME), or load it as $var"
    if best is None or best[0] < 0.2:
        return advice
    return f"nearest is {best[1]}: {best[2].describe()}; {advice}"


def _candidates(state: StateDict, source: str) -> Iterator[str]:
    tried: set[str] = set()
    ordered = (*_named_like(source), CONVNET5)
    for name in ordered:
        if name not in tried:
            tried.add(name)
            yield name
    kinds = _kinds(state)
    ranked = sorted(_families(), key=lambda family: -_overlap(kinds, family))
    for family in ranked[:4]:
        for name in family:
            if name not in tried:
                tried.add(name)
                yield name


def _named_like(source: str) -> list[str]:
    stem = re.sub(r"[^a-z0-9]", "", Path(source).stem.lower())
    plain = {name: name.replace("_", "") for name in torchvision_names()}
    return sorted((n for n, p in plain.items() if p in stem), key=lambda n: -len(n))


@cache
def _families() -> tuple[tuple[str, ...], ...]:
    """Architectures whose names of weights look alike; the one to build first stands in front."""
    modules: dict[str, list[str]] = {}
    for name in torchvision_names():
        maker = torchvision.models.get_model_builder(name)
        modules.setdefault(inspect.unwrap(maker).__module__ + _variant(name), []).append(name)
    return tuple(tuple(sorted(names, key=lambda n: (n not in _SMALLEST, n))) for names in modules.values())


def _variant(name: str) -> str:
    return ":bn" if name.endswith("_bn") else ":v2" if "_v2" in name else ""


def _overlap(kinds: frozenset[str], family: tuple[str, ...]) -> float:
    own = _kinds(blueprint(family[0]).shapes)
    return len(kinds & own) / len(kinds | own)


def _kinds(names: Iterable[str]) -> frozenset[str]:
    """The last parts of the names without their numbers: what the weights of a family are called."""
    return frozenset(re.sub(r"\d+", "#", ".".join(name.split(".")[-3:])) for name in names)
