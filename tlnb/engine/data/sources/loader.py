"""What a DataLoader does beside its Dataset: kept where it can be, else named and refused.

Training takes every sample once an epoch in an order that follows the seed, so a loader's own drawing has no place in
it. A collate function is called as it is, as long as it makes of each sample what it would make of it alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    default_collate,
)

from tlnb.engine.core.seeds import own_stream
from tlnb.errors import DataError

NO_STREAM = (
    "an IterableDataset has no numbered samples; give a map-style Dataset or tensors (a stream of Hugging Face goes to "
    "the disk, mapped into memory: datasets.Dataset.from_generator(lambda: iter(stream), features=stream.features))"
)
_DRAWN = 6  # items that are collated together and alone


@dataclass
class Loading:
    """What is kept of a loader.

    Attributes:
        dataset: its data set, or the part of it that its sampler takes.
        batch: samples a step; None where there is no loader.
        collate: its collate function.
        notes: what the user should know.
    """

    dataset: Any
    batch: int | None = None
    collate: Callable[[list[Any]], Any] = default_collate
    notes: list[str] = field(default_factory=list)


def loading_of(source: Any) -> Loading:
    """What is kept of a loader; a Dataset as it is.

    Raises:
        DataError: it does something that would be lost.
    """
    if not isinstance(source, DataLoader):
        return Loading(source)
    if isinstance(source.dataset, IterableDataset):
        raise DataError(NO_STREAM)
    name = type(source).__name__
    if type(source).__iter__ is not DataLoader.__iter__:
        raise DataError(
            f"the {name} makes its batches in a way of its own, which would be lost; give a DataLoader or its Dataset"
        )
    if source.batch_sampler is None:
        raise DataError(
            f"the {name} has batch_size=None: its items would be batches "
            "already; give one with a batch size, or single samples"
        )
    if type(source.batch_sampler) is not BatchSampler:
        raise DataError(
            f"the {name}'s {type(source.batch_sampler).__name__} chooses whole batches, which would be lost; give its "
            "Dataset, with --batch and --balance as needed"
        )
    batches: Any = source.batch_sampler
    made = Loading(source.dataset, batches.batch_size, source.collate_fn or default_collate)
    _sample(made, batches.sampler)
    if batches.drop_last:
        made.notes.append("its drop_last is not kept: the last, smaller batch counts too")
    return made


def _sample(made: Loading, sampler: Any) -> None:
    """Keep which samples a sampler takes.

    Raises:
        DataError: it takes others from epoch to epoch, or some of them twice.
    """
    count, name = len(made.dataset), type(sampler).__name__
    if type(sampler) is SequentialSampler:
        return
    if type(sampler) is RandomSampler and not sampler.replacement and sampler.num_samples == count:
        return
    if hasattr(sampler, "set_epoch"):  # other samples in each epoch, or in each process
        rows = []
    elif type(sampler) is SubsetRandomSampler:
        rows = [int(index) for index in sampler.indices]
    else:
        rows = _fixed(sampler, count) if type(sampler) is not RandomSampler else []
    if not rows or len(set(rows)) != len(rows):
        raise DataError(
            f"the loader's {name} draws samples in a way that would be lost, "
            "as every sample is taken once an epoch; give "
            "its Dataset (--balance samples repeats those of small classes, --per-class takes fewer)"
        )
    if len(rows) < count:
        made.notes.append(f"the {len(rows):,} of {count:,} samples that its {name} takes")
        made.dataset = Subset(made.dataset, sorted(rows))
    elif name != "SubsetRandomSampler":
        made.notes.append(f"the order of its {name} is not kept: training shuffles by the seed")


def _fixed(sampler: Any, count: int) -> list[int]:
    """The samples that a sampler takes, where they are the same twice; empty where they are not."""
    drawn = []
    try:
        for seed in (0, 1):
            with own_stream(seed):
                drawn.append([int(index) for index in islice(iter(sampler), count + 1)])
    except Exception:  # another's code may raise anything
        return []
    same = set(drawn[0]) == set(drawn[1]) and len(drawn[0]) == len(drawn[1]) <= count
    return drawn[0] if same else []


def check_collate(collate: Callable[[list[Any]], Any], items: list[Any]) -> bool:
    """See that a collate function makes of each sample what it would make of it alone.

    Args:
        collate: another's function.
        items: a few items, of several classes where that can be.

    Returns:
        Whether it gives targets too.

    Raises:
        DataError: it mixes samples or is random, or gives something else than inputs, or inputs and targets.
    """
    items = items[:_DRAWN]
    alone = [_collated(collate, [item], 0) for item in items]
    for seed in (1, 2, 3):
        together = _collated(collate, items, seed)
        for place, (inputs, targets) in enumerate(alone):
            if not (_same_row(together[0], place, inputs) and _same_row(together[1], place, targets)):
                raise DataError(
                    "what the loader's collate function makes of a sample depends "
                    "on the others in its batch or on chance (as "
                    "MixUp and CutMix do), and would reach validation too; "
                    "give its Dataset: --augment changes training "
                    "pictures, and a step of your own (%%tl_step) can mix batches"
                )
    return alone[0][1] is not None


def _collated(collate: Callable[[list[Any]], Any], items: list[Any], seed: int) -> tuple[Any, Any]:
    try:
        with own_stream(seed):
            made = collate(list(items))
    except Exception as error:  # another's code may raise anything
        reason = str(error).splitlines()[0][:120] if str(error) else ""
        raise DataError(
            f"the collate function fails on {len(items)} of the items: {type(error).__name__}: {reason}"
        ) from None
    if isinstance(made, Tensor):
        return made, None
    if not isinstance(made, tuple | list) or len(made) < 1 or not isinstance(made[0], Tensor):
        what = type(made[0]).__name__ if isinstance(made, tuple | list) and made else type(made).__name__
        raise DataError(
            f"the collate function must give a tensor of inputs, or (inputs, targets), not a {what}"
        )
    return made[0], made[1] if len(made) > 1 else None


def _same_row(together: Any, place: int, alone: Any) -> bool:
    """Whether a sample is the same in a batch; where it was filled up to the length of others, that is none of it."""
    if not isinstance(together, Tensor) or not isinstance(alone, Tensor):
        return True
    if (
        together.dim() == 0
        or len(together) <= place
        or not len(alone)
        or together[place].shape != alone[0].shape
    ):
        return True
    one, other = together[place], alone[0]
    if one.is_floating_point():
        return bool(torch.allclose(one.double(), other.double(), rtol=1e-4, atol=1e-5, equal_nan=True))
    return bool(np.array_equal(one.numpy(), other.numpy()))
