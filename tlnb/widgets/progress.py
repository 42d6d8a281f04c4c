"""Training in the output of a cell: a view where a page answers, lines and a bar elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tlnb.display.progress import BarProgress, LineProgress, Listener
from tlnb.engine.training.history import Run
from tlnb.widgets.training_part import RUNNING

_MOMENT = 0.7  # seconds; what is shorter would only flicker


class CellProgress(LineProgress):
    """Shows each run in a view of its own; where there is none, lines and a bar.

    Args:
        view: a new view that is in the notebook already, or None where no page has answered so far.
        passing_view: likewise, for what takes a while outside a run; it goes when that has ended.
        show: as for ``LineProgress``.
    """

    def __init__(
        self,
        view: Callable[[], Any],
        passing_view: Callable[[], Any] = lambda: None,
        show: Callable[[Any], Any] | None = None,
    ):
        super().__init__(show=show)
        self._new_view, self._new_passing_view = view, passing_view
        self._view: Any = None
        self._pass: Any = None
        self._began, self._asked = 0.0, False
        self._points: list[tuple[float, float]] = []  # of a test that has no view yet
        self._lines = BarProgress(show=show)

    @property
    def _shown(self) -> Listener:
        return self._lines if self._view is None else self._view.listener

    def on_stage_start(
        self, stage_number: int, stage_count: int, description: str, epochs: int, steps_per_epoch: int
    ) -> None:
        """A run begins with its first stage, or with the one where it goes on."""
        if stage_number == 1 or self._view is None or self._view.state == "failed":
            self._view = self._new_view()
        self._shown.on_stage_start(stage_number, stage_count, description, epochs, steps_per_epoch)

    def on_test(self, done: int, total: int) -> None:
        """A range test: of a stage in the stage's view; another has a view if it takes longer than a moment."""
        if self._in_view:
            self._shown.on_test(done, total)
        elif self._passing(done) is not None:
            self._pass.listener.on_test(done, total)

    def on_walk(self, what: str, done: int, total: int) -> None:
        """Likewise anything else that takes a while."""
        if self._in_view:
            self._shown.on_walk(what, done, total)
        elif self._passing(done) is not None:
            self._pass.listener.on_walk(what, done, total)
        elif self._asked:  # and no page has answered
            self._lines.on_walk(what, done, total)

    @property
    def _in_view(self) -> bool:
        return self._view is not None and self._view.state in RUNNING

    def _passing(self, done: int) -> Any:
        """The view of what is under way outside a run; None in its first moment, and where there is no page."""
        now = time.monotonic()
        if done == 0 and (self._pass is None or not self._pass.busy):
            self._pass, self._began, self._points, self._asked = None, now, [], False
        elif self._pass is None and not self._asked and now - self._began > _MOMENT:
            self._pass, self._asked = self._new_passing_view(), True
            if self._pass is not None:
                self._pass.listener.begin(self._began)
                for point in self._points:
                    self._pass.listener.on_point(*point)
        return self._pass

    def on_point(self, rate: float, loss: float) -> None:
        """A point of a curve that is being measured."""
        if self._in_view:
            self._shown.on_point(rate, loss)
        elif self._pass is not None:
            self._pass.listener.on_point(rate, loss)
        else:
            self._points.append((rate, loss))

    def on_curve(self, curve: Any) -> None:
        """The curve of the stage."""
        self._shown.on_curve(curve)

    def on_batch(self, step: int, steps: int) -> None:
        """The bar."""
        self._shown.on_batch(step, steps)

    def on_epoch(self, record: Any) -> None:
        """The table and the charts, or a line."""
        self._shown.on_epoch(record)

    def on_stage_end(self, result: Any) -> None:
        """The end of the stage."""
        self._shown.on_stage_end(result)

    def on_run_end(self, run: Any) -> None:
        """The view stays as it is; a new run gets another."""
        self._shown.on_run_end(run)
        self._view = None

    def on_check(self, done: int, total: int) -> None:
        """The files of the data."""
        if self._passing(done) is not None:
            self._pass.listener.on_walk("looking at the files", done, total)
        else:
            self._lines.on_check(done, total)

    def on_message(self, text: str) -> None:
        """A line, in the view while something trains."""
        training = self._view is not None and self._view.session.busy
        (self._view.listener if training else self._lines).on_message(text)


class UnseenProgress(LineProgress):
    """Where nobody is there, as under nbclient and papermill: a run leaves its static fallback at the end of its cell.

    Args:
        session: whose runs.
    """

    def __init__(self, session: Any):
        super().__init__()
        self._session = session
        self._run: Run | None = None
        self._ended = False

    def on_curve(self, curve: Any) -> None:
        """It stands in the fallback."""

    def on_stage_start(
        self, stage_number: int, stage_count: int, description: str, epochs: int, steps_per_epoch: int
    ) -> None:
        """A run begins with its first stage."""
        if self._run is None or self._ended:
            self._run, self._ended = Run(), False
        plan = self._session.view.plan
        if plan is not None and plan.result is not None:
            self._run.stages.append(plan.result)  # filled in as it happens

    def on_epoch(self, record: Any) -> None:
        """It stands in the fallback."""

    def on_stage_end(self, result: Any) -> None:
        """It stands in the fallback."""

    def on_run_end(self, run: Any) -> None:
        """The run as it is answered."""
        self._run, self._ended = run, True

    def is_shown(self, run: Any) -> None:
        """The run is shown as an answer."""
        if self._run is run:
            self._run = None

    def take(self) -> tuple[Run, str] | None:
        """The run that was not shown so far, and how it stands in place of its own last word; None for none."""
        run, self._run = self._run, None
        if run is None or not run.stages:
            return None
        return run, "" if self._ended else "ended by an error"
