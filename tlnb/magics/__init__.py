"""The magics of tlnb: a line is parsed, one call on the session is made, its answer is returned."""

from __future__ import annotations

from typing import Any

from tlnb.display.progress import default_listener
from tlnb.magics.completion import TlCompleter
from tlnb.magics.lazy import is_session, is_stand_in
from tlnb.magics.magics import NAME, TlMagics
from tlnb.widgets.showing import Showing

_MATCHER = TlCompleter.match.__qualname__


def load(shell: Any) -> None:
    """Register the magics and their completion, and put the session into the namespace as ``tl``.

    Loading again keeps the session. A variable ``tl`` that is something else is left alone; a line says so.
    """
    magics = _known(shell) or _new(shell)
    shell.register_magics(magics)
    magics.showing.install()
    _remove_matcher(shell)
    shell.Completer.custom_matchers.append(TlCompleter(magics).match)
    held = shell.user_ns.get(NAME)
    if NAME not in shell.user_ns:
        shell.user_ns[NAME] = magics.session if magics.started else magics.stand_in
    elif not (is_session(held) or is_stand_in(held)):
        default_listener(shell).on_message(
            f"tlnb: {NAME} is a variable of yours ({type(held).__name__}) and stays so; the magics work, "
            f"and after `del {NAME}` the next one puts the session there"
        )


def unload(shell: Any) -> None:
    """Take the magics and their completion away; the session stays, and loading again finds it."""
    magics = _known(shell)
    if magics is None:
        return
    for kind, forms in magics.magics.items():
        for name in forms:
            shell.magics_manager.magics[kind].pop(name, None)
    magics.showing.remove()
    _remove_matcher(shell)


def _new(shell: Any) -> TlMagics:
    magics = TlMagics(shell, lambda session: magics.showing.listener(session))
    magics.showing = Showing(shell)
    return magics


def _known(shell: Any) -> Any:
    # The shell's own register of magics objects keeps ours, so there is one session a shell and no global.
    return shell.magics_manager.registry.get(TlMagics.__name__)


def _remove_matcher(shell: Any) -> None:
    matchers = shell.Completer.custom_matchers
    matchers[:] = [matcher for matcher in matchers if getattr(matcher, "__qualname__", "") != _MATCHER]
