"""The curve of a learning-rate range test, with what each rule reads off it."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class LRCurve:
    """Loss against learning rate, and the suggested rates.

    Args:
        rates: the rates that were tried, ascending; those of the top group.
        losses: the training loss at each rate, before the step; finite.
        smoothed: the losses without most of their noise.
        rule: the rule whose answer is ``suggestion``.
        suggestions: the answer of every rule, ``None`` where it has none.
        reason: why the sweep ended, or why there is no suggestion.
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
    def note(self) -> str:
        """The outcome in words, one line."""
        if self.suggestion is None:
            return f"no suggestion: {self.reason}"
        others = [f"{n} {r:.1e}" for n, r in self.suggestions.items() if r is not None and n != self.rule]
        return f"{self.rule} suggests {self.suggestion:.1e}" + (f" ({', '.join(others)})" if others else "")

    def plot(self, ax: Axes | None = None) -> Figure:
        """Draw the curve; into ``ax`` where one is given. Returns the matplotlib figure."""
        from tlnb.engine.lr_plot import draw

        return draw(self, ax)

    def _repr_png_(self) -> bytes:
        target = BytesIO()
        self.plot().savefig(target, format="png", dpi=100)
        return target.getvalue()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/plain": repr(self), "image/png": self._repr_png_()}

    def __repr__(self) -> str:
        span = f" from {self.rates[0]:.1e} to {self.rates[-1]:.1e}" if self.rates else ""
        return f"learning-rate range test: {len(self.rates)} rates{span}; {self.note}"
