"""A map of samples that can be moved, looked into, and chosen from."""

from __future__ import annotations

import keyword
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import traitlets

from tlnb.display.tables import printable
from tlnb.engine.results.feature_map import COLOURS, METHODS, PARTS, FeatureMap, Selection
from tlnb.errors import BadArguments, NotReady
from tlnb.session import Session
from tlnb.widgets.view import Action, View, script

NAME = "chosen"  # of the variable, unless another is named


class Map(View):
    """Samples as points: a lasso chooses, and where the mouse or the arrow keys are, the sample is shown.

    Args:
        session: whose samples they are.
        answer: what ``session.map()`` gave; None to draw it now, or, where network or data are not there yet, by the
            button of the view.
        put: puts a value into a variable of the user's; None where there is none.
        to: what else a selection can be given to: the label of a button, and what it calls with the selection; a text
            that it returns is shown as the magic that would have done the same.
        traits: ``colour``, ``selected``, ``disabled``.

    Attributes:
        selected: places of the samples that are chosen; setting it chooses, so that it can be observed and linked.
        colour: ``class``, ``prediction``, ``correct`` or ``part``.
        disabled: whether nothing can be chosen or drawn anew.
        sample: what is looked at: its ``place``, ``name``, ``picture`` and so on; empty for none.
        answer: the ``FeatureMap``; its ``selected`` and ``selection`` follow.
    """

    _esm = script("map.js", "map.view.js")
    selected: Any = traitlets.List(traitlets.Int(), help="places that are chosen").tag(sync=True)
    colour = traitlets.Enum(COLOURS, "class", help="what colour stands for").tag(sync=True)
    sample: Any = traitlets.Dict(help="what is looked at").tag(sync=True)
    points = traitlets.Bytes(help="x and y of each sample, float32").tag(sync=True)
    targets = traitlets.Bytes(help="what each is, float32: a number of groups, or a value").tag(sync=True)
    predicted = traitlets.Bytes(help="what each is taken for, likewise").tag(sync=True)
    wrong = traitlets.Bytes(help="1 where it is taken for something else, uint8").tag(sync=True)
    part = traitlets.Bytes(help="0 training, 1 validation, uint8").tag(sync=True)
    groups: Any = traitlets.List(help="names of the groups").tag(sync=True)
    kind = traitlets.Unicode(help="classes, labels or values").tag(sync=True)
    learned = traitlets.Bool(True, help="whether predictions mean anything").tag(sync=True)
    summary = traitlets.Unicode().tag(sync=True)
    layers: Any = traitlets.List(help="names of the layers").tag(sync=True)
    layer = traitlets.Int(-1, help="the one that is drawn").tag(sync=True)
    chosen = traitlets.Unicode(help="the selection in words").tag(sync=True)
    given: Any = traitlets.List(help="what a selection can be given to, the labels of buttons").tag(sync=True)
    takes_name = traitlets.Bool(help="whether a variable can be named").tag(sync=True)

    answer: FeatureMap | None = None

    def __init__(
        self, session: Session, answer: FeatureMap | None = None, *,
        put: Callable[[str, object], None] | None = None, to: Mapping[str, Callable[[Selection], object]] | None = None,
        **traits: Any,
    ):  # fmt: skip
        self._put, self._to = put, dict(to or {})
        super().__init__(session, takes_name=put is not None, given=list(self._to), **traits)
        if answer is None and session.view.samples is not None and not session.busy:
            answer = session.map()
        if answer is not None:
            self.show(answer)
        else:
            self._name_layers()
            self.follow(lambda _: self._name_layers(), ["revision"])

    def show(self, answer: FeatureMap) -> None:
        """Show another map in this view; what was chosen is forgotten."""
        with self.hold_sync():
            self.answer, self.sample = answer, {}
            self.points = np.ascontiguousarray(answer.coordinates, np.float32).tobytes()
            self.targets = answer.targets.astype(np.float32).tobytes()
            self.predicted = answer.predicted.astype(np.float32).tobytes()
            self.wrong = (~answer.correct).astype(np.uint8).tobytes()
            self.part = answer.part.astype(np.uint8).tobytes()
            self.groups, self.kind, self.learned = list(answer.groups), answer.kind, answer.learned
            self.colour, self.summary = answer.colour, "\n".join((answer.summary, *answer.notes))
            self.layer = answer.layer
            self._name_layers()
            self.selected = list(answer.selected)

    def _name_layers(self) -> None:
        layers = self.session.view.layers
        self.layers = [] if layers is None else [printable(name) for name in layers.names]

    @traitlets.validate("selected")
    def _places_are_chosen(self, proposal: Mapping[str, Any]) -> list[int]:
        if self.answer is None:
            return []
        try:
            self.answer.select(proposal["value"])
        except BadArguments as trouble:  # a trait takes back a value for this error alone
            raise traitlets.TraitError(str(trouble)) from None
        return list(self.answer.selected)

    @traitlets.observe("selected")
    def _say_what_is_chosen(self, _: Any) -> None:
        answer = self.answer
        if answer is None or not self.selected:
            self.chosen = ""
            return
        count = f"{len(self.selected):,} chosen"
        if answer.kind == "values":
            self.chosen = count
            return
        amounts = np.bincount(answer.targets[self.selected].astype(np.int64), minlength=len(answer.groups))
        order = [int(i) for i in np.argsort(-amounts, kind="stable") if amounts[i]]
        words = ", ".join(f"{answer.groups[i]} ({amounts[i]:,})" for i in order[:6])
        self.chosen = f"{count}: {words}{', …' if len(order) > 6 else ''}"

    def actions(self) -> dict[str, Action]:
        """Look at a sample; put the selection into a variable; give it to somebody."""
        return super().actions() | {"look": self.look, "keep": self.keep_as, "give": self.give}

    def long_actions(self) -> dict[str, Action]:
        """Draw the map anew."""
        return super().long_actions() | {"draw": self.draw}

    def draw(self, layer: int | None = None, by: str = "pca") -> None:
        """Draw the map anew.

        Args:
            layer: whose output; None for the last one before the head.
            by: ``pca`` or ``umap``.

        Raises:
            TlnbError: see ``Session.map``; what was drawn stays.
        """
        if self.disabled:
            return
        if by not in METHODS:
            raise BadArguments(f"--by takes one of {', '.join(METHODS)}")
        self.show(self.session.map(layer, by=by, colour=self.colour))
        which = "" if layer is None else f" {layer}"
        self.teach(f"%tl_map{which}{'' if by == 'pca' else f' --by {by}'}")

    def look(self, place: int) -> None:
        """Look at a sample.

        Raises:
            NotReady: there is no map, or its data is gone.
            BadArguments: no such place.
        """
        answer = self._need_answer()
        if not 0 <= place < len(answer):
            raise BadArguments(f"places of this map are 0 to {len(answer) - 1:,}")
        seen = answer.look(place)
        sure = float(answer.sure[place])
        self.sample = {
            "place": place, "name": answer.names[place], "part": PARTS[answer.part[place]], "picture": seen.picture,
            "text": seen.text, "sound": seen.sound, "is": answer.words(answer.targets, place),
            "taken": answer.words(answer.predicted, place) if answer.learned else "",
            "sure": sure if np.isfinite(sure) and answer.learned else None,
        }  # fmt: skip

    def keep_as(self, name: str = NAME) -> None:
        """Put the selection into a variable.

        Raises:
            BadArguments: that is no name.
            NotReady: nothing is chosen, or there are no variables here.
        """
        word = name.strip()
        if not word.isidentifier() or keyword.iskeyword(word):
            raise BadArguments(f"{printable(word)!r} is no name of a variable; take a word such as {NAME}")
        chosen = self._need_selection()
        if self._put is None:
            raise NotReady("there are no variables here; .answer.selection of the view has what is chosen")
        self._put(word, chosen)
        self.teach(f"{word}  # {chosen!r}")

    def give(self, to: str) -> None:
        """Give the selection to one of those that the view was made with.

        Raises:
            NotReady: nothing is chosen.
            BadArguments: there is none of that label.
        """
        if to not in self._to:
            raise BadArguments(f"a selection of this map cannot be given to {printable(to)!r}")
        magic = self._to[to](self._need_selection())
        if isinstance(magic, str):
            self.teach(magic)

    def _need_answer(self) -> FeatureMap:
        if self.answer is None:
            raise NotReady("no map has been drawn yet")
        return self.answer

    def _need_selection(self) -> Selection:
        chosen = self._need_answer().selection
        if not len(chosen):
            raise NotReady("nothing is chosen; draw a line around points, or click one")
        return chosen

    def said(self) -> str:
        """What is drawn."""
        return self.summary.partition("\n")[0] or "nothing is drawn yet"
