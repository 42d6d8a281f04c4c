"""Which view belongs to which answer, and how it comes into a notebook beside its static twin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tlnb.progress import live
from tlnb.widgets import twins

VIEW = "application/vnd.jupyter.widget-view+json"
# Named, not imported: loading the extension need not wait for torch.
ANSWERS = {
    ("tlnb.answers", "LayerTable"): "_layers",
    ("tlnb.answers", "Change"): "_change",
    ("tlnb.engine.lr_curve", "LRCurve"): "_curve",
    ("tlnb.engine.history", "Run"): "_run",
}


class Showing:
    """Shows answers of a shell's session with their views, where somebody can see them.

    In front of an answer's own output goes an output with the view alone. A front end that cannot show it, now
    or later, leaves that one out; one that can hides the twin, by a rule in the view's style.

    Args:
        shell: the IPython shell.
        session: gives the session; not called before there is one.
        started: whether there is one.
    """

    def __init__(self, shell: Any, session: Callable[[], Any], started: Callable[[], bool]):
        self.shell, self._session, self._started = shell, session, started
        self._toggles: Any = None

    # ---------------------------------------------------------------- register

    def install(self) -> None:
        """Have the shell show answers by this object."""
        for (module, name), method in ANSWERS.items():
            self._formatter.for_type_by_name(module, name, self._shower(method))

    def remove(self) -> None:
        """Have the shell show answers as they show themselves."""
        for module, name in ANSWERS:
            self._formatter.pop(f"{module}.{name}", None)

    @property
    def _formatter(self) -> Any:
        return self.shell.display_formatter.mimebundle_formatter

    def _shower(self, method: str) -> Callable[..., Any]:
        def show(answer: Any, include: Any = None, exclude: Any = None) -> dict[str, Any] | None:
            return getattr(self, method)(answer) if live(self.shell) and self._started() else None

        return show

    # ---------------------------------------------------------------- one for each kind of answer

    def _layers(self, table: Any) -> dict[str, Any]:
        self._show_toggles(table)
        return _bundle(table, twins.strip(table) + table._repr_html_())

    def _change(self, change: Any) -> dict[str, Any]:
        self._show_toggles(change.table)
        return _bundle(change, change._repr_html_() + twins.strip(change.table))

    def _show_toggles(self, table: Any) -> None:
        session = self._session()
        if session._layers is None or tuple(session.layers) != tuple(table):
            return  # an older answer, or another session's
        from tlnb.widgets.layer_toggles import LayerToggles

        if self._toggles is None or self._toggles.session is not session:
            self._toggles = LayerToggles(session)
        self.publish(self._toggles)

    def publish(self, view: Any) -> None:
        """Put a view into the notebook."""
        data = {VIEW: {"version_major": 2, "version_minor": 0, "model_id": view.model_id}}
        self.shell.display_pub.publish(data=data, metadata={})


def _bundle(answer: Any, html: str) -> dict[str, Any]:
    return {"text/plain": repr(answer), "text/html": twins.twin(html)}
