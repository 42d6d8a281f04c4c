"""How sure a network is on validation samples: its temperature, sets of classes, and what waiting for surer brings."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from tlnb.display.tables import Table, printable
from tlnb.engine.core.objectives import Objective, Regression, kind_of
from tlnb.engine.results.conformal import Conformal, Coverage, RiskCoverage, crossed, needed
from tlnb.engine.results.temperature import Temperature, fit_temperature
from tlnb.errors import DataError

SURE = 0.9
RISK = 0.01  # for which the share of answers is said
SIZES = 6  # sizes of sets that are said one by one


@dataclass(frozen=True)
class Sureness:
    """How far answers can be relied on.

    Attributes:
        sure: share of the answers that should hold.
        temperature: that fits these samples, or answers out of fold; None for values.
        coverage: how sets of classes did, each fifth of the samples under the bound of the others; None where
            there are too few samples, or where a sample has not one class.
        of_classes: name, share of the sets that hold the class, classes a set, samples, for each class.
        risk: what is wrong among the surest; None where a sample has not one class.
        widths: by how much each value may be off, in its unit; empty where there are none.
        note: what is missing, and why; empty where nothing is.
    """

    sure: float
    temperature: Temperature | None = None
    coverage: Coverage | None = None
    of_classes: tuple[tuple[str, float, float, int], ...] = field(default=(), repr=False)
    risk: RiskCoverage | None = field(default=None, repr=False)
    widths: tuple[float, ...] = ()
    note: str = ""

    @classmethod
    def of(
        cls, task: Objective, classes: tuple[str, ...], scores: Tensor, targets: Tensor, sure: float = SURE,
        temperature: Temperature | None = None,
    ) -> Sureness:  # fmt: skip
        """From scores of samples that the network did not learn from.

        Args:
            task: what the scores mean.
            classes: names of the outputs.
            scores: (N, outputs), float32, on the CPU.
            targets: as the network learns them.
            sure: share of the answers that should hold.
            temperature: that fits answers out of fold; None to fit these samples.
        """
        kind = kind_of(task)
        try:
            if isinstance(task, Regression):
                return cls(sure, widths=_widths(task, scores, targets, sure), note=_enough(sure, len(scores)))
            temperature = temperature or fit_temperature(scores, targets)
            if kind == "labels":
                return cls(sure, temperature)
            chances, taken = temperature.probabilities(scores).max(1)
            risk = RiskCoverage.of(chances.numpy(), (taken == targets).numpy())
            sets = crossed(scores, targets, sure)
        except DataError as trouble:
            return cls(sure, note=str(trouble))
        if sets is None:
            return cls(sure, temperature, risk=risk, note=_enough(sure, len(scores), 5))
        return cls(
            sure, temperature, Coverage.of(sets, targets, sure), _of_classes(sets, targets, classes), risk
        )

    @property
    def lines(self) -> tuple[str, ...]:
        """What to say, a line each."""
        return tuple(filter(None, (*self._of_temperature(), *self._of_sets(), self._of_widths(), self.note)))

    @property
    def table(self) -> Table:
        """A line a class."""
        rows = [
            (name, f"{100 * share:.1f} %", f"{size:.2f}", count)
            for name, share, size, count in self.of_classes
        ]
        return Table(("class", "sets hold it", "classes a set", "samples"), rows)

    def _of_temperature(self) -> list[str]:
        return [] if self.temperature is None else [repr(self.temperature)]

    def _of_sets(self) -> list[str]:
        lines = []
        if self.coverage is not None:
            there = [row for row in self.of_classes if row[3]]
            name, share, *_ = min(there, key=lambda row: row[1])
            lines.append(f"{self.coverage!r}; least of {name}: {100 * share:.1f} %")
            sizes = [f"{count:,} of {size}" for size, count in enumerate(self.coverage.sizes) if count]
            more = f" … {sizes[-1]}" if len(sizes) > SIZES else ""
            lines.append(f"sizes of the sets: {', '.join(sizes[:SIZES])}{more}")
        if self.risk is not None:
            share = self.risk.answered(RISK)
            lines.append(
                f"of the surest {100 * share:.1f} %, at most {100 * RISK:g} % are wrong; "
                f"of all, {100 * self.risk.risk[-1]:.1f} %"
            )
        return lines

    def _of_widths(self) -> str:
        if not self.widths:
            return ""
        widths = ", ".join(f"± {width:.4g}" for width in self.widths)
        return f"{100 * self.sure:g} % of the values lie within {widths} of the answer"


def _enough(sure: float, count: int, folds: int = 0) -> str:
    """What to say where there are too few samples; empty where there are enough."""
    least = needed(sure)
    least = -(-least * folds // (folds - 1)) if folds else least
    if count >= least:
        return ""
    return (
        f"{count:,} validation samples are too few for answers that are {100 * sure:g} % sure; "
        f"{least:,} are needed"
    )


def _widths(task: Regression, scores: Tensor, targets: Tensor, sure: float) -> tuple[float, ...]:
    width = Conformal.of_values(scores, targets).half_width(sure)
    return tuple(width * std for std in task.std) if width < float("inf") else ()


def _of_classes(
    sets: Tensor, targets: Tensor, classes: tuple[str, ...]
) -> tuple[tuple[str, float, float, int], ...]:
    rows = []
    for number, name in enumerate(classes):
        own = sets[targets == number]
        held = own[:, number].float().mean().item() if len(own) else float("nan")
        size = own.sum(1).float().mean().item() if len(own) else float("nan")
        rows.append((printable(name), held, size, len(own)))
    return tuple(rows)
