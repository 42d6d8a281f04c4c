"""One transaction for every call: a new state is made beside the old one and set last, by one assignment.

What has to be written into the user's own tensors and modules meanwhile (heads, ``requires_grad``, a blend) is noted
in a journal before it is written, so that a failure takes it back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from tlnb.engine.network import adapters
from tlnb.engine.network import head as heads
from tlnb.engine.training.ending import put_back
from tlnb.session.interrupts import Interrupts, bookkeeping
from tlnb.session.state import SessionState

_log = logging.getLogger("tlnb")


class Journal:
    """What a change writes into the user's own objects, and how to take it back.

    Each entry can be taken back more than once, so that taking back may itself be cut off and begun again.
    """

    def __init__(self) -> None:
        self._entries: list[Callable[[], object]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def note(self, take_back: Callable[[], object]) -> None:
        """Note how to take something back, before it is written."""
        self._entries.append(take_back)

    def take_back(self, mark: int = 0) -> None:
        """Take back what was noted since there were ``mark`` entries, the last first."""
        while len(self._entries) > mark:
            self._entries[-1]()
            self._entries.pop()

    # ---------------------------------------------------------------- what is written

    def tensors(self, tensors: Iterable[Tensor]) -> None:
        """These tensors will be written; copies of them are kept until the change ends."""
        copies = [(tensor, tensor.detach().clone()) for tensor in tensors]

        self.note(lambda: put_back(copies))

    def flags(self, model: nn.Module) -> None:
        """``requires_grad`` of the weights will be set, and gradients dropped."""
        flags = [(p, p.requires_grad, p.grad) for p in model.parameters()]

        def back() -> None:
            for parameter, flag, gradient in flags:
                parameter.requires_grad_(flag)
                parameter.grad = gradient

        self.note(back)

    def adapters(self, model: nn.Module) -> None:
        """Adapters will be put on weights, or taken away."""
        self.note(adapters.keeper(model))

    def modes(self, model: nn.Module) -> None:
        """Train or test mode will be set."""
        modes = [(module, module.training) for module in model.modules()]

        def back() -> None:
            for module, training in modes:
                module.training = training

        self.note(back)

    def device(self, model: nn.Module) -> None:
        """The model will be moved."""
        device = next(model.parameters()).device
        self.note(lambda: model.to(device))

    def module(self, model: nn.Module, place: str) -> None:
        """Another module will stand at this place."""
        module = model.get_submodule(place)
        self.note(lambda: heads.replace(model, place, module))


class Change:
    """A state in the making.

    Attributes:
        state: as it is so far.
        journal: takes note of what is written into the user's own objects.
    """

    def __init__(self, state: SessionState, journal: Journal):
        self.state, self.journal = state, journal

    def set(self, **fields: Any) -> None:
        """Set fields of the state."""
        self.state = replace(self.state, **fields)

    def set_old(self, **fields: Any) -> None:
        """Set fields of ``state.old``."""
        self.set(old=replace(self.state.old, **fields))

    def set_recorder(self, **fields: Any) -> None:
        """Set fields of ``state.recorder``."""
        self.set(recorder=replace(self.state.recorder, **fields))

    def set_loaded(self, **fields: Any) -> None:
        """Set fields of the loaded network; what the user was given before stays as it was."""
        self.set(loaded=replace(self.state.need_model(), **fields))

    def set_task(self, name: str, **fields: Any) -> None:
        """Set fields of one task."""
        tasks: Mapping[str, Any] = self.state.tasks
        self.set(tasks={**tasks, name: replace(tasks[name], **fields)})


class Store:
    """Holds the state, and changes it as a whole or not at all.

    Args:
        interrupts: wait while a state is set or taken back.
        publish: called after each change, and after each that was taken back, so that views follow.
    """

    def __init__(self, interrupts: Interrupts, publish: Callable[[], None]):
        self._interrupts, self._publish = interrupts, publish
        self._whole = SessionState(), Journal()
        self._open: list[Change] = []
        self._untold = False  # whether views lag behind the state

    @property
    def journal(self) -> Journal:
        """What was written since the state was set."""
        return self._whole[1]

    @property
    def committed(self) -> SessionState:
        """The state, without what is in the making."""
        return self._whole[0]

    @property
    def now(self) -> SessionState:
        """The state as the innermost change that is open has it."""
        return self._open[-1].state if self._open else self.committed

    @contextmanager
    @bookkeeping
    def change(self) -> Iterator[Change]:
        """Inside, a new state is made; it is set when the block ends, and only then.

        Where the block fails, the state of before stands, and what the journal holds is taken back. A change
        inside another one joins it: it is set, or taken back, with that one.
        """
        change, mark, outer = Change(self.now, self.journal), len(self.journal), len(self._open)
        self._open.append(change)
        try:
            yield change
            if not outer:
                self._interrupts.settle()
        except BaseException:
            with self._interrupts.held():
                del self._open[outer:]
                self.journal.take_back(mark)
                self._tell(outer)
            raise
        with self._interrupts.held():
            if outer:
                self._open[outer - 1].state = change.state
                del self._open[outer:]
            else:
                # By one assignment: what breaks off before it is taken back, and what breaks off after it stands,
                # and is told then by the next call.
                self._untold = True
                self._whole = change.state, Journal()
                self._open.clear()
            self._tell(outer)

    def recover(self) -> None:
        """Take back what a change left behind that was torn out of its block, as by another thread's exception."""
        if self._open or len(self.journal) or self._untold:
            with self._interrupts.held():
                self._open.clear()
                self.journal.take_back()
                self._tell(0)

    def _tell(self, outer: int) -> None:
        if outer:
            return
        self._untold = True
        try:
            self._publish()
            self._untold = False
        except Exception:
            # The state is set already; a view that fails must not make the call look as if it had failed.
            _log.exception("a view of the session failed")
