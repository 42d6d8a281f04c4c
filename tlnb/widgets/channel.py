"""How a click reaches the kernel while a cell is running."""

from __future__ import annotations

from typing import Any


def follow_front_end(channel: Any) -> bool:
    """Have a comm's messages handled on the subshell that the front end chose for them.

    A kernel hands messages of widgets to the thread that runs cells, so that a click waits until the cell has
    ended. JupyterLab sends them to a subshell, a thread of its own, but ipykernel 7 sends them back to where
    the widget was last written from. Its rule for that is private; where it is missing, nothing is changed.

    Returns whether the rule was there.
    """
    if not hasattr(channel, "_reply_subshell_for"):
        return False
    channel._reply_subshell_for = lambda data, chosen: chosen
    return True
