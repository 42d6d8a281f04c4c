"""State dicts: out of the wrappers of a file, and against the names and shapes of an architecture."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from tlnb.errors import WeightsError

StateDict = dict[str, Tensor]

WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params",
    "ema_state_dict", "state_dict_ema", "model_ema", "ema", "student", "teacher", "backbone", "encoder",
)  # fmt: skip
"""Keys under which training scripts keep the weights, the trained ones before their running average."""

AVERAGES = re.compile(r"teacher|ema|average|target|momentum|encoder_k|(^|[._])key", re.IGNORECASE)
"""Words in the names of networks that follow another one, which was trained itself."""

_WRAPS = frozenset(
    ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
)
_COMPILED = "_orig_mod."
_DEPTH = 4
_TRIED = 8  # prefixes, those that occur most often first


def state_dicts(content: object) -> list[tuple[StateDict, str]]:
    """Every state dict in what a file holds, the one that is meant most likely first.

    Args:
        content: what the file holds.

    Returns:
        Names and tensors of each, other entries left out, and ``""`` or the keys that led to it (``"model"``,
        ``"checkpoint/state_dict"``).
    """
    first = unwrap(content)
    found = [] if first is None else [first]
    others = sorted(_all(content, "", _DEPTH), key=lambda part: bool(AVERAGES.search(part[1])))
    return found + [part for part in others if first is None or part[1] != first[1]]


def _all(content: object, path: str, depth: int) -> Iterator[tuple[StateDict, str]]:
    if not isinstance(content, Mapping) or not depth:
        return
    tensors = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if tensors:
        yield tensors, path
    for key, inner in content.items():
        if isinstance(key, str):
            yield from _all(inner, f"{path}/{key}".strip("/"), depth - 1)


def unwrap(content: object) -> tuple[StateDict, str] | None:
    """The state dict in what a file holds, and the path to it in words.

    Args:
        content: what the file holds.

    Returns:
        Names and tensors, other entries left out, and ``""`` or the keys that led to it (``"model"``,
        ``"checkpoint/state_dict"``); None where there is no state dict.
    """
    return _unwrap(content, "", _DEPTH)


def _unwrap(content: object, path: str, depth: int) -> tuple[StateDict, str] | None:
    if not isinstance(content, Mapping) or not depth:
        return None
    entries: Mapping[Any, Any] = content
    others = sorted((k for k in entries if k not in WRAPPERS), key=lambda k: bool(AVERAGES.search(str(k))))
    for key in (*WRAPPERS, *others):
        inner = entries.get(key)
        if isinstance(inner, Mapping) and _holds_tensors(inner, depth - 1) and _looks_wrapped(entries):
            return _unwrap(inner, f"{path}/{key}".strip("/"), depth - 1)
    tensors = {k: v for k, v in entries.items() if isinstance(k, str) and isinstance(v, Tensor)}
    return (tensors, path) if tensors else None


def _looks_wrapped(entries: Mapping[Any, Any]) -> bool:
    # A state dict has tensors at its top; one stray tensor (a step counter, a loss) does not make one.
    return sum(isinstance(value, Tensor) for value in entries.values()) <= 2


def _holds_tensors(content: Mapping[Any, Any], depth: int) -> bool:
    # An optimizer's state is a mapping too, but its keys are numbers.
    return any(
        isinstance(k, str)
        and (isinstance(v, Tensor) or (depth > 0 and isinstance(v, Mapping) and _holds_tensors(v, depth - 1)))
        for k, v in content.items()
    )


def without_compiled(state: StateDict) -> StateDict:
    """The names as they were before ``torch.compile`` put its own module in between."""
    if not any(_COMPILED in name for name in state):
        return state
    return {name.replace(_COMPILED, ""): tensor for name, tensor in state.items()}


def prefixes(names: Iterable[str], known: Collection[str]) -> tuple[str, ...]:
    """What may stand before the names of an architecture in a file, told by the names that end like one of them.

    Args:
        names: in the file.
        known: names of the architecture.

    Returns:
        The empty prefix and those that occur most often, that of a network which was trained before that of one
        which follows it.
    """
    names = set(names)
    if names.issuperset(known):
        return ("",)
    counts: Counter[str] = Counter()
    for name in names:
        places = [0, *(i + 1 for i, letter in enumerate(name) if letter == ".")]
        counts.update(name[:place] for place in places if name[place:] in known)
    often = [prefix for prefix, _ in counts.most_common(_TRIED)]
    return tuple(
        sorted({"", *often}, key=lambda p: (bool(AVERAGES.search(p)), p != "", -counts[p], len(p), p))
    )


def without_wrappers(state: StateDict, known: Collection[str]) -> StateDict:
    """The names without the modules that wrap a part of a network; the very same state where there are none."""
    bare = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if name not in known and not _WRAPS.isdisjoint(parts):
            name = ".".join(part for part in parts if part not in _WRAPS)
        bare[name] = tensor
    return state if bare.keys() == state.keys() else bare


def under(state: StateDict, prefix: str) -> StateDict:
    """The part of a state dict below a prefix, by its names there."""
    if not prefix:
        return state
    return {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}


Shapes = Mapping[str, tuple[int, ...]]
"""Shape of every weight and buffer of an architecture, by its name."""

OLD_SPELLINGS = (
    # As torchvision's own loaders rename them: DenseNet before 0.3, the transformer's MLP before 0.13.
    # A word that the name must hold stands first: it is looked for far faster than the pattern.
    ("denselayer", re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)"), r"\1\2"),
    (".linear_1.", re.compile(r"(.*\.mlp)\.linear_1\.(.*)"), r"\1.0.\2"),
    (".linear_2.", re.compile(r"(.*\.mlp)\.linear_2\.(.*)"), r"\1.3.\2"),
)

# A counter for BatchNorms without a momentum; files older than it lack it, and nobody misses it.
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Match:
    """How a state dict fits an architecture.

    Attributes:
        tensors: what fits, by the architecture's names.
        missing: names that the file lacks.
        unexpected: names that the architecture lacks.
        reshaped: names that both have, with other shapes.
        prefix: what stood before every name in the file.
        shapes: for each reshaped name the shape in the file and in the architecture.
        named: everything below the prefix, by the architecture's names where it has them.
        outside: names in the file that do not stand below the prefix.
        by_place: whether the file numbers the parts of the architecture, as a Sequential of its children does.
        also: other prefixes below which as much fits.
    """

    tensors: StateDict
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]
    prefix: str
    shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    named: StateDict = field(default_factory=dict)
    outside: tuple[str, ...] = ()
    by_place: bool = False
    also: tuple[str, ...] = ()

    def describe(self) -> str:
        """``3 missing (such as fc.weight), 1 of another shape (conv1.weight: 64×1×7×7, not 64×3×7×7)``."""
        parts = [
            f"{len(names)} {word} (such as {names[0]})"
            for names, word in ((self.missing, "missing"), (self.unexpected, "unexpected"))
            if names
        ]
        if self.reshaped:
            name = self.reshaped[0]
            has, wanted = ("×".join(map(str, shape)) for shape in self.shapes[name])
            parts.append(f"{len(self.reshaped)} of another shape (such as {name}: {has}, not {wanted})")
        return "names " + ", ".join(parts) if parts else f"all {len(self.tensors)} names fit"

    def without(self, ignored: Callable[[str], bool]) -> Match:
        """The same, with troubles about some names left out."""
        missing, unexpected, reshaped = (
            tuple(name for name in names if not ignored(name))
            for names in (self.missing, self.unexpected, self.reshaped)
        )
        return replace(self, missing=missing, unexpected=unexpected, reshaped=reshaped)

    def put_into(self, model: nn.Module) -> None:
        """Copy what fits into a model of the architecture.

        Raises:
            WeightsError: something in it cannot be a weight; the model has not changed then.
        """
        own = model.state_dict()
        for name, tensor in self.tensors.items():
            check_numbers(name, tensor, own[name].is_floating_point())
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                own[name].copy_(tensor)


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight and buffer that is saved."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def match(shapes: Shapes, state: StateDict, children: Sequence[str] = ()) -> Match:
    """Fit a state dict to an architecture: below the prefix under which most of it fits, old spellings renamed.

    Where not all of it fits so, the names are also read without the modules that wrap a part of a network
    (``features.module.0``), and by place: ``4.0.conv1`` is what a Sequential of the architecture's children calls it.

    Args:
        shapes: of the architecture.
        state: from a file; its tensors are not copied.
        children: names of the architecture's own parts in order.
    """
    best = _best(shapes, state)
    bare = without_wrappers(state, shapes)
    readings = [(bare, False)] if bare is not state else []
    readings += [(reading, True) for reading in ([bare] if bare is not state else [state]) if children]
    for reading, by_place in readings:
        if best.missing or best.reshaped:
            found = _best(shapes, reading, _places(shapes, children) if by_place else {})
            best = max((best, found), key=lambda m: len(m.tensors))
    return best


def _best(shapes: Shapes, state: StateDict, places: Mapping[str, str] | None = None) -> Match:
    known = places or {name: name for name in shapes}
    found = [_match(shapes, state, prefix, places) for prefix in prefixes(state, known)]
    best = max(found, key=lambda m: len(m.tensors))  # of equal ones the first
    also = tuple(m.prefix for m in found if m is not best and len(m.tensors) == len(best.tensors) > 0)
    return replace(best, also=also)


def _places(shapes: Shapes, children: Sequence[str]) -> dict[str, str]:
    """The architecture's names by what they are called where its children are numbered."""
    number = {child: str(place) for place, child in enumerate(children)}
    split = ((name, *name.partition(".")) for name in shapes)
    return {f"{number[child]}{dot}{rest}": name for name, child, dot, rest in split if child in number}


def _match(shapes: Shapes, state: StateDict, prefix: str, places: Mapping[str, str] | None = None) -> Match:
    inside = under(state, prefix)
    if places:
        inside = {places.get(name, name): tensor for name, tensor in inside.items()}
    outside = tuple(name for name in state if not name.startswith(prefix))
    return replace(compare(shapes, renamed(inside, shapes), outside), prefix=prefix, by_place=bool(places))


def compare(shapes: Shapes, named: StateDict, outside: Sequence[str] = ()) -> Match:
    """Fit tensors to an architecture by their names as they are.

    Args:
        shapes: of the architecture.
        named: names and tensors.
        outside: further names that the architecture has no place for.
    """
    both = [name for name in shapes if name in named]
    sizes = {name: (tuple(named[name].shape), tuple(shapes[name])) for name in both}
    return Match(
        {name: named[name] for name in both if sizes[name][0] == sizes[name][1]},
        tuple(name for name in shapes if name not in named and not name.endswith(_COUNTER)),
        (*(name for name in named if name not in shapes and not name.endswith(_COUNTER)), *outside),
        tuple(name for name in both if sizes[name][0] != sizes[name][1]),
        "",
        sizes,
        named,
        tuple(outside),
    )


def check_numbers(name: str, tensor: Tensor, fraction: bool) -> None:
    """See that a tensor of a file can stand for a weight or buffer.

    Args:
        name: of the weight.
        tensor: from the file.
        fraction: whether the network's own has numbers with a fraction.

    Raises:
        WeightsError: it is complex, whole numbers for a weight that has a fraction, of eight bits, or not finite.
    """
    if tensor.is_complex():
        raise WeightsError(f"{name} holds complex numbers, which are no weights of this network")
    if fraction and not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise WeightsError(
            f"{name} holds whole numbers ({kind}): weights of a quantised network, or no weights; "
            "save those of the network before it was quantised"
        )
    if tensor.is_floating_point() and tensor.element_size() == 1:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise WeightsError(
            f"{name} holds numbers of eight bits ({kind}), which stand for weights only with their scales; save those "
            "of the network before it was quantised, or in bfloat16"
        )
    if tensor.is_floating_point() and not tensor.isfinite().all():
        count = int((~tensor.isfinite()).sum())
        raise WeightsError(
            f"{name} holds {count:,} numbers that are not finite (NaN or infinity), as after a run that "
            "diverged; take an earlier file of it"
        )


def renamed(state: Mapping[str, Tensor], known: Iterable[str]) -> StateDict:
    """Old spellings by their new names, where only the new one is known."""
    known = frozenset(known)
    return {_new_name(name, known): tensor for name, tensor in state.items()}


def _new_name(name: str, known: frozenset[str]) -> str:
    if name in known:
        return name
    for word, old, new in OLD_SPELLINGS:
        if word in name and (candidate := old.sub(new, name)) in known:
            return candidate
    return name


def first_few(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
