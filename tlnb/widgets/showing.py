"""Which view belongs to which answer, and how it comes into a notebook beside its static twin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tlnb.progress import Listener, default_listener, live

VIEW = "application/vnd.jupyter.widget-view+json"
# Named, not imported: loading the extension need not wait for torch.
ANSWERS = {
    ("tlnb.answers", "LayerTable"): "_layers",
    ("tlnb.answers", "Change"): "_change",
    ("tlnb.answers", "PanelCard"): "_panel",
    ("tlnb.engine.rates.lr_curve", "LRCurve"): "_curve",
    ("tlnb.engine.training.history", "Run"): "_run",
}


class Showing:
    """Shows answers of a shell's session with their views, where somebody can see them.

    The view is an output of its own, right before the answer's. A page that has the view hides the answer's
    own look, its static twin; one that has not, or no more, shows the twin. In one output, JupyterLab would
    show a line of error in place of the twin after the kernel has gone.

    Args:
        shell: the IPython shell.
        session: gives the session; not called before there is one.
        started: whether there is one.
    """

    def __init__(self, shell: Any, session: Callable[[], Any], started: Callable[[], bool]):
        self.shell, self._session, self._started = shell, session, started
        self._toggles: Any = None
        self._probe: Any = None

    # ---------------------------------------------------------------- register

    def install(self) -> None:
        """Have the shell show answers by this object, and ask whether a page answers."""
        for (module, name), method in ANSWERS.items():
            self._formatter.for_type_by_name(module, name, self._shower(method))
        if live(self.shell) and hasattr(self.shell, "kernel") and self._probe is None:
            from tlnb.widgets.front import Probe

            self._probe = Probe()

    def remove(self) -> None:
        """Have the shell show answers as they show themselves."""
        for module, name in ANSWERS:
            self._formatter.pop(f"{module}.{name}", None)

    @property
    def _formatter(self) -> Any:
        return self.shell.display_formatter.mimebundle_formatter

    def _shower(self, method: str) -> Callable[..., Any]:
        def show(answer: Any, include: Any = None, exclude: Any = None) -> dict[str, Any]:
            possible = live(self.shell) and hasattr(self.shell, "kernel") and self._started()
            html = getattr(self, method)(answer) if possible else None
            if html is None:
                return {}
            from tlnb.widgets.twins import twin

            return {"text/plain": repr(answer), "text/html": twin(html)}

        return show

    # ---------------------------------------------------------------- training in a cell

    def listener(self) -> Listener:
        """What shows the training of a session in this shell."""
        if not (live(self.shell) and hasattr(self.shell, "kernel")):
            return default_listener(self.shell)
        from IPython.display import display

        from tlnb.widgets.progress import CellProgress

        def show(curve: Any) -> None:
            # Not by the shell's formatters, which would add a picker for each stage.
            display({"text/plain": repr(curve), "image/png": curve._repr_png_()}, raw=True)

        return CellProgress(self._training_view, show)

    def _training_view(self) -> Any:
        if not (self._answered and live(self.shell)):
            return None
        from tlnb.widgets.training_part import TrainingView

        view = TrainingView(self._session(), at_once=self._probe.at_once)
        self.publish(view)
        return view

    @property
    def _answered(self) -> bool:
        return self._probe is not None and self._probe.answered

    # ---------------------------------------------------------------- one for each kind of answer

    def _layers(self, table: Any) -> str:
        from tlnb.widgets import twins

        self._show_toggles(table)
        return twins.strip(table) + table._repr_html_()

    def _change(self, change: Any) -> str:
        from tlnb.widgets import twins

        if change.curve is not None:
            self._show_picker(change.curve)
        else:
            self._show_toggles(change.table)
        return change._repr_html_() + twins.strip(change.table)

    def _curve(self, curve: Any) -> str:
        from tlnb.answers import curve_html

        self._show_picker(curve)
        return curve_html(curve)

    def _run(self, run: Any) -> str:
        from tlnb.widgets import twins

        return twins.run(run)  # its view has been there since the run began

    def _panel(self, card: Any) -> str:
        from tlnb.widgets.panel import Panel

        self.publish(Panel(self._session(), at_once=self._at_once))
        return card._repr_html_()

    def _show_toggles(self, table: Any) -> None:
        session = self._session()
        if session._layers is None or tuple(session.layers) != tuple(table):
            return  # an older answer, or another session's
        from tlnb.widgets.layer_toggles import LayerToggles

        if self._toggles is None or self._toggles.session is not session:
            self._toggles = LayerToggles(session)
        self.publish(self._toggles)

    def _show_picker(self, curve: Any) -> None:
        session = self._session()
        if session._layers is None or session._data is None or not curve.rates:
            return
        from tlnb.widgets.lr_picker import LRPicker

        self.publish(LRPicker(session, curve, at_once=self._at_once))

    @property
    def _at_once(self) -> bool:
        return self._probe is not None and self._probe.at_once

    def publish(self, view: Any) -> None:
        """Put a view into the notebook."""
        data = {VIEW: {"version_major": 2, "version_minor": 0, "model_id": view.model_id}}
        self.shell.display_pub.publish(data=data, metadata={})
