"""The session: one model, its data, its plan and its history. Magics and widgets act on it alone.

Each part of what it can do stands in a file of its own: ``network`` (load, head, layers, freeze),
``datasets``, ``train`` (find a rate, train, run a plan), ``saving`` (save, resume, go on, undo) and ``standing``
(status, history); ``keeping`` holds what is saved, and ``state`` is what they share.
"""

from __future__ import annotations

from collections.abc import Iterable

from tlnb.engine.switches import shielded
from tlnb.progress import LineProgress
from tlnb.session.advising import Advising
from tlnb.session.clicking import Clicking
from tlnb.session.exporting import Exporting

__all__ = ["Session"]


@shielded
class Session(Clicking, Advising, Exporting):
    """One model, its data, its plan and its history.

    Args:
        listeners: objects that are told what happens (``on_stage_start``, ``on_epoch`` …); a line an epoch is
            written where none are given, and nothing for an empty list.
    """

    def __init__(self, listeners: Iterable[object] | None = None):
        super().__init__([LineProgress()] if listeners is None else listeners)
