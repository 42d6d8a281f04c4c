"""Training in a session: one stage, a plan, the range test, a step of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tlnb.engine import plan
from tlnb.engine.augmented import augmented
from tlnb.engine.history import Run, StageResult, spans
from tlnb.engine.lr_curve import LRCurve
from tlnb.engine.route import Wish
from tlnb.engine.samples import Samples
from tlnb.engine.stage import Stage
from tlnb.engine.stage_run import own_random_state, run_stage
from tlnb.engine.stopping import StopRequest
from tlnb.engine.training import Route, Shortcut, StageTrainer, Step
from tlnb.errors import TrainingError
from tlnb.session.state import State

BN_MODES = ("train", "frozen")


class Training(State):
    """Find a rate, train a stage, run a plan."""

    @property
    def step(self) -> Step | None:
        """The training step: ``f(model, x, y) -> loss``; None for the usual one."""
        return self._step

    @step.setter
    def step(self, function: Step | None) -> None:
        if function is not None and not callable(function):
            raise TrainingError(f"a step is a function f(model, x, y) -> loss, not {type(function).__name__}")
        self._step = function

    def find_lr(
        self,
        *,
        rule: str | None = None,
        start: float = 1e-7,
        stop: float = 10.0,
        steps: int = 100,
        cache: bool = True,
        **keys: Any,
    ) -> LRCurve:
        """Learning-rate range test on what is unfrozen now; leaves no trace.

        Args:
            rule: which rule's suggestion is the curve's own.
            start, stop: first and last rate.
            steps: how many rates between them.
            cache: run the frozen first part once over the samples, not in each step.
            keys: settings of the stage that it is for (``decay``, ``batch``, ``optimizer`` …).

        Raises:
            NotReady, PlanError, BadArguments: nothing has run then.
        """
        stage = plan.one_stage("find a rate", self._need_ready(), self._frozen_indexes(), keys)
        settings: dict[str, Any] = {"start": start, "stop": stop, "steps": steps} | (
            {"rule": rule} if rule else {}
        )
        trainer = self._trainer(stage, "train", (stage,) if cache else None)
        with self._working("a range test"), own_random_state(0):
            trainer.take_shortcut(lambda text: self._emit("on_message", text), lambda *_: None)
            return trainer.find_rate(**settings)

    def train(
        self,
        epochs: int = 1,
        lr: float | str | None = "auto",
        *,
        bn: str = "train",
        cache: bool = True,
        **keys: Any,
    ) -> Run:
        """Train one stage with what is unfrozen now.

        Args:
            epochs: passes over the training samples.
            lr: learning rate of the last layer; ``auto`` runs the range test first.
            bn: ``frozen`` leaves the statistics of unfrozen BatchNorm layers alone too.
            cache: run the frozen first part once over the samples, not in each step. A step of one's own
                runs the whole network in any case.
            keys: other settings of a stage (``decay``, ``batch``, ``optimizer`` …).

        Raises:
            NotReady, PlanError: nothing has run then.
            TrainingError: no rate was found, or a frozen layer changed.
        """
        settings = {"epochs": epochs, "lr": lr, **keys}
        layers = self._need_ready()
        text = f"train {spans([i for i, fixed in enumerate(self.frozen) if not fixed])}"
        return self._run([plan.one_stage(text, layers, self._frozen_indexes(), settings)], bn, cache)

    def run(self, text: str, *, bn: str = "train", cache: bool = True, **defaults: Any) -> Run:
        """Run a plan, a stage a line; the whole is checked before anything trains.

        Args:
            text: the plan.
            bn: ``frozen`` leaves the statistics of unfrozen BatchNorm layers alone too.
            cache: run the frozen first part once over the samples, not in each step. A step of one's own
                runs the whole network in any case.
            defaults: settings for every stage that does not say otherwise.

        Raises:
            NotReady, PlanError: nothing has run then.
            TrainingError: no rate was found, or a frozen layer changed; finished stages stay.
        """
        layers = self._need_ready()
        return self._run(plan.parse_plan(text, layers, self._frozen_indexes(), defaults), bn, cache)

    def _run(self, stages: Iterable[Stage], bn: str, cache: bool) -> Run:
        if bn not in BN_MODES:
            raise TrainingError(f"--bn takes {' or '.join(BN_MODES)}, not {bn!r}")
        stages, run, stop = list(stages), Run(), StopRequest()
        with self._working("training", stop), stop.on_interrupt():
            for position, stage in enumerate(stages, start=1):
                coming = stages[position - 1 :] if cache else None
                self._run_stage(stage, (position, len(stages)), bn, coming, run, stop)
                if run.stopped:
                    break
        self._emit("on_run_end", run)
        return run

    def _run_stage(
        self, stage: Stage, place: tuple[int, int], bn: str, coming: Sequence[Stage] | None, run: Run,
        stop: StopRequest,
    ) -> None:  # fmt: skip
        layers = self._need_layers()
        self.frozen = tuple(i in stage.frozen for i in range(len(layers)))
        trainer = self._trainer(stage, bn, coming)
        names = layers.describe(stage.frozen) if stage.frozen else ""
        result = StageResult(trainer.number, stage, trainer.trained, stage.lr or 0.0, frozen_names=names)
        description = f"{stage.text} · trains {spans(trainer.trained)} · {self.layers.summary}"
        self._emit("on_stage_start", *place, description, stage.epochs, trainer.steps_per_epoch)
        try:
            run_stage(trainer, result, stop, self._emit)
        finally:
            if result.records or result.stopped:
                self._history.stages.append(result)
                run.stages.append(result)
        run.stopped = result.stopped
        self._emit("on_stage_end", result)

    def _trainer(self, stage: Stage, bn: str, coming: Sequence[Stage] | None) -> StageTrainer:
        """A trainer for a stage.

        Args:
            stage: its settings.
            bn: see :meth:`train`.
            coming: this stage and those after it, whose features may be kept; None to keep none.
        """
        source, samples = self._need_data(), self._samples_for(stage)
        return StageTrainer(
            self._need_model().model,
            self._need_layers(),
            stage,
            Route(*samples, self._need_model().model, self.device),
            number=len(self._history.stages) + 1,
            batch=stage.batch or source.batch,
            seed=source.seed,
            task=source.task,
            step=self._step,
            bn=bn,
            shortcut=self._shortcut(coming, samples) if coming and self._step is None else None,
        )

    def _samples_for(self, stage: Stage) -> tuple[Samples, Samples]:
        """The samples under the stage's own augmentation, where it has one."""
        source, samples = self._need_data(), self._samples
        assert samples is not None
        if stage.augment is None:
            return samples
        return augmented(samples[0], stage.augment, source.seed), samples[1]

    def _shortcut(self, coming: Sequence[Stage], samples: tuple[Samples, Samples]) -> Shortcut:
        model, layers = self._need_model().model, self._need_layers()
        wish = Wish(coming[0].frozen, [stage.frozen for stage in coming[1:]], coming[0].views)

        def shortcut(say: Callable[[str], None], tick: Callable[[int, int], None]) -> Route:
            return self._routes.route(model, layers, wish, samples, self.device, say=say, tick=tick)

        return shortcut
