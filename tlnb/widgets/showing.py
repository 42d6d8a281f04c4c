"""Which view belongs to which answer, and how it comes into a notebook beside its static fallback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from tlnb.display.progress import Listener, default_listener, live

VIEW = "application/vnd.jupyter.widget-view+json"
# Named, not imported: loading the extension need not wait for torch.
ANSWERS = {
    ("tlnb.session.answers", "LayerTable"): "_layers",
    ("tlnb.session.answers", "Change"): "_change",
    ("tlnb.session.answers", "PanelCard"): "_panel",
    ("tlnb.engine.training.lr_curve", "LRCurve"): "_curve",
    ("tlnb.engine.training.history", "Run"): "_run",
    ("tlnb.engine.results.feature_map", "FeatureMap"): "_map",
    ("tlnb.session.suspects", "Suspects"): "_suspects",
}


@dataclass(frozen=True)
class Look:
    """How an answer looks.

    Args:
        fallback: HTML that a page shows which has no view, or no more.
        beside: HTML that every page shows, below it.
        view: of which ``fallback`` is the static fallback; None where there is none.
    """

    fallback: str
    beside: str = ""
    view: Any = None

    @property
    def html(self) -> str:
        """All of it, the fallback marked as what it is."""
        from tlnb.widgets.fallback import marked

        return (self.fallback if self.view is None else marked(self.fallback, self.view.key)) + self.beside


class Showing:
    """Shows answers of sessions with their views, where somebody can see them.

    The view is an output of its own, right before the answer's. A page that has the view hides the answer's
    own look, its static fallback; one that has not, or no more, shows the fallback. In one output, JupyterLab would
    show a line of error in place of the fallback after the kernel has gone. Where nobody is there, as under nbclient
    and papermill, the fallback alone is written.

    A view acts on the session that gave the answer. Of the strips of layers of one session, the newest is live; an
    older one becomes its fallback, which shows the layers as they were there.

    What trains has its fallback in a slot below the view while it trains, so that it stays whatever happens: an
    error, a semicolon, the end of the kernel. Where the answer is shown too, it takes the slot's place.

    Args:
        shell: the IPython shell.
    """

    def __init__(self, shell: Any):
        self.shell = shell
        self._strips: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()  # the live one of each session
        self._probe: Any = None
        self._trains: tuple[str, Any] = "", None  # the last cell with a view of training, and that view
        self._unseen: Any = None  # what has shown a run where nobody is there
        self._passing: list[Callable[[], None]] = []  # what ends each view of something that takes a while

    # ---------------------------------------------------------------- register

    def install(self) -> None:
        """Have the shell show answers by this object, and ask whether a page answers."""
        for (module, name), method in ANSWERS.items():
            self._formatter.for_type_by_name(module, name, self._shower(method))
        if not self._kernel:
            return
        if live(self.shell) and self._probe is None:
            from tlnb.widgets.front import Probe

            self._probe = Probe()
        self._forget_events()
        self.shell.events.register("post_run_cell", self._cell_has_run)

    def remove(self) -> None:
        """Have the shell show answers as they show themselves."""
        for module, name in ANSWERS:
            self._formatter.pop(f"{module}.{name}", None)
        self._forget_events()

    def _forget_events(self) -> None:
        if self._cell_has_run in self.shell.events.callbacks["post_run_cell"]:
            self.shell.events.unregister("post_run_cell", self._cell_has_run)

    @property
    def _formatter(self) -> Any:
        return self.shell.display_formatter.mimebundle_formatter

    def _shower(self, method: str) -> Callable[..., Any]:
        def show(answer: Any, include: Any = None, exclude: Any = None) -> dict[str, Any]:
            if not self._kernel:
                return {}
            return {"text/plain": repr(answer), "text/html": getattr(self, method)(answer).html}

        return show

    @property
    def _kernel(self) -> bool:
        return hasattr(self.shell, "kernel") and hasattr(self.shell, "get_parent")

    @contextmanager
    def waiting(self, words: str) -> Iterator[None]:
        """Inside, a line says what is waited for; it is gone afterwards."""
        if not (self._kernel and live(self.shell)):
            yield
            return
        from tlnb.widgets.slot import Slot

        slot = Slot(self.shell.display_pub.publish)
        slot.put(words, f"<div style='opacity:.7'>{words}</div>")
        try:
            yield
        finally:
            slot.clear()

    # ---------------------------------------------------------------- training in a cell

    def listener(self, session: Any) -> Listener:
        """What shows the training of a session in this shell."""
        if not self._kernel:
            return default_listener(self.shell)
        from tlnb.widgets.progress import CellProgress, UnseenProgress

        if not live(self.shell):
            self._unseen = UnseenProgress(session)
            return self._unseen
        from IPython.display import display

        def show(curve: Any) -> None:
            # Not by the shell's formatters, which would add a picker for each stage.
            display({"text/plain": repr(curve), "image/png": curve._repr_png_()}, raw=True)

        return CellProgress(lambda: self._training_view(session), lambda: self._passing_view(session), show)

    def _training_view(self, session: Any) -> Any:
        if not self._seen:
            return None
        from tlnb.widgets.training_part import TrainingView

        view = TrainingView(session, at_once=self._at_once, follows=False)
        self.publish(view, with_slot=True)
        self._trains = self._cell, view
        return view

    def _passing_view(self, session: Any) -> Any:
        """A view of something that takes a while in a cell; its output is empty when that has ended."""
        if not self._seen:
            return None
        from tlnb.widgets.slot import Slot
        from tlnb.widgets.training_part import TrainingView

        slot = Slot(self.shell.display_pub.publish)
        view = TrainingView(session, at_once=self._at_once, follows=False)

        def end() -> None:
            session.unobserve(changed, "busy")
            slot.clear()
            view.close()

        def changed(change: Any) -> None:
            if not change["new"] and end in self._passing:
                self._passing.remove(end)
                end()

        slot.show(bundle(view))
        self._passing.append(end)
        session.observe(changed, "busy")
        return view

    def _cell_has_run(self, result: Any = None) -> None:
        """What takes a while has ended; a run that nobody saw, and that is no cell's answer, leaves its fallback."""
        while self._passing:  # not all of it makes the session busy: the check of files does not
            self._passing.pop()()
        found = self._unseen.take() if self._unseen is not None else None
        if found is not None:
            from tlnb.widgets import fallback

            run, words = found
            data = {"text/plain": fallback.run_text(run, words), "text/html": fallback.run(run, words)}
            self.shell.display_pub.publish(data=data, metadata={})

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

    def _owner(self, answer: Any) -> Any:
        """The session that gave the answer, where a view of it could be seen; else None."""
        from tlnb.session.answers import owner_of

        return owner_of(answer) if live(self.shell) else None

    def _layers(self, table: Any) -> Look:
        from tlnb.widgets import fallback

        return Look(fallback.strip(table), fallback.layers(table), self._show_strip(table))

    def _change(self, change: Any) -> Look:
        from tlnb.session.answers import Lines, curve_html
        from tlnb.widgets import fallback

        said, strip, curve = Lines._repr_html_(change), fallback.strip(change.table), change.curve
        if curve is None:
            return Look(strip, said, self._show_strip(change.table))
        return Look(strip + curve_html(curve), said, self._show_picker(curve))

    def _curve(self, curve: Any) -> Look:
        from tlnb.session.answers import curve_html

        return Look(curve_html(curve), "", self._show_picker(curve))

    def _run(self, run: Any) -> Look:
        from tlnb.widgets import fallback

        if self._unseen is not None:
            self._unseen.is_shown(run)
        cell, view = self._trains
        if view is None or cell != self._cell or view.listener.run is not run:
            return Look(fallback.run(run))
        # Its view has been there since the run began.
        view.slot.clear()
        self._trains = "", None
        return Look(fallback.run(run), "", view)

    def _panel(self, card: Any) -> Look:
        session = self._owner(card)
        if session is None:
            return Look(card._repr_html_())
        from tlnb.widgets.panel import Panel

        panel = Panel(session, at_once=self._at_once)
        self.publish(panel, with_slot=True)
        return Look("<div>above: the panel as it was left, with the magics that do the same</div>", "", panel)

    def _suspects(self, answer: Any) -> Look:
        session = self._owner(answer)
        if session is None or not len(answer):
            return Look(answer._repr_html_())
        from tlnb.widgets.suspects import Suspects

        view = Suspects(session, answer)
        self.publish(view)
        return Look(answer._repr_html_(), "", view)

    def _map(self, answer: Any) -> Look:
        session = self._owner(answer)
        if session is None:
            return Look(answer._repr_html_())
        from tlnb.engine.data.mending import numbers_of
        from tlnb.engine.results.feature_map import PARTS
        from tlnb.widgets.map import Map

        def drop(chosen: Any) -> str:
            """Leave the chosen samples out of training and validation, until %tl_clean --undo."""
            places = zip(map(PARTS.index, chosen.parts), chosen.indexes, strict=True)
            numbers = numbers_of(session.view.need_data(), places)
            session.clean(drop=numbers)
            return f"%tl_clean --drop {','.join(map(str, numbers))}"

        view = Map(
            session,
            answer,
            put=lambda name, value: self.shell.push({name: value}),
            to={"Drop from the data": drop},
        )
        self.publish(view)
        return Look(answer._repr_html_(), "", view)

    def _show_strip(self, table: Any) -> Any:
        session = self._owner(table)
        if session is None or session.view.layers is None or tuple(session.layers) != tuple(table):
            return None  # an older answer
        from tlnb.widgets.layer_toggles import LayerToggles

        before = self._strips.pop(session, None)
        if before is not None:
            before.retire()
        strip = self._strips[session] = LayerToggles(session)
        network = session.view.loaded

        def loaded(_: Any) -> None:
            if session.view.loaded is not network:
                strip.retire()

        strip.follow(loaded, ["revision"])
        self.publish(strip)
        return strip

    def _show_picker(self, curve: Any) -> Any:
        session = self._owner(curve)
        if session is None or session.view.layers is None or session.view.data is None or not curve.rates:
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
            with_slot: an output for its static fallback below it.
        """
        self.shell.display_pub.publish(data=bundle(view), metadata={})
        if with_slot:
            from tlnb.widgets.fallback import marked
            from tlnb.widgets.slot import Slot

            view.slot = Slot(self.shell.display_pub.publish, marked("", view.key))
            view.keep()


def bundle(view: Any) -> dict[str, Any]:
    """A view as what a notebook's output holds."""
    return {VIEW: {"version_major": 2, "version_minor": 0, "model_id": view.model_id}}
