"""What is left of a plan: the stage under way and those after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from tlnb.engine.saving.checkpoint_parts import progress_from, progress_to, result_from, result_to, stage_from
from tlnb.engine.saving.plain import Plain, flag, optional, text, whole
from tlnb.engine.training.history import StageResult
from tlnb.engine.training.progress_state import Progress
from tlnb.engine.training.stage import Stage, read_key


@dataclass(frozen=True)
class Pending:
    """What is left of a plan that is carried out, stage by stage: one stage at least.

    Attributes:
        stages: those that have not ended; the first may be under way.
        first: its place in the plan, from 1.
        count: stages of the plan.
        cache, keep_best: see ``Session.train``.
        result: of the stage under way, ``result.left`` where it stands; None where it has not begun.
        data: fingerprint of the training samples that it was left on; empty where that is not known.
        own_step: whether a step of the user's own trains.
        with_moments: whether its first stage begins with the optimizer's moments of the stage before.
    """

    stages: tuple[Stage, ...]
    first: int
    count: int
    cache: bool = True
    keep_best: bool = False
    result: StageResult | None = None
    data: str = ""
    own_step: bool = False
    with_moments: bool = False

    @classmethod
    def of(cls, stages: Sequence[Stage], cache: bool, keep_best: bool) -> Pending:
        """A plan that begins."""
        return cls(tuple(stages), 1, len(stages), cache, keep_best)

    def after(self) -> Pending | None:
        """What is left when its first stage has ended; None for nothing."""
        if len(self.stages) == 1:
            return None
        return replace(self, stages=self.stages[1:], first=self.first + 1, result=None, with_moments=False)


_SIMPLE = ("first", "count", "cache", "keep_best", "data", "own_step", "with_moments")


def pending_to(pending: Pending, progress: Progress | None) -> tuple[Plain, dict[str, Tensor]]:
    """What is left of a plan as plain values and tensors.

    Args:
        pending: the plan.
        progress: where its first stage stands now.
    """
    place, tensors = (None, {}) if progress is None else progress_to(progress)
    return {name: getattr(pending, name) for name in _SIMPLE} | {
        "stages": [stage.to_dict() for stage in pending.stages],
        "result": None if pending.result is None else result_to(pending.result),
        "progress": place,
    }, tensors


def pending_from(plain: Plain, tensors: Mapping[str, Tensor]) -> Pending | None:
    """The way back from ``pending_to``; None for a plan of which nothing is left."""
    result = optional(result_from, plain["result"])
    if result is not None and plain["progress"] is not None:
        result.left = progress_from(plain["progress"], tensors)
    stages = tuple(stage_from(stage) for stage in plain["stages"])
    if "bn" in plain:  # a file from before it became a key of each stage
        stages = tuple(replace(stage, bn=str(read_key("bn", plain["bn"]))) for stage in stages)
    if not stages:
        return None
    return Pending(
        stages, whole(plain["first"], 1), whole(plain["count"], 1), flag(plain["cache"]),
        flag(plain["keep_best"]), result, text(plain["data"]), flag(plain["own_step"]),
        flag(plain["with_moments"]),
    )  # fmt: skip
