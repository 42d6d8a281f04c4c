"""A network together with what has to be known to use it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import torch
from torch import nn

from tlnb.engine.core.tree import IDS, MASK, Batch, Tree, width_of
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.data.tokens import AnyPreprocess, TextPreprocess
from tlnb.engine.network.head import outputs_of

RANDOM = "random"
MOST_NUMBERS = 1 << 26  # in one sample
TOKENS = 12  # of a text whose length is not known
_SMALL = 5  # different token ids in an example; every vocabulary has more


@dataclass(frozen=True)
class Input:
    """What one sample of a network's input looks like.

    Attributes:
        shape: without the batch dimension; empty where there are parts.
        dtype: of its numbers; int64 for token ids.
        parts: of an input of several tensors, each with its name.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    parts: tuple[tuple[str, Input], ...] = ()

    def check(self) -> None:
        """See that an input of a file can be: no more numbers than fit, and parts without parts.

        Raises:
            ValueError: it cannot.
        """
        if math.prod(self.shape) > MOST_NUMBERS or any(part.parts for _, part in self.parts):
            raise ValueError("no network takes such samples")

    def alike(self, other: Input) -> bool:
        """Whether both are of one kind, such as pictures, of whatever size."""
        return (len(self.shape), self.dtype, len(self.parts)) == (
            len(other.shape),
            other.dtype,
            len(other.parts),
        )

    @classmethod
    def of(cls, batch: Batch) -> Input:
        """The input that this batch (B, ...) is made of; of texts, with a usual number of tokens."""
        if not isinstance(batch, Tree):
            return cls(tuple(batch.shape[1:]), batch.dtype)
        width, parts = width_of(batch), []
        for name, part in batch.items():
            shape = tuple(part.shape[1:])
            if width is not None and shape[:1] == (width,):
                shape = (TOKENS, *shape[1:])  # how long the longest text of a batch is says nothing
            parts.append((name, cls(shape, part.dtype)))
        return cls((), torch.int64, tuple(parts))

    def example(self, device: torch.device | str = "cpu") -> Any:
        """A batch of three samples: numbers from 0 to 1, other ones in each; zeros where token ids are wanted.

        Of several tensors a tree; masks are ones, and the token ids of a text are small numbers above zero.
        """
        if self.parts:
            return Tree({name: self._part(name, part, device) for name, part in self.parts})
        if not self.dtype.is_floating_point:
            return torch.zeros((3, *self.shape), dtype=self.dtype, device=device)
        generator = torch.Generator().manual_seed(0)
        return torch.rand((3, *self.shape), generator=generator, dtype=torch.float32).to(device, self.dtype)

    @staticmethod
    def _part(name: str, part: Input, device: torch.device | str) -> torch.Tensor:
        made: torch.Tensor = part.example(device)
        if name == MASK:
            return torch.ones_like(made)
        if name == IDS:
            numbers = torch.arange(made.numel(), device=device).reshape(made.shape)
            return (numbers % _SMALL + 1).to(made.dtype)
        return made

    def describe(self) -> str:
        """``3×224×224``, ``16 token ids``."""
        if self.parts:
            names = [name for name, _ in self.parts]
            if IDS in names:
                return f"texts as {', '.join(names)}"
            return ", ".join(f"{name} {part.describe()}" for name, part in self.parts)
        size = "×".join(map(str, self.shape)) or "1 number"
        return size if self.dtype.is_floating_point else f"{size} token ids ({self.dtype})"


@dataclass
class LoadedModel:
    """A network, and what has to be known to use it.

    Attributes:
        model: in test mode, on the CPU.
        name: what the user called it.
        weights: where its weights came from, in words.
        preprocess: what its pictures must look like, or how its texts are cut into tokens.
        categories: names of the classes that its head knows, or None where nobody told.
        head: qualified name of the classifier module; empty where no linear or convolution layer ends it.
        side_heads: further classifiers, that help in training alone (Inception, GoogLeNet, DeiT).
        recipe: plain values by which the same architecture can be built again (transformers); None elsewhere.
        width: number of scores a sample that it was seen to answer; None where it was not looked at.
        behind: activation behind the head, which a new head has none of (SqueezeNet); empty for none.
        notes: what the user should know about how it was loaded, a line each.
        input: one sample of its input; None where only data will tell.
        any_size: whether pictures of the data's own size fit as well as those of ``preprocess``.
        own: whether it is a module of the user's.
        task: name of what its head was trained for.
        fresh: builds the same architecture with new weights; None for a module of the user's.
        fixed: weights that a module of the user's keeps from training (``requires_grad=False``).
    """

    model: nn.Module
    name: str
    weights: str
    preprocess: AnyPreprocess
    categories: tuple[str, ...] | None
    head: str
    side_heads: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    input: Input | None = None
    any_size: bool = False
    own: bool = False
    task: str = ""
    fresh: Callable[[], nn.Module] | None = None
    fixed: frozenset[str] = frozenset()
    behind: str = ""
    width: int | None = None
    recipe: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.task = self.task or self.name
        if self.input is None and isinstance(self.preprocess, TextPreprocess):
            tokens = Input((min(TOKENS, self.preprocess.most),), torch.int64)
            self.input = Input((), torch.int64, tuple((name, tokens) for name in self.preprocess.names))
        elif self.input is None and not self.own:
            assert isinstance(self.preprocess, Preprocess)
            self.input = Input((self.preprocess.channels, *self.preprocess.size))

    @property
    def trained(self) -> bool:
        """Whether its weights may be worth keeping."""
        return self.weights != RANDOM

    @property
    def places(self) -> tuple[str, ...]:
        """Where modules of a task stand: its head, side heads, and the activation behind the head."""
        return tuple(place for place in (self.head, *self.side_heads, self.behind) if place)

    @property
    def outputs(self) -> int | None:
        """How many class scores it gives; None where neither a head nor an answer is known."""
        return outputs_of(self.model.get_submodule(self.head)) if self.head else self.width

    def tell(self, note: str) -> None:
        """Add a line to the notes, where it does not stand there yet."""
        self.notes = self.notes if note in self.notes else (*self.notes, note)

    def describe_input(self) -> str:
        """One line about what it takes."""
        if self.input is None:
            return "not known until data is named (or said: --input 1,28,28)"
        if isinstance(self.preprocess, TextPreprocess):
            return self.preprocess.describe()
        if len(self.input.shape) == 3 and self.input.dtype.is_floating_point:
            return self.preprocess.describe()
        return self.input.describe()

    def __repr__(self) -> str:
        count = sum(p.numel() for p in self.model.parameters())
        classes = f"{self.outputs} classes" if self.outputs is not None else ""
        classes = ", ".join(filter(None, (classes, "" if self.head else "no head that could be replaced")))
        lines = [f"{self.name}: {count:,} parameters, weights {self.weights}, {classes}"]
        return "\n".join([*lines, f"input {self.describe_input()}", *self.notes])

    def _repr_html_(self) -> str:
        return "<div>" + "<br>".join(map(escape, repr(self).splitlines())) + "</div>"
