"""Data out of the user's variables: tensors, arrays, Datasets, DataLoaders, and pairs of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    default_collate,
)

from tlnb.engine.data.collated import Pipeline
from tlnb.engine.data.collections import Collection, Items, ReadPictures
from tlnb.engine.data.readers import ItemReader
from tlnb.engine.data.sources.arrays import collection_of
from tlnb.engine.data.sources.found import CLASSES, Ask, Found
from tlnb.engine.data.sources.labels import are_one_hot, encode
from tlnb.engine.training.random_streams import own_stream
from tlnb.errors import DataError

_KINDS = (
    "(X, y) tensors, arrays or lists of pictures, a Dataset, a DataLoader, a Hugging Face data set, "
    "or a pair (train, valid) of these"
)
_PROBES = 8  # items read twice to see whether they are random
_RANDOM = ("Random", "Jitter", "AutoAugment", "AugMix", "TrivialAugment", "RandAugment")


def read(source: object, ask: Ask) -> Found:
    """Samples from a variable.

    Raises:
        DataError: an object of another kind, or without targets.
    """
    if isinstance(source, Mapping) and {"train"} < set(source):
        held = next((source[name] for name in ("valid", "val", "validation", "test") if name in source), None)
        source = (source["train"], held)
    if isinstance(source, tuple | list) and len(source) == 2:
        # A column or a table of pandas gives its values so.
        source = tuple(part.to_numpy() if hasattr(part, "to_numpy") else part for part in source)
        if _are_pictures(source[0]):
            return _from_parts([_listed(*source)], ask)
        if _is_array(source[0]) and (_is_array(source[1]) or isinstance(source[1], list | tuple)):
            return _from_parts([_arrays(*source)], ask)
        if all(_is_set(part) or _is_arrays(part) for part in source):
            return _from_parts([_part(part, ask) for part in source], ask)
    if _is_set(source):
        return _from_parts([_part(source, ask)], ask)
    if isinstance(source, IterableDataset):
        raise DataError("an IterableDataset has no numbered samples; give a map-style Dataset or tensors")
    what = f"a {type(source).__name__}" + (f" of {len(source)}" if isinstance(source, tuple | list) else "")
    raise DataError(f"data cannot be {what}; give {_KINDS}")


class _Part:
    """Samples before their targets are understood.

    Args:
        targets: as they came.
        make: a collection from targets as tensors.
        names: of the classes, if they are known.
        batch: samples a step, if a loader says so.
        notes: what the user should know.
    """

    def __init__(
        self,
        targets: Any,
        make: Callable[[Tensor], Collection],
        names: Sequence[str] | None = None,
        batch: int | None = None,
        notes: Sequence[str] = (),
    ):
        self.targets, self.make, self.names, self.batch = targets, make, names, batch
        self.notes = list(notes)


def _from_parts(parts: list[_Part], ask: Ask) -> Found:
    raw, target = [part.targets for part in parts], ask.target
    if target is None and parts[0].names is None and are_one_hot(raw):
        target = CLASSES
    kind, classes, targets = encode(raw, target, parts[0].names)
    made = [part.make(tensor) for part, tensor in zip(parts, targets, strict=True)]
    notes = list(dict.fromkeys(note for part in parts for note in part.notes))
    valid = made[1] if len(made) > 1 else None
    return Found(made[0], valid, classes, kind, notes=notes, batch=parts[0].batch)


def _is_array(value: object) -> bool:
    return isinstance(value, Tensor | np.ndarray)


def _is_arrays(value: object) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and _is_array(value[0])


def _are_pictures(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_picture, value))


def _is_set(value: object) -> bool:
    if isinstance(value, DataLoader):
        return True
    numbered = hasattr(value, "__getitem__") and hasattr(value, "__len__")
    plain = isinstance(value, str | bytes | tuple | list | Mapping | Tensor | np.ndarray | IterableDataset)
    # A class or a table of pandas is no Dataset: its items are columns.
    return numbered and not plain and not isinstance(value, type) and not hasattr(value, "columns")


def _part(source: Any, ask: Ask) -> _Part:
    return _arrays(*source) if _is_arrays(source) else _dataset(source, ask)


# ---------------------------------------------------------------- (X, y)


def _arrays(inputs: Any, targets: Any) -> _Part:
    _as_many(inputs, targets)
    make, notes = collection_of(inputs)
    return _Part(targets, make, notes=notes)


def _listed(pictures: list[Any], targets: Any) -> _Part:
    """Pictures of different sizes, one by one."""
    _as_many(pictures, targets)
    reader = ItemReader(len(pictures), pictures.__getitem__)
    known = [reader.digest_of(number) for number in range(len(pictures))]
    return _Part(targets, lambda t: ReadPictures(reader, t, known=known))


def _as_many(inputs: Any, targets: Any) -> None:
    if len(inputs) != len(targets):
        raise DataError(f"X has {len(inputs)} samples and y has {len(targets)}; they must be as many")
    if len(inputs) == 0:
        raise DataError("X and y hold no samples")


# ---------------------------------------------------------------- Dataset and DataLoader


def _dataset(source: Any, ask: Ask) -> _Part:
    batch, collate, notes = None, default_collate, []
    if isinstance(source, DataLoader):
        if isinstance(source.dataset, IterableDataset):
            raise DataError("an IterableDataset has no numbered samples; give a map-style Dataset or tensors")
        if type(source.sampler) not in (SequentialSampler, RandomSampler):
            notes.append(
                f"its {type(source.sampler).__name__} is not used: tlnb takes every sample once an epoch; "
                "--balance evens out classes"
            )
        batch, collate, source = source.batch_size, source.collate_fn, source.dataset
    count = len(source)
    if not count:
        raise DataError(f"the {type(source).__name__} holds no samples")
    first = _item(source, 0)
    if len(getattr(source, "tensors", ())) == 2 and collate is default_collate:  # TensorDataset
        part = _arrays(*source.tensors)
        part.batch = batch
        part.notes += notes
        return part
    targets = _targets(source, ask)
    names = _attribute(source, "classes")
    random = _is_random(source)
    if collate is default_collate and not random and _is_picture(first[0]):
        reader = ItemReader(count, lambda number: source[number][0])
        return _Part(targets, lambda t: ReadPictures(reader, t), names, batch, notes)
    notes += ["its own pipeline makes the inputs: they go to the network as they come"]
    if random:
        notes.append("its items are random: each epoch reads them anew")
    pipeline = Pipeline(source.__getitem__, collate, random, ask.seed)
    return _Part(targets, lambda t: Items(pipeline, t), names, batch, notes)


def _item(source: Any, number: int) -> Any:
    try:
        item = source[number]
    except Exception as error:  # another's code may raise anything
        raise DataError(
            f"item {number} of the {type(source).__name__} cannot be read: {type(error).__name__}: {error}"
        ) from None
    if not isinstance(item, tuple | list) or len(item) < 2:
        raise DataError(
            f"items of the {type(source).__name__} must be (input, target), not {type(item).__name__}"
        )
    return item


def _is_picture(value: Any) -> bool:
    if isinstance(value, Image.Image):
        return True
    if not _is_array(value):
        return False
    tensor = torch.as_tensor(value)
    if tensor.dim() not in (2, 3) or (tensor.dim() == 3 and not {tensor.shape[0], tensor.shape[2]} & {1, 3}):
        return False
    if tensor.dtype == torch.uint8:
        return True
    return tensor.is_floating_point() and tensor.dim() == 3 and bool(tensor.min() >= 0 and tensor.max() <= 1)


def _targets(source: Any, ask: Ask) -> Any:
    """The targets of all items: from the list that most data sets keep, or from the items themselves."""
    known = _attribute(source, "targets")
    if known is None:
        known = _attribute(source, "labels")
    # A transform of the targets makes others of them than those in the list.
    if known is not None and len(known) == len(source) and not _attribute(source, "target_transform"):
        return known
    found = []
    for number in range(len(source)):
        found.append(_item(source, number)[1])
        if number % 64 == 63 or number + 1 == len(source):
            ask.progress(number + 1, len(source))
    return found


def _attribute(source: Any, name: str) -> Any:
    """An attribute of a data set, also through ``Subset``."""
    if isinstance(source, Subset):
        value = _attribute(source.dataset, name)
        if name not in ("targets", "labels") or value is None:
            return value
        return [value[index] for index in source.indices]
    return getattr(source, name, None)


def _is_random(source: Any) -> bool:
    """Whether items differ from call to call: by the names of its transforms, or by reading some twice."""
    transforms = [_attribute(source, name) for name in ("transform", "transforms")]
    if any(word in repr(transform) for transform in transforms if transform for word in _RANDOM):
        return True
    for number in np.linspace(0, len(source) - 1, min(_PROBES, len(source))).astype(int).tolist():
        pair = []
        for seed in (0, 1):
            with own_stream(seed):
                pair.append(_item(source, number)[0])
        if not _equal(*pair):
            return True
    return False


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, Image.Image) or _is_array(one):
        return np.array_equal(np.asarray(one), np.asarray(other))
    return bool(one == other)
