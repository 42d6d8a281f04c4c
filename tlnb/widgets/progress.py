"""Training in the output of a cell: a view where a page answers, lines and a bar elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tlnb.progress import BarProgress, LineProgress, Listener


class CellProgress(LineProgress):
    """Shows each run in a view of its own; where there is none, lines and a bar.

    Args:
        view: a new view that is in the notebook already, or None where no page has answered so far.
        show: as for ``LineProgress``.
    """

    def __init__(self, view: Callable[[], Any], show: Callable[[Any], Any] | None = None):
        super().__init__(show=show)
        self._new_view = view
        self._view: Any = None
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
