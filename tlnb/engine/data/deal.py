"""Dealing units out to parts: whole, in the shares asked for, and each class to every part that it can reach.

scikit-learn's ``StratifiedGroupKFold`` goes the same way (large groups first, each to where it helps most), but
makes folds of one size only, and may leave a class out of a part that it could be in. All arithmetic here is
on whole numbers and the order comes from Python's own generator, so that every machine deals alike.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import numpy as np

SCALE = 1 << 40  # of weights, so that whole numbers stand for fractions
TRIED = 64  # units that are tried against each other, of each part, to bring a class where it lacks
REFINED = 500  # the largest units that are moved or swapped to come nearer to the shares
PARTNERS = 16  # units that each of them is tried against
SWEEPS = 3
NODES = 30_000  # steps of the search through all ways of dealing, where moves and swaps were not enough
DEPTH = 300  # units that it is made for

Counts = dict[int, int]  # stratum → samples of it


def deal(
    units: np.ndarray,
    rows: np.ndarray,
    strata: np.ndarray,
    shares: Sequence[int],
    seed: int,
    *,
    ranked: bool = True,
) -> np.ndarray:
    """The part of each unit.

    No part is empty that need not be; then as few classes as possible are lacking in parts; then the parts are
    near to their shares of each class and of all samples.

    Args:
        units: number of the unit of each sample, from 0, (N,).
        rows, strata: pairs of a sample's place and a stratum that it belongs to, such as its class; both (M,).
        shares: whole numbers in the proportion that the parts should have.
        seed: which of equal units goes where.
        ranked: a class that is lacking in an early part is worse than in all later ones together.

    Returns:
        int64 of shape (units,).
    """
    sizes = np.bincount(units)
    memberships = np.bincount(units[rows], minlength=len(sizes))
    alone = (sizes == 1) & (memberships == 1)
    single = np.full(len(sizes), -1)
    single[units[rows]] = strata
    single[~alone] = -1
    keys = random.Random(seed)
    order = np.array([keys.random() for _ in range(len(sizes))])
    dealer = _Dealer(
        _contents(units, rows, strata, ~alone), single, int(strata.max(initial=-1)) + 1, shares, ranked
    )
    # Large groups first; by powers of two, so that the seed has a say among groups of about the same size.
    large = np.array([-size.bit_length() for size in sizes.tolist()])
    many = np.flatnonzero(~alone)
    many = many[np.lexsort((order[many], large[many]))]
    dealer.one_by_one(many.tolist())
    few = np.flatnonzero(alone)
    dealer.in_bulk(few[np.lexsort((order[few], single[few]))])
    dealer.mend()
    dealer.even_out(many[:REFINED].tolist(), keys)
    return dealer.part


def _contents(
    units: np.ndarray, rows: np.ndarray, strata: np.ndarray, wanted: np.ndarray
) -> dict[int, Counts]:
    """Samples of each stratum in each of the units that are wanted; stratum -1 counts them all."""
    found: dict[int, Counts] = {
        unit: {-1: size} for unit, size in enumerate(np.bincount(units).tolist()) if wanted[unit]
    }
    width = int(strata.max(initial=0)) + 1
    among = wanted[units[rows]]
    pairs, counts = np.unique(units[rows][among] * width + strata[among], return_counts=True)
    for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
        found[pair // width][pair % width] = count
    return found


class _Dealer:
    """Where each unit is, and how far the parts are from what they should be.

    A stratum's distance in a part is the square of (samples there - share of all of its samples), over all of
    its samples; ``have`` is in samples, ``need`` in samples times the sum of the shares.
    """

    def __init__(
        self,
        contents: dict[int, Counts],
        single: np.ndarray,
        strata: int,
        shares: Sequence[int],
        ranked: bool,
    ):
        self._contents, self._single = contents, single
        self.parts, self.whole = range(len(shares)), sum(shares)
        self.part = np.full(len(single), -1)
        # Index -1 of each list is that of all samples.
        alone = np.bincount(single[single >= 0], minlength=strata).tolist()
        total = [*alone, sum(alone)]
        self.reach = list(total)  # units of each stratum
        for content in contents.values():
            for stratum, count in content.items():
                total[stratum] += count
                self.reach[stratum] += 1
        self.left = list(self.reach)  # units not dealt yet
        self.need = [[share * n for n in total] for share in shares]
        self.have = [[0] * (strata + 1) for _ in shares]
        self.gaps = [len(shares)] * (strata + 1)  # parts that lack the stratum
        self.weight = [SCALE // n if n else 0 for n in total]
        self.worth = [1 << (len(shares) - 1 - part) if ranked else 1 for part in self.parts]
        # An empty part is worse than all else.
        self.stress = [1] * strata + [(strata + 1) * sum(self.worth)]
        self.lacks = sum(self.worth) * sum(
            stress for stress, units in zip(self.stress, self.reach, strict=True) if units
        )
        """What the strata that are lacking in parts weigh together."""
        self.carry = [0] * len(shares)

    def content(self, unit: int) -> Counts:
        """Samples of each stratum in a unit."""
        return self._contents.get(unit) or {-1: 1, int(self._single[unit]): 1}

    # ------------------------------------------------------------ dealing

    def one_by_one(self, units: Iterable[int]) -> None:
        """Each to the part where it helps most; where its class comes to an end, to one that lacks it."""
        for unit in units:
            content = self.content(unit)
            urgent = [c for c in content if self.left[c] <= self.gaps[c]]
            gains = [
                (
                    -self.worth[p] * sum(self.stress[c] for c in urgent if not self.have[p][c]),
                    self.cost(content, p),
                    p,
                )
                for p in self.parts
            ]
            self.put(unit, min(gains)[2])
            for stratum in content:
                self.left[stratum] -= 1

    def in_bulk(self, units: np.ndarray) -> None:
        """Units of one sample with one stratum: of each stratum as many to each part as it still needs.

        Args:
            units: sorted by stratum.
        """
        strata, starts = np.unique(self._single[units], return_index=True)
        for stratum, members in zip(strata.tolist(), np.split(units, starts[1:]), strict=False):
            counts = self._allotted(stratum, len(members))
            self.part[members] = np.repeat(list(self.parts), counts)
            for part, count in enumerate(counts):
                if count:
                    self._add({stratum: count, -1: count}, part)

    def _allotted(self, stratum: int, count: int) -> list[int]:
        """How many of so many samples each part gets: one each that has none, then by what it lacks.

        What is lost by rounding in one class is carried over to the next, or small classes would all be
        rounded to the same side.
        """
        got = [0 for _ in self.parts]
        for part in self.parts:
            if not self.have[part][stratum] and sum(got) < count:
                got[part] = 1
        lacking = [
            max(self.need[p][stratum] - (self.have[p][stratum] + got[p]) * self.whole, 0) for p in self.parts
        ]
        rest, every = count - sum(got), max(sum(lacking), 1)
        exact = [rest * lack * SCALE // every for lack in lacking]
        got = [g + e // SCALE for g, e in zip(got, exact, strict=True)]
        owed = [c + e % SCALE for c, e in zip(self.carry, exact, strict=True)]
        open_ = sorted((p for p in self.parts if exact[p] % SCALE), key=lambda p: (-owed[p], p))
        for part in open_[: count - sum(got)]:
            got[part] += 1
            owed[part] -= SCALE
        self.carry = owed
        got[0] += count - sum(got)
        return got

    def put(self, unit: int, part: int) -> None:
        """Deal a unit, or take it from its part and deal it anew."""
        if self.part[unit] >= 0:
            self.take(unit)
        self._add(self.content(unit), part)
        self.part[unit] = part

    def _add(self, content: Counts, part: int) -> None:
        have = self.have[part]
        for stratum, count in content.items():
            if not have[stratum]:
                self.lacks -= self.worth[part] * self.stress[stratum]
                self.gaps[stratum] -= 1
            have[stratum] += count

    def take(self, unit: int) -> None:
        """Take a unit from its part."""
        part = int(self.part[unit])
        have = self.have[part]
        for stratum, count in self.content(unit).items():
            have[stratum] -= count
            if not have[stratum]:
                self.lacks += self.worth[part] * self.stress[stratum]
                self.gaps[stratum] += 1
        self.part[unit] = -1

    def cost(self, content: Counts, part: int) -> int:
        """By how much the distance of a part grows if it gets these samples."""
        have, need = self.have[part], self.need[part]
        return sum(
            self.weight[c] * n * (n * self.whole + 2 * (have[c] * self.whole - need[c]))
            for c, n in content.items()
        )

    # ------------------------------------------------------------ classes that are lacking

    def _unavoidable(self) -> int:
        """The same if every stratum were in as many parts as it has units."""
        return sum(
            stress * sum(self.worth[units:])
            for stress, units in zip(self.stress, self.reach, strict=True)
            if units
        )

    def mend(self) -> None:
        """Move or swap units while that brings a class to a part that lacks it."""
        least = self._unavoidable()
        while (before := self.lacks) > least and self._better(before):
            pass
        if self.lacks > least and len(self.part) <= DEPTH:
            for unit, part in enumerate(_Search(self, least).best()):
                self.put(unit, part)

    def _better(self, before: int) -> bool:
        """Make the first move or swap found that lets less lack; False where there is none."""
        for part in self.parts:
            absent = {c for c, n in enumerate(self.have[part]) if not n and self.reach[c]}
            if self.reach[-1] and not self.have[part][-1]:
                absent.add(-1)
            if not absent:
                continue
            elsewhere = np.flatnonzero(self.part != part).tolist()
            bring = [u for u in elsewhere if absent & self.content(u).keys()]
            give = np.flatnonzero(self.part == part)[:TRIED].tolist()
            for unit in bring[:TRIED]:
                source = int(self.part[unit])
                self.put(unit, part)
                if self.lacks < before:
                    return True
                for other in give:
                    self.put(other, source)
                    if self.lacks < before:
                        return True
                    self.put(other, part)
                self.put(unit, source)
        return False

    # ------------------------------------------------------------ nearer to the shares

    def even_out(self, units: Sequence[int], keys: random.Random) -> None:
        """Move or swap units while that brings the parts nearer to their shares and no class lacks for it."""
        for _ in range(SWEEPS):
            changed = False
            for unit in units:
                changed |= any(self._try([(unit, part)]) for part in self.parts if part != self.part[unit])
                for _ in range(min(PARTNERS, len(units))):
                    other = units[int(keys.random() * len(units))]
                    here, there = int(self.part[unit]), int(self.part[other])
                    changed |= here != there and self._try([(unit, there), (other, here)])
            if not changed:
                return

    def _try(self, moves: Sequence[tuple[int, int]]) -> bool:
        """Make these moves if they help; whether they did."""
        before, lacks, gain = [int(self.part[unit]) for unit, _ in moves], self.lacks, 0
        for unit, part in moves:
            content, old = self.content(unit), int(self.part[unit])
            self.take(unit)
            gain += self.cost(content, part) - self.cost(content, old)
            self.put(unit, part)
        if gain < 0 and self.lacks <= lacks:
            return True
        for (unit, _), old in zip(moves, before, strict=True):
            self.put(unit, old)
        return False


class _Search:
    """The way of dealing in which the least lacks, found by trying all of them as far as the steps reach.

    Args:
        dealer: with a way to be bettered.
        least: what must lack in any case.
    """

    def __init__(self, dealer: _Dealer, least: int):
        self.worth, self.least, self.steps = dealer.worth, least, NODES
        contents = [dealer.content(unit) for unit in range(len(dealer.part))]
        # What is rare comes first: there the choice is smallest.
        self.order = sorted(
            range(len(contents)), key=lambda u: (min(dealer.reach[c] for c in contents[u]), u)
        )
        # Bit 0 stands for all samples, so that no part stays empty where that can be.
        self.empty = dealer.stress[-1]
        self.masks = [sum(1 << (c + 1) for c in contents[unit]) for unit in self.order]
        self.rest = [0]  # what the units from each on hold
        for mask in reversed(self.masks):
            self.rest.append(self.rest[-1] | mask)
        self.rest.reverse()
        self.lacks, self.choice = dealer.lacks, dealer.part.tolist()
        self.part = [0] * len(contents)

    def best(self) -> list[int]:
        """The part of each unit."""
        self._go(0, [0] * len(self.worth))
        found: list[int] = self.choice
        return found

    def _go(self, place: int, masks: list[int]) -> None:
        self.steps -= 1
        lacks = sum(w * self._weight(m | self.rest[place]) for w, m in zip(self.worth, masks, strict=True))
        if lacks >= self.lacks or self.steps < 0 or self.lacks <= self.least:
            return
        if place == len(self.masks):
            self.lacks, self.choice = lacks, list(self.part)
            return
        mask = self.masks[place]
        gains = [-w * (mask & ~m).bit_count() for w, m in zip(self.worth, masks, strict=True)]
        for part in sorted(range(len(masks)), key=gains.__getitem__):
            self.part[self.order[place]] = part
            self._go(place + 1, [*masks[:part], masks[part] | mask, *masks[part + 1 :]])

    def _weight(self, mask: int) -> int:
        """What a part with this mask lacks."""
        gone = self.rest[0] & ~mask
        return (gone >> 1).bit_count() + self.empty * (gone & 1)
