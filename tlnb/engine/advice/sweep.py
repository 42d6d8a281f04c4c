"""A sweep: accuracy against the number of layers kept, measured by training every depth on copies."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from tlnb.display.figures import INK, as_html, new_figure, plain
from tlnb.display.tables import Table
from tlnb.engine.advice.trial import TrialGround, try_plan
from tlnb.engine.core.interrupts import Stopped, StopRequest
from tlnb.engine.core.objectives import scores_of
from tlnb.engine.core.tree import call
from tlnb.engine.core.workers import Workers
from tlnb.engine.features.cache import FeatureCache
from tlnb.engine.features.planner import FeaturePlanner
from tlnb.engine.network.trace import quiet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLOOR, FROZEN, TUNED, BLOCK = "random", "frozen", "fine-tuned", "block"
DEPTHS = 8
SURE = 2.0  # standard errors above chance from which on a mean counts as better than chance
SAY_EVERY = 10


@dataclass(frozen=True)
class SweepRun:
    """One training of a sweep.

    Attributes:
        mode: ``random`` (nothing kept), ``frozen``, ``fine-tuned``, or ``block`` (one block trains).
        place: layers kept, or the first layer of the block.
        seed: of new weights, order and dropout.
    """

    mode: str
    place: int
    seed: int


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep runs.

    Attributes:
        body: layers of the body.
        epochs: of each run.
        seeds: runs of each kind.
        lr: learning rate of all.
        blocks: train one block and the head alone, with all weights kept.
    """

    body: int
    epochs: int
    seeds: int
    lr: float
    blocks: bool

    @property
    def places(self) -> tuple[int, ...]:
        """Numbers of layers kept, or first layers of blocks: at most ``DEPTHS``, evenly spread."""
        last = self.body - 1 if self.blocks else self.body
        count = min(DEPTHS, last + 1)
        return tuple(sorted({round(last * k / max(count - 1, 1)) for k in range(count)}))

    def runs(self) -> Iterator[SweepRun]:
        """Every run, one seed after the other, so that a sweep that is stopped has whole curves."""
        for seed in range(self.seeds):
            for place in self.places:
                if self.blocks:
                    yield SweepRun(BLOCK, place, seed)
                elif place == 0:
                    yield SweepRun(FLOOR, 0, seed)
                else:
                    yield SweepRun(FROZEN, place, seed)
                    yield SweepRun(TUNED, place, seed)

    def block(self, place: int) -> range:
        """The layers of the block that starts here."""
        later = [p for p in self.places if p > place]
        return range(place, min(later, default=self.body))

    def text(self, run: SweepRun) -> str:
        """The run in the plan language."""
        where = "all"
        if run.mode == FROZEN:
            where = f"{run.place}:"
        elif run.mode == BLOCK:
            block = self.block(run.place)
            where = f"{block.start}:{block.stop},head"
        return f"train {where} epochs {self.epochs} lr {self.lr:g}"

    def share(self, run: SweepRun) -> float:
        """What the run costs, in trainings of the whole network."""
        return (self.body + 1 - run.place) / (self.body + 1) if run.mode == FROZEN else 1.0


@dataclass
class SweepJob:
    """The runs of a sweep, as workers take them.

    Args:
        ground: network, data and task.
        plan: of the sweep.
        dtype_policy: number format of frozen parts whose features are kept; None where none are.
    """

    ground: TrialGround
    plan: SweepPlan
    dtype_policy: str | None

    @classmethod
    def of(cls, ground: TrialGround, plan: SweepPlan) -> SweepJob:
        """The job without what this process alone has."""
        return cls(
            replace(ground, planner=None), plan, ground.planner.dtype_policy if ground.planner else None
        )

    def arrive(self, device: torch.device, folder: Path | None) -> None:
        """See :class:`tlnb.engine.core.workers.Job`."""
        planner = (
            FeaturePlanner(FeatureCache(folder), self.dtype_policy) if self.dtype_policy is not None else None
        )
        model = self.ground.model.to(device)
        self.ground = replace(self.ground, model=model, device=device, planner=planner)

    def run(self, run: SweepRun) -> tuple[float, float]:
        """Figure of a run, and the seconds that it took."""
        began = time.perf_counter()
        return run_one(self.ground, self.plan, run, StopRequest()), time.perf_counter() - began


def run_one(ground: TrialGround, plan: SweepPlan, run: SweepRun, stop: StopRequest) -> float:
    """Figure of one run of a sweep.

    Raises:
        Stopped: a stop was asked for.
    """
    kept = None if run.mode == BLOCK else run.place
    return try_plan(ground, plan.text(run), kept=kept, seed=run.seed, stop=stop).accuracy


@dataclass
class Sweep:
    """Accuracy against depth, over seeds; what is not done yet can be gone on with.

    Attributes:
        plan: what it runs.
        metric: name of the figure.
        key: what it holds for.
        names: of the layers.
        chance: what the largest class alone would score; 0 for measured values. For a score that was asked for, what
            always answering how frequent the classes are gives.
        larger: whether more is better.
        measured: how many samples each run is measured on.
        done: figure of each run that ended.
        stopped: it was stopped before its end.
        seconds: that it took so far.
    """

    plan: SweepPlan
    metric: str = "accuracy"
    key: object = None
    names: tuple[str, ...] = ()
    chance: float = 0.0
    larger: bool = True
    measured: int = 0
    done: dict[SweepRun, float] = field(default_factory=dict)
    stopped: bool = False
    seconds: float = 0.0

    def go_on(
        self,
        ground: TrialGround,
        stop: StopRequest | None = None,
        log: Callable[[str], None] = lambda text: None,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
        workers: Workers | None = None,
    ) -> None:
        """Run what is not done yet, on copies.

        Args:
            ground: network, data and task.
            stop: read at each batch edge; the run under way is dropped then.
            log: told the estimate first, and then how it goes.
            on_progress: told after each run how many of how many are done.
            workers: take the runs, several at once; None to carry them out here, one by one.
        """
        stop, left = stop or StopRequest(), [run for run in self.plan.runs() if run not in self.done]
        self.stopped = False
        if not left:
            return
        pace, at_once = self._pace(ground), workers.count if workers is not None else 1
        log(f"sweep of {len(left)} runs: about {self._rest(left, pace) / at_once:.0f} s")
        began, waiting = time.perf_counter(), list(left)
        with closing(self._outcomes(ground, left, stop, workers)) as outcomes:
            try:
                for number, (run, figure, took) in enumerate(outcomes, start=1):
                    self.done[run] = figure
                    waiting.remove(run)
                    now = time.perf_counter()
                    self.seconds, began = self.seconds + now - began, now
                    pace += (took / self.plan.share(run) - pace) / min(number, 5)
                    on_progress(number, len(left))
                    if number % SAY_EVERY == 0:
                        rest = self._rest(waiting, pace) / at_once
                        log(f"sweep: {number} of {len(left)} runs, about {rest:.0f} s left")
            except Stopped:
                self.stopped = bool(waiting)
                self.seconds += time.perf_counter() - began
        self.done = {run: self.done[run] for run in self.plan.runs() if run in self.done}

    def _outcomes(
        self, ground: TrialGround, runs: Sequence[SweepRun], stop: StopRequest, workers: Workers | None
    ) -> Generator[tuple[SweepRun, float, float], None, None]:
        """Each run with its figure and its own seconds, as they end."""
        if workers is not None:
            with closing(workers.each(SweepJob.of(ground, self.plan), runs, stop.check)) as found:
                for number, (figure, took) in found:
                    yield runs[number], figure, took
            return
        for run in runs:
            began = time.perf_counter()
            figure = run_one(ground, self.plan, run, stop)
            yield run, figure, time.perf_counter() - began

    def _rest(self, runs: list[SweepRun], pace: float) -> float:
        return pace * sum(self.plan.share(run) for run in runs)

    def _pace(self, ground: TrialGround) -> float:
        """Seconds that a training of the whole network is going to take, from one batch forth and back."""
        train, valid = ground.samples
        rows = torch.arange(min(ground.batch, len(train)))
        x, targets = train.batch(rows).to(ground.device), train.targets[rows]
        began = time.perf_counter()
        with quiet(ground.model), torch.enable_grad():
            scores = scores_of(call(ground.model, x))
            loss = functional.mse_loss(scores, torch.zeros_like(scores))
            weights = [p for p in ground.model.parameters() if p.requires_grad]
            if weights:
                torch.autograd.grad(loss, weights, allow_unused=True)
        each = (time.perf_counter() - began) / len(targets)
        return each * (self.plan.epochs * len(train) + len(valid) / 3)

    # ---------------------------------------------------------------- what came out

    def figures(self, mode: str, place: int) -> list[float]:
        """The figure of each seed; at depth 0 those of random weights."""
        mode = FLOOR if place == 0 and mode in (FROZEN, TUNED) else mode
        return [v for run, v in self.done.items() if (run.mode, run.place) == (mode, place)]

    def curve(self, mode: str) -> dict[int, tuple[float, float]]:
        """Mean and standard deviation over the seeds, by place."""
        found = {place: self.figures(mode, place) for place in self.plan.places}
        return {p: (statistics.fmean(v), statistics.pstdev(v)) for p, v in found.items() if v}

    @property
    def modes(self) -> tuple[str, ...]:
        """The curves that it has."""
        return (BLOCK,) if self.plan.blocks else (FROZEN, TUNED)

    @property
    def best(self) -> tuple[str, int] | None:
        """Mode and place of the highest mean; None where nothing ended, or nothing beats chance."""
        means = {(mode, p): mean for mode in self.modes for p, (mean, _) in self.curve(mode).items()}
        sign = 1 if self.larger else -1
        known = [key for key in means if not math.isnan(means[key])]
        top = max(known, key=lambda key: sign * means[key]) if known else None
        if top is None or sign * (means[top] - self.chance) <= self._error(*top):
            return None
        return top

    def _error(self, mode: str, place: int) -> float:
        """What chance alone may add to a mean: ``SURE`` standard errors."""
        if not self.measured or not self.larger or not 0 < self.chance < 1:
            return 0.0
        runs = max(len(self.figures(mode, place)), 1)
        return SURE * math.sqrt(self.chance * (1 - self.chance) / (self.measured * runs))

    @property
    def table(self) -> Table:
        """A line a depth, or a block."""
        curves = {mode: self.curve(mode) for mode in self.modes}
        rows = [
            (self._place(place), *(self._cell(mode, curves[mode].get(place), place) for mode in self.modes))
            for place in self.plan.places
        ]
        first = "block that trains" if self.plan.blocks else "layers kept"
        return Table((first, *self.modes), rows, self._caption(), align="<" + ">" * len(self.modes))

    def _place(self, place: int) -> str:
        if not self.plan.blocks:
            return f"{place}" if place else "0 (random)"
        block = self.plan.block(place)
        numbers = f"{block.start}" if len(block) == 1 else f"{block.start}–{block.stop - 1}"
        return f"{numbers} {self.names[place]}" if self.names else numbers

    def _cell(self, mode: str, point: tuple[float, float] | None, place: int) -> str:
        if point is None:
            return "-"
        several = len(self.figures(mode, place)) > 1
        return f"{point[0]:.3f} ± {point[1]:.3f}" if several else f"{point[0]:.3f}"

    def _caption(self) -> str:
        total = sum(1 for _ in self.plan.runs())
        ended = f"{len(self.done)} of {total} runs"
        over = f"{self.plan.seeds} seeds (± their spread)" if self.plan.seeds > 1 else "one seed"
        words = f"{self.metric} over {over}, {ended}, {self.seconds:.0f} s"
        if self.stopped:
            words += "; stopped, the same call goes on"
        if self.best is not None:
            return f"{words}; {self._highest(*self.best)}"
        chance = f"{'above' if self.larger else 'below'} chance ({self.chance:.3f})"
        return f"{words}; no depth is {chance}" if self.done else words

    def _highest(self, mode: str, place: int) -> str:
        best = "highest" if self.larger else "lowest"
        if mode == BLOCK:
            return f"{best} where {self._place(place)} trains"
        return f"{best} {mode}, with {place} layers kept" if place else f"{best} from random weights"

    def plot(self) -> Figure:
        """Mean of each curve, with a band of one standard deviation and the floor of random weights."""
        figure = new_figure(5.5, 3.4)
        ax = figure.subplots()
        plain(ax)
        for mode, colour in zip(self.modes, ("tab:blue", "tab:orange"), strict=False):
            curve = self.curve(mode)
            places, means, spreads = (
                list(curve),
                [m for m, _ in curve.values()],
                [s for _, s in curve.values()],
            )
            ax.plot(places, means, "o-", color=colour, label=mode, markersize=4)
            low, high = ([m + sign * s for m, s in zip(means, spreads, strict=True)] for sign in (-1, 1))
            ax.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)
        floor = self.figures(FLOOR, 0)
        if floor:
            ax.axhline(statistics.fmean(floor), color="grey", linestyle=":", label="random weights")
        ax.set_xlabel("first layer of the block" if self.plan.blocks else "layers kept", color=INK)
        ax.set_ylabel(self.metric, color=INK)
        ax.set_xticks(self.plan.places)
        ax.legend(frameon=False, labelcolor=INK)
        return figure

    def _repr_html_(self) -> str:
        return self.table._repr_html_() + as_html(self.plot(), self._caption(), 90)

    def __repr__(self) -> str:
        return repr(self.table)
