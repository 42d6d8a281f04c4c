"""What happened: every epoch of every stage, and the figures of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from tlnb.display.tables import Table, frame
from tlnb.engine.core.metrics import SMALLER
from tlnb.engine.data.sealed import Look, seen, warning
from tlnb.engine.training.curves import Comparison, Line
from tlnb.engine.training.records import EpochRecord, StageResult, show_metric, show_rate, show_score, spans
from tlnb.errors import NotReady

VISIBLY = 0.01  # of a score by which an epoch is better, to be worth a word
STAGE_HEADERS = (
    "stage", "line", "trains", "rate", "epochs", "valid loss", "{figure}", "seconds", "frozen layers",
)  # fmt: skip


def final_of(stages: Sequence[StageResult]) -> EpochRecord | None:
    """The score of the network that the last of these stages left; None where none was measured."""
    return next((stage.final for stage in reversed(stages) if stage.final is not None), None)


@dataclass
class Run:
    """What one call of train or run did.

    Attributes:
        stages: the stages that began, in order.
        stopped: the user stopped it before its end.
    """

    stages: list[StageResult] = field(default_factory=list)
    stopped: bool = False

    @property
    def accuracy(self) -> float | None:
        """With the weights that the run left; None where no epoch ended."""
        return next((s.accuracy for s in reversed(self.stages) if s.records), None)

    @property
    def records(self) -> list[EpochRecord]:
        """Every epoch of the run."""
        return [record for stage in self.stages for record in stage.records]

    @property
    def diverged(self) -> bool:
        """Whether a loss was not finite; what came after that stage in the plan did not run."""
        return any(stage.diverged for stage in self.stages)

    @property
    def table(self) -> Table:
        """One line a stage."""
        return Table(_headers(STAGE_HEADERS, self.records), [s.row() for s in self.stages], self._caption())

    def _caption(self) -> str:
        last = final_of(self.stages)
        end = f"{last.metric_name} {show_metric(last)} on validation" if last else "no epoch ended"
        words = [f"{self._verdict}: {end}, {sum(s.seconds for s in self.stages):.1f} s"]
        words += [f"stage {s.number} {_failing(s)} and is taken back" for s in self.stages if s.taken_back]
        words += [_better_epoch(stage) for stage in self.stages[-1:] if _better_epoch(stage)]
        tests = sum(s.test_seconds for s in self.stages)
        if any(s.curve for s in self.stages):
            words.append(f"finding rates took {tests:.1f} s of it")
        if any(s.shortcut for s in self.stages):
            saved = max(sum(s.saved for s in self.stages), 0.0)
            words.append(f"keeping the features of frozen layers saved {saved:.1f} s")
        return "; ".join(words)

    @property
    def next(self) -> str:
        """What could come next, as magics."""
        if self.stopped:
            return "%tl_train --continue goes on where it stopped"
        if self.diverged:
            return "next: a lower rate, such as %tl_train lr 1e-4"
        return "next: %tl_results, %tl_predict a picture, %tl_export a file"

    @property
    def _verdict(self) -> str:
        if self.stopped:
            return "stopped"
        return "diverged" if self.diverged else "done"

    def __repr__(self) -> str:
        return repr(self.table)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def _failing(stage: StageResult) -> str:
    """Why a stage was taken back, in two or three words."""
    return "was worse" if "was worse (" in stage.note else "was not clearly better"


def _better_epoch(stage: StageResult) -> str:
    """What to say where a stage ended visibly worse than one of its own epochs; empty elsewhere."""
    final = stage.final
    if final is None or stage.kept or final not in stage.records:
        return ""
    sign = -1 if final.metric_name in SMALLER else 1
    best = max(stage.records, key=lambda record: sign * record.accuracy)
    if sign * (best.accuracy - final.accuracy) <= VISIBLY:
        return ""
    return f"epoch {best.epoch} was better ({show_metric(best)}): --keep-best keeps such a one"


class History(Sequence[EpochRecord]):
    """Every epoch of every stage of a session, oldest first.

    Attributes:
        stages: one for each stage that began.
        old: figure on the old task after a stage, by the stage's number; empty where it was not measured.
        old_metric: what ``old`` holds.
        looks: each time that the test part was measured; None where there is none.
    """

    def __init__(self) -> None:
        self.stages: list[StageResult] = []
        self.old: dict[int, float] = {}
        self.old_metric = "accuracy"
        self.looks: tuple[Look, ...] | None = None

    @property
    def records(self) -> list[EpochRecord]:
        """Every epoch."""
        return [record for stage in self.stages for record in stage.records]

    @property
    def final(self) -> EpochRecord | None:
        """The score of the network that the last stage left; None where none was measured."""
        return final_of(self.stages)

    def __getitem__(self, index: Any) -> Any:
        return self.records[index]

    def __len__(self) -> int:
        return sum(len(stage.records) for stage in self.stages)

    def __iter__(self) -> Iterator[EpochRecord]:
        return iter(self.records)

    def plot(self) -> Comparison:
        """Stages, rates and curves in one picture.

        Raises:
            NotReady: nothing was trained yet.
        """
        trained = tuple(stage for stage in self.stages if stage.records)
        if not trained:
            raise NotReady("nothing was trained in run 1, so there is nothing to draw")
        return Comparison([Line("run 1", trained)])

    @property
    def table(self) -> Table:
        """One line an epoch."""
        headers: tuple[str, ...] = (
            "stage", "epoch", "trains", "rate", "train loss", "valid loss", "{figure}", "seconds", "frozen",
        )  # fmt: skip
        rows: list[tuple[object, ...]] = [
            (
                r.stage, f"{r.epoch}/{r.epochs}", spans(r.trained), show_rate(r.rate), f"{r.train_loss:.4f}",
                f"{r.valid_loss:.4f}", show_metric(r), f"{r.seconds:.2f}", r.digest[:8] or "-",
            )
            for r in self
        ]  # fmt: skip
        if self.old:  # known at the end of a stage only
            headers = (*headers, "old task")
            rows = [(*row, self._old_task(r)) for row, r in zip(rows, self, strict=True)]
        return Table(_headers(headers, self.records), rows)

    def _old_task(self, record: EpochRecord) -> str:
        last = next(s.records[-1] for s in self.stages if record in s.records)
        known = record is last and record.stage in self.old
        return show_score(self.old[record.stage], self.old_metric) if known else ""

    def frame(self) -> Any:
        """A row an epoch as a pandas DataFrame; a dict of columns where pandas is not installed."""
        names = ("stage", "epoch", "rate", "train_loss", "valid_loss", "accuracy", "seconds")
        return frame({name: [getattr(record, name) for record in self] for name in names})

    def _looked(self) -> list[str]:
        """What to say of the test part: each look, and what the later ones mean."""
        looks = self.looks
        if not looks:
            return seen(looks)
        found = "; ".join(
            f"{place}. {look.score} {look.value:.4g}" for place, look in enumerate(looks, start=1)
        )
        return [f"looks at the test part: {found}", *filter(None, [warning(looks)])]

    def __repr__(self) -> str:
        first = repr(self.table) if len(self) else "nothing trained yet; %tl_train trains what is unfrozen"
        return "\n".join([first, *self._looked()])

    def _repr_html_(self) -> str:
        first = self.table._repr_html_() if len(self) else ""
        lines = self._looked() if len(self) else repr(self).splitlines()
        return first + "".join(f"<p>{escape(line)}</p>" for line in lines)


def _headers(headers: Sequence[str], records: Sequence[EpochRecord]) -> tuple[str, ...]:
    """The headers with the name of the figure; several names where the data changed between the stages."""
    names = list(dict.fromkeys(record.metric_name for record in records)) or ["accuracy"]
    return tuple(header.format(figure=" / ".join(names)) for header in headers)
