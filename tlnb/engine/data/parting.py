"""The parts of a source where more is said of them than a share: a test part, groups, a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from tlnb.engine.core.fingerprint import tensors_digest
from tlnb.engine.data.chronology import Times, times_by
from tlnb.engine.data.collections import Collection, Pictures, ReadPictures
from tlnb.engine.data.groups import NEAR, Groups, groups_by
from tlnb.engine.data.near import near_pictures
from tlnb.engine.data.partition import TEST, partition
from tlnb.engine.data.places import Places
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.data.readers import FileReader
from tlnb.engine.data.request import OWN, SourceRequest
from tlnb.engine.data.sealed import Sealed
from tlnb.engine.data.sources.found import Found
from tlnb.errors import DataError


@dataclass(frozen=True)
class Parts:
    """What a source is split into.

    Attributes:
        train: samples to learn from.
        valid: samples to measure on.
        test: samples under seal; None for none.
        places: of all of them in the source; None where they are not in one piece.
        units: number of what was kept whole, for each sample of the source, (N,); None where nothing was told.
        groups: of the samples of the source that stay together; None for none.
        times: of the samples of the source; None where they are in no order.
        notes: what the user should know.
    """

    train: Collection
    valid: Collection
    test: Sealed | None = None
    places: Places | None = None
    units: np.ndarray | None = None
    groups: Groups | None = None
    times: Times | None = None
    notes: tuple[str, ...] = ()


def parted(found: Found, request: SourceRequest) -> Parts:
    """The parts that the user asks for.

    Raises:
        DataError: an impossible share, groups or times that do not fit, or parts that are apart already.
    """
    everything, own = (found.train, None) if found.own is None else (found.everything, found.own)
    if found.own is None and found.valid is not None:
        raise DataError(
            "--test, --groups and --time need the samples in one piece; this source has a validation part of its "
            "own: join the two"
        )
    assert everything is not None
    held_out = own is not None and bool((own == TEST).any())
    if request.test == OWN and not held_out:
        raise DataError("--test: this source has no test part of its own; --test 0.2 sets a share aside")
    share = None if request.test in (None, OWN) else float(request.test)
    count, told = len(everything), request.groups
    near = near_pictures(_pictures(everything)) if isinstance(told, str) and told == NEAR else None
    groups = None
    if told is not None and near is None:
        groups = groups_by(told, count, columns=found.columns, paths=found.paths)
    times = None if request.time is None else times_by(request.time, count, found.columns)
    made = partition(
        everything.targets, valid=request.valid, test=share, seed=request.seed, digests=everything.digests(),
        groups=groups, near=near, times=times, own=own, classes=found.classes,
    )  # fmt: skip
    train, valid, test = (everything.subset(rows) for rows in (made.train, made.valid, made.test))
    sealed = None
    if len(test):
        rows = [("rows", made.test), ("targets", test.targets)]
        sealed = Sealed(test, tensors_digest(rows, note=f"{count} {'|'.join(found.classes)}"))
    places = Places(made.train, made.valid, made.test, made.left_out)
    together = groups or near
    units = made.units if together is not None else None
    return Parts(train, valid, sealed, places, units, together, times, made.notes)


def _pictures(samples: Collection) -> Iterator[Tensor]:
    """Each picture as it is, before it is fitted to a network.

    Raises:
        DataError: these are no pictures.
    """
    if isinstance(samples, Pictures):
        yield from samples.images
    elif isinstance(samples, ReadPictures) and isinstance(samples.reader, FileReader):
        for row in samples.rows.tolist():
            yield samples.reader.read(row, Preprocess(), whole=True)
    else:
        raise DataError(
            "--groups near compares pictures, and these samples are none; give a column or $array"
        )
