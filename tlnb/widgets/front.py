"""Whether a front end answers, and whether it can be heard while a cell is running."""

from __future__ import annotations

import threading
from typing import Any

import anywidget
import traitlets

from tlnb.widgets.channel import follow_front_end

_HELLO = """
// The first words may go the slow way, behind the cells that are waiting to run: the page asks for a way
// of its own only when it first speaks.
const AFTER = [0, 250, 1000, 2000, 4000, 8000];
export default {
  initialize({ model }) {
    const timers = AFTER.map((wait) => setTimeout(() => model.send({ hello: true }), wait));
    const stop = () => { if (model.get("heard")) timers.forEach(clearTimeout); };
    model.on("change:heard", stop);
    return () => timers.forEach(clearTimeout);
  },
};
"""


class Probe(anywidget.AnyWidget):
    """A widget that is never shown. A page that can run views says so as soon as it hears of it.

    Attributes:
        answered: a page has answered.
        at_once: its answer did not wait for the thread that runs cells, so a click while one runs will not
            either.
        heard: tells the page that it was heard at once.
    """

    _esm = _HELLO
    heard = traitlets.Bool().tag(sync=True)

    def __init__(self) -> None:
        super().__init__()
        self.answered = self.at_once = False
        self.on_msg(self._on_answer)
        if self.comm is not None:
            follow_front_end(self.comm)

    def _on_answer(self, _: object, content: Any, buffers: object = None) -> None:
        if isinstance(content, dict) and content.get("hello"):
            self.answered = True
            self.at_once = self.at_once or threading.current_thread() is not threading.main_thread()
            self.heard = self.at_once
