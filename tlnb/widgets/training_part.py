"""Training as it happens: stages, epochs, progress; stop and pause."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import traitlets

from tlnb.errors import NotReady
from tlnb.progress import LineProgress
from tlnb.session import Session
from tlnb.widgets import twins
from tlnb.widgets.slot import Slot
from tlnb.widgets.view import Action, View, in_words, script
from tlnb.widgets.watcher import RUNNING, Watcher

_TESTS = "a range test"  # what a session calls it while it is busy with one


class TrainingPart(View):
    """One run of training. It is told what happens as a listener, see ``watch``.

    Args:
        session: what trains.
        at_once: whether a click reaches the kernel while a cell is running.
        traits: of other parts.

    Attributes:
        slot: the output that holds what the view's answer does not show; None where there is none.
        turn: held where the state changes, by the thread that trains or by that of a click.
    """

    stages: Any = traitlets.List(help="each stage with its epochs").tag(sync=True)
    progress = traitlets.Dict(help="where the stage stands").tag(sync=True)
    points: Any = traitlets.List(help="rate and loss at each point of a range test under way").tag(sync=True)
    state = traitlets.Unicode(help="running, paused, stopping, done, stopped or failed; empty before").tag(
        sync=True
    )
    metric = traitlets.Unicode("accuracy").tag(sync=True)
    message = traitlets.Unicode().tag(sync=True)
    notes: Any = traitlets.List(help="what the session said outside a run").tag(sync=True)
    count = traitlets.Int(help="layers of the network").tag(sync=True)
    at_once = traitlets.Bool(help="a click is heard while a cell runs").tag(sync=True)

    def __init__(self, session: Session, **traits: Any):
        super().__init__(session, **traits)
        self.listener = Watcher(self)
        self.slot: Slot | None = None
        self.turn = threading.RLock()
        self._before_test: tuple[str, dict[str, Any]] | None = None

    def actions(self) -> dict[str, Action]:
        """Stop, pause, go on."""
        return super().actions() | {"stop": self.ask_stop, "pause": self.pause, "go_on": self.go_on}

    def ask_stop(self) -> None:
        """End the run at the next batch edge.

        Raises:
            NotReady: nothing is training.
        """
        with self.turn:
            request = self._request()
            self.state = "stopping"
            request.ask()

    def pause(self) -> None:
        """Let the run wait at the next batch edge.

        Raises:
            NotReady: nothing is training.
        """
        with self.turn:
            self._request().pause()
            self.state = "paused"

    def go_on(self) -> None:
        """End a pause.

        Raises:
            NotReady: nothing is training.
        """
        with self.turn:
            self._request().go_on()
            self.state = "running"

    def _request(self) -> Any:
        request = self.session.stop_request
        if request is None or self.state not in RUNNING:
            raise NotReady("nothing is training now")
        return request

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Inside, what trains is shown here and not in the output of a cell."""
        self.notes = []
        before = self.session.listeners
        self.session.listeners = [one for one in before if not isinstance(one, LineProgress)]
        self.session.listeners.append(self.listener)
        try:
            yield
        finally:
            self.session.listeners = before

    def test_begins(self) -> None:
        """A range test begins; one that is not part of a run leaves the view as it was."""
        self.points = []
        if self.session.busy == _TESTS:
            self._before_test = self.state, self.progress
            self.state = "running"

    def _on_busy(self, change: Any) -> None:
        super()._on_busy(change)
        with self.turn:
            if change["new"] or self.state not in RUNNING:
                return
            if self._before_test is not None:
                (self.state, self.progress), self._before_test = self._before_test, None
                return
            # No end was told: an error ended the run, the one that is on its way up now.
            error = sys.exception()
            words = f": {in_words(error)}" if error else ""
            self.state, self.message = "failed", f"ended by an error{words}"
        self.keep()

    # ---------------------------------------------------------------- what stays without a kernel

    def keep(self) -> None:
        """Write the static twin anew."""
        if self.slot is not None:
            text, html = self.static()
            if html:
                self.slot.put(text, twins.twin(html, self.key))

    def static(self) -> tuple[str, str]:
        """What the view shows, as text and as HTML."""
        run = self.listener.run
        if run is None:
            return "", ""
        words = self.message if self.state == "failed" else ""
        if self.state in RUNNING:
            words = "training is under way; this is how far it was when this was written"
        return twins.run_text(run, words), twins.run(run, words)


class TrainingView(TrainingPart):
    """Bars, curves and a table of a run, with Stop and Pause."""

    _esm = script("curve.js", "training.js", "training.view.js")
