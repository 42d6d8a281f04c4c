"""The advice: the classic table with the measured cell marked, the figures beside it, and a plan to run."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from tlnb.engine.advice.figures import Figures
from tlnb.engine.advice.rule import CELLS, Decision
from tlnb.engine.table import Table

MARK = "▶"


@dataclass(frozen=True)
class Advice:
    """How much to transfer, with the figures that it rests on.

    Attributes:
        figures: what was measured.
        decision: what they say.
        plan: in the stage language; ``%tl_train --advised`` runs it.
        layers: how many layers the body has.
        seconds: that it took.
        note: what the user should know, in one line.
    """

    figures: Figures
    decision: Decision
    plan: str
    layers: int
    seconds: float
    note: str = ""

    @property
    def cell(self) -> tuple[str, str]:
        """``little`` or ``much`` data, ``low`` or ``high`` similarity."""
        return self.decision.amount, self.decision.likeness

    @property
    def procedure(self) -> str:
        """What the cell of the table says."""
        return self.decision.procedure

    @property
    def kept(self) -> int:
        """How many first layers stay frozen to the end."""
        return self.decision.kept

    @property
    def thin(self) -> bool:
        """Whether the evidence is thin."""
        return bool(self.decision.doubts)

    @property
    def table(self) -> Table:
        """Amount of data against similarity; the cell that was measured is marked."""
        rows = [
            (f"{amount} data", *(self._cell_text(amount, likeness) for likeness in ("low", "high")))
            for amount in ("little", "much")
        ]
        return Table(("", "low similarity", "high similarity"), rows, align="<<<")

    def _cell_text(self, amount: str, likeness: str) -> str:
        text = CELLS[amount, likeness]
        return f"{MARK} {text}" if (amount, likeness) == self.cell else text

    @property
    def scores(self) -> Table:
        """What each layer's features are worth for the new task."""
        rows = [
            (
                f"0–{s.kept - 1}" if s.kept > 1 else "0",
                f"{s.probe:.3f} ± {s.error:.3f}",
                f"{s.logme:.3f}",
                "-" if s.h_score is None else f"{s.h_score:.2f}",
            )
            for s in self.figures.scores
        ]
        caption = "what the features behind each layer are worth for the new task; more is better"
        return Table(("behind layers", "linear probe", "LogME", "H-score"), rows, caption, align="<>>>")

    def _lines(self) -> list[str]:
        kept = (
            f"keep the first {self.kept} of {self.layers} layers of the body as they are"
            if self.kept
            else "keep no layer fixed after the first stage: the pretrained weights are where training starts"
        )
        lines = [*self.decision.reasons, f"advice: {self.procedure}; {kept}"]
        if self.thin:
            lines.append("the evidence is thin: " + "; ".join(self.decision.doubts))
        return [*lines, self.note] if self.note else lines

    def __repr__(self) -> str:
        plan = "\n".join(f"  {line}" for line in self.plan.splitlines())
        end = f"the plan, which %tl_train --advised runs:\n{plan}"
        return "\n".join([repr(self.table), *self._lines(), repr(self.scores), end])

    def _repr_html_(self) -> str:
        lines = "<br>".join(escape(line) for line in self._lines())
        return (
            f"{self.table._repr_html_()}<div>{lines}</div>{self.scores._repr_html_()}"
            f"<div>the plan, which <code>%tl_train --advised</code> runs:</div><pre>{escape(self.plan)}</pre>"
        )
