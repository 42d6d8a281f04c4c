"""The answer of ``clean``: a table of suspects, through which their samples are kept, relabelled or dropped."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from tlnb.display.pictures import SMALL, figure_html, grid_html, image_uri
from tlnb.display.tables import Table, frame, printable
from tlnb.engine.cleaning.gallery import Gallery
from tlnb.engine.cleaning.suspects import KINDS, PARTS, Findings, Suspect
from tlnb.engine.data.dataset import Data
from tlnb.engine.data.marks import KEEP, RELABEL, Mark, Numbers
from tlnb.errors import BadArguments, NotReady
from tlnb.session.answers import Lines, owner_of

SHOWN = 24  # suspects in the text and on the page; .table and the view have all
PICTURES = 12  # pictures on the page
NAMES = {
    "label": "likely wrong labels", "copy": "copies", "odd": "odd", "dark": "dark", "blurred": "blurred",
    "empty": "empty",
}  # fmt: skip
MARKED = "marked"


class Suspects(Sequence[Suspect]):
    """Samples of a session's data that something is suspicious about, the most suspicious first.

    Indexing gives a :class:`~tlnb.engine.cleaning.suspects.Suspect`, whose ``sample`` is its number in the source.
    Marks act on the session that gave the answer: training goes on with the mended data, and no file is touched.

    Attributes:
        rows: the suspects; behind them the samples that marks had decided about already, as kind ``marked``.
        classes: of the data.
        rate: share of labels that are likely wrong; None where samples have not one class each.
        samples: how many were looked at.
        notes: how it was told, a line each.
        gallery: shows samples by their number.
    """

    def __init__(self, found: Findings, data: Data, numbers: Numbers, gallery: Gallery):
        self.rows = (*found.rows, *_decided(data, numbers))
        self.classes, self.rate, self.samples, self.notes = (
            data.classes,
            found.rate,
            found.samples,
            found.notes,
        )
        self.gallery, self._name = gallery, data.name
        self._known = {row.sample: row for row in self.rows}

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Suspect]:
        return iter(self.rows)

    def count(self, value: Any) -> int:
        """How many suspects are of a kind (``label``, ``copy``, ``odd``, ``dark``, ``blurred``, ``empty``)."""
        return sum(value in row.kinds for row in self.rows)

    # ---------------------------------------------------------------- marks

    def keep(self, index: int | Sequence[int]) -> Lines:
        """Say that a suspect is right as it is: it is no suspect again.

        Args:
            index: of the suspect in this answer, or several.

        Raises:
            NotReady: the session is gone, or its data is another by now.
            BadArguments: no such suspect.
        """
        return self._session().clean(keep=self._samples(index), _known=self)

    def drop(self, index: int | Sequence[int]) -> Lines:
        """Leave a suspect out of training and validation. Arguments and errors are those of :meth:`keep`."""
        return self._session().clean(drop=self._samples(index), _known=self)

    def relabel(self, index: int | Sequence[int], label: str | None = None) -> Lines:
        """Give a suspect another label.

        Args:
            index: of the suspect in this answer, or several.
            label: the class; None for the likely one.

        Raises:
            NotReady, BadArguments: as :meth:`keep`.
            DataError: no such class; nothing has changed then.
        """
        wanted = {}
        for number in self._samples(index):
            likely = self._known[number].likely
            if label is None and not likely:
                raise BadArguments("no other class is likely for this suspect; say which one it is")
            wanted[number] = likely if label is None else label
        return self._session().clean(relabel=wanted, _known=self)

    def undo(self) -> Lines:
        """Take the last mark back.

        Raises:
            NotReady: there is none.
        """
        return self._session().clean(undo=True, _known=self)

    def to_csv(self, path: str | os.PathLike[str]) -> Lines:
        """Write the marks to a CSV that ``tl.data(..., marks=path)`` takes.

        Raises:
            NotReady: the session is gone, or its data is another by now.
            DataError: the file cannot be written.
        """
        return self._session().clean(save=path, _known=self)

    @property
    def marks(self) -> Mapping[int, Mark]:
        """The mark that holds for each marked sample, by its number; nothing where the session is gone."""
        session = owner_of(self)
        data = session.view.data if session is not None else None
        return data.mending.marks if data is not None and data.name == self._name and data.mending else {}

    def by_sample(self) -> Mapping[int, Suspect]:
        """The suspects by the number of the sample."""
        return self._known

    def same_data(self) -> None:
        """See that the session still has the data that these suspects are in.

        Raises:
            NotReady: it has other data, or is gone.
        """
        self._session()

    def _session(self) -> Any:
        session = owner_of(self)
        if session is None:
            raise NotReady("the session that found these suspects is gone; %tl_clean looks for them again")
        data = session.view.data
        if data is None or data.name != self._name:
            raise NotReady("the data is another one by now; %tl_clean looks for suspects in it")
        return session

    def _samples(self, index: int | Sequence[int]) -> list[int]:
        asked = [index] if isinstance(index, int) else list(index)
        for number in asked:
            if (
                isinstance(number, bool)
                or not isinstance(number, int)
                or not -len(self) <= number < len(self)
            ):
                raise BadArguments(f"there are suspects 0 to {len(self) - 1}, not {str(number)[:40]!r}")
        return [self.rows[number].sample for number in asked]

    # ---------------------------------------------------------------- how it looks

    @property
    def summary(self) -> str:
        """How many suspects there are, of which kinds."""
        counts = [f"{count:,} {NAMES[kind]}" for kind in KINDS if (count := self.count(kind))]
        found = ", ".join(counts) or "nothing suspicious"
        rate = (
            ""
            if self.rate is None or not self.rate
            else f"; about {100 * self.rate:.1f} % of the labels are wrong"
        )
        return f"{self.samples:,} samples: {found}{rate}"

    def _columns(self) -> dict[str, list[Any]]:
        marks = self.marks
        return {
            "sample": [row.sample for row in self.rows],
            "part": [row.part for row in self.rows],
            "name": [row.name for row in self.rows],
            "given": [row.given for row in self.rows],
            "likely": [row.likely for row in self.rows],
            "sure": [row.sure for row in self.rows],
            "suspicion": [row.suspicion for row in self.rows],
            "kinds": [", ".join(row.kinds) for row in self.rows],
            "why": [row.why for row in self.rows],
            "mark": [marks[row.sample].words if row.sample in marks else "" for row in self.rows],
        }

    def frame(self) -> Any:
        """A row a suspect as a pandas DataFrame; a dict of columns where pandas is not installed."""
        return frame(self._columns())

    @property
    def table(self) -> Table:
        """A line a suspect, with its mark."""
        return self._table(len(self))

    def _table(self, most: int) -> Table:
        marks = self.marks
        rows = [
            (
                place, row.sample, row.name, row.given, row.why,
                printable(marks[row.sample].words) if row.sample in marks else "",
            )
            for place, row in enumerate(self.rows[:most])
        ]  # fmt: skip
        return Table(("", "sample", "name", "given", "why", "mark"), rows, align=">><<<<")

    def _below(self) -> list[str]:
        more = len(self) - SHOWN
        lines = [f"and {more:,} more: .table and .frame() have them all"] if more > 0 else []
        if self.rows:
            lines.append(
                "keep, relabel or drop: .relabel(0, 'CLASS'), .drop(1), .keep(2), .undo(); or %tl_clean --drop SAMPLE"
            )
        return [*lines, *self.notes]

    def __repr__(self) -> str:
        table = repr(self._table(SHOWN)) if self.rows else ""
        return "\n".join(filter(None, (self.summary, table, *self._below())))

    def _repr_html_(self) -> str:
        below = "<br>".join(escape(line) for line in self._below())
        table = self._table(SHOWN)._repr_html_() if self.rows else ""
        return f"<div>{escape(self.summary)}</div>{self._grid()}{table}<div>{below}</div>"

    def _grid(self) -> str:
        """The first suspects as pictures; nothing where there are none."""
        figures, small, marks = [], True, self.marks
        for row in self.rows[:PICTURES]:
            pixels = self.gallery.picture(row.sample)
            if pixels is None:
                continue
            tiny = max(pixels.shape[:2]) <= SMALL
            small &= tiny
            mark = f" · {escape(marks[row.sample].words)}" if row.sample in marks else ""
            caption = (
                f"<b>{escape(row.given)}</b>"
                + (f' → <span class="tlnb-wrong">{escape(row.likely)}</span>?' if row.likely else "")
                + f'<br><span class="tlnb-quiet">{escape(row.why)}{mark}</span>'
            )
            figures.append(figure_html(image_uri(pixels), f"{row.given}: {row.why}", caption, small=tiny))
        return grid_html(figures, 96 if small else 130) if figures else ""


def _decided(data: Data, numbers: Numbers) -> Iterator[Suspect]:
    """The samples that marks have decided about."""
    if data.mending is None:
        return
    for sample, mark in sorted(data.mending.marks.items()):
        part, index = numbers.place(sample)
        targets = numbers.parts[part].targets
        given = "" if targets.is_floating_point() else printable(data.classes[int(targets[index])])
        why = {KEEP: "kept as it is", RELABEL: f"relabelled {printable(mark.label)}"}.get(mark.act, "dropped")
        yield Suspect(
            sample, PARTS[part], printable(numbers.name(sample)), given, "", 0.0, (MARKED,), 0.0,
            f"{why}: {printable(mark.why)}" if mark.why else why,
        )  # fmt: skip
