"""How sure a score is, and whether the difference of two is more than luck."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from tlnb.display.tables import printable
from tlnb.engine.core.metrics import BLOCK, Score
from tlnb.engine.results.scores import wilson
from tlnb.errors import DataError

DRAWS = 2000
LUCK = 0.05
FEW = 20  # groups, below which a bootstrap over them is too sure of itself


@dataclass(frozen=True)
class Interval:
    """Where a score lies with 95 % confidence.

    Attributes:
        low, high: the bounds; NaN where they cannot be told.
        how: they were found, in words.
    """

    low: float
    high: float
    how: str


def interval(
    score: Score, targets: np.ndarray, answers: np.ndarray, units: np.ndarray | None = None, seed: int = 0
) -> Interval:
    """The 95 % interval of a score.

    For accuracy without groups it is Wilson's; otherwise the 2.5 and 97.5 % points of a bootstrap that draws
    groups, or samples where there are none.

    Args:
        score: which.
        targets, answers: as the score takes them.
        units: number of the group of each sample, (N,); None where each stands alone.
        seed: of the draws.
    """
    count = len(targets)
    number = count if units is None else len(np.unique(units))
    grouped = number < count
    if score.name == "accuracy" and not grouped:
        hits = round(score(targets, answers) * count)
        return Interval(*wilson(hits, count), "Wilson")
    what = "groups" if grouped else "samples"
    if number < 2:
        return Interval(float("nan"), float("nan"), f"of one of the {what} nothing can be told")
    found = np.concatenate([score.many(targets, answers, w) for w in draws(count, units, seed)])
    how = f"bootstrap over {number:,} {what}" + ", too few to be sure" * (number < FEW)
    low, high = _bounds(found)
    if score.name == "accuracy" and low == high and low in (0.0, 1.0):
        # Where all is right, every draw is; the rule for shares still knows how many groups there were.
        return Interval(*wilson(round(low * number), number), f"Wilson over {number:,} {what}")
    return Interval(low, high, how)


def draws(
    count: int, units: np.ndarray | None = None, seed: int = 0, number: int = DRAWS
) -> Iterator[np.ndarray]:
    """How often each sample is drawn when as many units as there are are drawn with replacement.

    Args:
        count: of samples, N.
        units: of the samples, (N,); None where each stands alone.
        seed: the same one gives the same draws.
        number: of draws.

    Yields:
        float64 of shape (B, N), a block of draws at a time.
    """
    unit_of = np.arange(count) if units is None else np.unique(units, return_inverse=True)[1]
    every = int(unit_of.max()) + 1
    generator = np.random.default_rng(seed)
    block = max(BLOCK // count, 1)
    for at in range(0, number, block):
        rows = min(block, number - at)
        drawn = generator.integers(every, size=(rows, every)) + every * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * every).reshape(rows, every)
        yield counts[:, unit_of].astype(float)


def _bounds(values: np.ndarray) -> tuple[float, float]:
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def fold_interval(values: Sequence[float], held_out: float) -> Interval:
    """The 95 % interval of the mean over folds, which share most of their training samples.

    Their spread alone would be too sure; the correction is that of Nadeau and Bengio (2003).

    Args:
        values: the score of each fold.
        held_out: validation samples of a fold over its training samples.
    """
    from scipy.stats import t

    number = len(values)
    if number < 2:
        return Interval(float("nan"), float("nan"), "one fold has no spread")
    spread = np.std(values, ddof=1) * np.sqrt(1 / number + held_out)
    half = float(t.ppf(0.975, number - 1) * spread)
    middle = float(np.mean(values))
    return Interval(
        middle - half, middle + half, f"over {number} folds, corrected for shared training samples"
    )


# -------------------------------------------------------------------- two networks


@dataclass(frozen=True)
class Difference:
    """Two networks on the same samples.

    Attributes:
        names: of the two, a and b.
        score: by which they are compared.
        values: of a and b.
        low, high: 95 % interval of b - a, from a bootstrap of pairs.
        p: the probability of a difference at least as large by luck alone: McNemar's exact test for accuracy of
            samples that stand alone, from the bootstrap otherwise.
        test: which of the two, in words.
        only: samples that only a, and that only b has right; None for other scores than accuracy.
    """

    names: tuple[str, str]
    score: Score
    values: tuple[float, float]
    low: float
    high: float
    p: float
    test: str
    only: tuple[int, int] | None = None

    @property
    def difference(self) -> float:
        """The value of b minus that of a."""
        return self.values[1] - self.values[0]

    @property
    def more_than_luck(self) -> bool:
        """Whether luck alone would give it in less than one case of twenty."""
        return self.p < LUCK

    @property
    def better(self) -> str | None:
        """Name of the better one; None where that may be luck."""
        if not self.more_than_luck or not self.difference:
            return None
        return self.names[(self.difference > 0) == self.score.larger]

    def __repr__(self) -> str:
        a, b = self.names
        shown = " and ".join(
            f"{n} {self.score.show(v)}" for n, v in zip(self.names, self.values, strict=True)
        )
        points = self.score.show(1).endswith("%")
        gap, low, high = (f"{100 * x:+.1f}" if points else f"{x:+.4f}" for x in (
            self.difference, self.low, self.high
        ))  # fmt: skip
        only = f"; only {a} has {self.only[0]} right, only {b} {self.only[1]}" if self.only else ""
        verdict = f"{self.better} is better by more than luck" if self.better else "that may be luck"
        return (
            f"{self.score.name}: {shown}; {b} − {a}: {gap}{' points' * points} (95 % sure: {low} to {high}){only}; "
            f"{self.test} p = {self.p:.2g}: {verdict}"
        )

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self))}</p>"


def compare(
    score: Score,
    targets: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    *,
    names: tuple[str, str] = ("a", "b"),
    units: np.ndarray | None = None,
    seed: int = 0,
) -> Difference:
    """Whether two networks differ by more than luck, from their answers on the same samples.

    Args:
        score: by which.
        targets: as the score takes them.
        a, b: the answers of either network, in the same order.
        names: of the two.
        units: number of the group of each sample, (N,); None where each stands alone.
        seed: of the draws.

    Raises:
        DataError: the answers are not for the same samples and outputs.
    """
    if a.shape != b.shape or len(a) != len(targets):
        raise DataError(
            f"{printable(names[0])} and {printable(names[1])} cannot be compared: answers of shapes {a.shape} and "
            f"{b.shape} for {len(targets):,} samples"
        )
    values = score(targets, a), score(targets, b)
    gaps = np.concatenate([
        score.many(targets, b, w) - score.many(targets, a, w) for w in draws(len(targets), units, seed)
    ])  # fmt: skip
    gaps = gaps[~np.isnan(gaps)]
    low, high = _bounds(gaps)
    shown = (printable(names[0]), printable(names[1]))
    grouped = units is not None and len(np.unique(units)) < len(targets)
    if score.name != "accuracy":
        return Difference(shown, score, values, low, high, _by_draws(gaps), "bootstrap")
    right = [_right(score.kind, targets, answers) for answers in (a, b)]
    only = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    if grouped:
        return Difference(shown, score, values, low, high, _by_draws(gaps), "bootstrap over groups", only)
    return Difference(shown, score, values, low, high, mcnemar(*only), "McNemar", only)


def _right(kind: str, targets: np.ndarray, answers: np.ndarray) -> np.ndarray:
    if kind == "classes":
        found: np.ndarray = answers.argmax(1) == targets
        return found
    return ((answers >= 0.5) == (targets > 0)).all(1)


def _by_draws(gaps: np.ndarray) -> float:
    """Two-sided: how many of the draws lie on the other side of 0."""
    if not len(gaps):
        return 1.0
    beyond = min(int((gaps <= 0).sum()), int((gaps >= 0).sum()))
    return min(2 * (beyond + 1) / (len(gaps) + 1), 1.0)


def mcnemar(only_a: int, only_b: int) -> float:
    """The exact test of McNemar (1947): how likely so uneven a share of the samples on which two differ is."""
    from scipy.stats import binom

    both = only_a + only_b
    return min(1.0, 2 * float(binom.cdf(min(only_a, only_b), both, 0.5))) if both else 1.0
