"""Training in the output of a cell: a view where a page answers, lines and a bar elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from tlnb.display.progress import BarProgress, LineProgress, Listener
from tlnb.widgets.training_part import RUNNING

_MOMENT = 0.7  # seconds; a shorter range test would only flicker


class CellProgress(LineProgress):
    """Shows each run in a view of its own; where there is none, lines and a bar.

    Args:
        view: a new view that is in the notebook already, or None where no page has answered so far.
        test_view: likewise, for a range test outside a run; it goes when the test has ended.
        show: as for ``LineProgress``.
    """

    def __init__(
        self,
        view: Callable[[], Any],
        test_view: Callable[[], Any] = lambda: None,
        show: Callable[[Any], Any] | None = None,
    ):
        super().__init__(show=show)
        self._new_view, self._new_test_view = view, test_view
        self._view: Any = None
        self._test: Any = None
        self._test_began = 0.0
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
        if self._view is not None and self._view.state in RUNNING:
            self._shown.on_test(done, total)
            return
        now = time.monotonic()
        if done == 0:
            self._test, self._test_began, self._points = None, now, []
        elif self._test is None and now - self._test_began > _MOMENT:
            self._test = self._new_test_view()
            if self._test is not None:
                self._test.listener.on_test(0, total)
                for point in self._points:
                    self._test.listener.on_point(*point)
            self._test_began = math.inf  # ask once
        if self._test is not None:
            self._test.listener.on_test(done, total)

    def on_point(self, rate: float, loss: float) -> None:
        """A point of a curve that is being measured."""
        if self._view is not None and self._view.state in RUNNING:
            self._shown.on_point(rate, loss)
        elif self._test is not None:
            self._test.listener.on_point(rate, loss)
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
        """A bar for the files of the data."""
        self._lines.on_check(done, total)

    def on_message(self, text: str) -> None:
        """A line, in the view while something trains."""
        training = self._view is not None and self._view.session.busy
        (self._view.listener if training else self._lines).on_message(text)
