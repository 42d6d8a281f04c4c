"""Suspects as a grid to click through: keep, relabel or drop each, by keys or mouse, and undo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import traitlets

from tlnb.display.tables import printable
from tlnb.engine.cleaning.suspects import KINDS
from tlnb.engine.data.marks import DROP, KEEP, RELABEL
from tlnb.errors import BadArguments, NotReady
from tlnb.session import Session
from tlnb.session.suspects import MARKED
from tlnb.session.suspects import Suspects as Answer
from tlnb.widgets.view import Action, View, script

PAGE = 24  # suspects on a page
ALL = "all"
SHOWN = (ALL, *KINDS, MARKED)


class Suspects(View):
    """A grid of suspects, the most suspicious first, a page at a time; pictures come when they are looked at.

    Args:
        session: whose data they are in.
        answer: what ``session.clean()`` gave; None to look for suspects now, or, where network or data are not there
            yet, by the button of the view.
        traits: ``show``, ``page``, ``disabled``.

    Attributes:
        show: which suspects are shown: ``all``, ``label``, ``copy``, ``odd``, ``dark``, ``blurred``, ``empty`` or
            ``marked``, those that were decided about.
        page: number of the page, from 0.
        marks: the words of the mark of each marked sample, by its number as text; it follows the session.
        disabled: whether nothing can be decided.
        answer: the suspects; None before they were looked for.
    """

    _esm = script("suspects.js", "suspects.view.js")
    show = traitlets.Enum(SHOWN, ALL, help="which suspects are shown").tag(sync=True)
    page = traitlets.Int(0, min=0, help="number of the page, from 0").tag(sync=True)
    marks: Any = traitlets.Dict(help="words of each mark, by the number of the sample").tag(sync=True)
    rows: Any = traitlets.List(help="the suspects of the page").tag(sync=True)
    pages = traitlets.Int(help="how many pages there are").tag(sync=True)
    counts: Any = traitlets.Dict(help="how many suspects there are to show, by what is shown").tag(sync=True)
    classes: Any = traitlets.List(help="names of the classes; empty where nothing can be relabelled").tag(
        sync=True
    )
    seen = traitlets.Unicode(help="what samples are: picture, text, sound, or nothing to see").tag(sync=True)
    summary = traitlets.Unicode().tag(sync=True)
    standing = traitlets.Unicode(help="how many are left to train on, and what was decided").tag(sync=True)
    found = traitlets.Bool(help="whether suspects were looked for").tag(sync=True)

    answer: Answer | None = None

    def __init__(self, session: Session, answer: Answer | None = None, **traits: Any):
        self._chosen: list[int] = []
        super().__init__(session, **traits)
        if answer is None and session.view.samples is not None and not session.busy:
            answer = session.clean()  # type: ignore[assignment]
        if answer is not None:
            self.take(answer)
        self.follow(lambda _: self._follow_marks(), ["revision"])

    def take(self, answer: Answer) -> None:
        """Show other suspects in this view, from the first page on."""
        self.answer = answer
        with self.hold_sync():
            self.classes = [printable(name) for name in answer.classes] if answer.rate is not None else []
            self.seen, self.found, self.page = answer.gallery.kind, True, 0
            self.summary = "\n".join((answer.summary, *answer.notes))
            self._follow_marks()
            self._lay_out()

    # ---------------------------------------------------------------- what the page shows

    @traitlets.observe("show")
    def _other_kind(self, _: Any) -> None:
        self.page = 0
        self._lay_out()

    @traitlets.observe("page")
    def _other_page(self, _: Any) -> None:
        self._lay_out()

    def _lay_out(self) -> None:
        answer = self.answer
        if answer is None:
            return
        marked = {int(sample) for sample in self.marks}
        self._chosen = [
            place
            for place, row in enumerate(answer.rows)
            if self.show == ALL or self.show in row.kinds or (self.show == MARKED and row.sample in marked)
        ]
        with self.hold_sync():
            self.pages = max(-(-len(self._chosen) // PAGE), 1)
            self.page = min(self.page, self.pages - 1)
            here = self._chosen[self.page * PAGE : (self.page + 1) * PAGE]
            self.rows = [self._row(place) for place in here]

    def _row(self, place: int) -> dict[str, Any]:
        assert self.answer is not None
        row = self.answer.rows[place]
        return {
            "place": place, "sample": row.sample, "name": row.name, "part": row.part, "given": row.given,
            "likely": row.likely, "sure": row.sure, "why": row.why, "text": self.answer.gallery.text(row.sample),
        }  # fmt: skip

    def _follow_marks(self) -> None:
        answer = self.answer
        if answer is None:
            return
        marks, data = answer.marks, self.session.view.data
        with self.hold_sync():
            self.marks = {str(sample): printable(mark.words) for sample, mark in marks.items()}
            self.counts = {ALL: len(answer), MARKED: len(marks)} | {
                kind: answer.count(kind) for kind in KINDS
            }
            self.standing = (
                "" if data is None else f"{len(data.train):,} to train on, {len(data.valid):,} to validate on"
            )
            if self.show == MARKED:
                self._lay_out()

    # ---------------------------------------------------------------- what the page asks for

    def actions(self) -> dict[str, Action]:
        """Decide about samples, take back, turn pages, and send pictures and sounds."""
        return super().actions() | {
            KEEP: self.keep, DROP: self.drop, RELABEL: self.relabel, "undo": self.undo, "turn": self.turn,
            "choose": self.choose, "thumbs": self.thumbs, "listen": self.listen,
        }  # fmt: skip

    def long_actions(self) -> dict[str, Action]:
        """Look for suspects."""
        return super().long_actions() | {"clean": self.look_again}

    def keep(self, sample: int) -> None:
        """A sample is right as it is.

        Raises:
            NotReady: the session works, or its data is another by now.
            DataError: no such sample.
        """
        self._decide(f"--keep {int(sample)}", keep=[sample])

    def drop(self, sample: int) -> None:
        """Leave a sample out. Errors are those of :meth:`keep`."""
        self._decide(f"--drop {int(sample)}", drop=[sample])

    def relabel(self, sample: int, label: str) -> None:
        """Give a sample another label. Errors are those of :meth:`keep`."""
        classes = self.answer.classes if self.answer is not None else ()
        # The page knows classes by how they are shown.
        name = classes[self.classes.index(label)] if label in self.classes else label
        quoted = f'"{int(sample)}={name}"' if any(c in name for c in " #'\"") else f"{int(sample)}={name}"
        self._decide(f"--relabel {quoted}", relabel={sample: name})

    def undo(self) -> None:
        """Take the last mark back.

        Raises:
            NotReady: there is none.
        """
        self._decide("--undo", undo=True)

    def _decide(self, words: str, **asked: Any) -> None:
        if self.disabled:
            raise NotReady("this view is disabled")
        if self.answer is None:
            raise NotReady("no suspects were looked for yet")
        self.answer.same_data()
        self.session.clean(**asked, _known=self.answer)
        self.teach(f"%tl_clean {words}")

    def turn(self, page: int) -> None:
        """Go to a page.

        Raises:
            BadArguments: there is none of that number.
        """
        if not isinstance(page, int) or not 0 <= page < self.pages:
            raise BadArguments(f"there are pages 0 to {self.pages - 1}, not {page!r}")
        self.page = page

    def choose(self, show: str) -> None:
        """Show suspects of one kind.

        Raises:
            BadArguments: no such kind.
        """
        if show not in SHOWN:
            raise BadArguments(f"what is shown is {', '.join(SHOWN)}, not {show!r}")
        self.show = show

    def thumbs(self, samples: Sequence[int]) -> None:
        """Send the pictures of samples, at most those of two pages, one after another."""
        if self.answer is None:
            return
        known = self.answer.by_sample()
        for sample in [number for number in samples if number in known][: 2 * PAGE]:
            self.send({"pictures": {str(sample): self.answer.gallery.uri(sample)}})

    def listen(self, sample: int) -> None:
        """Send a sound."""
        if self.answer is not None and sample in self.answer.by_sample():
            self.send({"sounds": {str(sample): self.answer.gallery.sound(sample)}})

    def look_again(self) -> None:
        """Look for suspects in the data as it is now.

        Raises:
            NotReady: no network or data.
        """
        self.take(self.session.clean())  # type: ignore[arg-type]
        self.teach("%tl_clean")

    def said(self) -> str:
        """How many suspects there are, and how many marks."""
        if self.answer is None:
            return "no suspects looked for yet"
        return f"{len(self.answer)} suspects, {len(self.marks)} marked"
