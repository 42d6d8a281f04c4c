"""Training as it happens: stages, epochs, progress; stop and pause; and the watcher that writes it into a view."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import traitlets

from tlnb.display.progress import LineProgress, Listener
from tlnb.engine.training.history import Run
from tlnb.engine.training.records import show_metric
from tlnb.errors import NotReady
from tlnb.session import Session
from tlnb.widgets import fallback
from tlnb.widgets.slot import Slot
from tlnb.widgets.view import Action, View, in_words, script

RUNNING = ("running", "paused", "stopping")
RUNS = "running the frozen"  # how the line about the pass over frozen layers begins
_EVERY = 0.1  # seconds between two messages about batches: smooth for the eye, cheap for the training
_KEPT = 5.0  # seconds between two static fallbacks of a run that goes on


class Watcher(Listener):
    """Writes what happens into a view.

    Args:
        view: the view.

    Attributes:
        run: the last run, or what there is of it so far; None before one.
    """

    def __init__(self, view: TrainingPart):
        self.view = view
        self.run: Run | None = None
        self._stages: list[dict[str, Any]] = []
        self._began = self._sent = self._kept = 0.0
        self._done, self._steps = 0, 1
        self._walked: tuple[str, int] | None = None

    def on_test(self, done: int, total: int) -> None:
        """Move the bar along the rates."""
        now = time.monotonic()
        if done == 0:
            self.begin(now)
        if now - self._sent >= _EVERY or done in (0, total):
            self._sent = now
            self._forget_announcement()
            left = (now - self._began) / done * (total - done) if done > 3 else None
            self.view.progress = {"done": done, "steps": total, "left": left, "testing": True}

    def begin(self, at: float) -> None:
        """Something begins outside a run, or began at this time of the monotonic clock."""
        self._began, self._sent, self._walked = at, 0.0, None
        self.view.test_begins()

    def on_walk(self, what: str, done: int, total: int) -> None:
        """Move the bar along whatever takes a while."""
        now = time.monotonic()
        if done == 0:
            self.begin(now)
        elif self.view.state in RUNNING and self._walked is None and not self._began:
            self._began = now
        elif self._walked is not None and (what != self._walked[0] or done < self._walked[1]):
            self._began, self._sent = now, 0.0  # the next of several passes
        self._walked = what, done
        if now - self._sent >= _EVERY or done == total:
            self._sent = now
            left = (now - self._began) / done * (total - done) if done else None
            self.view.progress = {"done": done, "steps": total, "left": left, "what": what}

    def on_point(self, rate: float, loss: float) -> None:
        """A point of the curve that is being measured; one that is measured again moves."""
        known = dict(self.view.points) | {rate: loss}
        self.view.points = [list(point) for point in sorted(known.items())]

    def on_stage_start(
        self, stage_number: int, stage_count: int, description: str, epochs: int, steps_per_epoch: int
    ) -> None:
        """A new line in the stage strip; the first one of a run begins it anew."""
        view = self.view
        if view.state not in RUNNING or self.run is None:
            self._stages, self.run = [], Run()
        plan = view.session.view.plan
        if plan is not None and plan.result is not None:
            self.run.stages.append(plan.result)  # filled in as it happens
        known = [] if plan is None or plan.result is None else plan.result.records  # of a stage that goes on
        self._stages.append({
            "number": stage_number, "count": stage_count, "text": description, "epochs": epochs,
            "trained": [i for i, fixed in enumerate(view.session.frozen) if not fixed],
            "records": [_figures(record) for record in known], "curve": None, "note": "", "ended": False,
        })  # fmt: skip
        self._steps = max((epochs - len(known)) * steps_per_epoch, 1)
        self._done, self._began = 0, 0.0
        with view.hold_sync():
            view.count, view.state, view.message = len(view.session.frozen), "running", ""
            self._send_stages()
            view.progress = {"done": 0, "steps": self._steps, "epoch": len(known) + 1, "left": None}
        self._keep()

    def on_curve(self, curve: Any) -> None:
        """The range test of the stage."""
        self._stages[-1]["curve"] = curve_state(curve)
        self.view.points = []
        self._send_stages()
        self.view.progress = {"done": 0, "steps": self._steps, "epoch": 1, "left": None}

    def on_batch(self, step: int, steps: int) -> None:
        """Move the bar, a few times a second at most."""
        now = time.monotonic()
        if not self._done:
            self._began = now
        self._done += 1
        if now - self._sent >= _EVERY:
            self._sent = now
            self._forget_announcement()
            self._send_progress(now)

    def _forget_announcement(self) -> None:
        """What was said of the pass over the frozen layers holds no more: that has ended."""
        if self.view.message.startswith(RUNS):
            self.view.message = ""

    def _send_progress(self, now: float) -> None:
        each = (now - self._began) / max(self._done - 1, 1)
        left = each * (self._steps - self._done) if self._done > 3 else None
        epoch = len(self._stages[-1]["records"]) + 1
        self.view.progress = {"done": self._done, "steps": self._steps, "epoch": epoch, "left": left}

    def on_epoch(self, record: Any) -> None:
        """A new row and a new point."""
        self._stages[-1]["records"].append(_figures(record))
        self.view.metric = record.metric_name
        self._send_stages()
        if time.monotonic() - self._kept > _KEPT:
            self._keep()

    def on_stage_end(self, result: Any) -> None:
        """How the stage ended, and the proof about its frozen layers."""
        self._stages[-1] |= {"ended": True, "note": result.note, "proof": result.proof}
        if len(result.records) == result.stage.epochs:
            self.view.progress = self.view.progress | {"done": self._steps, "left": 0}
        self._send_stages()

    def on_run_end(self, run: Any) -> None:
        """The last word."""
        self.run = run
        with self.view.turn, self.view.hold_sync():
            self.view.state = "stopped" if run.stopped else "done"
            self.view.message = run.table.caption
        self._keep()

    def on_message(self, text: str) -> None:
        """A line of the session: about the run, or about the network or the data that is being named."""
        if self.view.state in RUNNING:
            self.view.message = text
        else:
            self.view.notes = [*self.view.notes, text]

    def _keep(self) -> None:
        self.view.keep()
        self._kept = time.monotonic()

    def _send_stages(self) -> None:
        self.view.stages = [dict(stage, records=list(stage["records"])) for stage in self._stages]


def _figures(record: Any) -> dict[str, Any]:
    """An epoch as plain values for the page."""
    names = ("epoch", "rate", "train_loss", "valid_loss", "seconds")
    return {name: getattr(record, name) for name in names} | {
        "figure": record.accuracy, "shown": show_metric(record),
    }  # fmt: skip


def curve_state(curve: Any) -> dict[str, Any]:
    """A curve as plain values for the page."""
    names = ("rates", "losses", "smoothed", "rule", "suggestions", "reason", "ratios", "note")
    return {name: getattr(curve, name) for name in names} | {"rate": curve.rate}


_TRAINS = "training"  # what a session calls it while it is busy with a run


class TrainingPart(View):
    """One run of training. It is told what happens as a listener, see ``watch``.

    Args:
        session: what trains.
        at_once: whether a click reaches the kernel while a cell is running.
        traits: of other parts.

    Attributes:
        listener: writes into the view what it is told of a run.
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
        if self.session.busy != _TRAINS and self._before_test is None:
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

    def said(self) -> str:
        """How the run stands."""
        return self.message or self.state or "nothing has run yet"

    # ---------------------------------------------------------------- what stays without a kernel

    def keep(self) -> None:
        """Write the static fallback anew."""
        if self.slot is not None:
            text, html = self.static()
            if html:
                self.slot.put(text, fallback.marked(html, self.key))

    def static(self) -> tuple[str, str]:
        """What the view shows, as text and as HTML."""
        run = self.listener.run
        if run is None:
            return "", ""
        words = self.message if self.state == "failed" else ""
        if self.state in RUNNING:
            words = "training is under way; this is how far it was when this was written"
        return fallback.run_text(run, words), fallback.run(run, words)


class TrainingView(TrainingPart):
    """Bars, curves and a table of a run, with Stop and Pause.

    Args:
        session: any run of it is shown, wherever it was begun: ``TrainingView(tl)`` in a box of your own is its
            progress.
        follows: whether it listens to the session; without, it shows what its ``listener`` is told.
        traits: ``at_once``, see ``TrainingPart``.
    """

    _esm = script("curve.js", "training.js", "training.view.js")

    def __init__(self, session: Session, *, follows: bool = True, **traits: Any):
        super().__init__(session, **traits)
        if follows:
            session.listeners.append(self.listener)

    def close(self) -> None:
        """Take the view off its pages, and listen no more."""
        if hasattr(self, "listener") and self.listener in self.session.listeners:
            self.session.listeners.remove(self.listener)
        super().close()
