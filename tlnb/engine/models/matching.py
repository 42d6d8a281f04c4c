"""Names and shapes of a file against those of an architecture: what fits, and what does not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from tlnb.engine.models.unwrap import StateDict, prefixes, under, without_wrappers
from tlnb.errors import WeightsError

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
        WeightsError: it is complex, whole numbers for a weight that has a fraction, or not finite.
    """
    if tensor.is_complex():
        raise WeightsError(f"{name} holds complex numbers, which are no weights of this network")
    if fraction and not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise WeightsError(
            f"{name} holds whole numbers ({kind}): weights of a quantised network, or no weights; "
            "save those of the network before it was quantised"
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
