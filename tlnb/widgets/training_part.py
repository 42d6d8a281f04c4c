"""Training as it happens: stages, epochs, progress; stop and pause."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import traitlets

from tlnb.engine.training.history import show_metric
from tlnb.errors import NotReady
from tlnb.progress import LineProgress, Listener
from tlnb.session import Session
from tlnb.widgets.view import Action, View, script

_EVERY = 0.1  # seconds between two messages about batches: smooth for the eye, cheap for the training


class TrainingPart(View):
    """One run of training. It is told what happens as a listener, see ``watch``.

    Args:
        session: what trains.
        at_once: whether a click reaches the kernel while a cell is running.
        traits: of other parts.
    """

    stages: Any = traitlets.List(help="each stage with its epochs").tag(sync=True)
    progress = traitlets.Dict(help="where the stage stands").tag(sync=True)
    state = traitlets.Unicode(help="running, paused, stopping, done, stopped or failed; empty before").tag(
        sync=True
    )
    metric = traitlets.Unicode("accuracy").tag(sync=True)
    message = traitlets.Unicode().tag(sync=True)
    count = traitlets.Int(help="layers of the network").tag(sync=True)
    at_once = traitlets.Bool(help="a click is heard while a cell runs").tag(sync=True)

    def __init__(self, session: Session, **traits: Any):
        super().__init__(session, **traits)
        self.listener = Watcher(self)

    def actions(self) -> dict[str, Action]:
        """Stop, pause, go on."""
        return super().actions() | {"stop": self.ask_stop, "pause": self.pause, "go_on": self.go_on}

    def ask_stop(self) -> None:
        """End the run at the next batch edge.

        Raises:
            NotReady: nothing is training.
        """
        self._request().ask()
        self.state = "stopping"

    def pause(self) -> None:
        """Let the run wait at the next batch edge.

        Raises:
            NotReady: nothing is training.
        """
        self._request().pause()
        self.state = "paused"

    def go_on(self) -> None:
        """End a pause.

        Raises:
            NotReady: nothing is training.
        """
        self._request().go_on()
        self.state = "running"

    def _request(self) -> Any:
        request = self.session.stop_request
        if request is None or self.state not in ("running", "paused", "stopping"):
            raise NotReady("nothing is training now")
        return request

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Inside, what trains is shown here and not in the output of a cell."""
        before = self.session.listeners
        self.session.listeners = [one for one in before if not isinstance(one, LineProgress)]
        self.session.listeners.append(self.listener)
        try:
            yield
        finally:
            self.session.listeners = before

    def _on_busy(self, change: Any) -> None:
        super()._on_busy(change)
        if not change["new"] and self.state in ("running", "paused", "stopping"):
            # No end was told: an error ended the run.
            self.state = "failed"


class TrainingView(TrainingPart):
    """Bars, curves and a table of a run, with Stop and Pause."""

    _esm = script("curve.js", "training.js", "training.view.js")


class Watcher(Listener):
    """Writes what happens into a view.

    Args:
        view: the view.
    """

    def __init__(self, view: TrainingPart):
        self.view = view
        self._stages: list[dict[str, Any]] = []
        self._curve: dict[str, Any] | None = None
        self._began = self._sent = 0.0
        self._done = self._waited = 0

    def on_stage_start(
        self, stage_number: int, stage_count: int, description: str, epochs: int, steps_per_epoch: int
    ) -> None:
        """A new line in the stage strip; the first one begins a new run."""
        view = self.view
        if stage_number == 1:
            self._stages = []
        self._stages.append({
            "number": stage_number, "count": stage_count, "text": description, "epochs": epochs,
            "trained": [i for i, fixed in enumerate(view.session.frozen) if not fixed],
            "records": [], "curve": None, "note": "", "ended": False,
        })  # fmt: skip
        self._steps = max(epochs * steps_per_epoch, 1)
        self._done, self._began = 0, 0.0
        with view.hold_sync():
            view.count, view.state, view.message = len(view.session.frozen), "running", ""
            self._send_stages()
            view.progress = {"done": 0, "steps": self._steps, "epoch": 1, "left": None}

    def on_curve(self, curve: Any) -> None:
        """The range test of the stage."""
        self._stages[-1]["curve"] = curve_state(curve)
        self._send_stages()

    def on_batch(self, step: int, steps: int) -> None:
        """Move the bar, a few times a second at most."""
        now = time.monotonic()
        if not self._done:
            self._began = now
        self._done += 1
        if now - self._sent >= _EVERY:
            self._sent = now
            self._send_progress(now)

    def _send_progress(self, now: float) -> None:
        each = (now - self._began) / max(self._done - 1, 1)
        left = each * (self._steps - self._done) if self._done > 3 else None
        epoch = len(self._stages[-1]["records"]) + 1
        self.view.progress = {"done": self._done, "steps": self._steps, "epoch": epoch, "left": left}

    def on_epoch(self, record: Any) -> None:
        """A new row and a new point."""
        figures = {
            name: getattr(record, name) for name in ("epoch", "rate", "train_loss", "valid_loss", "seconds")
        }
        figures |= {"figure": record.accuracy, "shown": show_metric(record)}
        self._stages[-1]["records"].append(figures)
        self.view.metric = record.metric_name
        self._send_stages()

    def on_stage_end(self, result: Any) -> None:
        """How the stage ended, and the proof about its frozen layers."""
        self._stages[-1] |= {"ended": True, "note": result.note, "proof": result.proof}
        if not result.stopped and not result.note:
            self.view.progress = self.view.progress | {"done": self._steps, "left": 0}
        self._send_stages()

    def on_run_end(self, run: Any) -> None:
        """The last word."""
        self.view.state = "stopped" if run.stopped else "done"
        self.view.message = run.table.caption

    def on_message(self, text: str) -> None:
        """A line of the session."""
        self.view.message = text

    def _send_stages(self) -> None:
        self.view.stages = [dict(stage, records=list(stage["records"])) for stage in self._stages]


def curve_state(curve: Any) -> dict[str, Any]:
    """A curve as plain values for the page."""
    names = ("rates", "losses", "smoothed", "rule", "suggestions", "reason", "ratios", "note")
    return {name: getattr(curve, name) for name in names} | {"rate": curve.rate}
