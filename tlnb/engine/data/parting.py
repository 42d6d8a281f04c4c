"""The parts of a source where more is said of them than a share: a test part, groups, a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from tlnb.engine.core.fingerprint import tensors_digest
from tlnb.engine.data.chronology import Times, times_by
from tlnb.engine.data.groups import NEAR, Groups, groups_by
from tlnb.engine.data.near import TIES, from_ties, near_features, near_pictures, ties_of
from tlnb.engine.data.partition import TEST, partition
from tlnb.engine.data.places import Places
from tlnb.engine.data.raw import RawDataset
from tlnb.engine.data.request import OWN, SourceRequest
from tlnb.engine.data.sealed import Sealed
from tlnb.engine.data.sources.found import Found
from tlnb.errors import DataError

FeaturesOf = Callable[[RawDataset], Tensor]


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
        tied: near duplicates as a text by which they can be had again; empty where the word ``near`` does.
        notes: what the user should know.
    """

    train: RawDataset
    valid: RawDataset
    test: Sealed | None = None
    places: Places | None = None
    units: np.ndarray | None = None
    groups: Groups | None = None
    times: Times | None = None
    tied: str = ""
    notes: tuple[str, ...] = ()


def parted(found: Found, request: SourceRequest, features: FeaturesOf | None = None) -> Parts:
    """The parts that the user asks for.

    Args:
        found: the samples.
        request: what is asked.
        features: gives those of a network, (N, D), by which near duplicates are told; None where there is none.

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
    count, told = len(everything), _of_used(request.groups, found)
    near, tied, said = _near(everything, told, features)
    groups = None
    if told is not None and near is None:
        groups = groups_by(told, count, columns=found.columns, paths=found.paths)
    when = _of_used(request.time, found)
    times = None if when is None else times_by(when, count, found.columns)
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
    return Parts(train, valid, sealed, places, units, together, times, tied, (*made.notes, *said))


def _of_used(told: Any, found: Found) -> Any:
    """An array with an entry for each sample of the source, without those that are not used."""
    if found.used is None or not isinstance(told, tuple) or len(told) <= int(found.used.max()):
        return told
    return tuple(told[place] for place in found.used.tolist())


def _near(
    samples: RawDataset, told: object, features: FeaturesOf | None
) -> tuple[Groups | None, str, tuple[str, ...]]:
    """Near duplicates, the text by which they can be had again, and how they were told.

    Features of a network see more than a hash of pixels, but not where they make a whole class alike.
    """
    if not isinstance(told, str) or not (told == NEAR or told.startswith(TIES)):
        return None, "", ()
    if told != NEAR:
        return from_ties(told, len(samples)), told, ()
    hashed = "near duplicates are told by how pictures look"
    if features is None:
        return near_pictures(samples.pictures()), "", (hashed,)
    try:
        found = near_features(features(samples))
    except DataError as trouble:
        if samples.kind != "pictures":
            raise
        why = str(trouble).removeprefix("--groups near: ").partition(",")[0]
        return near_pictures(samples.pictures()), "", (f"{hashed}: {why}",)
    return found, ties_of(found), ("near duplicates are told by the network's features",)
