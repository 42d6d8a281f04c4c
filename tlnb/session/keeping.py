"""What a session keeps while it trains: the plan under way, the way back, and its autosave."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from torch import Tensor, nn

from tlnb.engine.data.data_print import data_print
from tlnb.engine.data.samples import Samples
from tlnb.engine.memory import free_bytes
from tlnb.engine.network import freezing
from tlnb.engine.network.old_network import OldNetwork
from tlnb.engine.saving.autosave import BETWEEN, WITHIN, Autosave
from tlnb.engine.saving.checkpoint import Checkpoint
from tlnb.engine.saving.home import home
from tlnb.engine.saving.pending import Pending
from tlnb.engine.training.history import History
from tlnb.engine.training.optimizer_state import ByName, named_state
from tlnb.engine.training.progress_state import Progress, affordable
from tlnb.engine.training.trainer import StageTrainer
from tlnb.errors import CheckpointError
from tlnb.session.contents import Parts, to_checkpoint
from tlnb.session.heads import Heads

STEPS_BACK = 5
SHARE = 0.25  # of the free memory, that the way back may take


@dataclass
class StepBack:
    """The network before a stage.

    Attributes:
        history: of the network that it belongs to.
        stages: how many there were before it.
        head: the module that was its head.
        frozen: for each layer, whether it stayed fixed.
        weights: what the stage changed, by name, in main memory.
        moments: the optimizer's state of the stage before it.
    """

    history: History
    stages: int
    head: nn.Module | None
    frozen: tuple[bool, ...]
    weights: dict[str, Tensor]
    moments: ByName

    @property
    def bytes(self) -> int:
        """Size of the copies."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.weights.values())


@dataclass(frozen=True)
class Importance:
    """How much each weight matters to the old task, as ``keep ewc`` found it.

    Attributes:
        of: what it was found on: the name of the old data, or the fingerprint of the new.
        weights: diagonal of the Fisher information, by the name of the weight.
    """

    of: str
    weights: dict[str, Tensor]


class Keeping(Heads):
    """Keeps what is needed to go on, to go back, and to come back.

    Args:
        listeners: see ``State``.
    """

    def __init__(self, listeners: Iterable[object] = ()):
        super().__init__(listeners)
        self._plan: Pending | None = None
        self._plan_of: History | None = None
        self._steps_back: list[StepBack] = []
        self._moments: ByName = {}
        self._fingerprint: tuple[Samples, str] | None = None
        self._autosave = Autosave(home() / "autosave")
        self._forget_all()

    def _forget_all(self) -> None:
        """Nothing is known of a network of before training."""
        self._old: OldNetwork | None = None
        self._old_source: str | None = None  # by which data of the old task can be read again
        self._importance: Importance | None = None

    # ---------------------------------------------------------------- the plan under way

    @property
    def _paused(self) -> Pending | None:
        """What is left of the last plan; None where it ended, or another network was loaded since."""
        return self._plan if self._plan_of is self._history else None

    def _pause(self, plan: Pending | None) -> None:
        before = self._paused
        if before is not None and before is not plan and before.result is not None:
            before.result.left = None  # nobody can go on from there any more; its memory is let go
        self._plan, self._plan_of = plan, self._history

    def _data_print(self) -> str:
        """The fingerprint of the samples, taken once for each data."""
        if self._samples is None:
            return ""
        train, valid = self._samples
        if self._fingerprint is None or self._fingerprint[0] is not train:
            self._fingerprint = train, data_print(train, valid)
        return self._fingerprint[1]

    # ---------------------------------------------------------------- the way back

    def _stage_begins(self, trainer: StageTrainer) -> None:
        """Keep what the stage will change."""
        layers = self._need_layers()
        trained = [i for i in range(len(layers)) if i not in trainer.stage.frozen]
        state = dict(freezing.state_of(trainer.model, layers, trained))
        weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}
        head = trainer.model.get_submodule(self._need_model().head) if self._need_model().head else None
        point = StepBack(self._history, len(self._history.stages), head, self.frozen, weights, self._moments)
        kept = [p for p in self._steps_back if p.history is self._history][-(STEPS_BACK - 1) :]
        room = SHARE * free_bytes()
        while kept and sum(p.bytes for p in kept) + point.bytes > room:
            del kept[0]
        self._steps_back = [*kept, point]

    def _stage_ended(self, trainer: StageTrainer) -> None:
        """Keep the optimizer's moments, for a stage that goes on with them."""
        self._moments = named_state(trainer.model, trainer.optimizer) if affordable(trainer) else {}

    # ---------------------------------------------------------------- autosave

    def _watch(self, plan: Pending) -> SavingWatch:
        return SavingWatch(self, plan)

    def _save_now(self, plan: Pending | None, progress: Callable[[], Progress | None]) -> None:
        """Autosave; where that fails, training goes on and the user is told once."""
        if not autosave_seconds():
            return
        failed_before = self._autosave.failure
        try:
            self._autosave.save(lambda: self._snapshot(plan, progress()))
        except CheckpointError as error:
            if not failed_before:
                since = time.strftime("%H:%M:%S", time.localtime(time.time() - self._autosave.age))
                last = (
                    f"the last good autosave is {self._autosave.last}"
                    if self._autosave.last
                    else "nothing is saved yet"
                )
                self._emit("on_message", f"not saved at {since}: {error}; training goes on, {last}")
            return
        if failed_before:
            self._emit("on_message", "autosave works again")

    def _snapshot(self, plan: Pending | None, progress: Progress | None) -> Checkpoint:
        """The session as it is now."""
        loaded, data = self._need_model(), self._data
        first = next((task.name for task in self._tasks.values() if task.head is self._came_with), "")
        under_way = plan.result if plan is not None else None
        history = [stage for stage in self._history.stages if stage is not under_way]
        fingerprint = self._data_print()
        if plan is not None:
            plan = replace(plan, own_step=self._step is not None)
        asked = None if data is None or data.asked is None else dict(data.asked)
        parts = Parts(
            loaded, self.frozen, list(self._tasks.values()), self._task, first, "", asked, (), fingerprint,
            history, self._history.old, plan, self._moments, self._old_source,
            (self._importance.of, self._importance.weights) if self._importance is not None else None,
        )  # fmt: skip
        return to_checkpoint(parts, data, progress, self._old)


class SavingWatch:
    """Saves a session at the edges of a stage, when that is due.

    Args:
        session: whose autosave it is.
        plan: the plan under way.
    """

    def __init__(self, session: Keeping, plan: Pending):
        self._session, self._plan = session, plan
        autosave, seconds = session._autosave, autosave_seconds()
        autosave.within, autosave.between = seconds or WITHIN, min(BETWEEN, seconds or BETWEEN)
        self._on = bool(seconds)

    def on_edge(self, capture: Callable[[], Progress]) -> None:
        """A batch has ended."""
        if self._on and self._session._autosave.due(epoch=False):
            self._session._save_now(self._plan, capture)

    def on_measured(self, capture: Callable[[], Progress]) -> None:
        """An epoch has ended."""
        if self._on and self._session._autosave.due(epoch=True):
            self._session._save_now(self._plan, capture)


def autosave_seconds() -> float:
    """Seconds between autosaves inside an epoch: 60, or what ``TLNB_AUTOSAVE`` says; 0 for none at all."""
    asked = os.environ.get("TLNB_AUTOSAVE", "").strip().lower()
    if asked in ("off", "no", "false"):
        return 0.0
    try:
        return max(float(asked), 0.0) if asked else WITHIN
    except ValueError:
        return WITHIN
