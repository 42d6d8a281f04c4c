"""What all views share: actions from the page, errors shown on it, the session's traits followed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

import anywidget
import traitlets

from tlnb.errors import TlnbError
from tlnb.session import Session
from tlnb.widgets.channel import follow_front_end

_log = logging.getLogger("tlnb")
_STATIC = files("tlnb.widgets") / "static"
STYLE = (_STATIC / "tlnb.css").read_text(encoding="utf-8")


def script(*names: str) -> str:
    """One ES module out of the shared helpers and these files; nothing is fetched by the page."""
    return "\n".join((_STATIC / name).read_text(encoding="utf-8") for name in ("common.js", *names))


class View(anywidget.AnyWidget):
    """A view of a session. What the user does arrives as a message and becomes a call of the session.

    Args:
        session: what it shows.

    Attributes:
        error: one line that the page shows; what went wrong in the last action.
        busy: what the session is doing; empty at rest.
        failure: the exception of the last action, or None.
    """

    _css = STYLE
    error = traitlets.Unicode().tag(sync=True)
    busy = traitlets.Unicode().tag(sync=True)

    def __init__(self, session: Session, **traits: Any):
        super().__init__(busy=session.busy, **traits)
        self.session = session
        self.failure: BaseException | None = None
        self.on_msg(self._on_message)
        session.observe(self._on_busy, "busy")
        if self.comm is not None:
            follow_front_end(self.comm)

    def actions(self) -> Mapping[str, Callable[..., object]]:
        """What the page may ask for, by name; the values of the message are keyword arguments."""
        return {}

    def act(self, action: str, /, **values: Any) -> None:
        """Do an action; whatever goes wrong is shown, and kept in ``failure``."""
        self.failure = None
        try:
            self.actions()[action](**values)
        except TlnbError as error:
            self.failure = error
        except Exception as error:
            # A mistake of ours or of the user's own code: the page has the line, the log the traceback.
            _log.exception("action %r of %s failed", action, type(self).__name__)
            self.failure = error
        self.error = "" if self.failure is None else in_words(self.failure)

    def _on_message(self, _: object, content: Mapping[str, Any], buffers: object = None) -> None:
        if "do" not in content:
            return
        values = {key: value for key, value in content.items() if key not in ("do", "id")}
        try:
            self.act(str(content["do"]), **values)
        finally:
            self.send({"done": content.get("id")})

    def _on_busy(self, change: Any) -> None:
        self.busy = change["new"]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.session.__class__.__name__}>"


def in_words(error: BaseException) -> str:
    """One line for the page."""
    text = str(error).strip()
    return text if isinstance(error, TlnbError) else f"{type(error).__name__}: {text}"
