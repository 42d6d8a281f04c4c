"""The whole main job in one place, for people who would rather click; it shows the magics as it goes."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from functools import partial
from html import escape
from typing import Any

import traitlets

from tlnb.errors import BadArguments, TlnbError
from tlnb.session import Session
from tlnb.session.answers import curve_html
from tlnb.session.recorder import head_learned_nothing
from tlnb.widgets import fallback
from tlnb.widgets.browsing import folder, gallery, networks
from tlnb.widgets.layer_toggles import LayersPart
from tlnb.widgets.live_part import LivePart
from tlnb.widgets.lr_picker import CurvePart
from tlnb.widgets.own_part import OwnPart
from tlnb.widgets.view import Action, script

AUGMENTS = ("none", "light", "standard", "strong")


class Panel(LayersPart, CurvePart, OwnPart, LivePart):
    """Network, data, layers, rate, training and what came of it together; data may be pictures that come from the page.

    Args:
        session: what it acts on.
        traits: ``at_once``, see ``TrainingPart``.

    Attributes:
        shown: what the last button of the last part answered, as HTML; every name in it is escaped.
    """

    _esm = script(
        "curve.js",
        "training.js",
        "lr_picker.js",
        "layer_toggles.js",
        "webcam.js",
        "own.js",
        "panel.js",
        "panel.view.js",
    )
    network = traitlets.Unicode(help="the network in words").tag(sync=True)
    source = traitlets.Unicode(help="the data in words").tag(sync=True)
    names: Any = traitlets.List(help="networks that can be named, each with a few words").tag(sync=True)
    magics: Any = traitlets.List(help="what was done, as magics").tag(sync=True)
    folder = traitlets.Dict(help="the folder that is looked into; empty while none is").tag(sync=True)
    gallery: Any = traitlets.List(help="each class with its count and pictures").tag(sync=True)
    can: Any = traitlets.List(help="which of the last part's buttons make sense now").tag(sync=True)

    _pictured: object = None  # the data that the gallery shows

    def __init__(self, session: Session, **traits: Any):
        super().__init__(session, names=networks(), epochs=0, least=0, **_words(session), **traits)
        self._see_what_can_be_done()
        if session.view.data is not None and session.view.samples is not None and not session.busy:
            self.pictures()

    def actions(self) -> dict[str, Action]:
        """Look into a folder; close it."""
        return super().actions() | {"look": self.look, "look_away": self.look_away}

    def long_actions(self) -> dict[str, Action]:
        """Load a network; name data; results, a picture, advice, undo, going on, files."""
        answers: dict[str, Action] = {name: partial(self.answer, name) for name in ANSWERS}
        own: dict[str, Action] = {
            "load": self.load,
            "data": self.data,
            "pictures": self.pictures,
        }
        return super().long_actions() | answers | own

    def look(self, path: str = "") -> None:
        """Look into a folder of the kernel's machine.

        Raises:
            BadArguments: it cannot be read.
        """
        try:
            self.folder = folder(path)
        except OSError as error:
            raise BadArguments(f"{path} cannot be read: {error.strerror or error}") from None

    def look_away(self) -> None:
        """Show no folder any more."""
        self.folder = {}

    def load(self, model: str) -> None:
        """Load a network by name, or from a file of weights.

        Raises:
            ModelError, WeightsError: nothing has changed then.
        """
        with self.watch():
            self.session.load(_word(model, "a network, such as convnet5, or a file of weights"))
        self.teach(f"%tl_load {shlex.quote(model.strip())}")
        self._begin_with_the_head()
        if self.session.view.data is not None:
            self.pictures()

    def data(self, source: str, augment: str = "none") -> None:
        """Name data.

        Raises:
            DataError: nothing has changed then.
        """
        changes: dict[str, Any] = {"augment": augment} if augment != "none" else {}
        with self.watch():
            self.session.data(_word(source, "data, such as digits or a folder"), **changes)
        more = f" --augment {augment}" if changes else ""
        self.teach(f"%tl_data {shlex.quote(source.strip())}{more}")
        self.folder = {}
        self._begin_with_the_head()
        self.pictures()

    def _begin_with_the_head(self) -> None:
        """A head that is new on weights that were trained learns first, alone: fast, and seldom far from the best."""
        view = self.session.view
        if view.data is None or view.loaded is None or not view.loaded.trained or any(self.session.frozen):
            return
        if self.session.view.layers is not None and head_learned_nothing(view.state):
            self.preset("head")

    def answer(self, name: str, **values: Any) -> None:
        """Do what a button of the last part says, and show what it answers.

        Raises:
            TlnbError: see the method of the session.
        """
        call, magic = ANSWERS[name]
        words = str(values.get("path", "")).strip()
        if "{path}" in magic:
            _word(words, "a file")
        with self.watch():
            answer = call(self.session, words)
        self.shown = answer._repr_html_() if name != "further" else ""
        self.teach(magic.format(path=shlex.quote(words)))

    def teach(self, magic: str) -> None:
        """Add to the list of magics; a rate that is picked anew replaces the one before."""
        super().teach(magic)
        done = list(self.magics)
        self.magics = [*done, magic] if not done or done[-1] != magic else done
        self.keep()

    def static(self) -> tuple[str, str]:
        """Network, data and layers as they are, the last range test and run, and the magics so far."""
        card, magics = self.session.panel(), "\n".join(self.magics)
        run_text, run_html = super().static()
        loaded, curve = self.session.view.layers is not None, self.result
        html = [
            card._repr_html_(),
            fallback.strip(self.session.layers) if loaded else "",
            curve_html(curve) if curve is not None else "",
            run_html,
            f"<pre>{escape(magics)}</pre>" if magics else "",
        ]
        texts = (repr(card), repr(curve) if curve is not None else "", run_text, magics)
        return "\n".join(filter(None, texts)), "".join(html)

    def pick(self, rate: float) -> None:
        """Pick a rate; it becomes a magic when it is trained with.

        Raises:
            BadArguments: it is not above 0.
        """
        before = self.magics
        super().pick(rate)
        self.magics = before

    def train(self) -> None:
        """Train one stage, or the default plan; see ``CurvePart.train``."""
        super().train()
        run = self.listener.run
        if run is not None and run.stopped and self.magics:
            done = [*self.magics[:-1], f"{self.magics[-1]}  # stopped; %tl_train --continue goes on"]
            self.magics = done

    def pictures(self) -> None:
        """Show a few pictures of each class of the data."""
        self._pictured = self.session.view.data
        try:
            self.gallery = gallery(self.session.view)
        except (TlnbError, OSError):  # a file that broke since: training will say so
            self.gallery = []

    def _see_what_can_be_done(self) -> None:
        view = self.session.view
        if view.data is not self._pictured:
            self.gallery = []
        trained, ready = bool(view.state.all_stages), view.loaded is not None and view.data is not None
        knows = view.loaded is not None and (ready or bool(view.loaded.categories))
        senses = {
            "advise": ready, "results": ready, "picture": knows, "undo": trained, "further": view.plan is not None,
            "save": view.loaded is not None, "export": ready, "script": trained and ready, "resume": not trained,
        }  # fmt: skip
        self.can = [name for name, sense in senses.items() if sense]

    def _on_busy(self, change: Any) -> None:
        super()._on_busy(change)
        if not change["new"]:
            self._see_what_can_be_done()

    def _refresh(self, _: object = None) -> None:
        super()._refresh()
        self._see_what_can_be_done()
        for name, value in _words(self.session).items():
            setattr(self, name, value)
        if self.curve and not self.busy:
            # The curve was of other layers.
            with self.hold_sync():
                self.result, self.curve, self.rate = None, {}, None


ANSWERS: dict[str, tuple[Callable[[Session, str], Any], str]] = {
    "advise": (lambda session, _: session.advise(), "%tl_advise"),
    "results": (lambda session, _: session.results(), "%tl_results"),
    "undo": (lambda session, _: session.undo(), "%tl_undo"),
    "further": (lambda session, _: session.go_on(), "%tl_train --continue"),
    "save": (lambda session, path: session.save(path), "%tl_save {path}"),
    "export": (lambda session, path: session.export(path), "%tl_export {path}"),
    "script": (lambda session, path: session.script(path), "%tl_script {path}"),
    "resume": (lambda session, path: session.resume(path or None), "%tl_resume"),
}
"""What the buttons of the last part do, and the magic that does the same."""


def _word(text: str, what: str) -> str:
    word = text.strip()
    if not word:
        raise BadArguments(f"name {what}")
    return word


def _words(session: Session) -> dict[str, str]:
    loaded, source = session.view.loaded, session.view.data
    return {
        "network": repr(loaded).splitlines()[0] if loaded else "",
        "source": repr(source).splitlines()[0] if source else "",
    }
