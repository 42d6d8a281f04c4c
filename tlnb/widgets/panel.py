"""The whole main job in one place, for people who would rather click; it shows the magics as it goes."""

from __future__ import annotations

import shlex
from html import escape
from typing import Any

import traitlets

from tlnb.errors import BadArguments
from tlnb.session import Session
from tlnb.session.answers import curve_html
from tlnb.widgets import twins
from tlnb.widgets.layer_toggles import LayersPart
from tlnb.widgets.lr_picker import CurvePart
from tlnb.widgets.view import Action, script


class Panel(LayersPart, CurvePart):
    """Network, data, layers, rate and training together.

    Args:
        session: what it acts on.
        traits: ``at_once``, see ``TrainingPart``.
    """

    _esm = script("curve.js", "training.js", "lr_picker.js", "layer_toggles.js", "panel.js", "panel.view.js")
    network = traitlets.Unicode(help="the network in words").tag(sync=True)
    source = traitlets.Unicode(help="the data in words").tag(sync=True)
    names: Any = traitlets.List(help="networks that can be named").tag(sync=True)
    magics: Any = traitlets.List(help="what was done, as magics").tag(sync=True)

    def __init__(self, session: Session, **traits: Any):
        from tlnb.engine.models.catalogue import names

        super().__init__(session, names=list(names()), epochs=0, least=0, **_words(session), **traits)

    def long_actions(self) -> dict[str, Action]:
        """Load a network; name data."""
        return super().long_actions() | {"load": self.load, "data": self.data}

    def load(self, model: str) -> None:
        """Load a network by name.

        Raises:
            ModelError, WeightsError: nothing has changed then.
        """
        with self.watch():
            self.session.load(_word(model, "a network, such as convnet5"))
        self.teach(f"%tl_load {shlex.quote(model.strip())}")

    def data(self, source: str) -> None:
        """Name data.

        Raises:
            DataError: nothing has changed then.
        """
        with self.watch():
            self.session.data(_word(source, "data, such as digits or a folder"))
        self.teach(f"%tl_data {shlex.quote(source.strip())}")

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
            twins.strip(self.session.layers) if loaded else "",
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

    def _refresh(self, _: object = None) -> None:
        super()._refresh()
        for name, value in _words(self.session).items():
            setattr(self, name, value)
        if self.curve and not self.busy:
            # The curve was of other layers.
            with self.hold_sync():
                self.result, self.curve, self.rate = None, {}, None


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
