"""The session as the magics, the widgets and Python see it: each call is one change of its state, or none.

It is one file, and longer than others, because it is one list: every name that ``tl.`` offers, in the order of the
work, with the text that its help shows. What a call does stands elsewhere, in the parts that the session is composed of
and in the modules that it calls; a method here takes the turn, opens the change, and hands over. Grouped as the magics
are, the methods would need a base class for each group, or be put on the class from outside, and a reader of
``tl.head`` would look for it in five files.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

import numpy as np
import torch
import traitlets
from torch import nn

import tlnb.session.advising as advising
import tlnb.session.choosing as choosing
import tlnb.session.cleaning as cleaning
import tlnb.session.clustering as clustering
import tlnb.session.exporting as exporting
import tlnb.session.forgetting as old_knowledge
import tlnb.session.judging as judging
import tlnb.session.mapping as mapping
import tlnb.session.publishing as publishing
import tlnb.session.reports as reports
import tlnb.session.testing as testing
import tlnb.session.tracking as tracking
from tlnb.display.progress import LineProgress
from tlnb.display.tables import Table, printable
from tlnb.engine.advice.advice import Advice
from tlnb.engine.advice.sweep import Sweep
from tlnb.engine.core.arguments import in_letters, others_code, path_of, shown, takes
from tlnb.engine.core.interrupts import StopRequest
from tlnb.engine.core.machine import home
from tlnb.engine.core.switches import usual_switches
from tlnb.engine.data import load as loading
from tlnb.engine.data.grid import PictureGrid
from tlnb.engine.data.groups import NEAR
from tlnb.engine.data.places import Places
from tlnb.engine.data.request import SourceRequest, takes_request
from tlnb.engine.data.texts import TextTable
from tlnb.engine.doctor import examine
from tlnb.engine.export.app import NETWORK
from tlnb.engine.export.app import WORD as APP
from tlnb.engine.export.script.shown import Script
from tlnb.engine.features.cache import FeatureCache
from tlnb.engine.features.planner import FeaturePlanner
from tlnb.engine.forgetting.blend import Blend
from tlnb.engine.forgetting.measure import Forgetting
from tlnb.engine.models.loaded import LoadedModel
from tlnb.engine.results.bootstrap import Difference
from tlnb.engine.results.choice import Choice
from tlnb.engine.results.compare import compare
from tlnb.engine.results.cross_validation import CrossValidation
from tlnb.engine.results.feature_map import FeatureMap
from tlnb.engine.results.novelty import FALSE_ALARMS
from tlnb.engine.results.predictions import Predictions
from tlnb.engine.results.results import Results
from tlnb.engine.results.sureness import SURE
from tlnb.engine.results.test_result import TestResult
from tlnb.engine.training import lr_finder
from tlnb.engine.training.curves import Comparison
from tlnb.engine.training.history import History, Run
from tlnb.engine.training.lr_curve import LRCurve
from tlnb.engine.training.records import PlanProgress, show_metric
from tlnb.engine.training.stage import read_keys
from tlnb.engine.training.trainer import Step
from tlnb.errors import BadArguments, DataError, ExportError, Interrupted, NotReady, TrainingError
from tlnb.session.answers import Change, LayerTable, Lines, PanelCard, signed
from tlnb.session.autosave import Autosave
from tlnb.session.change import Store
from tlnb.session.checkpoints import Checkpoints, age_of
from tlnb.session.heads import Heads, heard_by
from tlnb.session.hooks import Hook
from tlnb.session.interrupts import Interrupts, bookkeeping
from tlnb.session.likeness import features_of
from tlnb.session.network import Network
from tlnb.session.old_task import OldTask
from tlnb.session.recorder import Recorder
from tlnb.session.state import Importance, SessionState, Split
from tlnb.session.suspects import Suspects
from tlnb.session.tools import Tools
from tlnb.session.training import Training
from tlnb.session.undo import Undo
from tlnb.session.validating import Validating
from tlnb.session.view import SessionView


class _Flags(traitlets.Tuple):
    """A flag for each layer; what is no row of flags is one line."""

    def validate(self, session: Any, value: Any) -> Any:
        if isinstance(value, tuple) and all(type(flag) is bool for flag in value):
            return super().validate(session, value)
        with others_code(value, BadArguments):
            flags = (
                tuple(value) if isinstance(value, Iterable) and not isinstance(value, str | bytes) else None
            )
            if flags is None or not all(isinstance(flag, bool | int | np.bool_) for flag in flags):
                raise BadArguments(
                    f"frozen takes a flag for each layer, such as (True, False), not {shown(value)}"
                )
        return super().validate(session, tuple(map(bool, flags)))


class Session(traitlets.HasTraits):
    """One model, its data, its plan and its history: widgets are views of it, magics and methods change it.

    A call that fails changes nothing. While a call works, those from other threads are refused.

    Args:
        listeners: objects that are told what happens (``on_stage_start``, ``on_epoch`` …); a line an epoch is
            written where none are given, and nothing for an empty list.

    Attributes:
        frozen: for each layer, whether it stays fixed; setting it changes the model at once.
        revision: goes up when there is another network, other layers or other data.
        busy: what the session is doing in words, such as ``training``; empty while it is at rest.
        stop_request: of the run that is under way, by which another thread may stop or pause it; or None.
    """

    frozen: tuple[bool, ...] = _Flags(help="for each layer, whether it stays fixed")  # type: ignore[assignment]
    revision: int = traitlets.Int(help="counts changes of network, layers and data")  # type: ignore[assignment]
    busy: str = traitlets.Unicode(help="what the session is doing; empty at rest")  # type: ignore[assignment]

    def __init__(self, listeners: Iterable[object] | None = None):
        super().__init__()
        self.stop_request: StopRequest | None = None
        self._turn, self._owner = (
            threading.Lock(),
            0,
        )  # the thread that works; the lock is held to take its place
        self._caller: FrameType | None = None  # the frame of its call
        self._publisher = 0  # the thread that lets views follow at this moment
        self._history, self._history_of = History(), 0
        listeners = [LineProgress()] if listeners is None else listeners
        interrupts = self._interrupts = Interrupts()
        store = self._store = Store(interrupts, self._publish)
        planner = FeaturePlanner(FeatureCache(home() / "features"))
        tools = self._tools = Tools(listeners, planner, interrupts, self._working)
        self._network = Network(tools)
        self._heads = Heads(tools, self._network)
        self._old_task = OldTask(tools)
        self._undo = Undo(self._network)
        self._autosave = Autosave(store, tools, lambda state, left: self._checkpoints.snapshot(state, left))
        # In this order at every edge of training; what is saved has to come last.
        hooks: tuple[Hook, ...] = (self._old_task, Recorder(tools), self._undo, self._autosave)
        self._checkpoints = Checkpoints(store, tools, self._network, self._heads, hooks)
        self._training = Training(store, tools, self._network, self._old_task, self._undo, hooks)
        self._validating = Validating(store, tools, self._training, self._old_task)

    # ---------------------------------------------------------------- what it holds

    @property
    def view(self) -> SessionView:
        """All that the session holds, to be read."""
        return self._view_of(self._store.committed)

    def _view_of(self, state: SessionState) -> SessionView:
        cluster = str(self._tools.cluster) if self._tools.cluster is not None else ""
        return SessionView(state, self._tools.device, self._tools.planner, self._autosave.status, cluster)

    @property
    def listeners(self) -> list[Any]:
        """Objects that are told what happens; a method that one lacks is left out."""
        return self._tools.listeners

    @listeners.setter
    def listeners(self, listeners: list[Any]) -> None:
        self._tools.listeners = listeners

    @property
    def device(self) -> Any:
        """Where training runs, a ``torch.device``; set to another, the network goes there."""
        return self._tools.device

    @device.setter
    def device(self, device: Any) -> None:
        try:
            wanted = torch.device(device)
            torch.zeros((), device=wanted).item()  # a name may be known and the device not here
        except (RuntimeError, TypeError, AssertionError):
            word = printable(str(device)) if isinstance(device, str | torch.device) else shown(device)
            raise BadArguments(f"no device {word} here; cpu is always one") from None
        with self._call("the device can be set"), self._store.change() as change:
            self._network.move(change, wanted)
            self._tools.device = wanted

    @property
    def model(self) -> nn.Module:
        """The user's own network, never a copy or a wrapper."""
        return self._store.now.need_model().model

    @property
    def layers(self) -> LayerTable:
        """The layers as they are now."""
        return signed(self._store.committed.layer_table, self)

    @property
    def heads(self) -> dict[str, nn.Module]:
        """The head of each task, by the task's name."""
        return {task.name: task.head for task in self._store.committed.tasks.values()}

    @property
    def task(self) -> str:
        """Name of the task whose head is on the network; empty before anything is loaded."""
        return self._store.committed.task

    @property
    def split(self) -> Places:
        """Places of the samples of each part in the source.

        Raises:
            NotReady: no data, or data whose parts are apart.
        """
        places = self._store.committed.need_data().split
        if places is None:
            raise NotReady(
                "the training and validation samples came apart; they have no places in one source"
            )
        return places

    @property
    def old_head(self) -> nn.Module | None:
        """The head that came with the weights, once another one stands in its place."""
        return self._store.committed.old_head

    @property
    def history(self) -> History:
        """Every epoch of every stage since the model was loaded."""
        return self._history

    @property
    def step(self) -> Step | None:
        """The training step: ``f(model, x, y) -> loss``; None for the usual one."""
        return self._store.committed.step

    @step.setter
    def step(self, function: Step | None) -> None:
        if function is not None and not callable(function):
            raise TrainingError(f"a step is a function f(model, x, y) -> loss, not {type(function).__name__}")
        with self._call("the step can be set"), self._store.change() as change:
            change.set(step=function)

    # ---------------------------------------------------------------- one call at a time

    @contextmanager
    @bookkeeping
    def _call(self, wish: str = "this can be done", *, trains: bool = False) -> Iterator[None]:
        """Around every call: one thread works, and the stop button asks before it breaks anything off.

        Args:
            wish: what can be done later, in words, where another thread works.
            trains: whether the answer itself says that the call was stopped.

        Raises:
            NotReady: another thread works; nothing has been touched.
            Interrupted: the stop button was pressed.
        """
        me = threading.get_ident()
        if self._owner and not _runs(self._owner, self._caller):
            self._owner = 0  # an exception at any line may have torn that call out of its own end
        if self._owner == me:
            yield  # a call of our own calls, or a listener does
            return
        stop = StopRequest()
        with self._interrupts.taken(stop, edges=trains) if self._owner == 0 else _nothing():
            try:
                with self._turn:
                    taken = self._owner
                    self._owner = taken or me
                if taken:
                    doing = self.busy or "another call"
                    raise NotReady(f"{doing} is under way; {wish} when it has ended, or after a Stop")
                self._caller = sys._getframe(2)  # the method whose block this is; its frame ends with it
                self._tools.stop = stop
                self._store.recover()
                with usual_switches():
                    yield
            finally:
                with self._interrupts.held():
                    if self._owner == me:
                        # Also what an exception at any line has left of saying what is done.
                        self.stop_request, self.busy, self._caller, self._owner = None, "", None, 0
            self._interrupts.check()

    @contextmanager
    def _working(self, what: str) -> Iterator[None]:
        """Say what is done meanwhile."""
        before = self.stop_request, self.busy
        try:
            self.stop_request, self.busy = self._tools.stop, what
            yield
        finally:
            self.stop_request, self.busy = before

    def _publish(self) -> None:
        """Let views and history follow the state."""
        state = self._store.committed
        if self._history_of != state.network_number:
            self._history, self._history_of = History(), state.network_number
        history, old = self._history, state.old
        history.stages, history.old = state.all_stages, dict(old.scores)
        test = state.data.test if state.data is not None else None
        history.looks = test.looks if test is not None else None
        history.old_metric = old.data.task.metric if old.data is not None else "accuracy"
        self._publisher = threading.get_ident()
        try:
            self.frozen, self.revision = state.frozen, state.revision
        finally:
            self._publisher = 0

    @traitlets.validate("frozen")
    def _frozen_is_set(self, proposal: Mapping[str, Any]) -> tuple[bool, ...]:
        flags = tuple(map(bool, proposal["value"]))
        if self._publisher != threading.get_ident():
            with self._call("layers can be frozen or unfrozen"), self._store.change() as change:
                self._network.set_frozen(change, flags)
        return flags

    # ---------------------------------------------------------------- network and data

    def load(
        self,
        model: object,
        *,
        weights: str | None = None,
        arch: str | None = None,
        input: str | Iterable[int] | None = None,
        layers_from: object = None,
        revision: str | None = None,
        tokenizer: object = None,
    ) -> LoadedModel | Lines:
        """Load a trained network; the session starts anew with it, the data stays where the network takes it.

        Args:
            model: ``convnet5``, the name of a torchvision classification model, ``timm/NAME``, ``hf/OWNER/NAME``, a
                folder with a ``config.json``, a file of weights, or an ``nn.Module``; ``none`` drops the network.
            weights: None for the published default, ``none`` for random, an entry's name, or a file.
            arch: for a file, its architecture; None to find it by names and shapes.
            input: for a module, the shape of one sample (``"1,28,28"``); None to guess it.
            layers_from: layers that keep their weights (``"0:5"``); all others get He normal weights and zero
                biases. None keeps all.
            revision: of a network of the Hub: a branch, tag or commit; None for its main branch.
            tokenizer: for a module that takes texts: a ``tokenizer.json``, its folder, or a fast tokenizer.

        Raises:
            ModelError, WeightsError, AddressError: nothing has changed then.
        """
        if isinstance(model, str) and model == "none":
            with self._call("the network can be dropped"), self._store.change() as change:
                return self._network.drop(change)
        with self._call():
            loaded = self._network.read(model, weights, arch, input, revision, tokenizer)
            with self._store.change() as change:
                self._network.take(change, loaded, layers_from)
                self._heads.first_task(change)
                if change.state.data is not None:
                    # What a module of the user's takes is known where it was said; otherwise it was guessed.
                    known = input is not None or isinstance(model, str)
                    self._heads.fit_data(change, change.state.data, or_drop=known)
            return change.state.need_model()

    @takes_request
    @takes(show=bool)
    def data(
        self, source: object = None, *, show: bool = False, **options: Any
    ) -> loading.Data | PictureGrid | TextTable | Lines:
        """Name the data; a loaded network gets a new head where the classes are not those it knows.

        Args:
            source: ``digits``, ``glyphs``, a folder of class folders, a table of path and label, a tar of pictures,
                a table of texts (CSV, TSV, JSONL, Parquet), a folder of .txt files, ``torchvision/NAME``, or an object:
                (X, y) of tensors, arrays or strings, a Dataset, a DataLoader, a DataFrame of path and label, a
                Hugging Face data set.
                None for the data that is named already; the other settings but ``show`` then stay too.
                ``none`` drops the data: the network and its heads stay.
            show: answer with a grid of training pictures, see :meth:`show_batch`.
            options: how it is read, see below.

        Raises:
            NotReady: no source, and no data named before.
            DataError: nothing has changed then.
        """
        request = SourceRequest.of(**options)
        if isinstance(source, str) and source == "none":
            with self._call("the data can be dropped"), self._store.change() as change:
                return self._heads.drop_data(change)
        if source is None:
            named = self._store.now.need_data()
            if request != SourceRequest():
                again = str(named.asked["source"]) if named.asked is not None else "$name"
                raise DataError(
                    f"options need the data that they are for; name it too, such as: %tl_data {again}"
                )
            return self.show_batch() if show else named
        with self._call():
            if show:
                self._store.now.need_model()
            request = replace(request, heard=heard_by(self._store.now))
            near = features_of(self._store.now, self._tools, request.size) if request.groups == NEAR else None
            fresh = loading.load_data(source, request, progress=self._tools.on_check, features=near)
            fresh = cleaning.read_again(self._store.now, fresh)
            testing.looked_before(self._store.now, fresh)
            marked_before = cleaning.left_over(self._store.now, fresh)
            with self._store.change() as change:
                if marked_before:
                    self._tools.log(marked_before)
                if change.state.loaded is not None:
                    self._heads.fit_data(change, fresh)
                change.set(data=fresh, strict=False, revision=change.state.revision + 1)
                cleaning.note(change, fresh)
                if not show:
                    return fresh
                grid = reports.show_batch(self._view_of(change.state), 12, 0)
                grid.text = f"{fresh!r}\n{grid.text}"
                return grid

    @takes(undo=bool, forget=bool)
    def clean(
        self,
        *,
        relabel: object = None,
        drop: object = None,
        keep: object = None,
        undo: bool = False,
        forget: bool = False,
        save: object = None,
        _known: Suspects | None = None,
    ) -> Suspects | Lines:
        """Look for what is suspicious in training and validation samples; or decide about samples.

        Labels that are likely wrong, where samples have one class each, by the answers of a linear classifier on kept
        features that had not seen the sample, and by which classes are mistaken for each other (Dawid and Skene 1979);
        copies, also re-encoded, resized, cropped or mirrored; odd, dark, blurred and empty samples. The test part is
        never read.

        Marks (kept, relabelled, dropped) belong to the samples: they are saved with the session, and hold again where
        the same data is named again. Files stay as they are; training goes on with the mended data.

        Args:
            relabel: numbers of samples with their classes: ``{3: "cat"}`` or ``"3=cat,8=dog"``.
            drop: numbers of samples that are left out: ``[3, 8]`` or ``"3,8"``.
            keep: numbers of samples that are right as they are.
            undo: take the last mark back.
            forget: take all marks of this data back.
            save: a file for the marks, a CSV that ``data(..., marks=)`` takes.

        Raises:
            NotReady: no data, or, to look for suspects, no network.
            DataError: no such sample or class, or too little would be left; nothing has changed then.
        """
        asked = [
            *(
                (number, "relabel", label)
                for number, label in (cleaning.labels_in(relabel) if relabel else ())
            ),
            *((n, "drop", "") for n in (cleaning.numbers_in(drop, "--drop") if drop is not None else ())),
            *((n, "keep", "") for n in (cleaning.numbers_in(keep, "--keep") if keep is not None else ())),
        ]
        with self._call("the data can be mended"):
            if not (asked or undo or forget or save is not None):
                with self._tools.walk("looking for suspects") as on_progress:
                    return signed(cleaning.clean(self._store.now, self._tools, on_progress), self)
            lines: list[str] = []
            with self._store.change() as change:
                if undo:
                    lines += cleaning.undo(change).lines
                if forget:
                    lines += cleaning.forget(change).lines
                if asked:
                    lines += cleaning.mark(change, asked, _known.by_sample() if _known else {}).lines
                if save is not None:
                    lines += cleaning.save(change, save).lines
                # Whatever fails from here on, the marks beside the autosave are those that were asked for.
                cleaning.keep_safe(change.state, self._tools)
                return Lines(*lines)

    @takes(count=int, epoch=int)
    def show_batch(self, count: int = 12, *, epoch: int = 0) -> PictureGrid | TextTable:
        """Training pictures as the network sees them, augmentation included; or texts, and how they are cut.

        Args:
            count: how many.
            epoch: whose order and random changes.

        Raises:
            NotReady: no model or no data yet.
            DataError: the data holds no pictures or texts.
        """
        with self._tools.walk("reading pictures"):
            return reports.show_batch(self.view, count, epoch)

    @takes(spec=str, task=str, init=str)
    def head(self, spec: str | None = None, *, task: str | None = None, init: str = "zero") -> Lines:
        """Put a new head on the network, sized by the data; or put the head of another task back.

        Args:
            spec: ``linear`` (the default), ``mlp:512,256`` (hidden layers have He normal weights, zero biases), or a
                head that needs no schedule: ``nearest``, fitted to the means of the classes, ``knn:5``, which keeps
                the training samples and lets the five nearest vote, or ``all-layers``, fitted to what every layer gives
                (Head2Toe, Evci et al. 2022), which pays where the last layer has learned another task.
            task: name of the task that the head is for. With no ``spec``, a task that is known gets its own
                head, classes and data back.
            init: how the last layer starts: at ``zero``, ``he`` for He normal weights, or ``fit`` to fit it to the
                data at once, as the plan ``fit head`` does.

        Raises:
            NotReady: no model or no data yet.
            ModelError: an unknown spec, or no such task to go back to.
            TrainingError: a head that cannot be fitted.
        """
        by = "nearest" if spec == "nearest" else ""
        fits = init == "fit" or bool(by) or spec == "all-layers" or str(spec or "").startswith("knn")
        with self._call(trains=fits), self._store.change() as change:
            told = self._heads.head(change, spec, task, init)
            if not fits or not told.lines[0].startswith("new head"):
                return told
            run = self._training.run(f"fit head {by}".strip(), True, False, {})
            if run.stopped:
                raise Interrupted("stopped before the head was fitted; nothing has changed")
            ended = run.stages[-1].final
            fitted = f"{ended.metric_name} {show_metric(ended)} on validation" if ended is not None else ""
            return Lines(*told.lines, fitted)

    def tasks(self) -> Table:
        """Every task with its classes and data, measured now on its own validation samples.

        Raises:
            NotReady: no model yet.
        """
        with self._call(), self._tools.walk("measuring the tasks") as on_progress:
            return self._heads.tasks(self._store, on_progress)

    # ---------------------------------------------------------------- layers

    def freeze(self, where: object) -> Change:
        """Fix these layers; the others stay as they are.

        Raises:
            NotReady: no model yet.
            AddressError: the address hits nothing; nothing has changed then.
        """
        with self._call("layers can be frozen or unfrozen"), self._store.change() as change:
            answer = self._network.freeze(change, "froze", where, True)
            signed(answer.table, self)
            return signed(answer, self)

    @takes(find=bool)
    def unfreeze(self, where: object, *, find: bool = False) -> Change:
        """Let these layers train; the others stay as they are.

        Args:
            where: which layers.
            find: run the range test on what is unfrozen then; the answer has it as ``curve``.

        Raises:
            NotReady: no model yet; with ``find``, no data. Nothing has changed then.
            AddressError: the address hits nothing; nothing has changed then.
        """
        with self._call("layers can be frozen or unfrozen"), self._store.change() as change:
            if find:
                change.state.need_ready()
            answer = self._network.freeze(change, "unfroze", where, False)
            if find:
                answer.curve = self.find_lr()
            signed(answer.table, self)
            return signed(answer, self)

    def adapt(
        self,
        where: object = None,
        kind: str | None = None,
        *,
        rank: int | None = None,
        file: str | None = None,
    ) -> Change | Lines:
        """Adapt layers: their weights and buffers stay, and what is added to the weights trains.

        The head trains as it is; layers of the body that are not adapted are frozen. An adapter adds nothing at first.

        Args:
            where: which layers; those adapted before stay so.
            kind: None for two factors of low rank beside each matrix of a linear layer, a convolution or an attention
                (LoRA, Hu et al. 2022), ``bias`` for what is added to biases (BitFit, Ben Zaken et al. 2022), ``norm``
                for the two vectors of each norm.
            rank: of the factors; None for 4.
            file: an adapter that ``save(path, adapter=True)`` wrote, in place of all else.

        Raises:
            NotReady: no model yet, or these layers hold an adapter of another kind that has learned.
            AddressError, PlanError: nothing that could be adapted so; nothing has changed then.
            CheckpointError: the file is no adapter, or one of another body.
        """
        with self._call("layers can be adapted"), self._store.change() as change:
            if file is not None:
                if where is not None or kind is not None or rank is not None:
                    raise BadArguments("--file says which layers are adapted and how; give it alone")
                return self._checkpoints.load_adapter(change, file)
            if where is None:
                raise BadArguments("adapt needs layers, such as: %tl_adapt 3: --rank 8")
            answer = self._network.adapt(change, where, kind, rank)
            signed(answer.table, self)
            return signed(answer, self)

    def merge(self) -> Lines:
        """Write what adapters add into the weights, and take them away; the network answers as before.

        ``undo`` takes it back.

        Raises:
            NotReady: no model, nothing is adapted, or a stage is under way.
        """
        with self._call("adapters can be merged"), self._store.change() as change:
            told = self._undo.merge(change)
            self._autosave.save(change.state, lambda: None)
            return told

    # ---------------------------------------------------------------- training

    @takes(rule=str, start=float, stop=float, steps=int, cache=bool)
    def find_lr(
        self,
        *,
        rule: str | None = None,
        start: float = lr_finder.LOWEST,
        stop: float = lr_finder.HIGHEST,
        steps: int | None = None,
        cache: bool = True,
        **keys: Any,
    ) -> LRCurve:
        """Learning-rate range test on what is unfrozen now; leaves no trace.

        The same test is not run twice: where network, data and settings are those of the last one, so is the curve.

        Args:
            rule: which rule's suggestion is the curve's own; ``minimum`` for a constant rate and ``basin``
                for every other schedule, where none is named.
            start: the lowest rate that may be tried.
            stop: the highest.
            steps: of training that it may cost; None for half an epoch, and at least twelve.
            cache: run the frozen first part once over the samples, not in each step.
            keys: settings of the stage that it is for (``decay``, ``batch``, ``optimizer`` …).

        Raises:
            NotReady, PlanError, BadArguments: nothing has run then; ``NotReady`` also after a stop.
        """
        settings: dict[str, Any] = {"start": start, "stop": stop} | ({"rule": rule} if rule else {})
        with self._call():
            self._tools.say_here("the range test", "each of its steps follows from the one before")
            curve = signed(self._training.find_lr(steps=steps, cache=cache, keys=keys, **settings), self)
            self._tools.emit("on_asked_curve", curve)
            return curve

    @takes(cache=bool, keep_best=bool)
    def train(
        self,
        epochs: int | None = None,
        lr: float | str | None = None,
        *,
        cache: bool = True,
        keep_best: bool = False,
        **keys: Any,
    ) -> Run:
        """Train one stage with what is unfrozen now; with nothing said, the default plan.

        The default plan (see :func:`tlnb.engine.training.plan.default_plan`) fits a new head first, adapts the biases
        of a deep pretrained network for pictures, and then trains what is unfrozen at a low rate.

        Args:
            epochs: passes over the training samples; 1 where another setting is given.
            lr: learning rate of the last layer; ``auto``, the default, runs the range test first.
            cache: run the frozen first part once over the samples, not in each step. A step of one's own
                runs the whole network in any case.
            keep_best: end with the weights of the epoch with the lowest validation loss.
            keys: other settings of a stage (``decay``, ``batch``, ``optimizer`` …).

        Raises:
            NotReady, PlanError: nothing has run then.
            TrainingError: no rate was found, or a frozen layer changed.
        """
        with self._call(trains=True):
            return self._training.train(epochs, lr, cache, keep_best, keys)

    @takes(cache=bool, keep_best=bool)
    def run(self, text: str, *, cache: bool = True, keep_best: bool = False, **defaults: Any) -> Run:
        """Run a plan, a stage a line; the whole is checked before anything trains.

        Args:
            text: the plan.
            cache: run the frozen first part once over the samples, not in each step. A step of one's own
                runs the whole network in any case.
            keep_best: end each stage with the weights of its epoch with the lowest validation loss.
            defaults: settings for every stage that does not say otherwise.

        Raises:
            NotReady, PlanError: nothing has run then.
            TrainingError: no rate was found, or a frozen layer changed; finished stages stay.
        """
        with self._call(trains=True):
            return self._training.run(text, cache, keep_best, defaults)

    def go_on(self, **keys: Any) -> Run:
        """Go on where training was stopped, through the rest of the plan.

        Where nothing was stopped, a further stage begins that keeps the optimizer's moments of the last one,
        and its settings but for those given; ``epochs`` must be given then.

        Args:
            keys: settings of the stage to change: ``lr``, ``epochs``, ``patience``; any for a further stage.

        Raises:
            NotReady: there is nothing to go on with, or the data or step of then is missing.
            PlanError, TrainingError: as ``train``.
        """
        with self._call(trains=True):
            return self._training.go_on(keys)

    def undo(self) -> Lines:
        """Go one stage back: weights, buffers, history and what was frozen are those before it.

        Up to five stages can be taken back, one at a time, as far as memory reaches.

        Raises:
            NotReady: nothing was trained since the network was loaded, or the head was exchanged since.
        """
        with self._call("a stage can be undone"):
            with self._store.change() as change:
                told = self._undo.undo(change)
                self._autosave.save(change.state, lambda: None)
            return told

    # ---------------------------------------------------------------- how much to transfer

    def advise(self, *, images: int = advising.ADVISED_ON) -> Advice:
        """Measure how much data there is and how similar it is, and say what to do about it.

        One pass of the training images through the network gives every layer's features; they stay in the
        cache and serve the training that follows, where all images take part.

        Args:
            images: how many training images are looked at, at most.

        Raises:
            NotReady: no model or no data yet.
            ModelError: the network has random weights or is all head, so that nothing can be transferred.
        """
        with self._call(), self._store.change() as change:
            return advising.advise(change, self._tools, images)

    def train_advised(self, *, budget: float | str | None = None, **settings: Any) -> Run:
        """Run the plan of :meth:`advise`, which is asked first where nothing was asked since the last change.

        Args:
            budget: run the best plan that takes no longer, as a few timed batches say: the advised one, that with
                fewer epochs, the last part of the body, or the head alone. Seconds, or ``"90s"``, ``"5min"``,
                ``"1.5h"``; None for the advised plan. What it will take is said before it runs.
            settings: as for :meth:`run`; the plan brings its own epochs, rates and batches.

        Raises:
            NotReady, PlanError, BadArguments: nothing has run then; a budget that is too small says what is enough.
            TrainingError: a frozen layer changed.
        """
        own = [name for name in ("epochs", "lr", "batch", "decay") if name in settings]
        if own:
            raise BadArguments(f"the advised plan brings its own {', '.join(own)}; leave that out")
        read_keys({name: value for name, value in settings.items() if name not in ("cache", "keep_best")})
        limit = None if budget is None else advising.read_budget(budget)
        with self._call(trains=True):
            state = self._store.now
            known = state.advice
            asked = known is not None and state.loaded is not None and known[0] == advising.advice_key(state)
            advice = known[1] if asked and known is not None else None
            if limit is not None:
                plan = advising.plan_for_budget(state, self._tools, limit, advice, self.advise)
            else:
                advice = advice or self.advise()
                self._tools.log(f"advised: {advice.procedure}")
                plan = advice.plan
            return self.run(plan, **settings)

    @takes(weights=str, images=int, folds=int, load=bool)
    def choose(
        self,
        *models: object,
        weights: str | None = None,
        images: int = 2000,
        folds: int = 5,
        load: bool = False,
    ) -> Choice:
        """Measure which network to start from, on the data that is named; the session's own stays as it is.

        The training samples pass once through each. On what enters its head, folds fit a logistic head (ridge for
        values), by which the networks are ranked, and let the five nearest samples vote; LogME (You et al. 2021) and
        the cost of training stand beside it. A network that cannot be loaded is said in the table.

        Args:
            models: names, files or folders as :meth:`load` takes them, and modules.
            weights: None for the published default of each, ``none`` for random ones.
            images: how many training samples take part, at most.
            folds: how many.
            load: load the best one then.

        Raises:
            NotReady: no data yet.
            BadArguments, ModelError, WeightsError: a name that nothing has; nothing has run then. Or none of them
                could be measured.
            Interrupted: it was stopped; nothing has changed.
        """
        with self._call():
            found = signed(
                choosing.choose(self._store.now, self._tools, self._network, models, weights, images, folds),
                self,
            )
            if load:
                found.load()
                self._tools.log(f"{printable(found.best)} is loaded")
            return found

    @takes(blocks=bool)
    def sweep(
        self,
        *,
        epochs: int = 5,
        seeds: int = 3,
        images: int = 400,
        lr: float = 1e-3,
        blocks: bool = False,
    ) -> Sweep:
        """Accuracy against the number of layers kept, frozen and fine-tuned (Yosinski et al. 2014).

        Everything runs on copies: the session's network stays as it is. An interrupt ends it after the step
        under way; the same call goes on where it stopped.

        Args:
            epochs: of each run.
            seeds: runs of each kind.
            images: at most so many training images, and as many to measure on.
            lr: learning rate of all runs; batches are as small as few images need.
            blocks: keep all weights and train one block alone (surgical fine-tuning, Lee et al. 2023).

        Raises:
            NotReady: no model or no data yet.
            ModelError: the network has random weights.
        """
        with self._call(trains=True):
            with self._store.change() as change:
                ground = advising.begin_sweep(
                    change, self._tools, epochs=epochs, seeds=seeds, images=images, lr=lr, blocks=blocks
                )
            # What it has measured stays, however it ends: the same call goes on with it.
            return advising.go_on_with_sweep(self._store.now, self._tools, ground)

    # ---------------------------------------------------------------- folds

    @takes(cache=bool, keep_best=bool)
    def cross_validate(
        self,
        folds: int = 5,
        plan: str | None = None,
        *,
        repeats: int = 1,
        cache: bool = True,
        keep_best: bool = False,
        **defaults: Any,
    ) -> CrossValidation:
        """Train a plan once for each fold of the samples, and measure it on those that it never saw.

        Training and validation samples take part, the test part never does. Groups and equal samples stay in one
        fold, and each class is in every fold as far as that goes; where the data has a time, each fold is newer than
        what it is trained on. Each fold starts from the network as it was before training, with a new head, and
        everything runs on copies: the session's network stays as it is. A frozen first part runs once over all
        samples. An interrupt keeps the folds that ended; the same call, or :meth:`go_on_with_folds`, goes on.

        Args:
            folds: how many, two or more.
            plan: in the stage language; None for what the session trained on this data, else the plan of
                :meth:`advise` where that was asked, else the default plan.
            repeats: how often all samples are dealt into folds anew.
            cache: run the frozen first part once over the samples, not in each step.
            keep_best: end each stage with the weights of its best epoch.
            defaults: settings for every stage of ``plan`` that does not say otherwise.

        Raises:
            NotReady: no model or data, or the network of before training is not known.
            DataError: more folds than groups or samples, or a class in one group only.
            PlanError, TrainingError: the plan cannot be trained; folds that ended stay.
        """
        with self._call(trains=True):
            return self._validating.cross_validate(folds, plan, repeats, cache, keep_best, defaults)

    def go_on_with_folds(self) -> CrossValidation:
        """Go on with the last cross-validation where it was stopped.

        Raises:
            NotReady: there is none.
        """
        with self._call(trains=True):
            return self._validating.go_on()

    # ---------------------------------------------------------------- the old task

    def forgetting(self, source: object = None) -> Forgetting:
        """What the network still knows of its old task, and how far each layer has moved.

        Args:
            source: data of the old task, such as ``glyphs`` for convnet5; its validation part is measured on.
                None for what was named before, what ships with tlnb, or drift alone.

        Raises:
            NotReady: no model or no data yet.
            ModelError: the network came without a head that knew anything.
            DataError: the data is not of the old task.
        """
        walk = self._tools.walk("measuring what is left of the old task")
        with self._call(), walk as on_progress, self._store.change() as change:
            return old_knowledge.forgetting(change, self._old_task, self._tools, source, on_progress)

    @takes(a=float)
    def blend(self, a: float | None = None, *, between: object = None) -> Blend:
        """Set the body between what it was before training (0) and what it is after (1), or between two stages.

        Buffers, such as BatchNorm statistics, are blended as weights are; the head stays the new one. Any
        later blend is between the same two ends, until the body is trained again.

        Args:
            a: how much of the new; None changes nothing and shows the curve alone.
            between: two points of the history, ``"1,2"`` or ``(1, 2)``: 0 is before training, k is after stage k.

        Raises:
            NotReady: nothing was trained yet, or the weights after that stage are not kept any more.
            BadArguments: ``a`` is not between 0 and 1, or there are no such points.
        """
        walk = self._tools.walk("measuring blends")
        with self._call(), walk as on_progress, self._store.change() as change:
            return old_knowledge.blend(change, self._old_task, self._tools, a, between, on_progress)

    # ---------------------------------------------------------------- saving

    @takes(adapter=bool)
    def save(self, path: str, *, adapter: bool = False) -> Lines:
        """Write the whole state of the session to a file: nothing that training needs is left out.

        Args:
            path: of the file; ``.safetensors`` is added where it has no ending.
            adapter: write the adapters and the head alone, for ``adapt(file=)`` on the same body.

        Raises:
            NotReady: no model yet; nothing is adapted.
            CheckpointError: it cannot be written, or another file stands there.
        """
        with self._call():
            return self._checkpoints.save_adapter(path) if adapter else self._checkpoints.save(path)

    def resume(self, path: str | None = None) -> Lines:
        """Come back to what was saved: by ``save`` to a file, or by the last autosave.

        Everything is as it was then: weights and buffers, the optimizer's moments, the place in the schedule
        and in the order of the samples, random states, history, heads and plan. Data that has a name is read
        again; a variable must be named again (``%tl_data $name``).

        Args:
            path: of the file; None for the last autosave of this notebook, or else of this folder.

        Raises:
            CheckpointError: no such file, or it cannot be used here, and why; nothing has changed then.
        """
        with self._call("the session can be resumed"):
            where, found = self._checkpoints.find(path, self._autosave.files)
            age = f"the autosave of {age_of(where):.0f} s ago"
            source = printable(str(path)) if path is not None else age
            with self._store.change() as change:
                lines = self._checkpoints.resume(change, found)
                later = cleaning.newer(change, float(found.about.get("saved", 0))) if path is None else ""
                return Lines(f"resumed from {source}", *lines, later)

    # ---------------------------------------------------------------- what came of it

    def results(self, *, worst: int = 8, sure: float = SURE) -> Results:
        """How good the network is on the validation samples, where it goes wrong, and how sure it is.

        Args:
            worst: how many of the worst mistakes are shown.
            sure: share of sets of classes that should hold the right one, or of values within their interval.

        Raises:
            NotReady: no model or no data.
            BadArguments: an impossible number.
        """
        with self._call():
            with self._tools.walk("judging the validation samples") as on_progress:
                found = reports.results(self.view, worst, sure, on_progress)
            self._tools.emit("on_results", found)
            return found

    @takes(by=str, colour=str, samples=int)
    def map(
        self, layer: object = None, *, by: str = "pca", colour: str = "class", samples: int = mapping.MOST
    ) -> FeatureMap:
        """A map of training and validation samples: what comes out of a layer, in two dimensions.

        What training keeps of frozen layers serves here too. The test part is not read, and nothing changes.

        Args:
            layer: whose output is drawn; None for the last one before the head.
            by: ``pca``, or ``umap``, which keeps neighbours together and needs ``tlnb[map]``.
            colour: of the static picture: ``class``, ``prediction``, ``correct`` or ``part``.
            samples: how many are drawn at most.

        Raises:
            NotReady: no model or no data, or UMAP is not installed.
            AddressError, BadArguments: not one layer, or an unknown word.
            ModelError: what comes out of the layer cannot be drawn.
        """
        with self._call():
            return signed(mapping.draw_map(self.view, self._tools, layer, by, colour, samples), self)

    def test(self) -> TestResult:
        """Measure the test part: the one call that reads it, and each time is counted.

        Raises:
            NotReady: no model, no data, or data without a test part.
        """
        with self._call():
            walk = self._tools.walk("measuring the test part")
            with walk as on_progress, self._store.change() as change:
                found = testing.test(change, self._tools.device, on_progress, self._interrupts.settle)
                self._autosave.save(change.state, lambda: None)
            self._tools.emit("on_test_part", found)
            return found

    @takes(views=int, sure=float, false_alarms=float)
    def predict(
        self,
        source: object,
        *,
        views: int = 1,
        sure: float | None = None,
        false_alarms: float | None = None,
    ) -> Predictions:
        """What the network says of files, a folder or arrays.

        With ``sure`` each answer is a set of classes by split conformal prediction (Vovk et al. 2005), or an interval
        of values, and a sample that is like nothing that was learned is ``none of these``. What they are judged by is
        learned from the validation samples once for each network and data.

        Args:
            source: a picture file, a folder, files a line each, or arrays.
            views: how many views of each picture are averaged; 1 for the picture as it is.
            sure: share of the sets that hold the right class, such as 0.9; None for the likeliest class alone.
            false_alarms: share of samples of the classes that may be answered ``none of these``; None for 0.05.

        Raises:
            NotReady: no model or no data.
            BadArguments: an impossible share, or options that do not go together.
            DataError: no such file, something that cannot be predicted on, too few validation samples to be so
                sure, or several labels a sample.
        """
        with self._call(), self._tools.walk("predicting") as on_progress:
            if sure is None:
                if false_alarms is not None:
                    raise BadArguments("--false-alarms goes with --sure, such as: --sure 90 --false-alarms 5")
                return reports.predict(self.view, source, views, on_progress=on_progress)
            if views != 1:
                raise BadArguments("--sure is for samples as they are; leave out --views")
            alarms = FALSE_ALARMS if false_alarms is None else false_alarms
            with self._store.change() as change:
                judging.check(change.state, sure, alarms)
                judged_by = judging.known(change, self._tools)
                view = self._view_of(change.state)
                return reports.predict(
                    view, source, 1, judged_by, sure=sure, false_alarms=alarms, on_progress=on_progress
                )

    def compare(self, a: object = None, b: object = None, *names: object) -> Comparison | Difference:
        """Stages, rates and curves of several runs, or of this session, in one picture, and whether they differ.

        Two runs that were measured on the same validation samples are tested on those: the interval of the
        difference from a bootstrap of pairs, McNemar's exact test for accuracy, and what they say. Each later run is
        tested against the first. Of two cross-validations the out-of-fold answers are compared.

        Args:
            a: a run (what training answered), a history, a session, or a file that ``save`` wrote; nothing
                for this session alone. Or an answer of :meth:`cross_validate`.
            b: another one.
            names: more of them.

        Raises:
            NotReady: nothing was trained, or cross-validations of other samples.
            CheckpointError: no such file.
        """
        given: Sequence[object] = [source for source in (a, b, *names) if source is not None]
        return compare(given or [self.history])

    @takes(network=str, with_weights=bool)
    def script(self, path: str | None = None, *, with_weights: bool = False, network: str = "") -> Script:
        """The session as one plain PyTorch script that runs without tlnb and gives the same figures.

        Args:
            path: where to write it, with the files that it reads beside it; None shows it.
            with_weights: put the starting weights beside it also where torchvision would download them.
            network: code that makes ``model``, for a module of yours that a script cannot build.

        Raises:
            NotReady: no model or no data.
            ExportError: nothing was trained, or something that a script cannot hold; says what.
        """
        with self._call():
            settle = self._interrupts.settle
            return exporting.script(
                self.view, path, with_weights=with_weights, network=network, settle=settle
            )

    @takes(to=str, int8=bool, push=bool)
    def export(
        self, path: str, folder: str | os.PathLike[str] | None = None, *, to: str | None = None, int8: bool = False,
        push: bool = False,
    ) -> Lines:  # fmt: skip
        """The network as a file that others can use, checked by loading it anew where there is no tlnb.

        Args:
            path: ends in ``.safetensors`` (weights, with a loader in plain PyTorch), ``.pt2`` (torch.export),
                ``.onnx``, ``.xml`` (OpenVINO) or ``.tflite`` (LiteRT); a model card is written beside it. Or
                ``hf/OWNER/NAME``: a folder of that name as the Hub keeps it, for transformers, timm or torchvision,
                which is read back and compared. Or ``app``: a page of Gradio that tries the network.
            folder: of the app.
            to: the form by name, not by the ending: ``safetensors``, ``torch``, ``onnx``, ``openvino``, ``litert``.
            int8: in whole numbers of eight bits (``.onnx``, ``.xml``, ``.tflite``), by ranges from validation samples;
                what that costs in accuracy and gains in time is measured and said.
            push: send the folder of the Hub there, as whoever is logged in.

        Raises:
            NotReady: no model or no data.
            ExportError: another ending, a package that is missing, a network that cannot be written so, a check that
                failed, or int8 that loses more than a point.
        """
        with self._call(), self._tools.walk("exporting"), self._store.change() as change:
            page = isinstance(path, str) and path == APP
            if page != (folder is not None):
                raise ExportError(
                    "a page needs a folder, such as: %tl_export app birds-page" if page else
                    f"%tl_export takes one file, or app and a folder; not {printable(str(path))} and a folder"
                )  # fmt: skip
            if publishing.is_repository(path):
                if to is not None or int8:
                    raise ExportError("a folder of the Hub has one form; --to and --int8 are for files")
                view, settle = self._view_of(change.state), self._interrupts.settle
                return publishing.publish(view, path, self._forgotten, push=push, settle=settle)
            if push:
                raise ExportError("--push sends a folder of the Hub: hf/OWNER/NAME")
            if page and (to is not None or int8):
                raise ExportError("a page holds the weights as they are; --to and --int8 are for files")
            file = str(in_letters(path_of(folder, ExportError), ExportError) / NETWORK) if page else path
            return exporting.export(
                self._view_of(change.state), self._tools, file, self._forgotten,
                lambda: judging.known(change, self._tools), to=to, small=int8, page=page,
            )  # fmt: skip

    def _forgotten(self) -> Forgetting | None:
        """What is left of the old task, where its data was named; None where nobody measured it."""
        old = self._store.now.old
        named = old.data is not None or old.source is not None
        return self.forgetting() if named and old.network is not None else None

    def track(self, tracker: str | None = None, where: str | os.PathLike[str] | None = None) -> Lines:
        """Tell a tracker of experiments what happens from now on, and what was trained already.

        It is told on a thread of its own: one that is slow, full or gone never holds up training nor changes a bit
        of it, and is reported in one line.

        Args:
            tracker: ``mlflow``, ``tensorboard``, ``trackio`` or ``wandb``; ``off`` ends it; None says where it stands.
            where: a folder (TensorBoard, MLflow), an address (MLflow, Trackio) or a project (Trackio, W&B); None
                for the tracker's usual place.

        Raises:
            BadArguments: no such tracker.
            NotReady: its library is not installed, or it cannot be opened; what was tracked before goes on.
        """
        with self._call("tracking can begin or end"):
            return tracking.track(self._tools, lambda: self.view, tracker, where)

    @takes(workers=int, gpus_per_worker=float)
    def cluster(
        self, address: str | None = None, *, workers: int | None = None, gpus_per_worker: float = 0
    ) -> Lines:
        """Let training, sweeps, folds and long passes of frozen layers run on a cluster of Ray from now on.

        The network, the data and the history stay here: what a worker needs is sent to it, and what it learned comes
        back. Pictures and texts that are files are read where the work is, so each machine must see them under the same
        path. Needs the extra ``tlnb[ray]``, in the same versions, on each machine.

        Args:
            address: ``local`` to start a cluster on this machine (on the loopback interface alone), ``auto`` for the
                one that this machine is a node of, ``HOST:PORT`` of the head of another; ``off`` comes back and frees
                it. None says where things run.
            workers: processes that work at once; None for one a CPU, or for as many as the GPUs suffice for.
            gpus_per_worker: how many GPUs each of them has; 0 for none.

        Raises:
            BadArguments: no such address, or no room for so many workers.
            NotReady: Ray is not installed, nothing answers, or a machine has other versions. Nothing has changed then.
        """
        with self._call("a cluster can be named"):
            return clustering.cluster(self._tools, address, workers, gpus_per_worker)

    @takes(env=bool)
    def status(self, *, env: bool = False) -> Lines | Table:
        """Where the session stands.

        Args:
            env: say instead what is installed and what can be done here.
        """
        return examine() if env else reports.status(self.view)

    def panel(self) -> PanelCard:
        """Network, data, layers, rate and training in one place, to click; in a notebook that is open."""
        return signed(reports.panel(self.view), self)

    def __repr__(self) -> str:
        return repr(reports.status(self.view))

    def _repr_html_(self) -> str:
        return reports.status(self.view)._repr_html_()

    # ---------------------------------------------------------------- names that outside scripts know

    @property
    def _loaded(self) -> LoadedModel | None:
        return self._store.now.loaded

    @property
    def _data(self) -> loading.Data | None:
        return self._store.now.data

    @property
    def _samples(self) -> Split | None:
        return self._store.now.samples

    @property
    def _paused(self) -> PlanProgress | None:
        return self._store.now.plan

    @property
    def _importance(self) -> Importance | None:
        return self._store.now.old.importance


def _runs(thread: int, caller: FrameType | None) -> bool:
    """Whether a call is still on the stack of its thread."""
    if (
        caller is None
    ):  # another thread's has just begun; one of this thread would have said so before it goes on
        return thread != threading.get_ident()
    frame = sys._current_frames().get(thread)
    while frame is not None and frame is not caller:
        frame = frame.f_back
    return frame is not None


@contextmanager
def _nothing() -> Iterator[None]:
    yield
