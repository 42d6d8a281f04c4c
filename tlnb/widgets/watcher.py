"""Writes into a view what a session tells its listeners."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tlnb.engine.training.history import Run, show_metric
from tlnb.progress import Listener

if TYPE_CHECKING:
    from tlnb.widgets.training_part import TrainingPart

RUNNING = ("running", "paused", "stopping")
_EVERY = 0.1  # seconds between two messages about batches: smooth for the eye, cheap for the training
_KEPT = 5.0  # seconds between two static twins of a run that goes on


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

    def on_test(self, done: int, total: int) -> None:
        """Move the bar along the rates."""
        now = time.monotonic()
        if done == 0:
            self._began = now
            self.view.test_begins()
        if now - self._sent >= _EVERY or done in (0, total):
            self._sent = now
            left = (now - self._began) / done * (total - done) if done > 3 else None
            self.view.progress = {"done": done, "steps": total, "left": left, "testing": True}

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


def curve_state(curve: Any) -> dict[str, Any]:
    """A curve as plain values for the page."""
    names = ("rates", "losses", "smoothed", "rule", "suggestions", "reason", "ratios", "note")
    return {name: getattr(curve, name) for name in names} | {"rate": curve.rate}
