"""Autosave: the session is saved by itself at the edges of training."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable

from tlnb.engine.checkpoint.autosave import BETWEEN, WITHIN
from tlnb.engine.checkpoint.autosave import Autosave as Files
from tlnb.engine.checkpoint.file import Checkpoint
from tlnb.engine.core.machine import home
from tlnb.engine.training.records import ResumePoint
from tlnb.errors import CheckpointError
from tlnb.session.change import Change, Store
from tlnb.session.hooks import Capture, Hook, StageUnderWay
from tlnb.session.state import SessionState
from tlnb.session.tools import Tools

Snapshot = Callable[[SessionState, ResumePoint | None], Checkpoint]


class Autosave(Hook):
    """Saves the session while it trains; where that fails, training goes on and the user is told once.

    Args:
        store: of the session.
        tools: of the session.
        snapshot: makes a checkpoint of a state, and of where its stage under way stands.

    Attributes:
        files: the files that it writes.
    """

    def __init__(self, store: Store, tools: Tools, snapshot: Snapshot):
        self._store, self._tools, self._snapshot = store, tools, snapshot
        self.files = Files(home() / "autosave")

    def before_stage(self, change: Change, stage: StageUnderWay) -> None:
        """See how often it is to be saved."""
        seconds = autosave_seconds()
        self.files.within, self.files.between = seconds or WITHIN, min(BETWEEN, seconds or BETWEEN)

    def after_batch(self, capture: Capture) -> None:
        """Save inside an epoch, where that is due."""
        if autosave_seconds() and self.files.due(epoch=False):
            self.save(self._store.now, capture)

    def after_epoch(self, capture: Capture) -> None:
        """Save after an epoch, where that is due."""
        if autosave_seconds() and self.files.due(epoch=True):
            self.save(self._store.now, capture)

    def after_stage(self, change: Change, stage: StageUnderWay) -> None:
        """Save; nothing may change the state after this."""
        plan = change.state.plan
        left = plan.result.left if plan is not None and plan.result is not None else None
        self.save(change.state, lambda: left)

    def save(self, state: SessionState, capture: Callable[[], ResumePoint | None]) -> None:
        """Save now."""
        if not autosave_seconds():
            return

        def make() -> Checkpoint:
            try:
                return self._snapshot(state, capture())
            except (MemoryError, RuntimeError) as error:  # torch has no error of its own for main memory
                raise CheckpointError(f"memory is short for a copy: {error}") from None

        files = self.files
        failed_before = files.failure
        try:
            files.save(make)
        except CheckpointError as error:
            if not failed_before:
                since = time.strftime("%H:%M:%S", time.localtime(time.time() - files.age))
                last = f"the last good autosave is {files.last}" if files.last else "nothing is saved yet"
                self._tools.log(f"not saved at {since}: {error}; training goes on, {last}")
            return
        if failed_before:
            self._tools.log("autosave works again")

    @property
    def status(self) -> str:
        """One line about the last save; empty where there was none."""
        if not autosave_seconds():
            return "autosave is off (TLNB_AUTOSAVE=0)"
        if self.files.failure:
            return f"NOT: {self.files.failure}"
        if self.files.last is not None:
            files = self.files
            return f"{files.age:.0f} s ago by autosave, in {files.took:.2f} s; %tl_resume comes back"
        return ""


def autosave_seconds() -> float:
    """Seconds between autosaves inside an epoch: 60, or what ``TLNB_AUTOSAVE`` says; 0 for none at all."""
    asked = os.environ.get("TLNB_AUTOSAVE", "").strip().lower()
    if asked in ("off", "no", "false"):
        return 0.0
    try:
        seconds = float(asked) if asked else WITHIN
    except ValueError:
        return WITHIN
    return max(seconds, 0.0) if math.isfinite(seconds) else WITHIN
