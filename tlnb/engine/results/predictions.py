"""What was predicted, sample by sample: classes with how sure, what spoke for them, and a table of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from tlnb.display.pictures import bars_html, figure_html, grid_html
from tlnb.display.tables import Table, frame
from tlnb.engine.data.images.check import Problem
from tlnb.engine.results.spoken import Words, marked_html
from tlnb.engine.results.sure import NONE, Judged

SHOWN = 20
LIKELY = 3  # classes that are shown of each sample
UNSURE = 0.6  # a class that is less likely is shown as doubtful
SET = 8  # classes that are shown of a set


@dataclass(frozen=True)
class Predictions:
    """What the network says of some samples.

    Attributes:
        names: of the samples.
        classes: names of the outputs.
        answers: probabilities (N, classes) or values (N, values), float32.
        kind: ``classes``, ``labels`` or ``values``.
        problems: files that could not be read, with the reason.
        seconds: decoding included.
        network_seconds: in the network alone.
        views: how many views were averaged; 1 for the pictures as they are.
        judged: what can be relied on; None where that was not asked.
        pictures: the first of them as the network sees them, as data addresses; empty where samples are none.
        spoken: of few pictures, each beside what in it spoke for its answer, as data addresses.
        words: of the first texts, each word with how much it spoke for the answer: 1 for the one that did most, below
            zero for those that spoke against it.
        how: how it was found what spoke.
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    answers: np.ndarray = field(repr=False)
    kind: str
    problems: tuple[Problem, ...] = ()
    seconds: float = 0.0
    network_seconds: float = 0.0
    views: int = 1
    judged: Judged | None = None
    pictures: tuple[str, ...] = field(default=(), repr=False)
    spoken: tuple[str, ...] = field(default=(), repr=False)
    words: tuple[Words, ...] = field(default=(), repr=False)
    how: str = ""

    @property
    def sure(self) -> float | None:
        """Share of the answers that should hold; None where that was not asked."""
        return None if self.judged is None else self.judged.sure

    @property
    def sets(self) -> tuple[tuple[str, ...], ...] | None:
        """The classes that each sample may be of, the likeliest first; None where that was not asked.

        An empty set says that the network is less sure of every class than it usually is of the right one.
        """
        if self.judged is None or self.judged.member is None:
            return None
        order = np.argsort(-self.answers, 1, kind="stable")
        return tuple(
            tuple(self.classes[i] for i in row if member[i])
            for row, member in zip(order, self.judged.member, strict=True)
        )

    @property
    def none(self) -> np.ndarray | None:
        """Which samples are like nothing that was learned, bool (N,); None where that is not known."""
        return None if self.judged is None else self.judged.none

    @property
    def strangeness(self) -> np.ndarray | None:
        """How unlike all that was learned each sample is, (N,), about 0 for an ordinary one; None as for ``none``."""
        return None if self.judged is None else self.judged.strangeness

    @property
    def intervals(self) -> np.ndarray | None:
        """From and to of each value, (N, values, 2); None for classes, or where that was not asked."""
        return None if self.judged is None else self.judged.intervals

    @property
    def labels(self) -> tuple[str, ...]:
        """The answer for each sample in words: the class, the labels joined by commas, or the values.

        A sample that is like nothing that was learned is ``none of these``, where sure answers were asked for.
        """
        if self.kind == "classes":
            none = np.zeros(len(self.answers), bool) if self.none is None else self.none
            return tuple(
                NONE if strange else self.classes[i]
                for i, strange in zip(self.answers.argmax(1), none, strict=True)
            )
        if self.kind == "labels":
            return tuple(", ".join(n for n, p in zip(self.classes, row, strict=True) if p >= 0.5) or "-"
                         for row in self.answers)  # fmt: skip
        return tuple(", ".join(f"{value:.4g}" for value in row) for row in self.answers)

    @property
    def table(self) -> Table:
        """A line a sample, with the likeliest classes; with the set or interval where that was asked."""
        shown = range(min(len(self.names), SHOWN))
        columns: list[tuple[str, Sequence[str]]] = [("sample", self.names), ("is", self.labels)]
        if self.judged is not None:
            columns.append((f"{100 * self.judged.sure:g} % sure", [self._held(i) for i in shown]))
        columns.append(("how sure", [self._likely(i) for i in shown]))
        rows = [tuple(values[i] for _, values in columns) for i in shown]
        return Table(tuple(name for name, _ in columns), rows, align="<" * len(columns))

    def _held(self, place: int) -> str:
        """The set or the interval of a sample."""
        if self.intervals is not None:
            return ", ".join(f"{low:.4g} to {high:.4g}" for low, high in self.intervals[place])
        assert self.sets is not None
        found = self.sets[place]
        left = f" and {len(found) - SET} more" if len(found) > SET else ""
        return f"{', '.join(found[:SET])}{left}" if found else "no class"

    def _likely(self, place: int) -> str:
        if self.kind == "values":
            return "-"
        row = self.probabilities[place]
        order = np.argsort(-row, kind="stable")[:LIKELY]
        return ", ".join(f"{self.classes[i]} {100 * row[i]:.1f} %" for i in order)

    @property
    def probabilities(self) -> np.ndarray:
        """The answers, at the temperature that fits the validation samples where sure answers were asked for."""
        if self.judged is None or self.judged.probabilities is None:
            return self.answers
        return self.judged.probabilities

    @property
    def summary(self) -> str:
        """One line: how many, how fast."""
        count = len(self.names)
        each = 1000 * self.seconds / max(count, 1)
        inner = 1000 * self.network_seconds / max(count, 1)
        views = f", the mean of {self.views} views" if self.views > 1 else ""
        how = ", batch norm folded in" if self.judged is None else ""
        return (
            f"{count:,} sample{'s' * (count != 1)} in {self.seconds:.2f} s: {each:.1f} ms each, "
            f"{inner:.1f} ms of it in the network{how}{views}"
        )

    @property
    def certainty(self) -> str:
        """One line: how the sets did, and how many samples are none of the classes; empty where that was not asked."""
        if self.judged is None:
            return ""
        share = f"{100 * self.judged.sure:g} %"
        if self.sets is None:
            return f"intervals that hold {share} of values like those of the validation part"
        sizes = [len(found) for found in self.sets]
        line = f"sets that hold the right class of {share} of samples like those of the validation part"
        line += f": {sum(sizes) / max(len(sizes), 1):.2f} classes each"
        if self.none is None or self.judged.note:
            return line
        return (
            f"{line}; {int(self.none.sum()):,} {NONE}, as {100 * self.judged.false_alarms:g} % of samples of the "
            "classes would be too (--false-alarms)"
        )

    def frame(self) -> Any:
        """A row a sample as a pandas DataFrame; a dict of columns where pandas is not installed."""
        columns: dict[str, Any] = {"sample": list(self.names), "answer": list(self.labels)}
        columns |= {name: self.answers[:, i] for i, name in enumerate(self.classes)}
        if self.sets is not None:
            columns["set"] = [", ".join(found) for found in self.sets]
        if self.none is not None:
            columns[NONE] = self.none
        if self.intervals is not None:
            for i, name in enumerate(self.classes):
                columns[f"{name} from"], columns[f"{name} to"] = self.intervals[:, i].T
        return frame(columns)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def _notes(self) -> list[str]:
        left = len(self.names) - SHOWN
        notes = [f"… and {left:,} more; .frame() has them all"] if left > 0 else []
        notes += [self.certainty] if self.judged is not None else []
        notes += [self.judged.note] if self.judged is not None and self.judged.note else []
        if self.problems:
            notes.append(f"{len(self.problems)} could not be read:")
            notes += [f"  {path}: {reason}" for path, reason in self.problems[:SHOWN]]
        return notes

    def __repr__(self) -> str:
        return "\n".join([self.summary, *([repr(self.table)] if self.names else []), *self._notes])

    def _repr_html_(self) -> str:
        notes = "<br>".join(escape(note) for note in self._notes)
        small = f'<div class="tlnb-quiet">{escape(self.summary)}</div>'
        table = self.table._repr_html_()
        if (self.pictures or self.words) and self.kind != "values":
            table = f"<details><summary>as a table</summary>{table}</details>" if len(self) > 1 else ""
            shown = self.spoken or self.pictures
            figures = [self._figure(place, uri) for place, uri in enumerate(shown)]
            figures = figures or [self._text(place) for place in range(len(self.words))]
            table = (
                grid_html(figures, 420 if len(self) == 1 else 300 if self.spoken or self.words else 200)
                + table
            )
            notes = "<br>".join(filter(None, (notes, escape(self._how))))
        return f"{table}<p>{notes}</p>{small}"

    def _figure(self, place: int, uri: str) -> str:
        """A sample: its picture, what it is, and how sure that is."""
        label, caption = self.labels[place], self._caption(place)
        small = self.pictures[place].startswith("data:image/png")
        return figure_html(uri, f"{self.names[place]}: {label}", caption, small=small)

    def _text(self, place: int) -> str:
        """A text: its words, what it is, and how sure that is."""
        return (
            f"<figure><div>{marked_html(self.words[place])}</div>{self._caption(place, name=False)}</figure>"
        )

    @property
    def _how(self) -> str:
        """How to read what spoke for the answers."""
        if self.words:
            return "the redder a word, the more it spoke for the answer"
        return f"beside each picture, what in it spoke for the answer ({self.how})" if self.spoken else ""

    def _caption(self, place: int, *, name: bool = True) -> str:
        row, label = self.probabilities[place], self.labels[place]
        order = np.argsort(-row, kind="stable")[:LIKELY]
        weak = self.kind == "classes" and bool(row[order[0]] < UNSURE)
        bars = bars_html([(self.classes[i], float(row[i])) for i in order], weak=weak)
        size = "font-size:20px;font-weight:600" if len(self) == 1 else "font-size:15px;font-weight:600"
        doubt = ' <span class="tlnb-quiet">not sure</span>' if weak else ""
        file = self.names[place].replace("\\", "/").rpartition("/")[2] if name else ""
        held = f"{100 * self.judged.sure:g} % sure: {self._held(place)}" if self.judged is not None else ""
        quiet = "<br>".join(escape(line) for line in (held, file) if line)
        return f'<div style="{size}">{escape(label)}{doubt}</div>{bars}<div class="tlnb-quiet">{quiet}</div>'
