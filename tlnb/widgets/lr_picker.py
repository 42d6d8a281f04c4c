"""A learning rate picked on the curve of a range test."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import traitlets

from tlnb.engine.training.lr_curve import LRCurve
from tlnb.engine.training.records import spans
from tlnb.errors import BadArguments, NotReady
from tlnb.session import Session
from tlnb.session.answers import curve_html
from tlnb.widgets.training_part import TrainingPart, curve_state
from tlnb.widgets.view import Action, script


class CurvePart(TrainingPart):
    """A curve, a rate on it, and what trains with that rate.

    Args:
        session: what trains.
        traits: of other parts.

    Attributes:
        rate: the rate that is picked. It can be set, so that it can be linked with other widgets in both directions.
    """

    curve = traitlets.Dict(help="the range test as plain values; empty before one").tag(sync=True)
    rate = traitlets.Float(None, allow_none=True, help="the rate that is picked").tag(sync=True)
    epochs = traitlets.Int(1, help="of the stage that Train trains; 0 where nothing is said").tag(sync=True)
    least = traitlets.Int(1, help="what epochs may be at least").tag(sync=True)
    stale = traitlets.Unicode(help="for what else the curve was found; empty where it holds").tag(sync=True)

    def __init__(self, session: Session, **traits: Any):
        super().__init__(session, **traits)
        self.result: LRCurve | None = None
        self._found_for: tuple[Any, ...] = None, None, ()
        self.follow(self._does_it_hold, ["frozen", "revision"])

    def actions(self) -> dict[str, Action]:
        """Pick a rate; set the number of epochs."""
        return super().actions() | {"pick": self.pick, "set_epochs": self.set_epochs}

    def long_actions(self) -> dict[str, Action]:
        """Run the range test; train."""
        return super().long_actions() | {"find": self.find, "train": self.train}

    def show(self, curve: LRCurve) -> None:
        """Take a curve, with its own rate picked."""
        self.result = curve
        self._found_for = self._stands()
        with self.hold_sync():
            self.curve, self.rate, self.stale = curve_state(curve), curve.rate, ""

    @traitlets.validate("rate")
    def _rate_is_set(self, proposal: Mapping[str, Any]) -> float | None:
        rate: float | None = proposal["value"]
        if rate is not None and not (math.isfinite(rate) and rate > 0):
            raise traitlets.TraitError(f"a learning rate is a number above 0, not {rate!r}")
        return rate

    @traitlets.observe("rate", "epochs")
    def _line_has_changed(self, change: Any) -> None:
        if self.curve:
            self.magic = self.line

    def _does_it_hold(self, _: object = None) -> None:
        """Say what the curve was found for, where that is not what trains now."""
        (network, data, frozen), (network_now, data_now, frozen_now) = self._found_for, self._stands()
        words = ""
        if not self.curve:
            pass
        elif network_now is not network or data_now is not data:
            words = f"another {'network' if network_now is not network else 'data set'}"
        elif frozen_now != frozen:
            free = [i for i, fixed in enumerate(frozen) if not fixed]
            words = f"layer{'s' * (len(free) != 1)} {spans(free)}"
        self.stale = f"found for {words}; run it again" if words else ""

    def _stands(self) -> tuple[Any, ...]:
        view = self.session.view
        return view.loaded, view.data, self.session.frozen

    def pick(self, rate: float) -> None:
        """Pick a rate.

        Raises:
            BadArguments: it is not above 0.
        """
        if not (isinstance(rate, (int, float)) and math.isfinite(rate) and rate > 0):
            raise BadArguments(f"a learning rate is a number above 0, not {rate!r}")
        self.rate = float(f"{rate:.2e}")
        self.teach(self.line)

    def set_epochs(self, epochs: int) -> None:
        """How many epochs *Train* trains.

        Raises:
            BadArguments: not a whole number from 1 up; the panel takes 0 for nothing said.
        """
        if not isinstance(epochs, int) or epochs < self.least:
            raise BadArguments(f"epochs takes a whole number from 1 up, not {epochs!r}")
        self.epochs = epochs

    def find(self) -> None:
        """The range test on what is unfrozen now.

        Raises:
            NotReady, PlanError, BadArguments: nothing has run then.
        """
        decay = self.decay
        rule = self.result.rule if self.result else None
        with self.watch():
            self.show(self.session.find_lr(rule=rule, decay=decay))
        self.teach("%tl_lr" + ("" if decay == 1.0 else f" --decay {decay:.3g}"))

    def train(self) -> None:
        """Train one stage at the picked rate; the default plan where neither rate nor epochs are said.

        Raises:
            NotReady, PlanError, TrainingError: as ``session.train``.
        """
        if self.rate is None and self.curve:
            raise NotReady("pick a rate first: click on the curve, or move the slider")
        if self.stale:
            raise NotReady(f"this curve was {self.stale}")
        with self.watch():
            if self.rate is None and not self.epochs:
                self.session.train()
            else:
                self.session.train(self.epochs or 1, self.rate or "auto", decay=self.decay)
        self.teach(self.line)

    @property
    def line(self) -> str:
        """What *Train* does, as a magic."""
        if self.rate is None and not self.epochs:
            return "%tl_train"
        rate = "" if self.rate is None else f" lr {self.rate:.3g}"
        decay = "" if self.decay == 1.0 else f" decay {self.decay:.3g}"
        return f"%tl_train epochs {self.epochs or 1}{rate}{decay}"

    def said(self) -> str:
        """The rate that is picked."""
        return f"rate {self.rate:.1e}" if self.rate else "no rate picked"

    @property
    def decay(self) -> float:
        """How many times slower each earlier layer learns, as the curve was made with."""
        ratios = self.result.ratios if self.result else {}
        places = {row.name: row.index for row in self.session.layers} if ratios else {}
        known = sorted((places[name], ratio) for name, ratio in ratios.items() if name in places)
        if len(known) < 2:
            return 1.0
        (first, low), (last, high) = known[0], known[-1]
        return float(f"{(high / low) ** (1 / (last - first)):.6g}")


class LRPicker(CurvePart):
    """The curve of a range test: click or slide to pick, run again, train.

    Args:
        session: what trains.
        curve: the range test; None to begin without one.
        traits: ``at_once``, see ``TrainingPart``.
    """

    _esm = script("curve.js", "training.js", "lr_picker.js", "lr_picker.view.js")

    def __init__(self, session: Session, curve: LRCurve | None = None, **traits: Any):
        super().__init__(session, **traits)
        if curve is not None:
            self.show(curve)
            self.teach(self.line)
        self._first = curve  # its answer shows this one

    def find(self) -> None:
        """Run the range test again on what is unfrozen now.

        Raises:
            NotReady, PlanError, BadArguments: nothing has run then.
        """
        super().find()
        self.keep()

    def static(self) -> tuple[str, str]:
        """A range test that was run again, and what was trained from here."""
        text, html = super().static()
        if self.result is None or self.result is self._first:
            return text, html
        return "\n".join(filter(None, (repr(self.result), text))), curve_html(self.result) + html
