"""A batch of several tensors: token numbers with their mask, a picture with a row of a table, what crosses a cut.

Everything that takes a batch apart, moves it or puts it together does so by this one class, and a network is called
with one by :func:`call`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"
"""Inputs of a text network, as the whole field calls them."""
CROSSING = "crossing"
"""What crosses a cut, among inputs that the part behind it needs too."""


class Tree:
    """Tensors by name, each with the samples in front; ``len`` is the number of samples.

    It can be used where a tensor can: ``to``, ``clone``, ``tensor_split`` and slices act on each part. A network takes
    the parts by the names of its arguments, ``model(**batch)``, or in order where the names are ``0``, ``1`` ….

    Args:
        parts: at least one tensor; all have as many rows.
    """

    def __init__(self, parts: Mapping[str, Tensor]):
        self._parts = dict(parts)

    def keys(self) -> Any:
        """The names of the parts."""
        return self._parts.keys()

    def items(self) -> Any:
        """Names and parts."""
        return self._parts.items()

    def values(self) -> Any:
        """The parts."""
        return self._parts.values()

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, str):
            return self._parts[at]
        return self.map(lambda part: part[at])

    def __len__(self) -> int:
        return len(next(iter(self._parts.values())))

    def __repr__(self) -> str:
        return f"<{', '.join(f'{name} {tuple(part.shape)}' for name, part in self.items())}>"

    def map(self, change: Callable[[Tensor], Tensor]) -> Tree:
        """The same parts after ``change``."""
        return Tree({name: change(part) for name, part in self.items()})

    def with_part(self, name: str, part: Tensor) -> Tree:
        """The same with one part more, or another one."""
        return Tree({**self._parts, name: part})

    def without(self, name: str) -> Tree:
        """The same without a part."""
        return Tree({n: part for n, part in self.items() if n != name})

    def to(self, *args: Any, **named: Any) -> Tree:
        """Each part on a device."""
        return self.map(lambda part: part.to(*args, **named))

    def clone(self, **named: Any) -> Tree:
        """Copies of all parts."""
        return self.map(lambda part: part.clone())

    def detach(self) -> Tree:
        """Each part without the steps that made it."""
        return self.map(Tensor.detach)

    def tensor_split(self, count: int) -> tuple[Tree, ...]:
        """So many pieces, as even as can be."""
        pieces = {name: part.tensor_split(count) for name, part in self.items()}
        return tuple(Tree({name: pieces[name][i] for name in pieces}) for i in range(count))

    @property
    def shape(self) -> torch.Size:
        """The number of samples; further dimensions are those of the parts."""
        return torch.Size((len(self),))

    @property
    def device(self) -> torch.device:
        """Where the parts are."""
        found: torch.device = next(iter(self._parts.values())).device
        return found

    @property
    def is_meta(self) -> bool:
        """Whether there are no numbers."""
        return any(part.is_meta for part in self.values())

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.values())

    def dim(self) -> int:
        """1: the samples are the only dimension that all parts share."""
        return 1

    def is_floating_point(self) -> bool:
        """False: it is no tensor that could take a gradient."""
        return False


Batch = Tensor | Tree


def call(forward: Callable[..., Any], x: Batch) -> Any:
    """What a network answers to a batch: a tree goes in by the names of its parts.

    Args:
        forward: a module, or a part of one.
        x: a tensor (B, ...) or a tree.
    """
    if not isinstance(x, Tree):
        return forward(x)
    if all(name.isdecimal() for name in x):
        return forward(*x.values())
    return forward(**x)


def as_batch(made: Any) -> Any:
    """A dict of tensors, or several in a tuple, as a tree; anything else as it is."""
    if isinstance(made, Mapping):
        return Tree({str(name): torch.as_tensor(part) for name, part in made.items()})
    if isinstance(made, tuple | list) and made and all(isinstance(part, Tensor) for part in made):
        return Tree({str(place): part for place, part in enumerate(made)})
    return made


def named_parts(x: Batch, name: str = "") -> list[tuple[str, Tensor]]:
    """The tensors of a batch with a name each: ``name``, and in a tree that of the part."""
    return [(f"{name}.{part}", x[part]) for part in x] if isinstance(x, Tree) else [(name, x)]


def repeated(x: Any, count: int) -> Any:
    """A batch of exactly ``count`` samples: those of ``x``, again and again."""
    if isinstance(x, Tree):
        return x.map(lambda part: repeated(part, count))
    times = -(-count // max(len(x), 1))
    return torch.cat([x] * times)[:count]


def lengths_of(x: Batch) -> Tensor | None:
    """How many tokens each sample has, (B,), by its mask; None where there is none, or padding is not at the end."""
    if not isinstance(x, Tree) or MASK not in x or x[MASK].dim() != 2:
        return None
    mask: Tensor = x[MASK]
    lengths = mask.long().sum(1)
    behind = torch.arange(mask.shape[1], device=mask.device) >= lengths[:, None]
    return lengths if bool(((mask == 0) == behind).all()) else None


def width_of(x: Batch) -> int | None:
    """To how many tokens the samples are padded; None where they are no texts."""
    if not isinstance(x, Tree):
        return None
    part = next((x[name] for name in (IDS, MASK) if name in x), None)
    return None if part is None else int(part.shape[1])
