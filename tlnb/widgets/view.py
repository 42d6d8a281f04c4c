"""What all views share: actions from the page, errors shown on it, the session's traits followed."""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

import anywidget
import traitlets

from tlnb.errors import NotReady, TlnbError
from tlnb.session import Session
from tlnb.widgets.channel import follow_front_end

_log = logging.getLogger("tlnb")
_STATIC = files("tlnb.widgets") / "static"
STYLE = (_STATIC / "tlnb.css").read_text(encoding="utf-8")

Action = Callable[..., object]
LONG = {
    "load": "loading the network", "data": "reading the data", "find": "range test", "train": "training",
    "results": "judging the validation samples", "advise": "looking at the features", "picture": "predicting",
    "pictures": "reading pictures", "undo": "going back", "further": "training", "save": "saving",
    "export": "exporting", "resume": "resuming",
    "clean": "looking for suspects", "draw": "drawing the map", "script": "writing the script", "frame": "",
}  # fmt: skip
LOOKING = {"look", "look_away", "turn", "choose", "thumbs", "listen"}
"""Actions that change nothing; a view that is disabled does them too."""


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
        doing: which long action of this view is under way or waits for its turn, in words; else empty.
        magic: the last action as the magics that do the same.
        key: marks the static fallbacks that rest while the view is on a page.
        disabled: it shows what there is, and nothing can be done on the page; setting it is the user's.
        retired: it shows no more, and its fallbacks do in its place.
        failure: the exception of the last action, or None.
    """

    _css = STYLE
    error = traitlets.Unicode().tag(sync=True)
    busy = traitlets.Unicode().tag(sync=True)
    doing = traitlets.Unicode().tag(sync=True)
    magic = traitlets.Unicode().tag(sync=True)
    key = traitlets.Unicode().tag(sync=True)
    retired = traitlets.Bool().tag(sync=True)
    disabled = traitlets.Bool(help="nothing can be done on the page").tag(sync=True)

    def __init__(self, session: Session, **traits: Any):
        super().__init__(busy=session.busy, key=secrets.token_hex(6), **traits)
        self.session = session
        self.failure: BaseException | None = None
        self._loop = _running_loop()
        self.on_msg(self._on_message)
        self._followed: list[tuple[Callable[[Any], None], Sequence[str]]] = []
        self.follow(self._on_busy, ["busy"])
        if self.comm is not None:
            follow_front_end(self.comm)

    def follow(self, handler: Callable[[Any], None], names: Sequence[str]) -> None:
        """Be told when these traits of the session change, until the view is closed."""
        self.session.observe(handler, list(names))
        self._followed.append((handler, names))

    def close(self) -> None:
        """Take the view off its pages, and follow the session no more."""
        self._follow_no_more()
        super().close()

    def retire(self) -> None:
        """Give the place to the static fallbacks: they show what this view began with, and it follows nothing more."""
        self._follow_no_more()
        self.retired = True

    def _follow_no_more(self) -> None:
        followed, self._followed = getattr(self, "_followed", []), []  # one that was never made has none
        for handler, names in followed:
            self.session.unobserve(handler, list(names))

    def set_state(self, sync_data: Any) -> None:
        """Take over what a page has set; what is refused is said there, and the page gets the true value back."""
        try:
            super().set_state(sync_data)
        except (TlnbError, traitlets.TraitError) as error:
            self.failure, self.error = error, in_words(error)
            self.send_state(list(sync_data))

    def actions(self) -> dict[str, Action]:
        """What the page may ask for, by name; the values of the message are keyword arguments."""
        return {}

    def long_actions(self) -> dict[str, Action]:
        """Likewise; these take long, and run where cells run, so that Jupyter's own stop button ends them."""
        return {}

    def act(self, action: str, /, **values: Any) -> None:
        """Do an action; whatever goes wrong is shown, and kept in ``failure``."""
        if self.disabled and action not in LOOKING:
            self.failure = NotReady("this view is disabled")
            self.error = in_words(self.failure)
            return
        long = self.long_actions()
        if action not in long:
            self._do(self.actions()[action], values)
        elif self._loop is None or threading.current_thread() is threading.main_thread():
            self._do_long(action, values)
        else:
            if LONG[action]:  # what comes many times a second does not say so
                self.doing = f"{LONG[action]}: waits for the cell that is running"
            self._loop.call_soon_threadsafe(self._do_long, action, values)

    def _do_long(self, action: str, values: Mapping[str, Any]) -> None:
        try:
            with interruptible():
                self.doing = f"{LONG[action]} …" if LONG[action] else ""
                self._do(self.long_actions()[action], values)
        except KeyboardInterrupt as error:
            # It came before the action or after it. It must not go on: it would end the kernel's event loop.
            self.failure, self.error = error, in_words(error)
        finally:
            self.doing = ""

    def _do(self, action: Action, values: Mapping[str, Any]) -> None:
        self.failure, self.error = None, ""
        try:
            action(**values)
        except TlnbError as error:
            self.failure = error
        except KeyboardInterrupt as error:
            self.failure = error
        except Exception as error:
            # A mistake of ours or of the user's own code: the page has the line, the log the traceback.
            _log.exception("an action of %s failed", type(self).__name__)
            self.failure = error
        self.error = "" if self.failure is None else in_words(self.failure)

    def teach(self, magic: str) -> None:
        """Show the magics that would have done the same."""
        self.magic = magic

    def _on_message(self, _: object, content: Any, buffers: object = None) -> None:
        if not isinstance(content, dict) or "do" not in content:
            return
        values = {key: value for key, value in content.items() if key not in ("do", "id")}
        if buffers:
            values["buffers"] = buffers
        try:
            if content["do"] in {*self.actions(), *self.long_actions()}:
                self.act(str(content["do"]), **values)
            else:
                self.error = f"{type(self).__name__} has no action {content['do']!r}"
        finally:
            self.send({"done": content.get("id")})

    def _on_busy(self, change: Any) -> None:
        self.busy = change["new"]

    def __repr__(self) -> str:
        said = self.said()
        return f"<{type(self).__name__}{': ' if said else ''}{said}>"

    def said(self) -> str:
        """What the view shows, in a few words, for places that cannot show it."""
        return ""


def in_words(error: BaseException) -> str:
    """One line for the page."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; nothing is lost"
    text = str(error).strip()
    return text if isinstance(error, TlnbError | traitlets.TraitError) else f"{type(error).__name__}: {text}"


@contextmanager
def interruptible() -> Iterator[None]:
    """Inside, an interrupt is a ``KeyboardInterrupt``; between cells, a kernel lets interrupts pass unheard."""
    before = signal.getsignal(signal.SIGINT)
    if callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop of the thread that runs cells, when called from there; else None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
