"""What happened: every epoch of every stage, and the figures of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tlnb.engine.rates.lr_curve import LRCurve
from tlnb.engine.table import Table
from tlnb.engine.training.stage import Stage

if TYPE_CHECKING:
    from tlnb.engine.results.compare import Comparison
    from tlnb.engine.training.progress_state import Progress


@dataclass(frozen=True)
class EpochRecord:
    """One epoch.

    Attributes:
        stage: number of the stage in the session, from 1.
        epoch: number of the epoch in its stage, from 1.
        epochs: epochs that the stage asked for.
        trained: indexes of the layers that trained.
        rate: the stage's learning rate, of its last layer.
        train_loss: mean over the training samples, while the weights moved.
        valid_loss: mean over the validation samples, after the epoch.
        accuracy: the figure of the task on the validation samples; larger is better, 1 is best.
        seconds: wall-clock time with validation.
        digest: SHA-256 of the frozen layers after the epoch; empty where none is frozen.
        metric_name: what ``accuracy`` holds.
    """

    stage: int
    epoch: int
    epochs: int
    trained: tuple[int, ...]
    rate: float
    train_loss: float
    valid_loss: float
    accuracy: float
    seconds: float
    digest: str
    metric_name: str = "accuracy"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return asdict(self) | {"trained": list(self.trained)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EpochRecord:
        """The way back from ``to_dict``."""
        return cls(**{**values, "trained": tuple(values["trained"])})


@dataclass
class StageResult:
    """One stage of training.

    Attributes:
        number: of the stage in the session, from 1.
        stage: its settings.
        trained: indexes of the layers that trained.
        rate: learning rate of the last layer.
        curve: the range test that chose it, or None.
        digest_before: SHA-256 of the frozen layers when the stage began; empty where none is frozen.
        digest_after: the same when it ended.
        frozen_names: the frozen layers in words.
        seconds: wall-clock time, the range test included.
        note: how it ended, where that was not the usual way.
        stopped: the user stopped it.
        diverged: a loss was not finite, and the last good epoch was put back.
        shortcut: how the frozen first part was left out, in one line; empty where the whole network ran.
        saved: seconds that this saved, what it cost taken off.
        records: its epochs.
        left: where it was left, to go on from; None where it ended.
        setup: how it was set up, in plain values: enough to do it again.
        kept: epoch whose weights were put back, where that was not the last one; 0 for none.
        share: how much of what it learned the network keeps: 1 for all, 0 where it went back to the stage before.
        ending: the score of the network that the stage left, where that is none of its epochs'.
        fitted: how its head was fitted, in one line; empty where it was trained.
        test_seconds: that finding the rate took; 0 where it was given, or known already.
        before: the score of the network before the stage on the same samples; None where it is not known.
    """

    number: int
    stage: Stage
    trained: tuple[int, ...]
    rate: float
    curve: LRCurve | None = None
    digest_before: str = ""
    digest_after: str = ""
    frozen_names: str = ""
    seconds: float = 0.0
    note: str = ""
    stopped: bool = False
    diverged: bool = False
    shortcut: str = ""
    saved: float = 0.0
    records: list[EpochRecord] = field(default_factory=list)
    left: Progress | None = field(default=None, repr=False, compare=False)
    setup: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    kept: int = 0
    share: float = 1.0
    ending: EpochRecord | None = None
    before: EpochRecord | None = None
    test_seconds: float = 0.0
    fitted: str = ""

    @property
    def final(self) -> EpochRecord | None:
        """The score of the network that the stage left: of the last epoch, the best one, a blend, or one before."""
        if self.ending is not None:
            return self.ending
        kept = next((record for record in self.records if record.epoch == self.kept), None)
        return kept or (self.records[-1] if self.records else None)

    @property
    def taken_back(self) -> bool:
        """Whether it ended worse than what was there before, so that the network is that of before."""
        return self.ending is not None and self.ending.stage != self.number

    @property
    def accuracy(self) -> float | None:
        """With the weights that the stage left; None where no epoch ended."""
        return self.final.accuracy if self.final is not None else None

    @property
    def proof(self) -> str:
        """What the digests say about the frozen layers."""
        if not self.frozen_names:
            return "none frozen"
        verdict = "unchanged" if self.digest_before == self.digest_after else "CHANGED"
        return f"{self.frozen_names} {verdict}, sha256 {self.digest_after[:8]}…"

    def row(self) -> tuple[str, ...]:
        """The stage as a line of a table."""
        last = self.final
        return (
            str(self.number),
            self.stage.text,
            spans(self.trained),
            show_rate(self.rate),
            f"{len(self.records)}/{self.stage.epochs}",
            f"{last.valid_loss:.4f}" if last else "-",
            show_metric(last) if last else "-",
            f"{self.seconds:.1f}",
            self.proof + (f"; {self.note}" if self.note else ""),
        )


STAGE_HEADERS = (
    "stage", "line", "trains", "rate", "epochs", "valid loss", "{figure}", "seconds", "frozen layers",
)  # fmt: skip


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
        last = next((s.final for s in reversed(self.stages) if s.records), None)
        end = f"{last.metric_name} {show_metric(last)} on validation" if last else "no epoch ended"
        words = [f"{self._verdict}: {end}, {sum(s.seconds for s in self.stages):.1f} s"]
        words += [f"stage {s.number} was worse and is taken back" for s in self.stages if s.taken_back]
        tests = sum(s.test_seconds for s in self.stages)
        if any(s.curve for s in self.stages):
            words.append(f"finding rates took {tests:.1f} s of it")
        if any(s.shortcut for s in self.stages):
            saved = max(sum(s.saved for s in self.stages), 0.0)
            words.append(f"keeping the features of frozen layers saved {saved:.1f} s")
        return "; ".join(words)

    @property
    def _verdict(self) -> str:
        if self.stopped:
            return "stopped"
        return "diverged" if self.diverged else "done"

    def __repr__(self) -> str:
        return repr(self.table)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


class History(Sequence[EpochRecord]):
    """Every epoch of every stage of a session, oldest first.

    Attributes:
        stages: one for each stage that began.
        old: figure on the old task after a stage, by the stage's number; empty where it was not measured.
        old_metric: what ``old`` holds.
    """

    def __init__(self) -> None:
        self.stages: list[StageResult] = []
        self.old: dict[int, float] = {}
        self.old_metric = "accuracy"

    @property
    def records(self) -> list[EpochRecord]:
        """Every epoch."""
        return [record for stage in self.stages for record in stage.records]

    @property
    def final(self) -> EpochRecord | None:
        """The score of the network that the last stage left; None where none was measured."""
        return next((stage.final for stage in reversed(self.stages) if stage.final is not None), None)

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
        from tlnb.engine.results.compare import compare

        return compare([self])

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

    def __repr__(self) -> str:
        return repr(self.table) if len(self) else "nothing trained yet; %tl_train trains what is unfrozen"

    def _repr_html_(self) -> str:
        return self.table._repr_html_() if len(self) else f"<p>{self!r}</p>"


def _headers(headers: Sequence[str], records: Sequence[EpochRecord]) -> tuple[str, ...]:
    """The headers with the name of the figure; several names where the data changed between the stages."""
    names = list(dict.fromkeys(record.metric_name for record in records)) or ["accuracy"]
    return tuple(header.format(figure=" / ".join(names)) for header in headers)


def show_metric(record: EpochRecord) -> str:
    """The figure of an epoch for people: a percentage for accuracy."""
    return show_score(record.accuracy, record.metric_name)


def show_score(score: float, metric: str) -> str:
    """A score for people: a percentage for accuracy."""
    return f"{100 * score:.1f} %" if metric == "accuracy" else f"{score:.4f}"


def show_rate(rate: float) -> str:
    """A learning rate for people; a head that was fitted has none."""
    return f"{rate:.1e}" if rate else "-"


def spans(indexes: Sequence[int]) -> str:
    """Layer numbers with runs drawn together: ``0–4, 7``."""
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in runs) or "-"
