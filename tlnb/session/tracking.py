"""Tracking a session: a listener that tells a tracker of experiments what happens, begun and ended by a call."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from tlnb.display.tables import printable
from tlnb.errors import NotReady, TlnbError
from tlnb.session.answers import Lines
from tlnb.session.exporting import script
from tlnb.session.tools import Tools
from tlnb.session.view import SessionView
from tlnb.tracking.listener import Tracking
from tlnb.tracking.post import Post
from tlnb.tracking.tracker import OFF, opener
from tlnb.version import __version__

OPENING = 20.0
"""Seconds until a tracker that does not open is left to itself; it may still open later, and gets what waits."""

CLOSING = 20.0
"""Seconds that ``off`` waits for what is on its way."""


def track(
    tools: Tools, view: Callable[[], SessionView], tracker: str | None, where: str | os.PathLike[str] | None
) -> Lines:
    """Begin, end or show tracking; see ``Session.track``."""
    under_way = _under_way(tools)
    if tracker is None:
        return Lines(*(_stands(under_way) if under_way else [_NONE]))
    if isinstance(tracker, str) and tracker == OFF:
        return _end(tools, under_way) if under_way else Lines(_NONE)
    post = Post(tracker, opener(tracker, where))
    try:
        _wait_until_open(tools, post)
    except BaseException:
        post.close(0)
        raise
    begun = Tracking(post, tools.log, lambda: _script(view()), lambda: _about(view()))
    ended = _end(tools, under_way).lines if under_way else ()
    tools.listeners.append(begun)
    stages = view().state.all_stages
    begun.catch_up(stages)
    told = f"; what was trained already was sent: {begun.step} epochs" if begun.step else ""
    place = printable(post.where) or "not open yet, what happens meanwhile is sent then"
    return Lines(*ended, f"tracking to {tracker}: {place}{told}")


_NONE = "nothing is tracked; %tl_track tensorboard begins it"


def _under_way(tools: Tools) -> Tracking | None:
    return next((one for one in tools.listeners if isinstance(one, Tracking)), None)


def _wait_until_open(tools: Tools, post: Post) -> None:
    """Wait a little, so that a wrong address is said at once.

    Raises:
        NotReady: it cannot be opened.
    """
    end = time.monotonic() + OPENING
    while not post.opened.wait(0.05) and time.monotonic() < end:
        tools.interrupts.check()
    if post.dead:
        raise NotReady(f"cannot be tracked: {post.trouble}")


def _end(tools: Tools, tracking: Tracking) -> Lines:
    """Take the listener away, and wait for what is on its way."""
    tools.listeners.remove(tracking)
    post = tracking.post
    waited = post.close(CLOSING, tools.interrupts.check)
    late = "" if waited else f"; {post.waiting} notes are left behind, since it does not take them"
    return Lines(f"{post.name} is not told any more: {post.arrived} notes arrived{_lost(post)}{late}")


def _stands(tracking: Tracking) -> list[str]:
    post = tracking.post
    waiting = f", {post.waiting} on their way" if post.waiting else ""
    lines = [f"tracking to {post.name}: {printable(post.where) or 'not open yet'}"]
    return [*lines, f"{post.arrived} notes arrived{waiting}{_lost(post)}"]


def _lost(post: Post) -> str:
    return f", {post.lost} did not ({printable(post.trouble)})" if post.lost else ""


def _script(view: SessionView) -> str:
    try:
        return script(view, None, with_weights=False, network="").text
    except TlnbError as error:
        return f"# no script: {error}\n"


def _about(view: SessionView) -> dict[str, str]:
    state = view.state
    found = {"tlnb": __version__, "device": str(view.device)}
    if state.loaded is not None:
        found |= {"network": state.loaded.name, "weights": state.loaded.weights}
    if state.data is not None:
        found |= {"data": state.data.name, "data_fingerprint": state.data_fingerprint}
    return found
