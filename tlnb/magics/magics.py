"""The magics: each parses its line, makes one call on the session and returns its answer."""

from __future__ import annotations

import sys
from collections import ChainMap
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class, no_var_expand

from tlnb.display.progress import LineProgress
from tlnb.engine.core.machine import stay_here
from tlnb.errors import Interrupted, NotReady
from tlnb.magics.arguments import parse
from tlnb.magics.command import Command
from tlnb.magics.commands import COMMANDS
from tlnb.magics.help import help_text
from tlnb.magics.lazy import LazySession, is_session, is_stand_in

NAME = "tl"


class TlMagics(Magics):
    """Owns the session of a shell; the magics themselves are made from the table of commands.

    Args:
        shell: the IPython shell.
        listener: gives what shows the progress of a session, when that is made.
    """

    def __init__(self, shell: Any, listener: Callable[[Any], Any]) -> None:
        super().__init__(shell)
        stay_here()
        self._listener = listener
        self._session: Any = None
        self.showing: Any = None  # how answers come into a notebook with their views
        self.stand_in = LazySession(lambda: self.session)

    @property
    def started(self) -> bool:
        """Whether there is a session yet; torch is not imported before."""
        return self._session is not None

    @property
    def session(self) -> Any:
        """The session that the magics act on: what ``tl`` holds, as long as that is a session.

        It is made when it is first asked for. A session that the user has put into ``tl`` takes its place;
        where ``tl`` was deleted, it is put back.
        """
        namespace = self._namespace
        held = namespace.get(NAME, self.stand_in)
        if is_session(held) and held is not self._session:
            self._adopt(held)
        elif self._session is None:
            with self._loading():
                from tlnb.session import Session
            self._adopt(Session())  # its plain lines give way to what suits the shell
        if is_stand_in(held):
            namespace[NAME] = self._session
        return self._session

    def _loading(self) -> AbstractContextManager[None]:
        """Around the first import of torch, which takes seconds: a line says so."""
        if "torch" in sys.modules or self.showing is None:
            return nullcontext()
        waiting: AbstractContextManager[None] = self.showing.waiting("loading PyTorch …")
        return waiting

    def user_names(self) -> list[str]:
        """The user's own variables."""
        hidden = self.shell.user_ns_hidden if self.shell is not None else {}
        return [name for name in self._namespace if not name.startswith("_") and name not in hidden]

    def layer_names(self) -> list[str]:
        """The names of the layers of the network, or none where nothing was loaded."""
        if not self.started:
            return []
        try:
            return [layer.name for layer in self.session.layers]
        except NotReady:
            return []

    def task_names(self) -> list[str]:
        """The names of the tasks whose heads are kept, or none where no session was made."""
        return list(self.session.heads) if self.started else []

    def run(self, command: Command, line: str, body: str | None = None) -> Any:
        """Parse one line, with the body of the cell where there is one, and make the call.

        Raises:
            BadArguments: a wrong line, before anything was done.
        """
        line, quiet = _without_semicolon(line)
        words, keywords = parse(command, line, self._variables(), cell=body is not None)
        try:
            answer = self._call(command, words, keywords, body)
        except KeyboardInterrupt:
            raise Interrupted(
                f"%{command.name} was interrupted; %tl_status says where the session stands"
            ) from None
        return None if quiet else answer

    def _call(self, command: Command, words: Any, keywords: dict[str, Any], body: str | None) -> Any:
        if command.target == "step":
            return self._step(body, bool(words))
        if body is not None and command.body_as:
            keywords[command.body_as] = body
        elif body is not None:
            return getattr(self.session, command.cell)(body, **keywords)
        if command.read_only:
            answer = getattr(self.session, command.target)
            for option in keywords:  # %tl_history --plot is tl.history.plot()
                answer = getattr(answer, option)()
            return answer
        switched = [method for flag, method in command.switches if _is_set(command, flag, keywords)]
        return getattr(self.session, (*switched, command.target)[0])(*words, **keywords)

    def _step(self, body: str | None, off: bool) -> object:
        # A property, not a method: the one command that is more than a call.
        from tlnb.magics.step import CellStep, UsualStep

        if body is not None:
            self.session.step = CellStep(body, self._namespace)
        elif off:
            self.session.step = None
        return UsualStep() if self.session.step is None else self.session.step

    def _adopt(self, session: Any) -> None:
        session.listeners[:] = [
            self._listener(session) if isinstance(listener, LineProgress) and listener.is_plain else listener
            for listener in session.listeners
        ]
        self._session = session

    def _variables(self) -> Mapping[str, Any]:
        """Where ``$name`` is looked up: in the function of the notebook that runs the magic, then in the notebook."""
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
            frame = frame.f_back
        inside = frame.f_globals is self._namespace and frame.f_locals is not frame.f_globals
        return ChainMap(dict(frame.f_locals), self._namespace) if inside else self._namespace

    @property
    def _namespace(self) -> dict[str, Any]:
        assert self.shell is not None
        return self.shell.user_ns


def _without_semicolon(line: str) -> tuple[str, bool]:
    # As after any expression in a notebook, a semicolon at the end says: do not show the answer.
    stripped = line.rstrip()
    return stripped.removesuffix(";"), stripped.endswith(";")


def _is_set(command: Command, name: str, keywords: dict[str, Any]) -> bool:
    """Whether a switch is set; a flag is for nobody else, an option with a value is for the method too."""
    option = command.option(name)
    if option is not None and option.kind is not None:
        return name in keywords
    return bool(keywords.pop(name, False))


_BETWEEN = ("IPython", "tlnb", "decorator")  # whose frames lie between a magic and the code that runs it


def _magic(command: Command) -> Callable[..., Any]:
    def line_form(self: TlMagics, line: str) -> Any:
        return self.run(command, line)

    def cell_form(self: TlMagics, line: str, cell: str | None = None) -> Any:
        return self.run(command, line, cell)

    form: Any = cell_form if command.cell else line_form
    form.__name__ = command.name
    form.__qualname__ = f"{TlMagics.__qualname__}.{command.name}"
    form.__doc__ = help_text(command)
    # IPython would evaluate {braces} and take any $ for a variable; tlnb reads its lines itself.
    record = line_cell_magic if command.cell else line_magic
    return no_var_expand(record(form))


for _command in COMMANDS.values():
    setattr(TlMagics, _command.name, _magic(_command))
magics_class(TlMagics)  # collects what the decorators in _magic have recorded
