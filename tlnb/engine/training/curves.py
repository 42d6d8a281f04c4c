"""Stages, rates and curves of runs in one picture, fit for a paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlnb.display.figures import BAND, INK, PALETTE, as_html, as_png, as_svg, new_figure, plain, short
from tlnb.display.tables import Table, printable
from tlnb.engine.core.arguments import path_of
from tlnb.engine.training.records import EpochRecord, StageResult, show_metric, show_rate, spans
from tlnb.errors import ExportError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


WIDE = 0.14  # of the epochs; a stage as wide as this has room for its words


@dataclass(frozen=True)
class Line:
    """One run.

    Attributes:
        name: what it is called.
        stages: what was trained; each with an epoch or more.
    """

    name: str
    stages: tuple[StageResult, ...]

    @property
    def records(self) -> list[EpochRecord]:
        """Every epoch."""
        return [record for stage in self.stages for record in stage.records]

    @property
    def final(self) -> EpochRecord:
        """The score of the network that the run left."""
        return self.stages[-1].final or self.records[-1]

    @property
    def ends(self) -> list[int]:
        """How many epochs there are up to the end of each stage."""
        return list(accumulate(len(stage.records) for stage in self.stages))


class Comparison:
    """One run or several, as a table and as a picture.

    Attributes:
        lines: the runs.
        differences: of each later run from the first, tested on the same validation samples; None where that
            cannot be tested.
        verdicts: what to say of each, a line each.
    """

    def __init__(self, lines: Sequence[Line], differences: Sequence[Any] = (), verdicts: Sequence[str] = ()):
        self.lines = tuple(lines)
        self.differences, self.verdicts = tuple(differences), tuple(verdicts)

    @property
    def difference(self) -> Any:
        """Of the second run from the first; None where that cannot be tested, or where there is one run."""
        return self.differences[0] if self.differences else None

    @property
    def figure(self) -> Figure:
        """Figure, losses and rates over the epochs, one under the other."""
        figure = new_figure(7.0, 5.6)
        axes = list(figure.subplots(3, 1, sharex=True, height_ratios=(4, 4, 2)))
        for ax in axes:
            plain(ax)
        _draw_figures(axes[0], self.lines)
        _draw_losses(axes[1], self.lines)
        _draw_rates(axes[2], self.lines)
        if len(self.lines) == 1:
            _draw_stages(axes, self.lines[0])
        else:
            legend = axes[0].legend(loc="lower right", frameon=False, fontsize=9, labelcolor=INK)
            for text in legend.get_texts():
                text.set_parse_math(False)
        longest = max(len(line.records) for line in self.lines)
        axes[2].set_xlim(0.5, longest + 0.5)
        axes[2].xaxis.get_major_locator().set_params(integer=True)
        axes[2].set_xlabel("epoch", color=INK)
        return figure

    @property
    def svg(self) -> str:
        """The picture as SVG."""
        return as_svg(self.figure)

    def save(self, path: str | Path) -> Path:
        """Write the picture as ``.svg`` or ``.png`` (300 dots an inch).

        Raises:
            ExportError: another ending, or a place that cannot be written.
        """
        place = path_of(path, ExportError)
        if place.suffix not in (".svg", ".png"):
            raise ExportError(
                f"the picture is written as .svg or .png, not {place.suffix or 'without an ending'}"
            )
        try:
            if place.suffix == ".svg":
                place.write_text(self.svg, encoding="utf-8")
            else:
                place.write_bytes(as_png(self.figure, 300))
        except OSError as error:
            raise ExportError(f"cannot write {printable(str(place))}: {error.strerror}") from None
        return place

    @property
    def table(self) -> Table:
        """A line a stage."""
        rows = []
        for line in self.lines:
            for stage in line.stages:
                last = stage.final
                assert last is not None
                rows.append(
                    (line.name, stage.number, stage.stage.text, spans(stage.trained),
                     show_rate(stage.rate), len(stage.records), f"{last.valid_loss:.4f}", show_metric(last),
                     f"{stage.seconds:.1f}")
                )  # fmt: skip
        names = " / ".join(dict.fromkeys(r.metric_name for line in self.lines for r in line.records))
        headers = ("run", "stage", "line", "trains", "rate", "epochs", "valid loss", names, "seconds")
        return Table(headers, rows, align="<><<>>>>>")

    def __repr__(self) -> str:
        return "\n".join([repr(self.table), *self.verdicts])

    def _repr_html_(self) -> str:
        picture = as_html(self.figure, f"curves of {', '.join(line.name for line in self.lines)}", 90)
        told = "".join(f"<p>{escape(verdict)}</p>" for verdict in self.verdicts)
        return f"{picture}{told}<details><summary>each stage</summary>{self.table._repr_html_()}</details>"

    def _repr_png_(self) -> bytes:
        return as_png(self.figure)


def _colour(number: int) -> str:
    return PALETTE[number % len(PALETTE)]


def _draw_figures(ax: Axes, lines: Sequence[Line]) -> None:
    for number, line in enumerate(lines):
        values = [record.accuracy for record in line.records]
        x = range(1, len(values) + 1)
        label = f"{short(line.name, 24)}: {show_metric(line.final)}"
        ax.plot(x, values, "-", color=_colour(number), linewidth=2, label=label, zorder=3)
        ends = line.ends
        ax.plot(ends, [values[end - 1] for end in ends], "o", color=_colour(number), markersize=5, zorder=4)
    ax.set_ylabel(" / ".join(dict.fromkeys(r.metric_name for line in lines for r in line.records)), color=INK)
    ax.margins(y=0.12)


def _draw_losses(ax: Axes, lines: Sequence[Line]) -> None:
    for number, line in enumerate(lines):
        x = range(1, len(line.records) + 1)
        colour = _colour(number)
        ax.plot(x, [r.valid_loss for r in line.records], "-", color=colour, linewidth=2, zorder=3,
                label="validation" if not number else None)  # fmt: skip
        ax.plot(x, [r.train_loss for r in line.records], "--", color=colour, linewidth=1.3, alpha=0.8,
                zorder=3, label="training" if not number else None)  # fmt: skip
    values = [v for line in lines for r in line.records for v in (r.valid_loss, r.train_loss)]
    if min(values) > 0 and max(values) > 20 * min(values):
        _log_decimals(ax)
    ax.set_ylabel("loss", color=INK)
    legend = ax.legend(loc="upper right", frameon=False, fontsize=9, labelcolor=INK)
    for handle in legend.get_lines():
        handle.set_color(INK)


def _log_decimals(ax: Axes) -> None:
    """A log scale with ticks such as 0.2, 0.5, 1."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _draw_rates(ax: Axes, lines: Sequence[Line]) -> None:
    for number, line in enumerate(lines):
        start = 0.5
        for stage in line.stages:
            stop = start + len(stage.records)
            # Where two runs have one rate, the first shows on both sides of the second.
            width = 2.4 + 2.4 * (len(lines) - 1 - number)
            if not stage.rate:  # a head that was fitted
                start = stop
                continue
            ax.plot([start + 0.06, stop - 0.06], [stage.rate] * 2, color=_colour(number), linewidth=width,
                    solid_capstyle="butt")  # fmt: skip
            start = stop
    ax.set_yscale("log")
    ax.set_ylabel("rate", color=INK)
    ax.margins(y=0.35)


def _draw_stages(axes: Sequence[Axes], line: Line) -> None:
    """Bands behind the curves of a single run, and what each stage trained."""
    total, start = len(line.records), 0
    for number, stage in enumerate(line.stages):
        stop = start + len(stage.records)
        for ax in axes:
            ax.axvspan(start + 0.5, stop + 0.5, color=BAND if number % 2 else "none", zorder=0, linewidth=0)
        words = f"{number + 1}"
        if (stop - start) / total > WIDE:
            words = f"{number + 1}: trains {short(spans(stage.trained), 12)}"
        middle = (start + stop + 1) / 2
        axes[0].annotate(words, (middle, 1.02), xycoords=("data", "axes fraction"), ha="center",
                         va="bottom", fontsize=9, color=INK)  # fmt: skip
        if stage.rate:
            axes[2].annotate(f"{stage.rate:.1e}", (middle, stage.rate), xytext=(0, 4), ha="center",
                             textcoords="offset points", va="bottom", fontsize=8, color=INK)  # fmt: skip
        start = stop
