"""What is shown while something trains: a line an epoch, and a bar where somebody can see it move."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

WIDTH = 67  # of an epoch's line
_MANY_FILES = 5000  # looked at in a fraction of a second
_SILENT = 1.0  # seconds that something may take without a bar
_COLUMNS = "{:>9}  {:>8}  {:>11}  {:>11}  {:>10}  {:>8}"


class Listener:
    """Told by the session what happens in training; each method is silent here."""

    def on_test(self, done: int, total: int) -> None:
        """A range test has tried so many of so many rates; 0 where it begins. It may end before ``total``."""

    def on_point(self, rate: float, loss: float) -> None:
        """A range test has measured the loss at a rate: a point of its curve, in no order."""

    def on_curve(self, curve: Any) -> None:
        """A range test has chosen a rate (``LRCurve``), before the stage trains."""

    def on_asked_curve(self, curve: Any) -> None:
        """A range test that was asked for by itself has ended (``LRCurve``); it is answered too."""

    def on_stage_start(
        self, stage_number: int, stage_count: int, description: str, epochs: int, steps_per_epoch: int
    ) -> None:
        """A stage begins; numbers count from 1, ``description`` says in words what trains."""

    def on_batch(self, step: int, steps: int) -> None:
        """A batch was trained on: ``step`` of ``steps`` in this epoch, from 1."""

    def on_epoch(self, record: Any) -> None:
        """An epoch has ended and was measured (``EpochRecord``)."""

    def on_stage_end(self, result: Any) -> None:
        """A stage has ended (``StageResult``), whether wholly, early, or by an interrupt."""

    def on_run_end(self, run: Any) -> None:
        """All stages have ended (``Run``)."""

    def on_results(self, results: Any) -> None:
        """The validation samples were judged (``Results``); it is answered too."""

    def on_test_part(self, result: Any) -> None:
        """The test part was measured (``TestResult``); it is answered too."""

    def on_check(self, done: int, total: int) -> None:
        """Files of the data that was named were looked at: ``done`` of ``total``."""

    def on_walk(self, what: str, done: int, total: int) -> None:
        """Something that takes a while, ``what`` in words, has come so far; both numbers are 0 where it begins."""

    def on_message(self, text: str) -> None:
        """Something the user should know, in one line."""


def _say(write: Callable[[str], Any], line: str) -> None:
    """Write a line, in the letters that the stream has; where that is closed there is nobody to tell."""
    try:
        write(line)
    except UnicodeEncodeError as error:
        write(line.encode(error.encoding, "replace").decode(error.encoding))
    except (ValueError, OSError):  # a closed stream, or a pipe that nobody reads any more
        return


class LineProgress(Listener):
    """A heading for each stage and a line for each epoch, as plain text.

    Args:
        write: takes a line without its end; ``print`` by default.
        show: shows an object with its picture, such as ``IPython.display.display``; without it a curve is one
            line of text.
    """

    def __init__(
        self, write: Callable[[str], Any] | None = None, show: Callable[[Any], Any] | None = None
    ) -> None:
        self._usual = partial(_say, print)  # that of this moment: Ray puts a function of its own in its place
        self.write = self._usual if write is None else write
        self.show = show
        self._headed = False

    @property
    def is_plain(self) -> bool:
        """Whether it is as made without arguments, so that a better one for a shell may take its place."""
        return type(self) is LineProgress and self.write is self._usual and self.show is None

    def on_curve(self, curve: Any) -> None:
        """Show the curve, as a picture where that can be seen."""
        if self.show is not None:
            self.show(curve)
        else:
            self.write(repr(curve))

    def on_stage_start(
        self, stage_number: int, stage_count: int, description: str, epochs: int, steps_per_epoch: int
    ) -> None:
        """Write the heading of the stage."""
        self.write(f"stage {stage_number}/{stage_count}  {description}")
        self._headed = False

    def on_epoch(self, record: Any) -> None:
        """Write the epoch, under the names of the columns if it is the stage's first."""
        if not self._headed:
            # Not with the stage: its curve, which comes between, would part the names from the figures.
            names = ("epoch", "rate", "train loss", "valid loss", record.metric_name, "seconds")
            self.write(_COLUMNS.format(*names))
            self._headed = True
        self.write(epoch_line(record))

    def on_stage_end(self, result: Any) -> None:
        """Say how the stage ended, where that was not the usual way."""
        if result.note:
            self.write(f"stage {result.number} {result.note}")

    def on_message(self, text: str) -> None:
        """Write the message."""
        self.write(text)


class BarProgress(LineProgress):
    """The same lines, and a fastprogress bar for the epoch that is under way.

    The bar is text that the epoch's line is written over, in notebooks too: a bar of HTML would stay behind
    in the saved notebook as an empty output.
    """

    def __init__(
        self, write: Callable[[str], Any] | None = None, show: Callable[[Any], Any] | None = None
    ) -> None:
        super().__init__(write, show)
        self._bar: Any = None
        self._epochs = self._epoch = 1
        self._walk, self._walk_began = "", 0.0

    def on_stage_start(
        self, stage_number: int, stage_count: int, description: str, epochs: int, steps_per_epoch: int
    ) -> None:
        """Write the heading, count epochs from 1, and take away a bar that an error has left."""
        self._clear()
        super().on_stage_start(stage_number, stage_count, description, epochs, steps_per_epoch)
        self._epoch, self._epochs = 1, epochs

    def on_batch(self, step: int, steps: int) -> None:
        """Move the bar."""
        if self._bar is None:
            self._bar = _new_bar(steps, f"{self._epoch}/{self._epochs}")
        if step < steps:  # at its last step fastprogress would end the bar; measuring is still to come
            self._bar.update(step)

    def on_check(self, done: int, total: int) -> None:
        """Move a bar for the files that are looked at; the few files of a small folder need none."""
        if total < _MANY_FILES:
            return
        if self._bar is None:
            self._bar = _new_bar(total, "checking")
        if done < total:
            self._bar.update(done)
        else:
            self._clear()

    def on_walk(self, what: str, done: int, total: int) -> None:
        """Move a bar, from the second second on."""
        if what != self._walk or not done:
            self._walk, self._walk_began = what, time.monotonic()
        if 0 < done < total and self._bar is None and time.monotonic() - self._walk_began > _SILENT:
            self._bar = _new_bar(total, what)
        if self._bar is not None:
            if 0 < done < total:
                self._bar.update(done)
            else:
                self._clear()

    def on_curve(self, curve: Any) -> None:
        """Take the bar away and show the curve."""
        self._clear()
        super().on_curve(curve)

    def on_epoch(self, record: Any) -> None:
        """Take the bar away and write the epoch."""
        self._clear()
        self._epoch = record.epoch + 1
        super().on_epoch(record)

    def on_stage_end(self, result: Any) -> None:
        """Take away a bar that an interrupt has left, and say how the stage ended."""
        self._clear()
        super().on_stage_end(result)

    def on_message(self, text: str) -> None:
        """Take the bar away and write the message."""
        self._clear()
        super().on_message(text)

    def _clear(self) -> None:
        if self._bar is not None:
            self._bar = None
            print("\r" + " " * WIDTH, end="\r", flush=True)


def _new_bar(steps: int, prefix: str) -> Any:
    from fastprogress.fastprogress import ConsoleProgressBar

    bar = ConsoleProgressBar(range(steps), total=steps)
    # No longer than the line that is written over it.
    bar.cols, bar.length, bar.prefix = WIDTH, max(WIDTH - max(len(prefix) - 9, 0), 20), prefix.rjust(9)
    bar.update(0)
    return bar


def epoch_line(record: Any) -> str:
    """The figures of an epoch in columns of fixed width.

    Args:
        record: has ``epoch, epochs, rate, train_loss, valid_loss, accuracy, seconds, metric_name``.
    """
    figure = record.accuracy
    shown = f"{100 * figure:.1f} %" if record.metric_name == "accuracy" else f"{figure:.4f}"
    return _COLUMNS.format(
        f"{record.epoch}/{record.epochs}",
        f"{record.rate:.1e}" if record.rate else "-",
        f"{record.train_loss:.4f}",
        f"{record.valid_loss:.4f}",
        shown,
        f"{record.seconds:.1f}",
    )


def live(shell: Any = None) -> bool:
    """Whether somebody can see a bar move: a terminal, or a notebook that is open in a front end.

    JupyterLab, Notebook and VS Code send the cell's id with each request; nbclient, nbconvert, papermill and
    nbval, which run notebooks with nobody there, do not. A kernel's environment would be a weaker sign, since
    a process that is started from a notebook inherits it.
    """
    if "PYTEST_CURRENT_TEST" in os.environ:
        return False
    if _has_kernel(shell):
        return "cellId" in (shell.get_parent() or {}).get("metadata", {})
    return sys.stdout is not None and sys.stdout.isatty()


def default_listener(shell: Any = None) -> Listener:
    """The listener for a shell: bars where they can be seen, pictures where a notebook keeps them."""
    show: Callable[[Any], Any] | None = None
    if _has_kernel(shell):
        from IPython.display import display

        show = display
    return BarProgress(show=show) if live(shell) else LineProgress(show=show)


def _has_kernel(shell: Any) -> bool:
    return hasattr(shell, "kernel") and hasattr(shell, "get_parent")
