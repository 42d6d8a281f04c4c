"""Scores by name, each for many weightings of the samples at once, so that a bootstrap costs little.

Every score equals scikit-learn's where that has one. Where a class is in no sample, it is left out of a mean
over classes; where a score is undefined (the area under the curve of a single class), it is NaN, not an error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tlnb.errors import BadArguments, did_you_mean

CLASSES, LABELS, VALUES = "classes", "labels", "values"
UNEVEN = (
    5  # from this ratio of the largest class to the smallest on, balanced accuracy is shown beside accuracy
)
SHARES = ("accuracy", "balanced", "top5")  # are written in per cent
BLOCK = 1 << 21  # numbers that are worked on at once

Compute = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Score:
    """A number by which networks are compared.

    Attributes:
        name: by which it is asked for.
        kind: what it is for: ``classes``, ``labels`` or ``values``.
        title: what it is, in words.
        larger: whether more is better.
    """

    name: str
    kind: str
    title: str
    larger: bool
    compute: Compute = field(repr=False)

    def __call__(self, targets: np.ndarray, answers: np.ndarray, weights: np.ndarray | None = None) -> float:
        """The score.

        Args:
            targets: class numbers (N,), labels (N, labels) of 0 and 1, or values (N, values).
            answers: probabilities (N, classes) or (N, labels), or values (N, values).
            weights: of the samples, not negative, (N,); None for all alike.
        """
        each = np.ones((1, len(targets))) if weights is None else np.asarray(weights, float)[None]
        return float(self.many(targets, answers, each)[0])

    def many(self, targets: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """The score under several weightings: (B,), for weights (B, N)."""
        rows = max(BLOCK // max(len(targets), 1), 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.concatenate([
                self.compute(targets, answers, weights[at : at + rows]) for at in range(0, len(weights), rows)
            ])  # fmt: skip

    def better(self, value: float, than: float) -> bool:
        """Whether one value is better than another; an undefined one never is, and anything is better than it."""
        if value != value:
            return False
        return than != than or (value > than if self.larger else value < than)

    def show(self, value: float) -> str:
        """The value as people write it."""
        return f"{100 * value:.1f} %" if self.name in SHARES else f"{value:.4f}"


def score_named(name: str, kind: str) -> Score:
    """The score of that name.

    Args:
        name: such as ``auroc``.
        kind: what the data has: ``classes``, ``labels`` or ``values``.

    Raises:
        BadArguments: there is none of that name for such data.
    """
    there = SCORES[kind]
    if name in there:
        return there[name]
    others = [word for word, scores in SCORES.items() if name in scores]
    hint = f"; it is for {' and '.join(others)}" if others else did_you_mean(name, there)
    raise BadArguments(f"--score takes {', '.join(there)} for {kind}, not {name!r}{hint}")


def shown_beside(targets: np.ndarray, kind: str) -> str | None:
    """``balanced`` where the largest class is more than five times the smallest; None otherwise."""
    if kind != CLASSES or not len(targets):
        return None
    counts = np.bincount(targets)
    counts = counts[counts > 0]
    return "balanced" if counts.max() > UNEVEN * counts.min() else None


class ScoreMeter:
    """Gathers a score over batches; nothing waits for the device before it is asked for.

    Args:
        score: which.
        answers: what scores mean, such as a task's ``answers``.
    """

    def __init__(self, score: Score, answers: Callable[[Tensor], Tensor]):
        self.score, self._answers = score, answers
        self._scores: list[Tensor] = []
        self._targets: list[Tensor] = []

    def update(self, scores: Tensor, targets: Tensor) -> None:
        """Take in a batch: scores (B, outputs) as the network gives them, targets as it learns them."""
        self._scores.append(scores.detach())
        self._targets.append(targets)

    def value(self) -> float:
        """The score over all batches."""
        targets = torch.cat(self._targets)
        if self.score.kind == VALUES:  # in the user's unit, as the answers are
            targets = self._answers(targets)
        answers = self._answers(torch.cat(self._scores))
        return self.score(targets.cpu().numpy(), answers.cpu().numpy())


# -------------------------------------------------------------------- one class a sample


def _counts(
    targets: np.ndarray, answers: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weight of the samples of each class, of those taken for it, and of those rightly so: (B, classes) each."""
    from scipy.sparse import csr_array  # half a second to import, for those who need it

    predicted = answers.argmax(1)
    rows, every = np.arange(len(targets)), np.ones(len(targets))
    tables = [
        csr_array((mask, (rows, columns)), shape=answers.shape)
        for mask, columns in ((every, targets), (every, predicted), (every * (predicted == targets), targets))
    ]
    true, taken, hit = (np.asarray(weights @ table) for table in tables)
    return true, taken, hit


def _accuracy(targets: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _mean(answers.argmax(1) == targets, weights)


def _balanced(targets: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    true, _, hit = _counts(targets, answers, weights)
    return _over_columns(hit / true, true > 0)


def _f1(targets: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    true, taken, hit = _counts(targets, answers, weights)
    return _over_columns(2 * hit / (true + taken), true + taken > 0)


def _kappa(targets: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    true, taken, hit = _counts(targets, answers, weights)
    whole = weights.sum(1)
    chance = (true * taken).sum(1) / whole**2
    return (hit.sum(1) / whole - chance) / (1 - chance)


def _quadratic(targets: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    predicted = answers.argmax(1)
    seen = _mean((targets - predicted) ** 2, weights)
    first, second = (_mean(numbers, weights) for numbers in (targets, predicted))
    expected = _mean(targets**2, weights) - 2 * first * second + _mean(predicted**2, weights)
    return 1 - seen / expected


def _matthews(targets: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    true, taken, hit = _counts(targets, answers, weights)
    whole = weights.sum(1)
    together = hit.sum(1) * whole - (true * taken).sum(1)
    apart = (whole**2 - (true**2).sum(1)) * (whole**2 - (taken**2).sum(1))
    # By rounding, what should be 0 may be a little off.
    there = apart > 1e-12 * whole**4
    return np.where(there, together / np.sqrt(np.where(there, apart, 1)), 0.0)


def _top5(targets: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    own = np.take_along_axis(answers, targets[:, None], 1)
    return _mean((answers > own).sum(1) < 5, weights)


def _log_loss(targets: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _mean(-np.log(_inside(np.take_along_axis(answers, targets[:, None], 1)[:, 0])), weights)


def _auroc(targets: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _each_ranked(_one_hot(targets, answers), answers, weights, _area)


def _ap(targets: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _each_ranked(_one_hot(targets, answers), answers, weights, _precision)


def _one_hot(targets: np.ndarray, answers: np.ndarray) -> np.ndarray:
    return targets[:, None] == np.arange(answers.shape[1])


# -------------------------------------------------------------------- several labels a sample


def _all_labels(targets: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _mean(((answers >= 0.5) == (targets > 0)).all(1), weights)


def _label_f1(targets: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    there, taken = (targets > 0).astype(float), (answers >= 0.5).astype(float)
    hit, both = weights @ (there * taken), weights @ (there + taken)
    return _over_columns(2 * hit / both, both > 0)


def _label_auroc(targets: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _each_ranked(targets > 0, answers, weights, _area)


def _label_ap(targets: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _each_ranked(targets > 0, answers, weights, _precision)


def _label_loss(targets: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    sure = _inside(answers)
    return _mean(-np.where(targets > 0, np.log(sure), np.log1p(-sure)).mean(1), weights)


# -------------------------------------------------------------------- measured values


def _r2(targets: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    whole = weights.sum(1, keepdims=True)
    # Around the mean: squares of large numbers would lose what differs.
    centred = targets - targets.mean(0)
    spread = weights @ centred**2 - (weights @ centred) ** 2 / whole
    varies = spread > 1e-12 * np.maximum(weights @ centred**2, 1e-300)
    return _over_columns(1 - (weights @ (answers - targets) ** 2) / spread, varies)


def _mae(targets: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _mean(np.abs(answers - targets).mean(1), weights)


def _rmse(targets: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    squares = weights @ (answers - targets) ** 2
    return np.sqrt(squares / weights.sum(1, keepdims=True)).mean(1)


def _mse(targets: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _mean(((answers - targets) ** 2).mean(1), weights)


# -------------------------------------------------------------------- parts of them


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weights @ values.astype(float) / weights.sum(1)


def _over_columns(values: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Mean over the columns that are there; NaN where none is."""
    return np.where(there, values, 0).sum(1) / there.sum(1)


def _inside(probabilities: np.ndarray) -> np.ndarray:
    """Without 0 and 1, of which the logarithm is infinite."""
    least = np.finfo(probabilities.dtype).eps
    return np.clip(probabilities, least, 1 - least).astype(float)


def _each_ranked(
    there: np.ndarray,
    answers: np.ndarray,
    weights: np.ndarray,
    of: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """A figure of the ranking by each column, the mean over the columns for which it is defined."""
    columns = []
    for column in range(answers.shape[1]):
        scores = answers[:, column]
        order = np.argsort(-scores, kind="stable")
        ranked = scores[order]
        # Samples of one score are at one place.
        starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
        positive = there[order, column]
        own = weights[:, order]
        columns.append(of(*(np.add.reduceat(own * side, starts, axis=1) for side in (positive, ~positive))))
    table = np.stack(columns, 1)
    return _over_columns(table, ~np.isnan(table))


def _area(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """The area under the ROC curve from the weight of either side at each place, best first: (B,)."""
    below = negative.sum(1, keepdims=True) - negative.cumsum(1)
    pairs = positive.sum(1) * negative.sum(1)
    return np.where(pairs > 0, (positive * (below + negative / 2)).sum(1) / pairs, np.nan)


def _precision(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """The average precision from the weight of either side at each place, best first: (B,)."""
    hit = positive.cumsum(1)
    taken = hit + negative.cumsum(1)
    share = np.where(taken > 0, hit / taken, 0)
    every = positive.sum(1)
    return np.where(every > 0, (share * positive).sum(1) / every, np.nan)


def _table(kind: str, *rows: tuple[str, str, bool, Compute]) -> dict[str, Score]:
    return {name: Score(name, kind, title, larger, compute) for name, title, larger, compute in rows}


SCORES: dict[str, dict[str, Score]] = {
    CLASSES: _table(
        CLASSES,
        ("accuracy", "share of samples that are right", True, _accuracy),
        ("balanced", "mean over the classes of the share that is right", True, _balanced),
        ("f1", "F1, the mean over the classes", True, _f1),
        ("auroc", "area under the ROC curve of each class against the others, the mean", True, _auroc),
        ("ap", "average precision of each class against the others, the mean", True, _ap),
        ("kappa", "Cohen's kappa", True, _kappa),
        ("qwk", "Cohen's kappa with quadratic weights, for classes in an order", True, _quadratic),
        ("mcc", "Matthews' correlation", True, _matthews),
        ("top5", "share of samples whose class is among the five likeliest", True, _top5),
        ("loss", "mean cross-entropy", False, _log_loss),
    ),
    LABELS: _table(
        LABELS,
        ("ap", "average precision of each label, the mean", True, _label_ap),
        ("auroc", "area under the ROC curve of each label, the mean", True, _label_auroc),
        ("f1", "F1 of each label at 0.5, the mean", True, _label_f1),
        ("accuracy", "share of samples with all labels right", True, _all_labels),
        ("loss", "mean binary cross-entropy", False, _label_loss),
    ),
    VALUES: _table(
        VALUES,
        ("r2", "share of the variance that is explained, the mean over the values", True, _r2),
        ("mae", "mean absolute error", False, _mae),
        ("rmse", "root mean square error, the mean over the values", False, _rmse),
        ("loss", "mean squared error", False, _mse),
    ),
}
"""Scores by kind of data and name; the first of each is the usual one."""

SMALLER = {score.name for each in SCORES.values() for score in each.values() if not score.larger}
"""Names of the scores of which less is better."""
