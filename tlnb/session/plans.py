"""Plans under way: taking one, changing what is left of it, and the samples that its stages learn from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tlnb.engine.advice.fold_run import stage_samples
from tlnb.engine.core.seeds import batches
from tlnb.engine.training.plan import Traits, check_beside_contrast
from tlnb.engine.training.records import PlanProgress, StageResult
from tlnb.engine.training.stage import Stage
from tlnb.errors import NotReady, PlanError
from tlnb.session.change import Change
from tlnb.session.state import SessionState, Split, began

MAY_CHANGE = ("epochs", "lr", "patience")
"""Settings of a stage that can be given anew where it goes on."""


def take_plan(change: Change, plan: PlanProgress) -> None:
    """Begin a plan, or go on with one; a stage of another plan that was left stays in the history for good."""
    state = change.state
    before = state.plan.result if state.plan is not None else None
    if before is not None and plan.result is None and began(before):
        change.set(stages=(*state.stages, replace(before, left=None)))
    change.set(plan=plan)


def samples_for(state: SessionState, stage: Stage) -> Split:
    """The samples under the stage's own augmentation, where it has one.

    Raises:
        DataError: they cannot be augmented so.
    """
    return stage_samples(state.need_samples(), stage, state.need_data().seed)


def traits_of(state: SessionState) -> Traits:
    """What the default settings go by."""
    loaded = state.need_model()
    return Traits.of(loaded.model, state.layers, trained=loaded.trained)


def is_complete(result: StageResult | None) -> bool:
    """Whether all of a stage was trained; it is ended then, and never trained again."""
    if result is None or result.left is not None or result.stopped or result.diverged:
        return False
    return bool(result.records)


def free_layers(state: SessionState) -> list[int]:
    """Indexes of the layers that are to train."""
    return [i for i, fixed in enumerate(state.frozen) if not fixed]


# ---------------------------------------------------------------- going on


def check_best(stage: Stage, keep_best: bool) -> None:
    """Refuse the best epoch of a stage that has another end, or none that scores tell.

    Raises:
        PlanError: it is asked for there.
    """
    if keep_best and stage.contrast is not None:
        raise PlanError(
            "the best epoch goes by scores, and contrast leaves the head behind; leave out one of them"
        )
    if keep_best and stage.average is not None:
        raise PlanError(
            "an average of weights and the best epoch are two ends of a stage; leave out one of them"
        )


def need_head_of(state: SessionState, plan: PlanProgress) -> None:
    """Refuse to go on with a stage under another head than the one that it trained.

    Raises:
        NotReady: another head is on the network.
    """
    under_way = plan.result is not None and plan.result.left is not None
    if under_way and state.undo and state.undo[-1].head is not state.head:
        raise NotReady(
            "another head is on the network than when the stage was stopped; put it back "
            "(%tl_head --task), or train the new one: %tl_train"
        )


def changed(plan: PlanProgress, settings: dict[str, Any]) -> PlanProgress:
    """A plan whose first stage goes on with other settings.

    Raises:
        PlanError: they cannot change while it is under way.
    """
    wrong = [name for name in settings if name not in MAY_CHANGE]
    if wrong:
        raise PlanError(f"{wrong[0]} cannot change while a stage is under way; {', '.join(MAY_CHANGE)} can")
    if not settings:
        return plan
    stage, result = replace(plan.stages[0], **settings), plan.result
    if stage.contrast is not None:
        check_beside_contrast(settings)
    left = result.left if result is not None else None
    if left is not None:
        if stage.epochs < left.epoch:
            raise PlanError(f"epochs {stage.epochs}: {left.epoch} have been trained already")
        if "lr" in settings and stage.lr is None:
            raise PlanError(
                f"lr auto: the stage under way has its rate, {left.rate:.1e}; give a number to change it"
            )
        left = replace(left, rate=settings.get("lr") or left.rate)
    if result is not None:
        result = replace(result, stage=stage, left=left, records=list(result.records))
    return replace(plan, stages=(stage, *plan.stages[1:]), result=result)


def on_data_of(state: SessionState, plan: PlanProgress) -> PlanProgress:
    """A plan that goes on with the data of now; on other data, its stage restarts at the beginning of the epoch."""
    now, result = state.data_fingerprint, plan.result
    if plan.data == now:
        return plan
    if result is not None and result.left is not None:
        size = plan.stages[0].batch or state.need_data().batch
        left = result.left.at_epoch_start(len(batches(len(state.need_samples()[0]), size, 0)))
        # A score of before was measured on other samples, so no guard can compare with it.
        result = replace(result, left=left, untold=_untold(result), records=list(result.records), before=None)
    elif result is not None:
        result = replace(result, untold=_untold(result))
    return replace(plan, data=now, result=result)


def _untold(result: StageResult) -> str:
    """What a script cannot tell of a stage that goes on with other data."""
    known = result.recipe is not None or result.untold
    return result.untold if known else "other data, named after the kernel died in the middle of it,"
