"""The curve of a learning-rate range test, with what each rule reads off it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class LRCurve:
    """Loss against learning rate, and the suggested rates.

    Shows itself as one or two lines of text and as a picture. Equal when every number is.

    Args:
        rates: the rates that were tried, ascending; those of the top group.
        losses: the training loss after a step of each rate; finite.
        smoothed: the losses again; curves of files of version 0.1 were noisy, and this is them without their noise.
        rule: the rule whose answer is ``suggestion``.
        suggestions: the answer of every rule, ``None`` where it has none.
        reason: why there is no suggestion, or else why the sweep ended.
        ratios: factor of each group against the top group, by name; empty where all learn at one rate.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    rule: str
    suggestions: dict[str, float | None]
    reason: str
    ratios: dict[str, float]

    @property
    def suggestion(self) -> float | None:
        """The rate that the chosen rule suggests for the top group, or ``None``."""
        return self.suggestions.get(self.rule)

    @property
    def rate(self) -> float | None:
        """The rate to train at: the suggestion, else that of the rule ``brink``, else ``None``.

        The loss of a network that is trained already has nowhere to fall, so no other rule answers; where
        it breaks can be seen all the same.
        """
        return self.suggestion if self.suggestion is not None else self.suggestions.get("brink")

    @property
    def note(self) -> str:
        """The outcome in words, one line."""
        others = {n: r for n, r in self.suggestions.items() if r is not None and n != self.rule}
        if self.suggestion is not None:
            listed = ", ".join(f"{name} {rate:.1e}" for name, rate in others.items())
            return f"{self.rule} suggests {self.suggestion:.1e}" + (f" ({listed})" if listed else "")
        instead = ", ".join(f"{name} gives {rate:.1e}" for name, rate in others.items())
        return f"no suggestion: {self.reason}" + (f"; {instead}" if instead else "")

    def plot(self, ax: Axes | None = None) -> Figure:
        """Draw the curve with every rule's rate marked, into ``ax`` where one is given.

        Returns the matplotlib figure; pyplot and its global state are not touched.
        """
        from tlnb.engine.rates.lr_plot import draw

        return draw(self, ax)

    def _repr_png_(self) -> bytes:
        return self._png

    @cached_property
    def _png(self) -> bytes:
        # Kept: a notebook shows the picture several times while its stage trains.
        target = BytesIO()
        self.plot().savefig(target, format="png", dpi=110)
        return target.getvalue()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/plain": repr(self), "image/png": self._repr_png_()}

    def __repr__(self) -> str:
        span = f" from {self.rates[0]:.1e} to {self.rates[-1]:.1e}" if self.rates else ""
        return f"learning-rate range test: {len(self.rates)} rates{span}; {self.note}"
