"""Sets of samples that stand together: several in a row."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from tlnb.engine.core.machine import ahead
from tlnb.engine.core.tree import Tree
from tlnb.engine.data.samples import PictureSamples, Samples
from tlnb.engine.data.text_samples import TextSamples


class JoinedSamples(Samples):
    """Several sets in a row, numbered through.

    Args:
        parts: sets of one form of input.
    """

    def __init__(self, parts: Sequence[Samples]):
        self.parts = tuple(parts)
        self.targets = torch.cat([part.targets for part in parts])
        self.random = any(part.random for part in parts)
        self.at_hand = all(part.at_hand for part in parts)
        self.wholes = _numbered_through(parts)
        self._ends = torch.tensor([len(part) for part in parts]).cumsum(0)

    def batch(self, indices: Tensor) -> Any:
        """Network input for these samples, from whichever sets they are in."""
        return self._gathered(indices, [part.batch for part in self.parts])

    def _gathered(self, indices: Tensor, asked: Sequence[Callable[[Tensor], Any]]) -> Any:
        pieces = [(places, asked[number](rows)) for number, places, rows in self._places(indices)]
        return pieces[0][1] if len(pieces) == 1 else _assembled(len(indices), pieces)

    def _places(self, indices: Tensor) -> list[tuple[int, Tensor, Tensor]]:
        """For each set that is asked: its number, places in the batch, and numbers in the set."""
        of = torch.searchsorted(self._ends, indices, right=True)
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), self._ends[:-1]])
        found = []
        for number in of.unique().tolist():
            places = (of == number).nonzero().flatten()
            found.append((number, places, indices[places] - starts[number]))
        return found

    def view(self, *numbers: int) -> Samples:
        """All sets as a certain stage and epoch see them."""
        return joined([part.view(*numbers) for part in self.parts]) if self.random else self

    def fingerprint(self) -> str:
        """Of all sets."""
        return hashlib.sha256(" ".join(part.fingerprint() for part in self.parts).encode()).hexdigest()


def _assembled(count: int, pieces: list[tuple[Tensor, Any]]) -> Any:
    """One batch of pieces and the places of their samples in it."""
    first = pieces[0][1]
    if isinstance(first, Tree):
        return Tree(
            {name: _assembled(count, [(places, some[name]) for places, some in pieces]) for name in first}
        )
    made = first.new_empty((count, *first.shape[1:]))
    if first.dim() == 4 and first.is_contiguous(memory_format=torch.channels_last):
        made = made.contiguous(memory_format=torch.channels_last)
    for places, some in pieces:
        made[places.to(made.device)] = some
    return made


def _numbered_through(parts: Sequence[Samples]) -> Tensor | None:
    """The numbers of all wholes; None where no set is of pieces."""
    if all(part.wholes is None for part in parts):
        return None
    numbers, start = [], 0
    for part in parts:
        own = torch.arange(len(part)) if part.wholes is None else part.wholes
        numbers.append(own + start)
        start += int(own.max()) + 1
    return torch.cat(numbers)


class JoinedPictures(JoinedSamples, PictureSamples):
    """The same, of pictures that one network takes."""

    def __init__(self, parts: Sequence[PictureSamples]):
        super().__init__(parts)
        self.preprocess = parts[0].preprocess
        self._pictures = tuple(parts)

    def pixels(self, indices: Tensor) -> Tensor:
        """Pictures at training size: (B, C, H, W)."""
        return self._gathered(indices, [part.pixels for part in self._pictures])

    def whole(self, indices: Tensor) -> list[Tensor]:
        """The same after the resize and before the crop: B tensors (C, H, W)."""
        pictures: dict[int, Tensor] = {}
        for number, places, rows in self._places(indices):
            pictures |= zip(places.tolist(), self._pictures[number].whole(rows), strict=True)
        return [pictures[place] for place in range(len(indices))]

    def stream(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """Batches decoded ahead of the one who trains on them, where decoding takes time."""
        # Another's data set is called in the thread of the one who trains, as it would be without tlnb.
        readers = [getattr(part, "reader", None) for part in self.parts]
        if self.at_hand or not all(getattr(reader, "threads", True) for reader in readers):
            return super().stream(batches)
        return ahead(self.batch, batches)


def joined(parts: Sequence[Samples]) -> Samples:
    """Several sets in a row; a single one as it is."""
    if len(parts) == 1:
        return parts[0]
    texts = [part for part in parts if isinstance(part, TextSamples)]
    if len(texts) == len(parts):
        every = [text for part in texts for text in part.texts]
        return TextSamples(every, torch.cat([part.targets for part in texts]), texts[0].preprocess)
    pictures = [part for part in parts if isinstance(part, PictureSamples)]
    return JoinedPictures(pictures) if len(pictures) == len(parts) else JoinedSamples(parts)
