"""Training in a session: one stage, a plan, the range test, a step of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tlnb.engine.data.augmented import augmented
from tlnb.engine.data.samples import Samples
from tlnb.engine.features.routes import Wish
from tlnb.engine.rates import lr_finder
from tlnb.engine.rates.lr_curve import LRCurve
from tlnb.engine.saving.pending import Pending
from tlnb.engine.training import plan
from tlnb.engine.training.history import Run, StageResult, spans
from tlnb.engine.training.micro import free_after, out_of_memory
from tlnb.engine.training.optimizer_state import load_named_state
from tlnb.engine.training.progress_state import Progress
from tlnb.engine.training.range_test import find_rate
from tlnb.engine.training.route import Route, Shortcut
from tlnb.engine.training.stage import Stage
from tlnb.engine.training.stage_run import own_random_state, run_stage
from tlnb.engine.training.stopping import Stopped, StopRequest
from tlnb.engine.training.trainer import StageTrainer, Step
from tlnb.errors import NotReady, PlanError, TrainingError
from tlnb.session.keeping import Keeping

BN_MODES = ("train", "frozen")


class Training(Keeping):
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
            rule: which rule's suggestion is the curve's own; ``minimum`` for a constant rate and ``basin``
                for every other schedule, where none is named.
            start, stop: first and last rate.
            steps: how many rates between them.
            cache: run the frozen first part once over the samples, not in each step.
            keys: settings of the stage that it is for (``decay``, ``batch``, ``optimizer`` …).

        Raises:
            NotReady, PlanError, BadArguments: nothing has run then; ``NotReady`` also after a stop.
        """
        stage = plan.one_stage("find a rate", self._need_ready(), self._frozen_indexes(), keys)
        settings: dict[str, Any] = {"start": start, "stop": stop, "steps": steps} | (
            {"rule": rule} if rule else {}
        )
        lr_finder.check(**settings)
        trainer = self._trainer(stage, "train", (stage,) if cache else None)
        request = StopRequest()
        with self._working("a range test", request), own_random_state(0):
            self._emit("on_test", 0, steps)
            try:
                trainer.take_shortcut(lambda text: self._emit("on_message", text), lambda *_: request.check())
                return find_rate(
                    trainer, request, lambda done, total: self._emit("on_test", done, total), **settings
                )
            except Stopped:
                raise NotReady("the range test was stopped; the network is as it was before it") from None

    def train(
        self,
        epochs: int = 1,
        lr: float | str | None = "auto",
        *,
        bn: str = "train",
        cache: bool = True,
        keep_best: bool = False,
        **keys: Any,
    ) -> Run:
        """Train one stage with what is unfrozen now.

        Args:
            epochs: passes over the training samples.
            lr: learning rate of the last layer; ``auto`` runs the range test first.
            bn: ``frozen`` leaves the statistics of unfrozen BatchNorm layers alone too.
            cache: run the frozen first part once over the samples, not in each step. A step of one's own
                runs the whole network in any case.
            keep_best: end with the weights of the epoch with the lowest validation loss.
            keys: other settings of a stage (``decay``, ``batch``, ``optimizer`` …).

        Raises:
            NotReady, PlanError: nothing has run then.
            TrainingError: no rate was found, or a frozen layer changed.
        """
        settings = {"epochs": epochs, "lr": lr, **keys}
        layers = self._need_ready()
        text = f"train {spans([i for i, fixed in enumerate(self.frozen) if not fixed])}"
        stages = [plan.one_stage(text, layers, self._frozen_indexes(), settings)]
        return self._run(stages, bn, cache, keep_best)

    def run(
        self, text: str, *, bn: str = "train", cache: bool = True, keep_best: bool = False, **defaults: Any
    ) -> Run:
        """Run a plan, a stage a line; the whole is checked before anything trains.

        Args:
            text: the plan.
            bn: ``frozen`` leaves the statistics of unfrozen BatchNorm layers alone too.
            cache: run the frozen first part once over the samples, not in each step. A step of one's own
                runs the whole network in any case.
            keep_best: end each stage with the weights of its epoch with the lowest validation loss.
            defaults: settings for every stage that does not say otherwise.

        Raises:
            NotReady, PlanError: nothing has run then.
            TrainingError: no rate was found, or a frozen layer changed; finished stages stay.
        """
        if not isinstance(text, str):
            raise PlanError(f"a plan is text with a stage a line, not {type(text).__name__}")
        layers = self._need_ready()
        stages = plan.parse_plan(text, layers, self._frozen_indexes(), defaults)
        return self._run(stages, bn, cache, keep_best)

    def _run(self, stages: Iterable[Stage], bn: str, cache: bool, keep_best: bool) -> Run:
        if bn not in BN_MODES:
            raise TrainingError(f"--bn takes {' or '.join(BN_MODES)}, not {bn!r}")
        stages = list(stages)
        for stage in stages:
            self._check_stage(stage)
        pending = Pending.of(stages, bn, cache, keep_best)
        pending.data = self._data_print()
        return self._carry_out(pending)

    def _check_stage(self, stage: Stage) -> None:
        """Find out before anything trains whether the network and the data take what the stage asks for."""
        self._samples_for(stage)

    def _carry_out(self, pending: Pending) -> Run:
        """Run what is left of a plan; where that is stopped, or breaks off, the rest stays pending."""
        run, stop = Run(), StopRequest()
        with self._working("training", stop), stop.on_interrupt():
            self._pause(pending)
            while pending.stages and not (run.stopped or run.diverged):
                # The button may be pressed after the last batch of a stage.
                run.stopped = stop.asked
                if not run.stopped:
                    self._run_stage(pending, run, stop)
        if not pending.stages:
            self._pause(None)
        self._emit("on_run_end", run)
        return run

    def _run_stage(self, pending: Pending, run: Run, stop: StopRequest) -> None:
        stage, layers = pending.stages[0], self._need_layers()
        goes_on = pending.result is not None
        frozen, stages = self.frozen, list(self._history.stages)
        try:
            if goes_on:
                self._history.stages[:] = [s for s in stages if s is not pending.result]
            self.frozen = tuple(i in stage.frozen for i in range(len(layers)))
            trainer = self._trainer(stage, pending.bn, pending.stages if pending.cache else None)
        except BaseException:
            self.frozen, self._history.stages[:] = frozen, stages
            raise
        names = layers.describe(stage.frozen) if stage.frozen else ""
        result = pending.result or StageResult(
            trainer.number, stage, trainer.trained, stage.lr or 0.0, frozen_names=names
        )
        if not goes_on:
            self._stage_begins(trainer)
            if pending.with_moments:
                load_named_state(trainer.model, trainer.optimizer, self._moments)
        pending.result = result
        description = f"{stage.text} · trains {spans(trainer.trained)} · {self.layers.summary}"
        self._emit(
            "on_stage_start", pending.first, pending.count, description, stage.epochs, trainer.steps_per_epoch
        )
        ended = False
        try:
            run_stage(
                trainer, result, stop, self._emit,
                resume=result.left, watch=self._watch(pending), keep_best=pending.keep_best,
            )  # fmt: skip
            ended = not (result.stopped or result.diverged)
        except Exception as error:
            if out_of_memory(error):
                free_after(error)
                raise TrainingError(
                    f"memory ran out in stage {trainer.number}, {trainer.micro or trainer.batch} samples at "
                    "a time; freeze more layers, or take smaller pictures (--size)"
                ) from None
            raise
        finally:
            if result.records or result.stopped or result.diverged:
                self._history.stages.append(result)
                run.stages.append(result)
            else:
                pending.result = None  # it never got anywhere; it begins anew
                self.frozen = frozen
        self._close_stage(pending, trainer, ended)
        run.stopped = result.stopped
        self._emit("on_stage_end", result)

    def _close_stage(self, pending: Pending, trainer: StageTrainer, ended: bool) -> None:
        """After a stage, and where one was stopped: keep what the next one needs, and save."""
        left: Progress | None = pending.result.left if pending.result is not None else None
        if ended:
            self._stage_ended(trainer)
            pending.stage_ended()
        self._save_now(pending if pending.stages else None, lambda: left)

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
