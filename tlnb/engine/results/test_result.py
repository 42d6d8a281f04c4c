"""What the test part said, and how often it was asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from tlnb.display.figures import as_html
from tlnb.display.tables import Table
from tlnb.engine.core.metrics import Score
from tlnb.engine.results.bootstrap import Interval
from tlnb.engine.results.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class TestResult:
    """The test samples, judged.

    Attributes:
        results: each sample's answer, with the figures of each class.
        score: by which it is judged.
        value: the number.
        interval: where it lies with 95 % confidence.
        beside: another score and its value, where classes are very uneven; None otherwise.
        look: how many times the test part was measured, this time included.
        warning: what to say of a second and later look; None for the first.
    """

    __test__ = False  # for pytest: this is no test

    results: Results = field(repr=False)
    score: Score
    value: float
    interval: Interval
    beside: tuple[Score, float] | None
    look: int
    warning: str | None

    @property
    def accuracy(self) -> float:
        """Share of the samples that are right; the task's own figure where a sample has not one class."""
        return self.results.accuracy

    @property
    def confusion(self) -> np.ndarray:
        """How often class i was taken for class j; (0, 0) where a sample has not one class."""
        return self.results.confusion

    @property
    def table(self) -> Table:
        """A line a class or value."""
        return self.results.table

    @property
    def summary(self) -> str:
        """One line: the number to report."""
        low, high = (self.score.show(bound) for bound in (self.interval.low, self.interval.high))
        also = f"; {self.beside[0].name} {self.beside[0].show(self.beside[1])}" if self.beside else ""
        return (
            f"{self.results.name}, test part: {self.score.name} {self.score.show(self.value)} (95 % sure: {low} to "
            f"{high}, {self.interval.how}) of {len(self.results.targets):,} samples{also}"
        )

    def plot(self) -> Figure | None:
        """The confusion matrix; None where a sample has not one class."""
        return self.results.plot("confusion")

    def frame(self) -> Any:
        """A row a sample as a pandas DataFrame; a dict of columns where pandas is not installed."""
        return self.results.frame()

    def __repr__(self) -> str:
        return "\n".join([self.summary, *([self.warning] if self.warning else []), repr(self.table)])

    def _repr_html_(self) -> str:
        parts = [f"<p>{escape(self.summary)}</p>"]
        if self.warning:
            parts.append(f"<p><b>{escape(self.warning)}</b></p>")
        figure = self.plot()
        if figure is not None:
            parts.append(as_html(figure, f"confusion on the test part of {self.results.name}", 85))
        return f"<div>{''.join(parts)}{self.table._repr_html_()}</div>"
