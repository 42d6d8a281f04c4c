"""Order in time: which samples are old enough to learn from, and which are the newest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np

from tlnb.display.tables import few, printable
from tlnb.errors import DataError, did_you_mean

_START = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Times:
    """When each sample was made.

    Attributes:
        values: larger is newer: float64 of shape (N,), seconds where dates were given.
        words: the same as it was written, (N,).
        by: how it was told, in words, such as ``column 'date'``.
    """

    values: np.ndarray
    words: tuple[str, ...]
    by: str

    def among(self, rows: np.ndarray) -> Times:
        """The times of some of the samples, in their order; places of shape (n,)."""
        return Times(self.values[rows], tuple(self.words[row] for row in rows), self.by)


def times_by(told: object, count: int, columns: Mapping[str, Sequence[Any]] | None = None) -> Times:
    """The times that a user means.

    Args:
        told: name of a column, or an array with an entry a sample: numbers, dates, or texts that hold a number
            or an ISO date (``2026-11-30``, with a time of day if wanted). A date without a zone counts as UTC.
        count: of samples.
        columns: of the table that the samples come from.

    Raises:
        DataError: no such column, an entry that is no time, or one time for all samples.
    """
    columns = columns or {}
    given: Sequence[Any]
    if isinstance(told, str):
        if told not in columns:
            there = few(tuple(map(printable, columns))) or "none"
            raise DataError(
                f"--time: no column {printable(told)!r}{did_you_mean(told, columns)}; the columns: {there}"
            )
        given, by = columns[told], f"column {printable(told)!r}"
    else:
        array = np.asarray(told)
        if array.ndim != 1:
            raise DataError(
                f"--time takes one entry a sample, not {type(told).__name__} of shape {array.shape}"
            )
        # Of dates only microseconds and coarser become Python's own.
        given = (array.astype("datetime64[us]") if array.dtype.kind == "M" else array).tolist()
        by = "the array"
    if len(given) != count:
        raise DataError(f"--time: {by} has {len(given):,} entries for {count:,} samples")
    values = np.array([_seconds(value, place, by) for place, value in enumerate(given)])
    if len(np.unique(values)) < 2:
        raise DataError(f"--time: {by} is the same for every sample, so none is newer than another")
    return Times(values, tuple(printable(str(value)) for value in given), by)


def _seconds(value: Any, place: int, by: str) -> float:
    try:
        if isinstance(value, str):
            try:
                found = float(value)
            except ValueError:
                found = _since(datetime.fromisoformat(value.strip()))
        elif isinstance(value, datetime):
            found = _since(value)
        elif isinstance(value, date):
            found = _since(datetime(value.year, value.month, value.day))
        else:
            found = float(value)
    except (TypeError, ValueError):
        found = float("nan")
    if not np.isfinite(found):
        raise DataError(
            f"--time: entry {place} of {by} is {printable(str(value))!r}; "
            "a number or a date such as 2026-11-30 is needed"
        )
    return found


def _since(moment: datetime) -> float:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - _START).total_seconds()


def in_time(units: np.ndarray, times: np.ndarray, shares: Sequence[int]) -> np.ndarray:
    """The part of each unit: the oldest in the first part, the newest in the last.

    A unit is as new as its newest sample; units of one time stay in one part.

    Args:
        units: number of the unit of each sample, from 0, (N,).
        times: of the samples, (N,).
        shares: whole numbers in the proportion that the parts should have.

    Raises:
        DataError: fewer different times than parts.
    """
    newest = np.full(int(units.max()) + 1, -np.inf)
    np.maximum.at(newest, units, times)
    moments, moment_of = np.unique(newest, return_inverse=True)
    if len(moments) < len(shares):
        raise DataError(
            f"--time: {len(shares)} parts need as many different times; there are {len(moments)} "
            "(what is in one group or byte-equal counts as its newest)"
        )
    upto = np.bincount(moment_of, weights=np.bincount(units), minlength=len(moments)).cumsum()
    part = np.zeros(len(moments), dtype=np.int64)
    border, whole = 0, sum(shares)
    for number in range(1, len(shares)):
        wanted = len(units) * sum(shares[:number]) / whole
        # At least one time for this part, and one for each part to come.
        possible = range(border + 1, len(moments) - (len(shares) - number) + 1)
        border = min(possible, key=lambda at: abs(upto[at - 1] - wanted))
        part[border:] = number
    return part[moment_of]
