"""Equal samples: what to say where they stand on both sides of a split, or have different targets."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch

from tlnb.engine.data.collections import Collection
from tlnb.engine.printable import few, printable

MOST = 2000  # items of another's data set that are read to be compared, on each side of a split
SECONDS = 0.5  # that this may take a side

Digests = Sequence[bytes | None]


def repeats(samples: Collection, digests: Digests) -> list[str]:
    """What to say about equal samples before they are split.

    Args:
        samples: all of them.
        digests: of each; equal ones are kept on one side of the split by these.

    Returns:
        Lines: how many there are, and where their targets differ.
    """
    first: dict[bytes, int] = {}
    pairs = [(first[d], i) for i, d in enumerate(digests) if d and first.setdefault(d, i) != i]
    if not pairs:
        return []
    notes = [
        f"{_counted(len(pairs), 'sample')} byte-equal to others; equal ones stay on one side of the split"
    ]
    torn = [(a, b) for a, b in pairs if not torch.equal(samples.targets[a], samples.targets[b])]
    if torn:
        a, b = torn[0]
        names = f"{printable(samples.name(a))} and {printable(samples.name(b))}"
        pairs_of = "pair of equal samples has" if len(torn) == 1 else "pairs of equal samples have"
        notes.append(f"{len(torn)} {pairs_of} different targets, such as {names}")
    return notes


def leaks(train: Collection, valid: Collection) -> list[str]:
    """What to say about validation samples that are equal to training samples.

    Where the digests of all samples are not known, which is so for another's data set, the first items of
    each side are read and compared, as far as that goes in a second.

    Returns:
        Lines: how many there are, and what was not looked at.
    """
    ours, theirs = (part.digests() or list(_read(part)) for part in (train, valid))
    lines = _found(train, valid, ours, theirs)
    seen = [(len(digests), len(part)) for digests, part in ((ours, train), (theirs, valid))]
    if not (train.same_twice and valid.same_twice):
        return ["its items are random, so equal samples in training and validation are not looked for"]
    if any(some < every for some, every in seen):
        (a, of_a), (b, of_b) = seen
        sides = f"{a:,} of {of_a:,} training and {b:,} of {of_b:,} validation samples"
        lines.append(f"equal samples were looked for among the first {sides} only")
    return lines


def _read(part: Collection) -> Iterator[bytes | None]:
    """Digests of the first samples."""
    if not part.same_twice:
        return
    end = time.monotonic() + SECONDS
    for index in range(min(len(part), MOST)):
        yield part.digest_of(index)
        if time.monotonic() > end:
            return


def _found(train: Collection, valid: Collection, ours: Digests, theirs: Digests) -> list[str]:
    known = {digest: index for index, digest in enumerate(ours) if digest}
    pairs = [(index, known[digest]) for index, digest in enumerate(theirs) if digest in known]
    if not pairs:
        return []
    shown = tuple(
        f"{printable(valid.name(v))} = {printable(train.name(t))} in training" for v, t in pairs[:3]
    )
    more = ", …" if len(pairs) > 3 else ""
    return [
        f"{_counted(len(pairs), 'validation sample')} byte-equal to training samples, so the figure is too good: "
        f"{few(shown)}{more}"
    ]


def _counted(count: int, what: str) -> str:
    return f"{count} {what} is" if count == 1 else f"{count} {what}s are"
