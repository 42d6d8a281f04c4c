"""Which samples belong together: told by a column, a path, a folder or an array; byte-equal ones always do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from tlnb.display.tables import few, printable
from tlnb.errors import DataError, did_you_mean

PARENT, NEAR = "parent", "near"


@dataclass(frozen=True)
class Groups:
    """Samples that stay on one side of a split.

    Attributes:
        numbers: of the group of each sample, from 0 in order of appearance: int64 of shape (N,).
        names: of the groups.
        by: how they were told, in words, such as ``column 'patient'``.
    """

    numbers: np.ndarray
    names: tuple[str, ...]
    by: str

    def __len__(self) -> int:
        return len(self.names)

    def among(self, rows: np.ndarray) -> Groups:
        """The groups of some of the samples, in their order; places of shape (n,)."""
        numbers = self.numbers[rows]
        first = np.sort(np.unique(numbers, return_index=True)[1])
        return Groups(in_order(numbers), tuple(self.names[number] for number in numbers[first]), self.by)


def groups_by(
    told: object,
    count: int,
    *,
    columns: Mapping[str, Sequence[Any]] | None = None,
    paths: Sequence[str] | None = None,
) -> Groups:
    """The groups that a user means.

    Args:
        told: the name of a column, ``parent`` for the name of the folder that a file lies in, a regular
            expression with one group that is searched for in each path, or an array with an entry a sample.
        count: of samples.
        columns: of the table that the samples come from, each with an entry a sample.
        paths: of the samples, with ``/``.

    Returns:
        Groups; a sample whose entry is empty (None, NaN, an empty text) is a group of its own.

    Raises:
        DataError: no such column, no paths, an expression that does not fit, or one group only.
    """
    if isinstance(told, str):
        values, by = _told(told, columns or {}, paths)
    else:
        values, by = _array(told), "the array"
    if len(values) != count:
        raise DataError(f"--groups: {by} has {len(values):,} entries for {count:,} samples")
    numbers, names = _numbered(values)
    if len(names) < 2:
        raise DataError(
            f"--groups: {by} is {printable(names[0])!r} for every sample; a split needs two groups or more"
            if names
            else "--groups: there are no samples"
        )
    return Groups(numbers, names, by)


def _told(
    told: str, columns: Mapping[str, Sequence[Any]], paths: Sequence[str] | None
) -> tuple[Sequence[Any], str]:
    shown = printable(told)
    if told in columns:
        return columns[told], f"column {shown!r}"
    if told != PARENT and "(" not in told:
        there = (
            f"there are {few(tuple(map(printable, columns)))}" if columns else "this source has no columns"
        )
        raise DataError(
            f"--groups: no column {shown!r}{did_you_mean(told, [*columns, PARENT, NEAR])}; {there}; parent, near, "
            "a regular expression with one group, or $array would do too"
        )
    if paths is None:
        raise DataError(f"--groups {shown}: these samples have no paths; give a column or $array")
    if told == PARENT:
        return [PurePath(path).parent.name for path in paths], "the parent folder"
    return _matched(told, paths), f"{shown!r} in the path"


def _matched(expression: str, paths: Sequence[str]) -> list[str]:
    shown = printable(expression)
    try:
        pattern = re.compile(expression)
    except re.error as trouble:
        raise DataError(f"--groups {shown!r} is no regular expression: {trouble}") from None
    if pattern.groups != 1:
        raise DataError(
            f"--groups {shown!r} has {pattern.groups} groups; one pair of ( ) around what names the group, "
            "and (?: ) for others"
        )
    found = [pattern.search(path) for path in paths]
    missed = [path for path, match in zip(paths, found, strict=True) if match is None or match[1] is None]
    if missed:
        raise DataError(
            f"--groups {shown!r} is not found in {len(missed):,} of {len(paths):,} paths, such as "
            f"{printable(missed[0])!r}"
        )
    return [match[1] for match in found if match is not None]


def _array(told: object) -> Sequence[Any]:
    try:
        values = np.asarray(told)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.ndim != 1:
        raise DataError(
            f"--groups takes one entry a sample, not {type(told).__name__} of shape {values.shape}"
        )
    found: Sequence[Any] = values.tolist()
    return found


def _numbered(values: Iterable[Any]) -> tuple[np.ndarray, tuple[str, ...]]:
    known: dict[object, int] = {}
    names: list[str] = []
    numbers = []
    for place, value in enumerate(values):
        empty = value is None or value != value or (isinstance(value, str) and not value.strip())
        key: object = ("", place) if empty else value
        if key not in known:
            known[key] = len(names)
            names.append(f"sample {place}" if empty else str(value))
        numbers.append(known[key])
    return np.array(numbers, dtype=np.int64), tuple(names)


def same_content(digests: Sequence[bytes | None]) -> np.ndarray:
    """A number for each sample by its content, (N,); equal ones share it, and None stands alone."""
    numbers: dict[object, int] = {}
    return np.array(
        [numbers.setdefault(d or place, len(numbers)) for place, d in enumerate(digests)], np.int64
    )


def joined(count: int, *numbers: np.ndarray) -> np.ndarray:
    """The finest units in which no group of any of these is torn.

    Args:
        count: of samples, N.
        numbers: groupings; each int64 of shape (N,), from 0.

    Returns:
        Number of the unit of each sample, from 0 in order of appearance: int64 of shape (N,).
    """
    if not numbers:
        return np.arange(count)
    # Samples and groups are the nodes of a graph, and a sample is tied to each of its groups.
    starts = np.cumsum([count, *(int(part.max(initial=-1)) + 1 for part in numbers)])
    ties = np.concatenate([part + start for part, start in zip(numbers, starts[:-1], strict=True)])
    samples = np.tile(np.arange(count), len(numbers))
    return in_order(components(int(starts[-1]), samples, ties)[:count])


def components(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Number of the connected component of each of ``count`` nodes; edges lead from ``first`` to ``second``."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(count, count))
    found: np.ndarray = connected_components(graph, directed=False)[1]
    return found


def in_order(numbers: np.ndarray) -> np.ndarray:
    """The same grouping, numbered from 0 in order of appearance."""
    _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[first.argsort()] = np.arange(len(first))
    return rank[inverse]
