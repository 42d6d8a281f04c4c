"""Training in a session: the range test, a plan stage by stage, and going on where one was left."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from tlnb.cluster.training import SpreadStage
from tlnb.engine.core.arguments import whole_number
from tlnb.engine.core.interrupts import Stopped
from tlnb.engine.core.seeds import own_random_state
from tlnb.engine.features.planner import ForwardPlan, PlanMaker
from tlnb.engine.models.own_model import check_weights
from tlnb.engine.training import lr_finder
from tlnb.engine.training import plan as plans
from tlnb.engine.training.history import Run
from tlnb.engine.training.loop import run_stage
from tlnb.engine.training.lr_curve import LRCurve, rule_for
from tlnb.engine.training.optim import load_named_state
from tlnb.engine.training.passes import free_after, out_of_memory
from tlnb.engine.training.plan import default_stages, state_words
from tlnb.engine.training.records import PlanProgress, StageResult, spans
from tlnb.engine.training.stage import AUTO, FIT, Stage, read_keys
from tlnb.engine.training.trainer import StageTrainer, cache_request_of
from tlnb.errors import Interrupted, NotReady, PlanError, TrainingError
from tlnb.session.change import Change, Store
from tlnb.session.hooks import Capture, Hook, StageUnderWay
from tlnb.session.network import Network
from tlnb.session.old_task import OldTask
from tlnb.session.plans import (
    changed,
    check_best,
    free_layers,
    is_complete,
    need_head_of,
    on_data_of,
    samples_for,
    take_plan,
    traits_of,
)
from tlnb.session.recorder import head_learned_nothing
from tlnb.session.state import SessionState, Split, began
from tlnb.session.tools import Tools
from tlnb.session.undo import Undo


class Training:
    """Finds a rate and trains plans.

    Args:
        store, tools, network: of the session.
        old_task: is remembered before anything trains.
        undo: puts a stage back that never got anywhere.
        hooks: take part in each stage, in this order.
    """

    def __init__(
        self,
        store: Store,
        tools: Tools,
        network: Network,
        old_task: OldTask,
        undo: Undo,
        hooks: Sequence[Hook],
    ):
        self._store, self._tools, self._network = store, tools, network
        self._old_task, self._undo, self._hooks = old_task, undo, hooks
        self._last_test: tuple[object, LRCurve] | None = None

    # ---------------------------------------------------------------- the range test

    def find_lr(self, *, steps: int | None, cache: bool, keys: dict[str, Any], **settings: Any) -> LRCurve:
        """See ``Session.find_lr``; ``settings`` are those of the range test."""
        state = self._store.now
        stage = plans.one_stage("find a rate", state.need_ready(), state.frozen_indexes, keys)
        lr_finder.check(**settings)
        if steps is not None:
            whole_number(steps, "--steps", lr_finder.LEAST)
        with self._store.change() as change:
            trainer = self._trainer(change, stage, (stage,) if cache else None)
            with self._tools.working("a range test"), own_random_state(0):
                try:
                    self._tools.emit("on_walk", "a range test", 0, 0)
                    trainer.take_shortcut(
                        self._tools.log, self._tools.ticks("running the frozen layers once")
                    )
                    return self._find_rate(trainer, steps, **settings)
                except Stopped:
                    said = "the range test was stopped; the network is as it was before it"
                    if self._tools.interrupts.pressed:
                        raise Interrupted(said) from None
                    raise NotReady(said) from None

    def _find_rate(self, trainer: StageTrainer, steps: int | None = None, **settings: Any) -> LRCurve:
        """The range test of a stage, or its curve where nothing has changed since."""
        state, emit = self._store.now, self._tools.emit
        usual = {
            "start": lr_finder.LOWEST,
            "stop": lr_finder.HIGHEST,
            "rule": rule_for(trainer.stage.schedule),
        }
        settings = usual | settings
        changes = getattr(samples_for(state, trainer.stage)[0], "transform", None)
        data = f"{state.data_fingerprint} {changes!r}"
        key = lr_finder.key_of(trainer, steps, settings, data, state.step)
        if self._last_test is None or self._last_test[0] != key:

            def on_test(done: int, total: int, rate: float, loss: float) -> None:
                if rate:
                    emit("on_point", rate, loss)
                else:
                    emit("on_test", done, total)

            emit("on_test", 0, lr_finder.passes_of(trainer, steps))
            curve = lr_finder.find_rate(trainer, self._tools.stop, on_test, steps=steps, **settings)
            self._last_test = key, curve
        return self._last_test[1]

    # ---------------------------------------------------------------- plans

    def train(
        self, epochs: int | None, lr: float | str | None, cache: bool, keep_best: bool, keys: dict[str, Any]
    ) -> Run:
        """See ``Session.train``."""
        state = self._store.now
        layers = state.need_ready()
        if epochs is None and lr is None and not keys:
            return self._begin(self.default_stages(state, len(state.need_samples()[0])), cache, keep_best)
        settings = {"epochs": 1 if epochs is None else epochs, "lr": "auto" if lr is None else lr, **keys}
        text = state_words(layers, state.frozen_indexes)
        stage = plans.one_stage(text, layers, state.frozen_indexes, settings)
        return self._begin([stage], cache, keep_best)

    def run(self, text: str, cache: bool, keep_best: bool, defaults: dict[str, Any]) -> Run:
        """See ``Session.run``."""
        if not isinstance(text, str):
            raise PlanError(f"a plan is text with a stage a line, not {type(text).__name__}")
        state = self._store.now
        layers = state.need_ready()
        stages = plans.parse_plan(text, layers, state.frozen_indexes, defaults)
        return self._begin(stages, cache, keep_best)

    def default_stages(self, state: SessionState, images: int) -> tuple[Stage, ...]:
        """What is trained where nothing is said.

        Args:
            state: of the session.
            images: training samples.
        """
        fit = head_learned_nothing(state) and state.step is None and state.need_model().trained
        return default_stages(state.need_layers(), state.frozen_indexes, images, traits_of(state), fit=fit)

    def check(self, stages: Iterable[Stage]) -> list[Stage]:
        """See that a plan can be trained; its stages, with what cannot be adapted frozen.

        Raises:
            PlanError, NotReady, DataError, TrainingError: it cannot, and why.
        """
        state = self._store.now
        stages = self._network.fitting(state, stages)
        for stage in stages:
            samples_for(state, stage)
            if not state.need_model().head and (stage.kind == FIT or stage.init != "keep"):
                raise PlanError(
                    f"{stage.text!r} needs a head, and this network ends in no layer that could be one"
                )
            for hook in self._hooks:
                hook.check_stage(state, stage)
        return stages

    def _begin(self, stages: Iterable[Stage], cache: bool, keep_best: bool) -> Run:
        """Check all of a plan, then carry it out."""
        state, stages = self._store.now, self.check(stages)
        for stage in stages:
            check_best(stage, keep_best)
        return self._carry_out(
            replace(PlanProgress.of(stages, cache, keep_best), data=state.data_fingerprint)
        )

    def _carry_out(self, plan: PlanProgress) -> Run:
        """Run what is left of a plan; where that is stopped, or breaks off, the rest can be gone on with."""
        run, stop = Run(), self._tools.stop
        left: PlanProgress | None = plan
        with self._tools.working("training"):
            while left is not None and not (run.stopped or run.diverged):
                # The button may be pressed after the last batch of a stage.
                run.stopped = stop.asked
                if run.stopped and left is plan:
                    with self._store.change() as change:
                        take_plan(change, plan)
                if not run.stopped:
                    self._run_stage(left, run)
                    left = self._store.now.plan
            # While the session is busy still: at rest without an end told, a run would seem to have failed.
            self._tools.emit("on_run_end", run)
        return run

    # ---------------------------------------------------------------- one stage

    def _run_stage(self, plan: PlanProgress, run: Run) -> None:
        """Train the first stage of a plan, and commit it however it ended."""
        before, stage = self._start(plan)
        trainer, result = stage.trainer, stage.result
        failure: BaseException | None = None
        told, spread = False, self._spread(plan, trainer)
        try:
            self._tools.emit(
                "on_stage_start", plan.first, plan.count, self._description(stage), trainer.stage.epochs,
                trainer.steps_per_epoch,
            )  # fmt: skip
            told = True
            if not is_complete(plan.result):
                run_stage(
                    trainer, result, self._tools.stop, self._tools.emit,
                    resume=result.left, checkpointer=_Edges(self._hooks), keep_best=plan.keep_best,
                    test=self._find_rate,
                )  # fmt: skip
        except BaseException as error:
            failure = error
        finally:
            if spread is not None:
                spread.close()
        if told and began(result):
            failure = self._end(replace(stage, ended=is_complete(result)), failure)
            run.stages.append(result)
        else:
            self._never_began(before, stage)
        if failure is not None:
            if isinstance(failure, Exception) and out_of_memory(failure):
                free_after(failure)
                raise TrainingError(
                    f"memory ran out in stage {trainer.number}, {trainer.micro or trainer.batch} samples at "
                    f"a time; {_cure(trainer)}"
                ) from None
            raise failure
        run.stopped = result.stopped
        self._tools.emit("on_stage_end", result)

    def _spread(self, plan: PlanProgress, trainer: StageTrainer) -> SpreadStage | None:
        """Let the stage train on the cluster that was named; None where there is none."""
        found, tools = self._tools.cluster, self._tools
        if found is None:
            return None
        cache_request = cache_request_of(plan.stages) if plan.cache else None
        spread = SpreadStage(
            found, cache_request, tools.planner.dtype_policy, self._store.now.step, tools.log
        )
        spread.take(trainer)
        return spread

    def _start(self, plan: PlanProgress) -> tuple[SessionState, StageUnderWay]:
        """Set all that a stage needs, or nothing; the state before it, and the stage."""
        stage, goes_on = plan.stages[0], plan.result is not None
        with self._store.change() as change:
            take_plan(change, plan)
            before = change.state
            layers, adapted = before.need_layers(), dict(stage.adapted)
            check_weights(before.need_model().model)
            unmerged = None
            if stage.merges and not goes_on and layers.adapters:
                unmerged = self._undo.merge_for_stage(change)
            self._network.attach(change, adapted)
            self._network.set_frozen(change, (i in stage.frozen for i in range(len(layers))), adapted)
            trainer = self._trainer(change, stage, plan.stages if plan.cache else None)
            names = trainer.layers.describe_held(stage.frozen)
            result = plan.result or StageResult(
                trainer.number, stage, trainer.trained, stage.lr or 0.0, frozen_names=names
            )
            under_way = StageUnderWay(plan, trainer, result, before.frozen, layers, unmerged, goes_on)
            for hook in self._hooks:
                hook.before_stage(change, under_way)
            if plan.with_moments and not goes_on:
                load_named_state(trainer.model, trainer.optimizer, before.moments)
            change.set(plan=replace(plan, result=result), running=True)
        return before, under_way

    def _end(self, stage: StageUnderWay, failure: BaseException | None) -> BaseException | None:
        """Commit what came of a stage, by one assignment; what went wrong before, or here.

        Whatever a hook fails with, the stage has ended: it must never be trained a second time. A hook that is
        broken off begins once more, as what it notes of the stage can be noted only now.
        """
        with self._store.change() as change:
            if stage.ended:
                change.set(plan=stage.plan.after(), stages=(*change.state.stages, stage.result))
            change.set(running=False)
            for hook in self._hooks:
                for _ in range(2):
                    try:
                        hook.after_stage(change, stage)
                        break
                    except BaseException as error:
                        failure = failure or error
        return failure

    def _never_began(self, before: SessionState, stage: StageUnderWay) -> None:
        """Take a stage back that got nowhere: the network and the state are those before it, the plan is kept."""
        with self._store.change() as change:
            result = stage.result if stage.goes_on else None
            if change.state.undo and not stage.goes_on:
                self._undo.put_back(change, change.state.undo[-1])
            self._network.set_frozen(change, before.frozen, before.need_layers().adapted)
            now = change.state
            change.state = replace(
                before, plan=replace(stage.plan, result=result), old=now.old, frozen=now.frozen,
                revision=now.revision,
            )  # fmt: skip

    def _description(self, stage: StageUnderWay) -> str:
        text, trains = stage.trainer.stage.text, f"train{{}} {spans(stage.trainer.trained)}"
        words = [text] if text == trains.format("") else [text, trains.format("s")]
        return " · ".join([*words, self._store.now.layer_table.summary])

    def _trainer(self, change: Change, stage: Stage, coming: Sequence[Stage] | None) -> StageTrainer:
        """A trainer for a stage.

        Args:
            change: in which the stage begins.
            stage: its settings.
            coming: this stage and those after it, whose features may be kept; None to keep none.
        """
        state = change.state
        source, samples, loaded = state.need_data(), samples_for(state, stage), state.need_model()
        trainer = StageTrainer(
            loaded.model,
            state.need_layers(),
            stage,
            ForwardPlan(*samples, loaded.model, self._tools.device),
            number=len(state.stages) + 1,
            batch=stage.batch or source.batch,
            seed=source.seed,
            task=source.task,
            step=state.step,
            bn=traits_of(state).bn if stage.bn == AUTO else stage.bn,
            head=loaded.head,
            shortcut=self._shortcut(state, coming, samples) if coming and state.step is None else None,
        )
        self._old_task.prepare(change, trainer)
        return trainer

    def _shortcut(self, state: SessionState, coming: Sequence[Stage], samples: Split) -> PlanMaker:
        return self._tools.planner.shortcut(
            state.need_model().model,
            state.need_layers(),
            cache_request_of(coming),
            samples,
            self._tools.device,
        )

    # ---------------------------------------------------------------- going on

    def go_on(self, keys: dict[str, Any]) -> Run:
        """See ``Session.go_on``."""
        state = self._store.now
        state.need_ready()
        plan = state.plan
        if plan is None:
            return self._further(state, keys)
        if plan.own_step and state.step is None:
            raise NotReady("a step of your own was training (%%tl_step); run that cell again, then go on")
        settings = read_keys(keys)
        if plan.result is not None and plan.result.diverged and not settings.get("lr"):
            raise NotReady(
                "the loss diverged at that rate; give a lower one, such as: %tl_train --continue lr 1e-4"
            )
        need_head_of(state, plan)
        return self._carry_out(on_data_of(state, changed(plan, settings)))

    def _further(self, state: SessionState, keys: dict[str, Any]) -> Run:
        """A further stage with the moments of the last one."""
        if not state.stages:
            raise NotReady("nothing was trained yet; %tl_train trains what is unfrozen")
        last = state.stages[-1]
        if "epochs" not in keys:
            raise NotReady(
                f"nothing was stopped; to go on with the optimizer of stage {last.number}, "
                "say for how long: %tl_train --continue epochs 3"
            )
        recipe = last.recipe
        bn = {"bn": recipe.bn} if recipe is not None else {}
        settings = {**last.stage.asked, **bn, "lr": last.rate or "auto", **keys}
        stage = plans.one_stage(
            f"continue {spans(free_layers(state))}", state.need_layers(), state.frozen_indexes, settings
        )
        cache, keep_best = (recipe.cache, recipe.keep_best) if recipe is not None else (True, False)
        keep_best = keep_best and stage.contrast is None and stage.average is None
        plan = PlanProgress.of([stage], cache, keep_best)
        return self._carry_out(replace(plan, with_moments=True, data=state.data_fingerprint))


def _cure(trainer: StageTrainer) -> str:
    """What makes a stage take less memory."""
    if trainer.stage.contrast is not None:
        return f"contrast compares a whole batch, so take a smaller one: batch {max(trainer.batch // 2, 2)}"
    return "freeze more layers, or take smaller pictures (--size)"


class _Edges:
    """Tells the hooks of the edges of a stage.

    Args:
        hooks: of the session.
    """

    def __init__(self, hooks: Sequence[Hook]):
        self._hooks = hooks

    def on_edge(self, capture: Capture) -> None:
        """A batch has ended."""
        for hook in self._hooks:
            hook.after_batch(capture)

    def on_measured(self, capture: Capture) -> None:
        """An epoch has ended."""
        for hook in self._hooks:
            hook.after_epoch(capture)
