"""Which view belongs to which answer, and how it comes into a notebook beside its static twin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tlnb.display.progress import Listener, default_listener, live

VIEW = "application/vnd.jupyter.widget-view+json"
# Named, not imported: loading the extension need not wait for torch.
ANSWERS = {
    ("tlnb.session.answers", "LayerTable"): "_layers",
    ("tlnb.session.answers", "Change"): "_change",
    ("tlnb.session.answers", "PanelCard"): "_panel",
    ("tlnb.engine.training.lr_curve", "LRCurve"): "_curve",
    ("tlnb.engine.training.history", "Run"): "_run",
}


class Showing:
    """Shows answers of a shell's session with their views, where somebody can see them.

    The view is an output of its own, right before the answer's. A page that has the view hides the answer's
    own look, its static twin; one that has not, or no more, shows the twin. In one output, JupyterLab would
    show a line of error in place of the twin after the kernel has gone.

    What trains has its twin in a slot below the view while it trains, so that it stays whatever happens: an
    error, a semicolon, the end of the kernel. Where the answer is shown too, it takes the slot's place.

    Args:
        shell: the IPython shell.
        session: gives the session; not called before there is one.
        started: whether there is one.
    """

    def __init__(self, shell: Any, session: Callable[[], Any], started: Callable[[], bool]):
        self.shell, self._session, self._started = shell, session, started
        self._toggles: Any = None
        self._probe: Any = None
        self._trains: tuple[str, Any] = "", None  # the last cell with a view of training, and that view

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
            if not possible:
                return {}
            html, view = getattr(self, method)(answer)
            if view is not None:
                from tlnb.widgets.twins import twin

                html = twin(html, view.key)
            return {"text/plain": repr(answer), "text/html": html}

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

        return CellProgress(self._training_view, self._test_view, show)

    def _training_view(self) -> Any:
        if not self._seen:
            return None
        from tlnb.widgets.training_part import TrainingView

        view = TrainingView(self._session(), at_once=self._at_once)
        self.publish(view, with_slot=True)
        self._trains = self._cell, view
        return view

    def _test_view(self) -> Any:
        """A view of a range test in a cell; its output is empty when that has ended."""
        if not self._seen:
            return None
        from tlnb.widgets.slot import Slot
        from tlnb.widgets.training_part import TrainingView

        session, slot = self._session(), Slot(self.shell.display_pub.publish)
        view = TrainingView(session, at_once=self._at_once)

        def ended(change: Any) -> None:
            if not change["new"]:
                session.unobserve(ended, "busy")
                slot.clear()
                view.close()

        slot.show(bundle(view))
        session.observe(ended, "busy")
        return view

    @property
    def _seen(self) -> bool:
        return self._answered and live(self.shell)

    @property
    def _cell(self) -> str:
        """The run of the cell that is under way."""
        return str(self.shell.get_parent().get("header", {}).get("msg_id", ""))

    @property
    def _answered(self) -> bool:
        return self._probe is not None and self._probe.answered

    # ---------------------------------------------------------------- one for each kind of answer

    # Each gives the answer as HTML, and the view of which that is the twin, or None.

    def _layers(self, table: Any) -> tuple[str, Any]:
        from tlnb.widgets import twins

        return twins.strip(table) + table._repr_html_(), self._show_toggles(table)

    def _change(self, change: Any) -> tuple[str, Any]:
        from tlnb.widgets import twins

        curve, table = change.curve, change.table
        view = self._show_toggles(table) if curve is None else self._show_picker(curve)
        return change._repr_html_() + twins.strip(table), view

    def _curve(self, curve: Any) -> tuple[str, Any]:
        from tlnb.session.answers import curve_html

        return curve_html(curve), self._show_picker(curve)

    def _run(self, run: Any) -> tuple[str, Any]:
        from tlnb.widgets import twins

        cell, view = self._trains
        if view is None or cell != self._cell or view.listener.run is not run:
            return twins.run(run), None
        # Its view has been there since the run began.
        view.slot.clear()
        self._trains = "", None
        return twins.run(run), view

    def _panel(self, card: Any) -> tuple[str, Any]:
        from tlnb.widgets.panel import Panel

        panel = Panel(self._session(), at_once=self._at_once)
        self.publish(panel, with_slot=True)
        return "<div>what was clicked in the panel stands above</div>", panel

    def _show_toggles(self, table: Any) -> Any:
        session = self._session()
        if session.view.layers is None or tuple(session.layers) != tuple(table):
            return None  # an older answer, or another session's
        from tlnb.widgets.layer_toggles import LayerToggles

        if self._toggles is None or self._toggles.session is not session:
            self._toggles = LayerToggles(session)
        self.publish(self._toggles)
        return self._toggles

    def _show_picker(self, curve: Any) -> Any:
        session = self._session()
        if session.view.layers is None or session.view.data is None or not curve.rates:
            return None
        from tlnb.widgets.lr_picker import LRPicker

        picker = LRPicker(session, curve, at_once=self._at_once)
        self.publish(picker, with_slot=True)
        return picker

    @property
    def _at_once(self) -> bool:
        return self._probe is not None and self._probe.at_once

    def publish(self, view: Any, *, with_slot: bool = False) -> None:
        """Put a view into the notebook.

        Args:
            view: the view.
            with_slot: an output for its static twin below it.
        """
        self.shell.display_pub.publish(data=bundle(view), metadata={})
        if with_slot:
            from tlnb.widgets.slot import Slot
            from tlnb.widgets.twins import twin

            view.slot = Slot(self.shell.display_pub.publish, twin("", view.key))
            view.keep()


def bundle(view: Any) -> dict[str, Any]:
    """A view as what a notebook's output holds."""
    return {VIEW: {"version_major": 2, "version_minor": 0, "model_id": view.model_id}}
