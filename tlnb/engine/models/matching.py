"""Names and shapes of a file against those of an architecture: what fits, and what does not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tlnb.engine.models.unwrap import StateDict, prefixes, under

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
    """

    tensors: StateDict
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]
    prefix: str
    shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]

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
        return Match(self.tensors, missing, unexpected, reshaped, self.prefix, self.shapes)

    def put_into(self, model: nn.Module) -> None:
        """Copy what fits into a model of the architecture."""
        own = model.state_dict()
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                own[name].copy_(tensor)


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight and buffer that is saved."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def match(shapes: Shapes, state: StateDict) -> Match:
    """Fit a state dict to an architecture, under the prefix that fits best and with old spellings renamed.

    Args:
        shapes: of the architecture.
        state: from a file; its tensors are not copied.
    """
    return max((_match(shapes, state, prefix) for prefix in prefixes(state)), key=lambda m: len(m.tensors))


def _match(shapes: Shapes, state: StateDict, prefix: str) -> Match:
    named = renamed(under(state, prefix), shapes)
    both = [name for name in shapes if name in named]
    sizes = {name: (tuple(named[name].shape), tuple(shapes[name])) for name in both}
    outside = [name for name in state if not name.startswith(prefix)]
    return Match(
        {name: named[name] for name in both if sizes[name][0] == sizes[name][1]},
        tuple(name for name in shapes if name not in named and not name.endswith(_COUNTER)),
        (*(name for name in named if name not in shapes and not name.endswith(_COUNTER)), *outside),
        tuple(name for name in both if sizes[name][0] != sizes[name][1]),
        prefix,
        sizes,
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
