"""Networks side by side on the same samples: which one to start from, how sure that is, and what each costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from tlnb.display.tables import Table, frame, printable
from tlnb.engine.advice.candidate import Candidate
from tlnb.engine.core.metrics import Score
from tlnb.engine.results.bootstrap import Interval, compare, interval
from tlnb.errors import BadArguments, NotReady, did_you_mean

FASTER = 1.25  # times that another network's epoch must take less to be worth a word


@dataclass(frozen=True)
class ChoiceRow:
    """One network.

    Attributes:
        name: as it was asked for.
        value: score of a logistic head on samples that it did not learn from; NaN where nothing was measured.
        low, high: its 95 % interval.
        level: whether its distance from the best one may be luck (a test of pairs); True for the best itself.
        neighbours: score of the five nearest samples; NaN for labels and values.
        logme: logarithm of maximum evidence (You et al. 2021); larger is better.
        seconds: that the pass of the samples took.
        epoch: seconds that an epoch of all layers on all training samples would take, as one step was timed; NaN
            where a step does not run.
        memory: bytes that training all layers takes with the usual batch; 0 where a step does not run.
        parameters: weights of the network.
        weights: where its weights came from.
        trouble: why it was not measured, in a line; empty where it was.
    """

    name: str
    value: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    level: bool = False
    neighbours: float = float("nan")
    logme: float = float("nan")
    seconds: float = float("nan")
    epoch: float = float("nan")
    memory: int = 0
    parameters: int = 0
    weights: str = ""
    trouble: str = ""


@dataclass(frozen=True)
class Choice:
    """Which network to start from, by one pass of the data through each.

    Attributes:
        data: name of the data.
        score: by which they are ranked.
        rows: the networks, the best first; those that could not be measured last.
        samples: how many training samples were looked at.
        folds: on which the heads were fitted.
        notes: what the user should know, a line each.
        asked: what was asked for under each name, to load it again.
        weights: what was asked for as weights of all of them.
    """

    data: str
    score: Score
    rows: tuple[ChoiceRow, ...]
    samples: int
    folds: int
    notes: tuple[str, ...] = ()
    asked: Mapping[str, object] = field(default_factory=dict, repr=False)
    weights: str | None = None

    @property
    def best(self) -> str:
        """Name of the first one in the ranking."""
        return self.rows[0].name

    @property
    def names(self) -> tuple[str, ...]:
        """The names of those that were measured, the best first."""
        return tuple(row.name for row in self.rows if not row.trouble)

    @property
    def level(self) -> tuple[str, ...]:
        """Names of those whose distance from the best one may be luck; the best itself is left out."""
        return tuple(row.name for row in self.rows[1:] if row.level)

    def __getitem__(self, name: str) -> ChoiceRow:
        """The row of a network.

        Raises:
            BadArguments: it was not among them.
        """
        found = next((row for row in self.rows if row.name == name), None)
        if found is None:
            names = [row.name for row in self.rows]
            raise BadArguments(
                f"{name!r} is none of {', '.join(map(printable, names))}{did_you_mean(name, names)}"
            )
        return found

    def load(self, name: str | None = None) -> Any:
        """Load one of them into the session that was asked, which starts anew with it; the data stays.

        Args:
            name: which; None for the best.

        Raises:
            BadArguments: it was not among them.
            NotReady: the session is gone.
            ModelError, WeightsError: it cannot be loaded.
        """
        row = self.rows[0] if name is None else self[name]
        session = getattr(getattr(self, "_owner", None), "session", None)
        if session is None:
            raise NotReady("the session that was asked is gone; load it by name: %tl_load")
        model = self.asked[row.name]
        return session.load(model, weights=self.weights if isinstance(model, str) else None)

    @property
    def verdict(self) -> str:
        """Which is best within its error, and how to load it, in a line."""
        best = self.rows[0]
        told = f"{printable(best.name)} is best, {self.score.name} {self.score.show(best.value)}"
        others = [row for row in self.rows[1:] if row.level]
        if len(self.names) == 1:
            told = (
                f"{printable(best.name)} alone was measured, {self.score.name} {self.score.show(best.value)}"
            )
        elif others:
            told += f"; {', '.join(printable(row.name) for row in others)} may be as good: the difference may be luck"
            quick = min(others, key=lambda row: row.epoch if row.epoch == row.epoch else np.inf)
            if quick.epoch * FASTER < best.epoch:
                told += f", and {printable(quick.name)} trains {best.epoch / quick.epoch:.1f} times as fast"
        else:
            told += ", by more than luck"
        return f"{told}; {self._how()}"

    def _how(self) -> str:
        """How the best one is loaded."""
        name = printable(self.best)
        if not isinstance(self.asked.get(self.best), str):
            return f"choice.load() loads {name}"
        word = f'"{name}"' if " " in name else name
        more = f" --weights {self.weights}" if self.weights else ""
        return f"to load it: %tl_load {word}{more}, or choice.load()"

    @property
    def table(self) -> Table:
        """A row a network."""
        headers = (
            "network", f"head, {self.score.name}", "95 % sure", "neighbours", "LogME", "pass", "epoch", "memory",
            "parameters", "",
        )  # fmt: skip
        caption = (
            f"{printable(self.data)}: {self.samples:,} training samples, {self.folds} folds; epoch and memory are "
            "those of training all layers"
        )
        return Table(headers, [self._cells(row) for row in self.rows], caption, align="<>>>>>>>><")

    def _cells(self, row: ChoiceRow) -> tuple[str, ...]:
        if row.trouble:
            return (printable(row.name), *["-"] * 8, printable(row.trouble))
        show = self.score.show
        sure = f"{show(row.low)} to {show(row.high)}" if row.low == row.low else "-"
        return (
            printable(row.name), show(row.value), sure,
            show(row.neighbours) if row.neighbours == row.neighbours else "-", f"{row.logme:.3f}",
            f"{row.seconds:.1f} s", f"{row.epoch:.1f} s" if row.epoch == row.epoch else "-",
            f"{max(row.memory / 2**20, 1):,.0f} MiB" if row.memory else "-", f"{row.parameters:,}",
            "" if row is self.rows[0] else "may be as good" if row.level else "",
        )  # fmt: skip

    def frame(self) -> Any:
        """A row a network as a pandas DataFrame; a dict of columns where pandas is not installed."""
        names = list(ChoiceRow.__dataclass_fields__)
        return frame({name: [getattr(row, name) for row in self.rows] for name in names})

    def __repr__(self) -> str:
        return "\n".join([repr(self.table), self.verdict, *self.notes])

    def _repr_html_(self) -> str:
        lines = "<br>".join(escape(line) for line in (self.verdict, *self.notes))
        return f"{self.table._repr_html_()}<div>{lines}</div>"


def rank(
    measured: Mapping[str, tuple[Candidate, str]],
    score: Score,
    targets: np.ndarray,
    images: int,
    units: np.ndarray | None = None,
) -> list[ChoiceRow]:
    """The networks that were measured, the best first.

    Args:
        measured: by name, with where the weights came from.
        score: by which they are ranked.
        targets: of the samples, as the score takes them.
        images: all training samples, for the time of an epoch.
        units: number of the group of each sample; None where each stands alone.
    """
    some = next(iter(measured.values()))[0]
    there = ~np.isnan(some.answers).any(1)  # the oldest samples validate in no fold
    targets, units = targets[there], None if units is None else units[there]
    values = {name: score(targets, found.answers[there]) for name, (found, _) in measured.items()}

    def worth(name: str) -> float:
        value = values[name] if score.larger else -values[name]
        return -np.inf if value != value else value

    names = sorted(measured, key=worth, reverse=True)
    best = measured[names[0]][0].answers[there]
    rows = []
    for name in names:
        found, weights = measured[name]
        answers = found.answers[there]
        sure: Interval = interval(score, targets, answers, units)
        level = name == names[0] or not compare(score, targets, best, answers, units=units).more_than_luck
        near = found.neighbours
        rows.append(
            ChoiceRow(
                name,
                values[name],
                sure.low,
                sure.high,
                level,
                float("nan") if near is None else score(targets, near[there]),
                found.logme,
                found.seconds,
                float("nan") if found.step is None else found.step * images,
                found.memory or 0,
                found.parameters,
                weights,
            )
        )
    return rows
