"""Data out of the user's variables: tensors, arrays, Datasets, DataLoaders, and pairs of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, default_collate

from tlnb.engine.core.seeds import own_stream
from tlnb.engine.core.tree import Tree
from tlnb.engine.data.images.scale import MOST, PLAIN, PixelScale, common_white, scale_note
from tlnb.engine.data.partition import TRAIN as PARTS_TRAIN
from tlnb.engine.data.partition import VALID as PARTS_VALID
from tlnb.engine.data.raw import Items, RawDataset, ReadPictures, Rows
from tlnb.engine.data.readers import ItemReader
from tlnb.engine.data.request import CLASSES, COLUMNS, SourceRequest
from tlnb.engine.data.samples import Pipeline
from tlnb.engine.data.sources.arrays import collection_of
from tlnb.engine.data.sources.found import TRAIN, Found, roles_of
from tlnb.engine.data.sources.labels import Names, are_one_hot, encode
from tlnb.engine.data.sources.loader import NO_STREAM, Loading, check_collate, loading_of
from tlnb.engine.data.sources.meaning import as_words, attribute, leaves_of, meaning_of
from tlnb.engine.data.sources.text import as_texts, texts_part, without_held
from tlnb.errors import DataError

_KINDS = (
    "(X, y) tensors, arrays or lists of pictures, a Dataset, a DataLoader, a DataFrame of path and label, "
    "a Hugging Face data set, "
    "or a pair (train, valid) of these"
)
_PROBES = 8  # items read twice to see whether they are random
_LOOKED_AT = 24  # items whose pixels are looked at to find one scale for all
_RANDOM = ("Random", "Jitter", "AutoAugment", "AugMix", "TrivialAugment", "RandAugment")


def read(source: object, request: SourceRequest) -> Found:
    """Samples from a variable.

    Raises:
        DataError: an object of another kind, or without targets.
    """
    request.refuse(
        (*(name for name in COLUMNS if name != "delimiter"), "links"), "a variable has no columns or files"
    )
    if isinstance(source, Mapping):
        parts, roles = _parts_of(source, request)
        if len(parts) > 1:
            return read_parts(parts, roles, request)
        source = parts[0]
    if isinstance(source, tuple | list) and len(source) == 2:
        notes = _same_index(*source)
        columns = _columns(source[1])
        # A column or a table of pandas gives its values so.
        source = first, second = [part.to_numpy() if hasattr(part, "to_numpy") else part for part in source]
        if (texts := as_texts(first)) is not None and not _is_set(second):
            return _from_parts([_listed_texts(texts, second)], request, notes)
        if _are_pictures(first):
            return _from_parts([_listed(first, second, request)], request, notes)
        if (_is_array(first) or _is_tree(first)) and (_is_array(second) or isinstance(second, list | tuple)):
            part = _arrays(first, second, request)
            part.names = columns
            return _from_parts([part], request, notes)
        if all(_is_set(part) or _is_arrays(part) or _are_texts(part) for part in source):
            return without_held(read_parts(source, (PARTS_TRAIN, PARTS_VALID), request))
    if _is_set(source):
        return _from_parts([_part(source, request)], request)
    if isinstance(source, IterableDataset):
        raise DataError(NO_STREAM)
    what = f"a {type(source).__name__}" + (f" of {len(source)}" if isinstance(source, tuple | list) else "")
    raise DataError(f"data cannot be {what}; give {_KINDS}")


def read_parts(parts: Sequence[Any], roles: Sequence[int], request: SourceRequest) -> Found:
    """Samples from variables that are parts of one data set.

    Args:
        parts: each a Dataset, a DataLoader, or a pair of inputs and targets.
        roles: what each is for: ``partition.TRAIN``, ``VALID`` or ``TEST``, the first of them ``TRAIN``.
        request: how they are read.

    Raises:
        DataError: an object of another kind, or parts with targets of different forms.
    """
    if not all(_is_set(part) or _is_arrays(part) or _are_texts(part) for part in parts):
        kinds = ", ".join(type(part).__name__ for part in parts)
        raise DataError(f"the parts of the data cannot be {kinds}; give {_KINDS}")
    return _from_parts([_part(part, request) for part in parts], request, roles=roles)


def _parts_of(source: Mapping[Any, Any], request: SourceRequest) -> tuple[list[Any], list[int]]:
    """The parts out of a dict of them, and what each is for."""
    named = {str(name).lower(): part for name, part in source.items()}
    roles = roles_of(named, request)
    if not roles:
        known = ", ".join(sorted(named)[:8]) or "nothing"
        raise DataError(
            f"a dict of data has a part called train, and one called valid or test; this one has {known}"
        )
    if len(roles) == 1 and len(named) > 1:
        others = ", ".join(name for name in named if name not in TRAIN)
        raise DataError(
            f"a dict of data has its validation part under valid, val, dev or test, not under {others}"
        )
    return [named[name] for name in roles], list(roles.values())


def _same_index(inputs: Any, targets: Any) -> list[str]:
    """What to say of two columns of pandas whose rows have different names.

    Raises:
        DataError: the same rows in another order.
    """
    ours, theirs = attribute(inputs, "index"), attribute(targets, "index")
    if not (hasattr(inputs, "to_numpy") and hasattr(targets, "to_numpy")) or ours is None or theirs is None:
        return []
    if len(ours) != len(theirs) or list(ours) == list(theirs):
        return []
    if set(ours) == set(theirs):
        raise DataError(
            "X and y have the same index in different orders; put y in the order of X: y.loc[X.index]"
        )
    return ["X and y have different indexes: their rows belong together by place"]


def _columns(targets: Any) -> list[str] | None:
    """Names of the columns of a table of targets."""
    columns = attribute(targets, "columns")
    return [str(name) for name in columns] if columns is not None and hasattr(targets, "to_numpy") else None


class _Part:
    """Samples before their targets are understood.

    Args:
        targets: as they came.
        make: a collection from targets as tensors.
        names: of the classes, if they are known.
        batch: samples a step, if a loader says so.
        notes: what the user should know.
        scale: of the pixels.
    """

    def __init__(
        self,
        targets: Any,
        make: Callable[[Tensor], RawDataset],
        names: Names | None = None,
        batch: int | None = None,
        notes: Sequence[str] = (),
        scale: PixelScale = PLAIN,
    ):
        self.targets, self.make, self.names, self.batch = targets, make, names, batch
        self.notes, self.scale = list(notes), scale


def _from_parts(
    parts: list[_Part], request: SourceRequest, notes: Sequence[str] = (), roles: Sequence[int] = (PARTS_TRAIN,)
) -> Found:  # fmt: skip
    notes = [*notes, *(note for part in parts for note in part.notes)]
    names = _matched(parts, notes)
    raw = [part.targets for part in parts]
    if request.target is None and names is None and are_one_hot(raw):
        request = SourceRequest(**{**vars(request), "target": CLASSES})
    encoded = encode(raw, request, names)
    made: list[RawDataset] = []
    starts = np.cumsum([0, *(len(part.targets) for part in parts)])
    used = np.concatenate([
        start + (np.arange(end - start) if kept is None else kept.numpy())
        for start, end, kept in zip(starts[:-1], starts[1:], encoded.kept, strict=True)
    ])  # fmt: skip
    for part, tensor, kept in zip(parts, encoded.parts, encoded.kept, strict=True):
        whole = len(part.targets)
        if kept is None:
            made.append(part.make(tensor))
            continue
        every = torch.zeros((whole, *tensor.shape[1:]), dtype=tensor.dtype)
        every[kept] = tensor
        made.append(part.make(every).subset(kept))
    notes = list(dict.fromkeys([*notes, *encoded.notes]))
    scale = next((part.scale for part in parts if not part.scale.is_plain), PixelScale())
    return Found.of_parts(
        made, roles, classes=encoded.classes, kind=encoded.kind, notes=notes, batch=parts[0].batch, scale=scale,
        used=used if len(used) < starts[-1] else None,
    )  # fmt: skip


def _matched(parts: list[_Part], notes: list[str]) -> Names | None:
    """One set of names for training and validation samples; where they number their classes differently, by name."""
    names = [part.names for part in parts]
    if len(parts) == 1 or any(known is None for known in names):
        if len(parts) == 2 and (names[0] is None) != (names[1] is None) and not _all_words(parts):
            which = "validation" if names[1] is None else "training"
            notes.append(
                f"the {which} part does not name its classes: its numbers are taken for those of the other"
            )
        return next((known for known in names if known is not None), None)
    both = [_by_number(part) for part in names if part is not None]
    if all(known == both[0] for known in both):
        return names[0]
    if all(isinstance(part.names, Mapping) for part in parts):
        merged: list[str] = []
        for part, known in zip(parts, both, strict=True):
            words = as_words(part.targets, [known] * len(part.targets), notes)
            part.targets = words.targets
            merged += [name for _, name in sorted(known.items()) if name not in merged]
        return merged
    return sorted({name for known in both for name in known.values()})


def _all_words(parts: list[_Part]) -> bool:
    return all(len(part.targets) and isinstance(part.targets[0], str) for part in parts)


def _by_number(names: Names) -> dict[int, str]:
    return dict(names) if isinstance(names, Mapping) else dict(enumerate(names))


def _is_array(value: object) -> bool:
    return isinstance(value, Tensor | np.ndarray)


def _is_tree(value: object) -> bool:
    """Whether these are several inputs by name, each an array or a tensor."""
    return isinstance(value, Mapping) and bool(value) and all(map(_is_array, value.values()))


def _is_arrays(value: object) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and (_is_array(value[0]) or _is_tree(value[0]))


def _are_texts(value: object) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and as_texts(value[0]) is not None


def _are_pictures(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_has_form, value))


def _is_set(value: object) -> bool:
    if isinstance(value, DataLoader):
        return True
    numbered = hasattr(value, "__getitem__") and hasattr(value, "__len__")
    plain = isinstance(value, str | bytes | tuple | list | Mapping | Tensor | np.ndarray | IterableDataset)
    # A class or a table of pandas is no Dataset: its items are columns.
    return numbered and not plain and not isinstance(value, type) and not hasattr(value, "columns")


def _part(source: Any, request: SourceRequest) -> _Part:
    if _are_texts(source):
        return _listed_texts(as_texts(source[0]) or [], source[1])
    return _arrays(source[0], source[1], request) if _is_arrays(source) else _dataset(source, request)


# ---------------------------------------------------------------- (X, y)


def _arrays(inputs: Any, targets: Any, request: SourceRequest) -> _Part:
    targets = targets.to_numpy() if hasattr(targets, "to_numpy") else targets
    if isinstance(inputs, Mapping):
        return _tree(inputs, targets)
    if isinstance(inputs, Tensor) and inputs.is_nested:
        raise DataError("X is a nested tensor; give samples of one shape: X.to_padded_tensor(0.0)")
    _as_many(inputs, targets)
    make, scale, notes = collection_of(inputs, request)
    return _Part(targets, make, notes=notes, scale=scale)


def _tree(inputs: Mapping[Any, Any], targets: Any) -> _Part:
    """Inputs of several arrays, by the names of the network's arguments."""
    tree = Tree({str(name): torch.as_tensor(part) for name, part in inputs.items()})
    for name, part in tree.items():
        if len(part) != len(targets):
            raise DataError(
                f"X has {len(part)} samples as {name} and y has {len(targets)}; they must be as many"
            )
    if not len(tree):
        raise DataError("X and y hold no samples")
    tree = tree.map(lambda part: part.float() if part.is_floating_point() else part)
    return _Part(targets, lambda t: Rows(tree, t))


def _listed(pictures: list[Any], targets: Any, request: SourceRequest) -> _Part:
    """Pictures of different sizes, one by one."""
    _as_many(pictures, targets)
    found = picture_scale(pictures, request)
    if found is None:
        raise DataError("the list of pictures holds values below zero; --range says what is black and white")
    reader = ItemReader(len(pictures), pictures.__getitem__, found[0])
    known = [reader.digest_of(number) for number in range(len(pictures))]
    return _Part(targets, lambda t: ReadPictures(reader, t, known=known), notes=found[1], scale=found[0])


def _listed_texts(texts: list[Any], targets: Any) -> _Part:
    targets = targets.to_numpy() if hasattr(targets, "to_numpy") else targets
    _as_many(texts, targets)
    return _Part(targets, texts_part(texts))


def _as_many(inputs: Any, targets: Any) -> None:
    if len(inputs) != len(targets):
        raise DataError(f"X has {len(inputs)} samples and y has {len(targets)}; they must be as many")
    if len(inputs) == 0:
        raise DataError("X and y hold no samples")


# ---------------------------------------------------------------- Dataset and DataLoader


def _dataset(source: Any, request: SourceRequest) -> _Part:
    loading = loading_of(source)
    source, notes = loading.dataset, loading.notes
    own_collate = loading.collate is not default_collate
    try:
        count = len(source)
    except Exception as error:  # another's code may raise anything
        raise DataError(
            f"the {type(source).__name__} does not say how many samples it holds: {type(error).__name__}"
        ) from None
    if not count:
        raise DataError(f"the {type(source).__name__} holds no samples")
    _check_form(source, _item(source, 0), own_collate, notes)
    tensors = attribute(source, "tensors")
    if type(source).__getitem__ is _TENSORS and len(tensors) == 2 and not own_collate:  # TensorDataset
        part = _arrays(tensors[0], tensors[1], request)
        part.batch = loading.batch
        part.notes = [*notes, *part.notes]
        return part
    meaning = meaning_of(source, _target_of(source, loading), request)
    notes = [*notes, *meaning.notes]
    random = _is_random(source)
    items = [_item(source, n)[0] for n in _spread(count, _LOOKED_AT)]
    found = None if own_collate or random else picture_scale(items, request)
    if found is not None:
        scale, said = found
        reader = ItemReader(count, lambda number: source[number][0], scale)
        return _Part(
            meaning.targets,
            lambda t: ReadPictures(reader, t),
            meaning.names,
            loading.batch,
            [*notes, *said],
            scale,
        )
    request.refuse(("range", "bands"), f"the pipeline of the {type(source).__name__} makes the inputs")
    if not own_collate:
        _check_sizes(source, items)
    notes.append("its own pipeline makes the inputs: they go to the network as they come")
    if random:
        notes.append("its items are random: each epoch reads them anew")
    pipeline = Pipeline(source.__getitem__, loading.collate, random, request.seed)
    return _Part(meaning.targets, lambda t: Items(pipeline, t), meaning.names, loading.batch, notes)


_TENSORS = torch.utils.data.TensorDataset.__getitem__


def _target_of(source: Any, loading: Loading) -> Callable[[int], Any]:
    """How the target of an item is read: from the item, or from what the collate function makes of it."""
    if loading.collate is default_collate:
        return lambda number: _item(source, number)[1]
    probes = [_item(source, number) for number in _spread(len(source), 3 * _PROBES)]
    several = {repr(item[1]): item for item in probes}  # one of each class first
    chosen = [*several.values(), *probes][: max(len(several), 4)]
    if not check_collate(loading.collate, chosen):
        return lambda number: _item(source, number)[1]

    def target(number: int) -> Any:
        with own_stream(0):
            made = loading.collate([_item(source, number)])[1]
        return made[0] if isinstance(made, Tensor | np.ndarray | list | tuple) and len(made) == 1 else made

    return target


def _item(source: Any, number: int) -> Any:
    kind = type(source).__name__
    try:
        with own_stream(0):
            item = source[number]
    except Exception as error:  # another's code may raise anything
        reason = str(error).splitlines()[0][:120] if str(error) else ""
        raise DataError(
            f"item {number} of the {kind} cannot be read: {type(error).__name__}: {reason}"
        ) from None
    if not isinstance(item, tuple | list) or len(item) < 2:
        keys = f" with the keys {', '.join(map(str, item))}" if isinstance(item, Mapping) else ""
        raise DataError(f"items of the {kind} must be (input, target), not {type(item).__name__}{keys}")
    return item


def _check_form(source: Any, item: Any, own_collate: bool, notes: list[str]) -> None:
    """Refuse items of several inputs; say where more than input and target is in them."""
    kind, given = type(source).__name__, item[0]
    if own_collate:
        return
    if isinstance(given, tuple | list) and given and all(map(_is_array, given)):
        notes.append(f"items of the {kind} have {len(given)} inputs: they go to the network in their order")
    elif (
        isinstance(given, tuple | list)
        and given
        and not all(isinstance(value, int | float) for value in given)
    ):
        raise DataError(
            f"items of the {kind} have {len(given)} inputs that are no tensors; give tensors or arrays"
        )
    if isinstance(given, Mapping):
        keys = ", ".join(map(str, given))
        if not all(_is_array(value) or isinstance(value, int | float | list) for value in given.values()):
            raise DataError(
                f"items of the {kind} have a dict as input ({keys}) that holds other things than tensors"
            )
        notes.append(
            f"items of the {kind} have a dict as input: {keys} go to the network's arguments of these names"
        )
    if len(item) > 2:
        second = item[1]
        if isinstance(second, Image.Image) or (_is_array(second) and second.ndim > 1):
            raise DataError(
                f"items of the {kind} have {len(item)} parts; (input, target) "
                "is needed, and the second looks like an input"
            )
        notes.append(
            f"items of the {kind} have {len(item)} parts: the first is the input, the second the target"
        )


def _check_sizes(source: Any, items: list[Any]) -> None:
    shapes = dict.fromkeys(tuple(np.shape(item)) for item in items if _is_array(item))
    if len(shapes) > 1:
        shown = ", ".join("×".join(map(str, shape)) for shape in list(shapes)[:3])
        raise DataError(
            f"items of the {type(source).__name__} have several sizes ({shown}); "
            "resize them in its transform, give a collate_fn, or "
            "give pictures (PIL, uint8, or 0 to 1), which are resized"
        )
    if not _is_array(items[0]) and not isinstance(items[0], int | float | np.number | tuple | list | Mapping):
        raise DataError(
            f"items of the {type(source).__name__} have a {type(items[0]).__name__} "
            "as input; a picture or a tensor is needed"
        )


def _spread(count: int, most: int) -> list[int]:
    """At most so many numbers below ``count``, evenly spaced."""
    return sorted(set(np.linspace(0, count - 1, min(most, count)).astype(int).tolist()))


# ---------------------------------------------------------------- pixels


def _has_form(value: Any) -> bool:
    """Whether a value has the form of one picture."""
    if isinstance(value, Image.Image):
        return True
    if not _is_array(value) or value.ndim not in (2, 3):
        return False
    dtype = str(value.dtype).removeprefix("torch.")
    if value.ndim == 2:
        return dtype in ("uint8", "uint16", "int16")
    return not dtype.startswith(("bool", "complex"))


def picture_scale(items: list[Any], request: SourceRequest) -> tuple[PixelScale, list[str]] | None:
    """One scale for all pictures, and what to say of it; None where the items are no pictures.

    Pictures are Pillow images, uint8, other whole numbers from 0 on, and floating-point numbers from 0 to 1, or from 0
    to more than 64.
    """
    scale = request.scale
    maxima: list[float] = []
    for item in items:
        if isinstance(item, Image.Image):
            if not item.mode.startswith(("I", "F")):
                continue
            values = np.asarray(item)
        elif not _has_form(item):
            return None
        else:
            values = item.detach().cpu().numpy() if isinstance(item, Tensor) else np.asarray(item)
            if values.ndim == 3 and not scale.bands and not {1, 3} & {values.shape[0], values.shape[2]}:
                rgba = values.dtype == np.uint8 and values.shape[2] == 4
                if not rgba:
                    return None
            if values.dtype == np.uint8:
                continue
        if not values.size or (scale.white is None and not (values.min() >= 0 and values.max() <= MOST)):
            return None
        maxima.append(float(values.max()))
    if scale.white is not None or not maxima:
        return scale, []
    white, brighter = common_white(maxima)
    if white <= 1 and not brighter:  # 0..1 as it is
        floats = any(_is_array(item) and str(item.dtype).endswith(("32", "64")) for item in items)
        return (scale, []) if floats else (PixelScale(0.0, white, scale.bands), [])
    if 1 < white <= 64 and not all(isinstance(item, Image.Image) for item in items):
        return None
    return PixelScale(0.0, white, scale.bands), scale_note(maxima, white, brighter)


def _is_random(source: Any) -> bool:
    """Whether items differ from call to call: by the names of its transforms, or by reading some twice."""
    transforms = [
        attribute(leaf, name) for leaf in leaves_of(source)[0] for name in ("transform", "transforms")
    ]
    if any(word in repr(transform) for transform in transforms if transform for word in _RANDOM):
        return True
    for number in _spread(len(source), _PROBES):
        pair = []
        for seed in (0, 1):
            with own_stream(seed):
                pair.append(source[number][0])
        if not _equal(*pair):
            return True
    return False


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, Mapping):
        return set(one) == set(other) and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, Image.Image) or _is_array(one):
        return np.array_equal(np.asarray(one), np.asarray(other))
    return bool(one == other)
