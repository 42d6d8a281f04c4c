"""What takes part in the meaning of training, called in one order; listeners only show it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tlnb.engine.network.layers import LayerMap
from tlnb.engine.training.records import PlanProgress, ResumePoint, StageResult
from tlnb.engine.training.stage import Stage
from tlnb.engine.training.trainer import StageTrainer
from tlnb.session.change import Change
from tlnb.session.state import SessionState, UndoPoint

Capture = Callable[[], ResumePoint]
"""Makes a copy of where the stage stands; called only where one is needed."""


@dataclass(frozen=True)
class StageUnderWay:
    """A stage that begins, or that ends.

    Attributes:
        plan: that it is the first stage of.
        trainer: trains it.
        result: is filled in as it happens.
        frozen_before: for each layer, whether it stayed fixed before the stage.
        layers_before: the layers before the stage, with the adapters of then.
        unmerged: the network before adapters were merged for this stage; None where none were.
        goes_on: whether it was left before, and goes on now.
        ended: whether it came to its end.
    """

    plan: PlanProgress
    trainer: StageTrainer
    result: StageResult
    frozen_before: tuple[bool, ...]
    layers_before: LayerMap
    unmerged: UndoPoint | None = None
    goes_on: bool = False
    ended: bool = False


class Hook:
    """A part of the session that takes part in training; each method is silent here.

    The session calls every hook in one order, see ``Session``.
    """

    def check_stage(self, state: SessionState, stage: Stage) -> None:
        """Before anything of a plan runs: raise where this stage cannot be trained."""

    def before_stage(self, change: Change, stage: StageUnderWay) -> None:
        """A stage begins or goes on; it is not the plan's stage under way in ``change.state`` yet."""

    def after_batch(self, capture: Capture) -> None:
        """A batch has ended."""

    def after_epoch(self, capture: Capture) -> None:
        """An epoch has ended and was measured; another one follows."""

    def after_stage(self, change: Change, stage: StageUnderWay) -> None:
        """A stage has ended, or was left; ``change.state`` has its history and plan already."""

    def get_state(self, state: SessionState) -> dict[str, Any]:
        """What a checkpoint keeps of this part, by the field of ``SessionSnapshot``."""
        return {}

    def set_state(self, change: Change, snapshot: Any) -> None:
        """Take over what a checkpoint says of this part.

        Raises:
            CheckpointError: it does not fit the network.
        """
