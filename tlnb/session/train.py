"""Training in a session: one stage, a plan, the range test, a step of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tlnb.engine.arguments import whole_number
from tlnb.engine.data.augmented import AugmentedSamples, augmented
from tlnb.engine.data.samples import Samples
from tlnb.engine.features.routes import Wish
from tlnb.engine.rates import lr_finder
from tlnb.engine.rates.lr_curve import LRCurve
from tlnb.engine.rates.suggest import rule_for
from tlnb.engine.saving.pending import Pending
from tlnb.engine.training import plan, range_test
from tlnb.engine.training.default_plan import Traits, default_plan
from tlnb.engine.training.history import EpochRecord, Run, StageResult, show_metric, spans
from tlnb.engine.training.micro import free_after, out_of_memory
from tlnb.engine.training.optimizer_state import load_named_state
from tlnb.engine.training.progress_state import Progress
from tlnb.engine.training.route import Route, Shortcut
from tlnb.engine.training.stage import AUTO, FIT, Stage
from tlnb.engine.training.stage_run import own_random_state, run_stage
from tlnb.engine.training.stopping import Stopped, StopRequest
from tlnb.engine.training.trainer import StageTrainer, Step
from tlnb.errors import NotReady, PlanError, TrainingError
from tlnb.session.keeping import Keeping


class Training(Keeping):
    """Find a rate, train a stage, run a plan."""

    _last_test: tuple[object, LRCurve] | None = None

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
        start: float = lr_finder.LOWEST,
        stop: float = lr_finder.HIGHEST,
        steps: int | None = None,
        cache: bool = True,
        **keys: Any,
    ) -> LRCurve:
        """Learning-rate range test on what is unfrozen now; leaves no trace.

        The same test is not run twice: where network, data and settings are those of the last one, so is the curve.

        Args:
            rule: which rule's suggestion is the curve's own; ``minimum`` for a constant rate and ``basin``
                for every other schedule, where none is named.
            start, stop: the lowest and the highest rate that may be tried.
            steps: of training that it may cost; None for half an epoch, and at least twelve.
            cache: run the frozen first part once over the samples, not in each step.
            keys: settings of the stage that it is for (``decay``, ``batch``, ``optimizer`` …).

        Raises:
            NotReady, PlanError, BadArguments: nothing has run then; ``NotReady`` also after a stop.
        """
        stage = plan.one_stage("find a rate", self._need_ready(), self._frozen_indexes(), keys)
        settings: dict[str, Any] = {"start": start, "stop": stop} | ({"rule": rule} if rule else {})
        lr_finder.check(**settings)
        if steps is not None:
            whole_number(steps, "--steps", range_test.LEAST)
        trainer = self._trainer(stage, (stage,) if cache else None)
        request = StopRequest()
        with self._working("a range test", request), own_random_state(0):
            try:
                trainer.take_shortcut(lambda text: self._emit("on_message", text), lambda *_: request.check())
                return self._find_rate(trainer, request, steps, **settings)
            except Stopped:
                raise NotReady("the range test was stopped; the network is as it was before it") from None

    def _find_rate(
        self, trainer: StageTrainer, request: StopRequest, steps: int | None = None, **settings: Any
    ) -> LRCurve:
        """The range test of a stage, or its curve where nothing has changed since."""
        usual = {
            "start": lr_finder.LOWEST,
            "stop": lr_finder.HIGHEST,
            "rule": rule_for(trainer.stage.schedule),
        }
        settings = usual | settings
        changes = getattr(self._samples_for(trainer.stage)[0], "transform", None)
        data = f"{self._data_print()} {changes!r}"
        key = range_test.key_of(trainer, steps, settings, data, self._step)
        if self._last_test is None or self._last_test[0] != key:

            def on_test(done: int, total: int, rate: float, loss: float) -> None:
                if rate:
                    self._emit("on_point", rate, loss)
                else:
                    self._emit("on_test", done, total)

            self._emit("on_test", 0, range_test.passes_of(trainer, steps))
            curve = range_test.find_rate(trainer, request, on_test, steps=steps, **settings)
            self._last_test = key, curve
        return self._last_test[1]

    def train(
        self,
        epochs: int | None = None,
        lr: float | str | None = None,
        *,
        cache: bool = True,
        keep_best: bool = False,
        **keys: Any,
    ) -> Run:
        """Train one stage with what is unfrozen now; with nothing said, the default plan.

        The default plan (see :func:`tlnb.engine.training.default_plan.default_plan`) fits a new head first and then
        trains what is unfrozen at a low rate.

        Args:
            epochs: passes over the training samples; 1 where another setting is given.
            lr: learning rate of the last layer; ``auto``, the default, runs the range test first.
            cache: run the frozen first part once over the samples, not in each step. A step of one's own
                runs the whole network in any case.
            keep_best: end with the weights of the epoch with the lowest validation loss.
            keys: other settings of a stage (``decay``, ``batch``, ``optimizer`` …).

        Raises:
            NotReady, PlanError: nothing has run then.
            TrainingError: no rate was found, or a frozen layer changed.
        """
        layers = self._need_ready()
        if epochs is None and lr is None and not keys:
            return self._run(plan.parse_plan(self._default_plan(), layers, ()), cache, keep_best)
        settings = {"epochs": 1 if epochs is None else epochs, "lr": "auto" if lr is None else lr, **keys}
        text = f"train {spans([i for i, fixed in enumerate(self.frozen) if not fixed])}"
        stages = [plan.one_stage(text, layers, self._frozen_indexes(), settings)]
        return self._run(stages, cache, keep_best)

    def _fit_now(self, init: str) -> Iterable[str]:
        if init != "fit":
            return ()
        ended = self.run("fit head").stages[-1].final
        return (f"{ended.metric_name} {show_metric(ended)} on validation",) if ended is not None else ()

    def _default_plan(self) -> str:
        assert self._samples is not None
        fresh = self._head_learned_nothing()
        fit = fresh and self._step is None and self._need_model().trained
        images = len(self._samples[0])
        return default_plan(
            self._need_layers(), self._frozen_indexes(), images, self._network_traits(), fit=fit
        )

    def _network_traits(self) -> Traits:
        loaded = self._need_model()
        return Traits.of(loaded.model, trained=loaded.trained)

    def _head_learned_nothing(self) -> bool:
        """Whether the head is a new one that no stage has trained yet."""
        return False

    def run(self, text: str, *, cache: bool = True, keep_best: bool = False, **defaults: Any) -> Run:
        """Run a plan, a stage a line; the whole is checked before anything trains.

        Args:
            text: the plan.
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
        return self._run(stages, cache, keep_best)

    def _run(self, stages: Iterable[Stage], cache: bool, keep_best: bool) -> Run:
        stages = list(stages)
        for stage in stages:
            self._check_stage(stage)
        pending = Pending.of(stages, cache, keep_best)
        pending.data = self._data_print()
        return self._carry_out(pending)

    def _check_stage(self, stage: Stage) -> None:
        """Find out before anything trains whether the network and the data take what the stage asks for."""
        self._samples_for(stage)
        if not self._need_model().head and (stage.kind == FIT or stage.init != "keep"):
            raise PlanError(
                f"{stage.text!r} needs a head, and this network ends in no layer that could be one"
            )

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
            trainer = self._trainer(stage, pending.stages if pending.cache else None)
        except BaseException:
            self.frozen, self._history.stages[:] = frozen, stages
            raise
        names = layers.describe(stage.frozen) if stage.frozen else ""
        result = pending.result or StageResult(
            trainer.number, stage, trainer.trained, stage.lr or 0.0, frozen_names=names
        )
        if not goes_on:
            result.before = self._score_before()
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
                test=lambda trainer: self._find_rate(trainer, stop),
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

    def _score_before(self) -> EpochRecord | None:
        """The score of the network as it is, where the last stage measured it on the same samples."""
        return None

    def _trainer(self, stage: Stage, coming: Sequence[Stage] | None) -> StageTrainer:
        """A trainer for a stage.

        Args:
            stage: its settings.
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
            bn=self._network_traits().bn if stage.bn == AUTO else stage.bn,
            head=self._need_model().head,
            shortcut=self._shortcut(coming, samples) if coming and self._step is None else None,
        )

    def _samples_for(self, stage: Stage) -> tuple[Samples, Samples]:
        """The samples under the stage's own augmentation, where it has one."""
        source, samples = self._need_data(), self._samples
        assert samples is not None
        augment = stage.augment
        if stage.kind == FIT and augment is None and isinstance(samples[0], AugmentedSamples):
            augment = "none"  # one view at random would be a worse choice than the pictures as they are
        if augment is None:
            return samples
        return augmented(samples[0], augment, source.seed), samples[1]

    def _shortcut(self, coming: Sequence[Stage], samples: tuple[Samples, Samples]) -> Shortcut:
        model, layers = self._need_model().model, self._need_layers()
        wish = Wish(coming[0].frozen, [stage.frozen for stage in coming[1:]], coming[0].views)

        def shortcut(say: Callable[[str], None], tick: Callable[[int, int], None]) -> Route:
            return self._routes.route(model, layers, wish, samples, self.device, say=say, tick=tick)

        return shortcut
