"""A blend of the old and the new body: one number between what was known and what was learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tlnb.display.figures import INK, new_figure, plain
from tlnb.display.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRID = tuple(k / 10 for k in range(11))


def blended(old: Mapping[str, Tensor], new: Mapping[str, Tensor], a: float) -> dict[str, Tensor]:
    """``(1 - a) old + a new`` for each weight and buffer (WiSE-FT, Wortsman et al. 2022).

    At 0 and 1 the result is the old or the new state bit for bit. What is not floating point stays new.

    Args:
        old: weights and buffers by name.
        new: the same names and shapes.
        a: how much of the new.
    """
    if a == 1:
        return {name: tensor.clone() for name, tensor in new.items()}
    return {
        name: (torch.lerp(old[name].to(tensor), tensor, a) if a else old[name].clone())
        if tensor.is_floating_point()
        else tensor.clone()
        for name, tensor in new.items()
    }


@dataclass(frozen=True)
class BlendPoint:
    """One blend.

    Attributes:
        a: 0 for the old body, 1 for the new one.
        new: figure on the new task.
        old: figure on the old task; None without old data.
    """

    a: float
    new: float
    old: float | None


@dataclass(frozen=True)
class Blend:
    """The curve of new-task against old-task accuracy, and which blend the network holds now.

    Attributes:
        a: what the network holds.
        points: the curve, rising in ``a``.
        metric: name of the figure.
        note: what the user should know.
    """

    a: float
    points: tuple[BlendPoint, ...]
    metric: str = "accuracy"
    note: str = ""

    @property
    def point(self) -> BlendPoint:
        """The blend that the network holds."""
        return min(self.points, key=lambda point: abs(point.a - self.a))

    @property
    def table(self) -> Table:
        """One line a blend."""
        rows = [
            (
                f"{p.a:g}",
                f"{p.new:.3f}",
                "-" if p.old is None else f"{p.old:.3f}",
                "now" if p is self.point else "",
            )
            for p in self.points
        ]
        return Table(("a", f"new {self.metric}", f"old {self.metric}", ""), rows, self._caption())

    def _caption(self) -> str:
        old = "" if self.point.old is None else f", old {self.point.old:.3f}"
        head = f"body = {1 - self.a:g} × old + {self.a:g} × new: new {self.metric} {self.point.new:.3f}{old}"
        return "; ".join(filter(None, (head, self.note)))

    def plot(self) -> Figure:
        """New against old accuracy, each blend a dot."""
        return _plot(self.points, self.metric, self.point)

    def __repr__(self) -> str:
        return repr(self.table)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def _plot(points: Sequence[BlendPoint], metric: str, now: BlendPoint) -> Figure:
    figure = new_figure(5, 3.2)
    ax = figure.subplots()
    plain(ax)
    both = [p for p in points if p.old is not None]
    if both:
        ax.plot([p.old or 0.0 for p in both], [p.new for p in both], "o-", color="tab:blue", markersize=4)
        for p in both[:: max(len(both) - 1, 1)]:
            ax.annotate(
                f"a = {p.a:g}", (p.old or 0, p.new), textcoords="offset points", xytext=(7, 7), color=INK
            )
        ax.plot([now.old or 0.0], [now.new], "o", color="tab:orange", markersize=9, zorder=0)
        ax.set_xlabel(f"old task, {metric}", color=INK)
        ax.margins(x=0.18, y=0.15)  # room for the labels
    else:
        ax.plot([p.a for p in points], [p.new for p in points], "o-", color="tab:blue", markersize=4)
        ax.set_xlabel("a (0 old body, 1 new)", color=INK)
    ax.set_ylabel(f"new task, {metric}", color=INK)
    return figure
