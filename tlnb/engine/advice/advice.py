"""The advice: the classic table with the measured cell marked, the figures beside it, and a plan to run.

The thresholds were chosen on the tuning tasks of ``tests/benchmarks/advice`` and judged on others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from tlnb.display.tables import Table
from tlnb.engine.advice.figures import Figures, LayerScore
from tlnb.engine.advice.pace import show_seconds
from tlnb.engine.network.layers import LayerMap
from tlnb.engine.training.plan import Traits, first_part, lines_behind_fit

ALIKE = 0.97  # similarity from which on old and new data count as alike
MUCH = 50  # training images of the smallest class from which on there is much data
SURE = 2.0  # standard errors by which the last layer must be worse than the best before it counts as worse
BORDER = 0.01  # of the similarity, within which it could as well be on the other side
LARGE = 1_500_000  # weights of a body that moves gently enough to train as a whole
FEW_IMAGES = 60
FEW_PER_CLASS = 8

CELLS: dict[tuple[str, str], str] = {
    ("little", "low"): "unfreeze more layers of the pretrained model",
    ("little", "high"): "unfreeze fewer layers",
    ("much", "low"): "initialise with the pretrained weights and train completely",
    ("much", "high"): "fine-tune completely",
}


@dataclass(frozen=True)
class Decision:
    """What the figures say to do.

    Attributes:
        amount: ``little`` or ``much``.
        likeness: ``low`` or ``high``.
        kept: how many first layers stay frozen to the end.
        reasons: one line each.
        doubts: why the evidence is thin, one line each; empty where it is not.
    """

    amount: str
    likeness: str
    kept: int
    reasons: tuple[str, ...]
    doubts: tuple[str, ...]

    @property
    def procedure(self) -> str:
        """The cell of the table, in words."""
        return CELLS[self.amount, self.likeness]


def decide(figures: Figures, layers: LayerMap, traits: Traits) -> Decision:
    """The cell and the number of layers to keep.

    Alike means two things at once: the norm layers see the statistics of the old data, and the last layer's
    features tell the new classes apart as well as those of any earlier layer do. Where either fails, the deep
    layers have to learn, and fine-tuning from the pretrained weights loses nothing against keeping them. Keeping
    first layers is a matter of cost alone in a large network, which moves gently in any case. A handful of images
    is too few to tell alike from unlike, and teaches the last part of a pretrained network more than the whole of
    it.

    Args:
        figures: measured.
        layers: of the network.
        traits: of the network.
    """
    amount = "much" if (figures.per_class or figures.images // 10) >= MUCH else "little"
    gap, worse = behind(figures.scores, larger=figures.larger)
    alike = not worse and (figures.similarity is None or figures.similarity >= ALIKE)
    large = sum(layers[i].parameters for i in layers.body) >= LARGE
    handful = traits.handful(figures.images)
    keeps = handful or (alike and amount == "little" and not large)
    kept = first_part(layers) if keeps else 0
    likeness = "high" if alike else "low"
    return Decision(amount, likeness, kept, _reasons(figures, gap, worse, handful), _doubts(figures))


def behind(scores: Sequence[LayerScore], *, larger: bool = True) -> tuple[float, bool]:
    """By how much the last layer's probe is behind the best one, and whether that is more than luck.

    The highest of k probes is too high by luck: by about ``sqrt(2 ln k)`` standard errors where all are alike (the
    expected maximum of k normal variables). What is left has to be ``SURE`` standard errors of a difference.
    """
    best, last = _best(scores, larger), scores[-1]
    gap = abs(best.probe - last.probe)
    luck = math.sqrt(2 * math.log(max(len(scores), 1))) * last.error
    error = math.hypot(best.error, last.error)
    return gap, best is not last and gap > max(luck, SURE * error)


def _best(scores: Sequence[LayerScore], larger: bool) -> LayerScore:
    return max(scores, key=lambda score: score.probe if larger else -score.probe)


def _reasons(figures: Figures, gap: float, worse: bool, handful: bool) -> tuple[str, ...]:
    last = figures.scores[-1]
    best = _best(figures.scores, figures.larger)
    alike = (
        "similarity: the network has no BatchNorm statistics to tell it by; the probes alone decide"
        if figures.similarity is None
        else f"similarity {figures.similarity:.2f} ({ALIKE:g} and more is high): {figures.measured_on}"
    )
    per_class = (
        f", {figures.per_class} in the smallest class ({MUCH} and more is much)" if figures.per_class else ""
    )
    what = f" by {figures.metric}" if figures.metric else ""
    deepest = f"a linear probe on the last layer scores {last.probe:.3f} ± {last.error:.3f}{what}"
    if gap <= 0:
        deepest += ", the best of all layers"
    else:
        deepest += f", and {best.probe:.3f} behind layer {best.kept - 1}: "
        deepest += "more than luck, so the last layers have to learn" if worse else "no more than luck"
    amount = f"amount: {figures.images:,} training images{per_class}"
    if handful:
        amount += ": a handful, which teaches the last part of the body more than the whole of it"
    return amount, alike, deepest


def _doubts(figures: Figures) -> tuple[str, ...]:
    found = []
    if figures.images < FEW_IMAGES or (figures.per_class or FEW_PER_CLASS) < FEW_PER_CLASS:
        found.append(f"only {figures.images} images: probes are rough, and so is any validation")
    if figures.similarity is None:
        found.append("no figure for the similarity")
    elif abs(figures.similarity - ALIKE) < BORDER:
        found.append(f"the similarity {figures.similarity:.2f} is near the border of {ALIKE:g}")
    above = _best(figures.scores, figures.larger).probe - figures.chance
    if (above if figures.larger else -above) < 3 * figures.scores[-1].error:
        found.append("no layer's features tell the classes apart better than chance")
    return tuple(found)


def write_plan(decision: Decision, layers: LayerMap, images: int, traits: Traits) -> str:
    """The plan in the stage language: the head fitted first, then what is unfrozen, from a soft head.

    Args:
        decision: what to do.
        layers: of the network.
        images: training images.
        traits: of the network.
    """
    every = range(len(layers))
    behind = lines_behind_fit(layers, every, every[decision.kept :], images, traits)
    return "\n".join(["fit head", *behind])


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
        plan_seconds: about how long the plan takes here; None where that was not estimated.
    """

    figures: Figures
    decision: Decision
    plan: str
    layers: int
    seconds: float
    note: str = ""
    plan_seconds: float | None = None

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
        more = "more is better" if self.figures.larger else "more is better, but of the probe less"
        caption = f"what the features behind each layer are worth for the new task; {more}"
        probe = f"linear probe, {self.figures.metric}" if self.figures.metric else "linear probe"
        return Table(("behind layers", probe, "LogME", "H-score"), rows, caption, align="<>>>")

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
        end = f"the plan, which %tl_train --advised runs{self._long()}:\n{plan}"
        return "\n".join([repr(self.table), *self._lines(), repr(self.scores), end])

    def _long(self) -> str:
        return "" if self.plan_seconds is None else f", about {show_seconds(self.plan_seconds)} here"

    def _repr_html_(self) -> str:
        lines = "<br>".join(escape(line) for line in self._lines())
        return (
            f"{self.table._repr_html_()}<div>{lines}</div>{self.scores._repr_html_()}"
            f"<div>the plan, which <code>%tl_train --advised</code> runs{self._long()}:</div>"
            f"<pre>{escape(self.plan)}</pre>"
        )
