"""Samples, as training asks for them: by index, in batches; a choice of them; those of another's data set."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tlnb.engine.core.fingerprint import tensors_digest
from tlnb.engine.core.seeds import own_stream, seed_for
from tlnb.engine.core.tree import Batch, Tree, as_batch, lengths_of, named_parts
from tlnb.engine.data.fingerprint import of_rows, of_some
from tlnb.engine.data.preprocess import Preprocess

COPIED = 64 << 20  # bytes of pictures up to which a choice of them is copied, not looked up in all


class Samples(ABC):
    """Inputs of a network and their targets.

    Attributes:
        targets: int64 of shape (N,) for classes; float32 of shape (N, labels) or (N, values) otherwise.
        random: whether a batch differs from view to view (augmentation).
        at_hand: whether making a batch costs little more than copying it.
        wholes: where samples are pieces (of clips of sound), the number of the whole that each belongs to, rising:
            int64 of shape (N,); answers are for wholes then, see :func:`tlnb.engine.data.wholes.of_wholes`. None
            where each sample stands alone.
        lengths: tokens of each text, (N,); None where all samples have one size.
        origin: a set whose inputs they are, and their rows in it, int64 of shape (N,): what is computed once for it,
            such as features of a frozen part, serves them too. None where there is none.
    """

    targets: Tensor
    random: bool = False
    at_hand: bool = False
    wholes: Tensor | None = None
    lengths: Tensor | None = None
    origin: tuple[Samples, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @abstractmethod
    def batch(self, indices: Tensor) -> Any:
        """Network input for these samples.

        Args:
            indices: int64 of shape (B,).

        Returns:
            float32 of shape (B, ...), a fresh tensor that the caller may change; or a tree of tensors
            (``core.tree.Tree``).
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """A digest of the content, equal for equal samples.

        Where samples are files, a file that has changed since is read anew from now on.
        """

    def inputs_digest(self) -> str:
        """A digest of the inputs at a bounded cost; empty where they are random by themselves.

        It is the same in another process, and tells whether these are the samples of another time.
        """
        return "" if self.random else of_some(len(self), self.batch)

    def under(self, targets: Tensor) -> Samples:
        """The same samples under other targets."""
        made = copy.copy(self)
        made.targets = targets
        return made

    def some(self, rows: Tensor) -> Samples:
        """Some of the samples, in this order: int64 of shape (n,); copied where that costs little."""
        return self.portion(rows)

    def portion(self, rows: Tensor) -> Portion:
        """Some of the samples, in this order; what is computed once for a sample is computed for the whole set."""
        return Portion(self, rows)

    def view(self, *numbers: int) -> Samples:
        """The samples as a certain stage and epoch see them.

        Random samples are a function of these numbers and the index alone, so that training can be repeated
        and resumed anywhere; all others are the same in every view.
        """
        return self

    def stream(self, batches: Iterable[Tensor]) -> Iterator[Any]:
        """``batch`` for each, in order; where that takes time, it is done ahead in threads."""
        for indices in batches:
            yield self.batch(indices)

    def warm(self) -> None:  # noqa: B027 - nothing to do is the usual case
        """Begin in threads what the first batches of all samples in order will need, where that takes time."""


class PictureSamples(Samples):
    """Samples that are pictures.

    Attributes:
        preprocess: how pixels become network input.
    """

    preprocess: Preprocess

    @abstractmethod
    def pixels(self, indices: Tensor) -> Tensor:
        """Pictures at training size: (B, C, H, W), uint8 in 0..255 or floating point in 0..1."""

    @abstractmethod
    def whole(self, indices: Tensor) -> list[Tensor]:
        """The same after the resize and before the crop, each of its own size: B tensors (C, H, W)."""

    def batch(self, indices: Tensor) -> Tensor:
        """Normalised pictures: float32 of shape (B, C, H, W)."""
        return self.preprocess.normalise(self.pixels(indices))

    def portion(self, rows: Tensor) -> Portion:
        """Some of the pictures, as pictures."""
        return PicturePortion(self, rows)


class ImageSamples(PictureSamples):
    """Images kept in memory at the size that the network takes.

    Args:
        images: uint8 in 0..255, or floating point in 0..1, of shape (N, C, H, W).
        targets: of shape (N,) or (N, outputs).
        preprocess: how pixels become network input.
        originals: the images as they came, of shape (N, C', H', W'); None where these are all there is.
    """

    at_hand = True

    def __init__(
        self, images: Tensor, targets: Tensor, preprocess: Preprocess, originals: Tensor | None = None
    ):
        self.images, self.targets, self.preprocess = images, targets, preprocess
        self.originals = originals

    def pixels(self, indices: Tensor) -> Tensor:
        """These images."""
        return self.images[indices]

    def whole(self, indices: Tensor) -> list[Tensor]:
        """These images before the crop, as far as there is more of them."""
        if self.originals is None or self.preprocess.resize is None:
            return list(self.images[indices])
        return list(self.preprocess.colour(self.preprocess.scale(self.originals[indices])))

    def fingerprint(self) -> str:
        """SHA-256 over pixels, targets and preprocessing."""
        return tensors_digest([("images", self.images), ("targets", self.targets)], note=str(self.preprocess))

    def inputs_digest(self) -> str:
        """Of the images, and of the originals where there is more of them."""
        more = self.originals
        return of_rows(self.images) + (of_rows(more) if more is not None and more is not self.images else "")

    def some(self, rows: Tensor) -> Samples:
        """Some of the images, copied where they are few."""
        if self.images.nbytes > COPIED:
            return self.portion(rows)
        whole = None if self.originals is None else self.originals[rows]
        return ImageSamples(self.images[rows], self.targets[rows], self.preprocess, whole)


class TensorSamples(Samples):
    """Inputs kept in memory just as the network takes them.

    Args:
        inputs: shape (N, ...), any dtype; or a tree of such.
        targets: of shape (N,) or (N, outputs).
    """

    at_hand = True

    def __init__(self, inputs: Batch, targets: Tensor):
        self.inputs, self.targets = inputs, targets
        self.lengths = lengths_of(inputs)

    def batch(self, indices: Tensor) -> Any:
        """A copy of these rows of the inputs."""
        if isinstance(self.inputs, Tree):
            return self.inputs.map(lambda part: part.index_select(0, indices))
        return self.inputs.index_select(0, indices)

    def fingerprint(self) -> str:
        """SHA-256 over inputs and targets."""
        return tensors_digest([*named_parts(self.inputs, "inputs"), ("targets", self.targets)])

    def inputs_digest(self) -> str:
        """Of the rows."""
        return "".join(of_rows(part) for _, part in named_parts(self.inputs))

    def some(self, rows: Tensor) -> Samples:
        """Some of the rows, copied."""
        return TensorSamples(self.inputs[rows], self.targets[rows])


def with_targets(samples: Samples, targets: Tensor) -> Samples:
    """The same samples under other targets."""
    return samples.under(targets.to(torch.float32) if targets.is_floating_point() else targets)


class SubsetSamples(Samples):
    """Some of the samples of a set, in a given order.

    Args:
        source: the whole set.
        rows: int64 of shape (n,), places in it.
    """

    def __init__(self, source: Samples, rows: Tensor):
        self.source, self.rows = source, rows
        self.targets, self.random = source.targets[rows], source.random
        self.at_hand = source.at_hand
        self.wholes = None if source.wholes is None else source.wholes[rows]
        self.lengths = None if source.lengths is None else source.lengths[rows]

    def batch(self, indices: Tensor) -> Any:
        """Network input for these places in the choice."""
        return self.source.batch(self.rows[indices])

    def stream(self, batches: Iterable[Tensor]) -> Iterator[Any]:
        """``batch`` for each, in order; prepared ahead where the source does so."""
        return self.source.stream(self.rows[indices] for indices in batches)

    def view(self, *numbers: int) -> Samples:
        """The same choice, as a certain stage and epoch see it."""
        return SubsetSamples(self.source.view(*numbers), self.rows) if self.random else self

    def fingerprint(self) -> str:
        """Of the source and the choice."""
        return tensors_digest([("rows", self.rows)], note=self.source.fingerprint())


class Portion(SubsetSamples):
    """Some of the samples of a set whose other ones are asked for as well, such as all folds but one.

    What is computed once for a sample, such as features of a frozen part, is computed for the whole set.
    """

    def inputs_digest(self) -> str:
        """Of the set, and which of its samples."""
        return tensors_digest([("places", self.rows)], note=self.source.inputs_digest())


class PicturePortion(Portion, PictureSamples):
    """The same, of pictures."""

    source: PictureSamples

    def __init__(self, source: PictureSamples, rows: Tensor):
        super().__init__(source, rows)
        self.preprocess = source.preprocess

    def pixels(self, indices: Tensor) -> Tensor:
        """Pictures at training size: (B, C, H, W)."""
        return self.source.pixels(self.rows[indices])

    def whole(self, indices: Tensor) -> list[Tensor]:
        """The same after the resize and before the crop: B tensors (C, H, W)."""
        return self.source.whole(self.rows[indices])


def choose(samples: Samples, most: int, seed: int) -> Samples:
    """At most so many samples, drawn at random; of classes, as evenly as they are there.

    Args:
        samples: the whole set; it is given back itself where it is small enough.
        most: how many at most.
        seed: of the choice.
    """
    if len(samples) <= most:
        return samples
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
    if samples.targets.is_floating_point():
        return SubsetSamples(samples, order[:most].sort().values)
    # Each sample's turn within its class; the first turns of all classes come first.
    targets = samples.targets[order]
    turn = torch.empty(len(order), dtype=torch.int64)
    for c in targets.unique():
        of_class = (targets == c).nonzero().flatten()
        turn[of_class] = torch.arange(len(of_class)) * len(order) // len(of_class)
    return SubsetSamples(samples, order[turn.argsort(stable=True)[:most]].sort().values)


@dataclass(frozen=True)
class Pipeline:
    """How another's data set makes network input.

    Attributes:
        item: gives the item (input and target) of a number.
        collate: makes inputs, or inputs and targets, of a list of items.
        random: items differ from call to call; as far as they draw from torch, they follow seed, view and
            number then.
        seed: that they follow.
    """

    item: Callable[[int], Any]
    collate: Callable[[list[Any]], Any]
    random: bool = False
    seed: int = 0


class DatasetSamples(Samples):
    """Items of a data set, collated batch by batch into network input.

    Args:
        pipeline: makes it.
        rows: number of each sample, int64 of shape (N,).
        targets: of shape (N,) or (N, outputs).
    """

    def __init__(self, pipeline: Pipeline, rows: Tensor, targets: Tensor):
        self.pipeline, self.rows, self.targets = pipeline, rows, targets
        self.random = pipeline.random
        self._numbers: tuple[int, ...] = ()

    def view(self, *numbers: int) -> Samples:
        """The items as a certain stage and epoch see them."""
        if not self.random:
            return self
        other = copy.copy(self)
        other._numbers = numbers
        return other

    def batch(self, indices: Tensor) -> Any:
        """Inputs as the data set's collate function gives them: (B, ...), or a tree of such."""
        items = []
        for row in self.rows[indices].tolist():
            with own_stream(seed_for(self.pipeline.seed, *self._numbers, row)):
                items.append(self.pipeline.item(row))
        made = self.pipeline.collate(items)
        return as_batch(made[0] if isinstance(made, tuple | list) else made)

    def fingerprint(self) -> str:
        """Over the items, each as a batch of its own."""
        one = (self.batch(row.reshape(1)) for row in self.rows.new_tensor(range(len(self))))
        named = (
            (f"{place}{name}", part) for place, batch in enumerate(one) for name, part in named_parts(batch)
        )
        content = tensors_digest(named, str(self._numbers))
        return tensors_digest([("targets", self.targets)], note=content)
