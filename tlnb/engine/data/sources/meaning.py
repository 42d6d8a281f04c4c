"""What the targets of a Dataset mean: by its items, with which its attributes are compared.

``targets``, ``classes`` and ``class_to_idx`` are what most data sets keep beside their items. They are quick
to read and often right; but a data set that changes labels in ``__getitem__``, names its classes in another
order, or is joined from parts that count their classes differently says something else by its items. The
items are what a network learns from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset

from tlnb.display.tables import printable
from tlnb.engine.data.request import SourceRequest
from tlnb.engine.data.sources.labels import composed
from tlnb.errors import DataError

EVENLY = 32  # items that are compared with the list of targets
A_CLASS = 2  # and of each class, the first and the last
MOST = 256  # items in all


@dataclass
class Meaning:
    """The targets of all items.

    Attributes:
        targets: of each item; words where parts number their classes differently.
        names: of the classes, by number or, for words, in order; None where they are not known.
        notes: what the user should know.
    """

    targets: Sequence[Any]
    names: Mapping[int, str] | Sequence[str] | None
    notes: list[str] = field(default_factory=list)


def meaning_of(source: Any, target_of: Callable[[int], Any], request: SourceRequest) -> Meaning:
    """What the targets of a Dataset mean.

    Args:
        source: a map-style Dataset, also a ``Subset`` or ``ConcatDataset`` of others.
        target_of: gives the target of an item, as the network is to learn it.
        request: told how far reading the items is.

    Raises:
        DataError: parts of which only some name their classes.
    """
    kind = type(source).__name__
    leaves, part_of, place_of = leaves_of(source)
    lists = [_list_of(leaf) for leaf in leaves]
    names = [_names_of(leaf) for leaf in leaves]
    notes: list[str] = []
    targets: Sequence[Any] | None = None
    if all(known is not None for known in lists):
        targets = [lists[part][place] for part, place in zip(part_of, place_of, strict=True)]
        looked_at = _probes(targets)
        found = {n: target_of(n) for n in looked_at}
        wrong = [n for n in looked_at if not _same(targets[n], found[n], names[part_of[n]])]
        if wrong:
            n = wrong[0]
            listed, given = _shown(targets[n]), _shown(found[n])
            notes.append(
                f"the list of targets of the {kind} differs from its items (item {n}: {listed} in the list, {given} in "
                f"the item; {len(wrong)} of {len(looked_at)} looked at): the items' targets are learned"
            )
            listing, targets = targets, _read(source, target_of, request)
            names = _learned(targets, listing, part_of, names, notes)
    else:
        targets = _read(source, target_of, request)
        if any(map(_transforms, leaves)) and any(names):
            notes.append(
                "a target_transform makes the targets: the names are those of .classes, by the numbers that it gives"
            )
    return _named(targets, part_of, names, notes, kind)


def leaves_of(source: Any) -> tuple[list[Any], np.ndarray, np.ndarray]:
    """The data sets that others are made of; for each item the number of its one, and its place there."""
    if isinstance(source, Subset):
        leaves, parts, places = leaves_of(source.dataset)
        chosen: np.ndarray = np.array([int(index) for index in source.indices], dtype=np.int64)
        return leaves, parts[chosen], places[chosen]
    if isinstance(source, ConcatDataset):
        every = [leaves_of(part) for part in source.datasets]
        firsts = np.cumsum([0, *(len(leaves) for leaves, _, _ in every)])
        numbers = [part + first for (_, part, _), first in zip(every, firsts, strict=False)]
        return (
            [leaf for leaves, _, _ in every for leaf in leaves],
            np.concatenate(numbers),
            np.concatenate([places for _, _, places in every]),
        )
    return [source], np.zeros(len(source), np.int64), np.arange(len(source))


def attribute(source: Any, name: str) -> Any:
    """An attribute of another's object; None where it has none, or where asking fails."""
    try:
        return getattr(source, name, None)
    except Exception:  # another's property may raise anything
        return None


def _list_of(source: Any) -> Sequence[Any] | None:
    """The list of targets that most data sets keep, by place."""
    if _transforms(source) and attribute(source, "targets") is None:
        return None
    for name in ("targets", "labels"):
        known = attribute(source, name)
        if known is None or isinstance(known, str | bytes | Mapping):
            continue
        try:
            if len(known) != len(source):
                continue
            # A column of pandas is asked by its index, not by place.
            return (
                known.to_numpy()
                if hasattr(known, "to_numpy")
                else known[:]
                if isinstance(known, list)
                else list(known)
            )
        except Exception:  # another's container may raise anything
            continue
    return None


def _transforms(source: Any) -> bool:
    return attribute(source, "target_transform") is not None


def _names_of(source: Any) -> dict[int, str] | None:
    """The names of the classes by number."""
    by_name = attribute(source, "class_to_idx")
    if isinstance(by_name, Mapping) and by_name and all(_is_number(number) for number in by_name.values()):
        found: dict[int, list[str]] = {}
        for name, number in by_name.items():
            found.setdefault(int(number), []).append(_name(name))
        listed = attribute(source, "classes")
        made = {}
        for number, names in found.items():
            chosen = _name(listed[number]) if _is_list(listed) and 0 <= number < len(listed) else ""
            made[number] = (
                names[0] if len(names) == 1 else chosen if chosen.split(", ")[0] in names else "/".join(names)
            )
        return made
    for attr in ("idx_to_class", "id2label"):
        by_number = attribute(source, attr)
        if isinstance(by_number, Mapping) and by_number and all(_is_number(number) for number in by_number):
            return {int(number): _name(name) for number, name in by_number.items()}
    listed = attribute(source, "classes")
    if isinstance(listed, Mapping) and listed:
        if all(_is_number(number) for number in listed):
            return {int(number): _name(name) for number, name in listed.items()}
        if all(_is_number(number) for number in listed.values()):
            return {int(number): _name(name) for name, number in listed.items()}
        return None
    return (
        {number: _name(name) for number, name in enumerate(listed)}
        if _is_list(listed) and len(listed)
        else None
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | np.ndarray) or (
        hasattr(value, "tolist") and hasattr(value, "__len__")
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _name(name: Any) -> str:
    """ImageNet's classes are tuples of words."""
    return composed(", ".join(map(str, name)) if isinstance(name, tuple | list) else str(name))


def _probes(targets: Sequence[Any]) -> list[int]:
    """Items to compare: evenly spaced ones, and the first and the last of each class."""
    even = np.linspace(0, len(targets) - 1, min(EVENLY, len(targets))).astype(int).tolist()
    first: dict[object, int] = {}
    last: dict[object, int] = {}
    for number, target in enumerate(targets):
        key = repr(_plain(target))
        first.setdefault(key, number)
        last[key] = number
    chosen = dict.fromkeys([*even, *first.values(), *last.values()])
    return sorted(list(chosen)[:MOST])


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return value.tolist()
    return value


def _same(listed: Any, given: Any, names: Mapping[int, str] | None) -> bool:
    """Whether a target in the list is that of the item: equal, or the item's number has the listed name."""
    listed, given = _plain(listed), _plain(given)
    if isinstance(listed, str) and _is_number(given):
        return names is not None and names.get(given) == composed(listed)
    if isinstance(listed, list) or isinstance(given, list):
        return bool(listed == given)
    try:
        return bool(listed == given or (listed != listed and given != given))
    except Exception:  # another's class may compare as it likes
        return False


def _shown(value: Any) -> str:
    text = repr(_plain(value))
    return printable(text if len(text) < 30 else f"{text[:27]}...")


def _read(source: Any, target_of: Callable[[int], Any], request: SourceRequest) -> list[Any]:
    found = []
    for number in range(len(source)):
        found.append(target_of(number))
        if number % 64 == 63 or number + 1 == len(source):
            request.progress(number + 1, len(source))
    return found


def _learned(
    targets: Sequence[Any], listing: Sequence[Any], part_of: np.ndarray, names: Sequence[Mapping[int, str] | None],
    notes: list[str],
) -> list[dict[int, str] | None]:  # fmt: skip
    """Names of the items' numbers where the list holds one word for each; the names that are known mean others."""
    words: dict[tuple[int, int], set[str]] = {}
    for part, target, listed in zip(part_of.tolist(), targets, listing, strict=True):
        if not isinstance(listed, str) or not _is_number(_plain(target)):
            if any(names):
                notes.append(
                    "its class names are those of the list, so the numbers of the items stand for themselves"
                )
            return [None] * len(names)
        words.setdefault((part, int(target)), set()).add(composed(listed))
    made: list[dict[int, str] | None] = [{} for _ in names]
    for (part, number), found in words.items():
        made[part][number] = "/".join(sorted(found))  # type: ignore[index]
    return made


def _named(
    targets: Sequence[Any],
    part_of: np.ndarray,
    names: Sequence[Mapping[int, str] | None],
    notes: list[str],
    kind: str,
) -> Meaning:
    """One set of names for all parts: numbers where they agree, words where they do not."""
    used = sorted(set(part_of.tolist()))
    known = [names[part] for part in used]
    if not any(known) or not all(_is_number(_plain(target)) for target in targets[:1]):
        ordered = [name for part in known if part for _, name in sorted(part.items())]
        return Meaning(targets, list(dict.fromkeys(ordered)) or None, notes)
    different = {tuple(sorted(part.items())) for part in known if part}
    if len(different) == 1:
        if not all(known):
            notes.append(
                f"some parts of the {kind} do not name their classes: their numbers are taken for those of the others"
            )
        return Meaning(targets, next(part for part in known if part), notes)
    if not all(known):
        raise DataError(
            f"some parts of the {kind} name their classes differently and "
            "some only number them; name them all (.classes)"
        )
    return as_words(targets, [names[part] for part in part_of.tolist()], notes)


def as_words(targets: Sequence[Any], names: Sequence[Mapping[int, str] | None], notes: list[str]) -> Meaning:
    """Numbers under different names as words.

    Args:
        targets: numbers.
        names: those that each of them stands under.
        notes: gets a line that says so.

    Raises:
        DataError: a number without a name.
    """
    words = []
    for target, known in zip(targets, names, strict=True):
        number = int(_plain(target))
        if known is None or number not in known:
            raise DataError(
                f"class number {number} has no name, and the parts number their classes differently"
            )
        words.append(known[number])
    distinct = {id(known): known for known in names if known is not None}
    ordered = dict.fromkeys(name for known in distinct.values() for _, name in sorted(known.items()))
    notes.append("its parts number the classes differently: matched by name")
    return Meaning(words, sorted(ordered), notes)
