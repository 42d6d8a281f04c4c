"""The heads of a session: one for each task, all on the same body."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain, count

import torch
from torch import nn

from tlnb.answers import Lines
from tlnb.engine.data.load import Data
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.data.samples import Samples
from tlnb.engine.models.answer import check_answer, notes_on_answer
from tlnb.engine.models.loaded import Input, LoadedModel
from tlnb.engine.models.own_model import find_own_head
from tlnb.engine.network import head as heads
from tlnb.engine.network.layers import LayerMap, find_layers
from tlnb.engine.table import Table
from tlnb.engine.training.measuring import measure
from tlnb.engine.training.order import seed_for
from tlnb.errors import ModelError, did_you_mean
from tlnb.session.state import State
from tlnb.session.task import Task

_STARTS = {
    "zero": "starting at zero",
    "he": "He normal weights, zero biases",
    "fit": "fitted to the data",
}


class Heads(State):
    """Give the network a head, switch between its tasks, fit it to data.

    Args:
        listeners: see ``State``.
    """

    def __init__(self, listeners: Iterable[object] = ()):
        super().__init__(listeners)
        self._tasks: dict[str, Task] = {}
        self._task = ""
        self._came_with: nn.Module | None = None

    @property
    def heads(self) -> dict[str, nn.Module]:
        """The head of each task, by the task's name."""
        return {task.name: task.head for task in self._tasks.values()}

    @property
    def task(self) -> str:
        """Name of the task whose head is on the network; empty before anything is loaded."""
        return self._task

    @property
    def old_head(self) -> nn.Module | None:
        """The head that came with the weights, once another one stands in its place."""
        return self._came_with if self._loaded is not None and self._came_with is not self._head() else None

    def _old_modules(self) -> dict[str, nn.Module]:
        """The modules that came with the weights, by place, where those of another task stand there now."""
        first = next((task for task in self._tasks.values() if task.head is self._came_with), None)
        loaded = self._need_model()
        if first is None or self.old_head is None:
            return {}
        behind = {loaded.behind: first.side_heads[loaded.behind]} if loaded.behind in first.side_heads else {}
        return {loaded.head: first.head, **behind}

    def head(self, spec: str | None = None, *, task: str | None = None, init: str = "zero") -> Lines:
        """Put a new head on the network, sized by the data; or put the head of another task back.

        Args:
            spec: ``linear`` (the default) or ``mlp:512,256``; hidden layers have He normal weights, zero biases.
            task: name of the task that the head is for. With no ``spec``, a task that is known gets its own
                head, classes and data back.
            init: how the last layer starts: at ``zero``, ``he`` for He normal weights, or ``fit`` to fit it to the
                data at once, as the plan ``fit head`` does.

        Raises:
            NotReady: no model or no data yet.
            ModelError: an unknown spec, or no such task to go back to.
            TrainingError: a head that cannot be fitted.
        """
        loaded = self._need_model()
        if init not in heads.INITS:
            raise ModelError(
                f"--init takes {', '.join(heads.INITS)}, not {init!r}{did_you_mean(init, heads.INITS)}"
            )
        if task is not None and spec is None and task in self._tasks:
            return self._switch(self._tasks[task])
        if task is not None and self._data is None:
            known = ", ".join(self._tasks) or "none"
            raise ModelError(f"no task {task!r}{did_you_mean(task, self._tasks)}; tasks so far: {known}")
        source = self._need_data()
        self._new_head(spec or "linear", source, task or self._name_for(source), init)
        self._tasks[self._task].samples = self._samples
        size = sum(p.numel() for p in loaded.model.get_submodule(loaded.head).parameters())
        return Lines(
            f"new head {spec or 'linear'} at {loaded.head} for the task {self._task}: "
            f"{len(source.classes)} classes, {size:,} parameters, {_STARTS[init]}",
            *self._fit_now(init),
        )

    def _fit_now(self, init: str) -> Iterable[str]:
        """Fit a head that is to start so; what to say of it."""
        return ()

    def tasks(self) -> Table:
        """Every task with its classes and data, measured now on its own validation samples.

        Raises:
            NotReady: no model yet.
        """
        loaded, active = self._need_model(), self._task
        rows = []
        try:
            for task in self._tasks.values():
                self._set_heads(task)
                rows.append(self._measured(loaded, task, active))
        finally:
            if active:
                self._set_heads(self._tasks[active])
        return Table(("task", "classes", "data", "loss", "figure", ""), rows, align="<><>><")

    def _measured(self, loaded: LoadedModel, task: Task, active: str) -> tuple[str, ...]:
        classes = str(len(task.classes)) if task.classes else "-"
        here = "on the network" if task.name == active else ""
        if task.data is None or task.samples is None:
            return task.name, classes, task.source or "-", "-", "-", here
        loss, figure = measure(loaded.model, task.samples[1], task.data.task, self.device)
        return (
            task.name,
            classes,
            task.data.name,
            f"{loss:.4f}",
            f"{task.data.task.metric} {figure:.3f}",
            here,
        )

    def _switch(self, task: Task) -> Lines:
        """Put a task's head, classes and data back."""
        if task.name != self._task:
            self._put(task)
            self._data, self._samples = task.data, task.samples
            if task.samples is not None:
                self._see(self._need_model(), task.samples[0])
        classes = f"{len(task.classes)} classes" if task.classes else f"{self._need_model().outputs} outputs"
        head = f"task {task.name}: its head is on the network again ({classes})"
        return Lines(f"{head}, {self._data_of(task)}")

    def _data_of(self, task: Task) -> str:
        """What to say of the data of a task whose head is on the network now."""
        return f"data {task.data.name}" if task.data else "no data named for it yet"

    def _put(self, task: Task) -> None:
        """Set the heads of a task into the network, and find the layers anew."""
        loaded, layers = self._need_model(), self._layers
        body = [self.frozen[i] for i in layers.body] if layers else []
        before = self._set_heads(task)
        try:
            found = self._find_layers(loaded)
        except BaseException:
            for place, module in before.items():
                heads.replace(loaded.model, place, module)
            raise
        loaded.categories = task.classes
        self._tasks[task.name] = task
        self._task = task.name
        if found is not None:
            flags = (body + [False] * len(found.body))[: len(found.body)]
            self._accept_layers(found, self._spread(found, flags))

    def _set_heads(self, task: Task) -> dict[str, nn.Module]:
        """Put the heads of a task into the network; what was there, by place."""
        loaded = self._need_model()
        places = {loaded.head: task.head, **task.side_heads} if loaded.head else {}
        for module in places.values():
            module.to(self.device)
        return {place: heads.replace(loaded.model, place, module) for place, module in places.items()}

    @staticmethod
    def _spread(layers: LayerMap, body: list[bool]) -> list[bool]:
        """Flags of the body at its layers; heads train."""
        flags = [False] * len(layers)
        for index, fixed in zip(layers.body, body, strict=True):
            flags[index] = fixed
        return flags

    def _new_head(self, spec: str, source: Data, name: str, init: str = "zero") -> None:
        loaded = self._need_model()
        if not loaded.head:
            raise ModelError(
                f"{loaded.name} ends in no linear or convolution layer that a head could replace; "
                f"give it one output for each class itself: {len(source.classes)}, not {loaded.outputs}"
            )
        generator = torch.Generator().manual_seed(seed_for(source.seed, 0))
        outputs = len(source.classes)
        old = loaded.model.get_submodule
        fresh = heads.new_head(old(loaded.head), spec, outputs, generator, init)
        sides = {p: heads.new_head(old(p), "linear", outputs, generator, init) for p in loaded.side_heads}
        self._find_behind(loaded)
        if loaded.behind:
            sides[loaded.behind] = nn.Identity()
        before, active, frozen = dict(self._tasks), self._task, self.frozen
        self._put(Task(name, fresh, sides, source.classes, source))
        answer = self._layers[-1].shape if self._layers is not None else None
        if answer not in (None, (outputs,)):
            self._put(before[active])
            self._tasks, self.frozen = before, frozen
            raise ModelError(
                f"with {outputs} outputs at {loaded.head} the network answers {answer} for each sample: that is no "
                f"head; give the network {outputs} outputs itself"
            )

    def _find_behind(self, loaded: LoadedModel) -> None:
        """Look once for an activation behind the head, which belongs to the tasks that the network came with."""
        if loaded.behind or self._layers is None:
            return
        loaded.behind = heads.behind_head(self._layers.graph, loaded.head)
        if loaded.behind:
            for task in self._tasks.values():
                task.side_heads[loaded.behind] = loaded.model.get_submodule(loaded.behind)

    def _name_for(self, source: Data) -> str:
        """The name of the task that a new head for this data is for."""
        first = self._tasks.get(source.name)
        kept = first is not None and first.head is self._came_with and self._need_model().trained
        return self._free(f"{source.name} (new)" if kept else source.name, source)

    def _free(self, name: str, source: Data) -> str:
        """The name, or one like it where another task has it; another data set may have the same name."""
        names = chain((name,), (f"{name} {number}" for number in count(2)))
        return next(n for n in names if n not in self._tasks or self._tasks[n].classes == source.classes)

    def _known_task(self, source: Data) -> Task | None:
        """The task that learned the same classes under the name of this data."""
        same = [task for task in self._tasks.values() if task.classes == source.classes]
        return next(
            (task for task in same if re.fullmatch(rf"{re.escape(source.name)}( \d+)?", task.name)), None
        )

    def _fit_data(self, source: Data) -> None:
        """Fit samples, layers and head to data; nothing has changed where that fails."""
        loaded = self._need_model()
        before = loaded.preprocess, loaded.input, loaded.head
        try:
            preprocess = self._preprocess_for(loaded, source)
            samples = source.samples(preprocess, lambda text: self._emit("on_message", text))
            if loaded.own:
                loaded.preprocess = preprocess
            self._see(loaded, samples[0])
            few = (
                samples[0]
                .batch(torch.arange(min(3, len(samples[0]))))
                .to(next(loaded.model.parameters()).device)
            )
            check_answer(loaded, few, len(source.classes))
            self._fit_head(loaded, source)
            for line in notes_on_answer(loaded, few, source.task):
                self._emit("on_message", line)
        except BaseException:
            loaded.preprocess, loaded.input, loaded.head = before
            raise
        self._samples = samples
        task = self._tasks[self._task]
        task.data, task.samples = source, samples

    @staticmethod
    def _preprocess_for(loaded: LoadedModel, source: Data) -> Preprocess:
        if source.size is not None:
            return loaded.preprocess.at(source.size)
        images = getattr(source.train, "images", None)
        if loaded.any_size and images is not None:
            return loaded.preprocess.at(tuple(images.shape[-2:]))
        return loaded.preprocess

    def _see(self, loaded: LoadedModel, samples: Samples) -> None:
        """Find the layers anew where the samples have another shape than was known."""
        seen = Input.of(samples.batch(torch.arange(min(2, len(samples)))))
        if seen == loaded.input and self._layers is not None:
            return
        loaded.input = seen
        if loaded.own:
            find_own_head(loaded)
        found = self._find_layers(loaded)
        assert found is not None
        known = list(self.frozen) if self._layers is not None and len(self._layers) == len(found) else None
        self._accept_layers(found, known or self._own_flags(loaded, found))
        if not self._tasks:
            self._first_task(loaded)

    def _fit_head(self, loaded: LoadedModel, source: Data) -> None:
        if loaded.categories == source.classes:
            now = self._tasks[self._task]
            if now.data is not None and now.data.name != source.name:
                self._emit(
                    "on_message",
                    f"the head knows these classes and stays, as {now.data.name} left it; %tl_head linear makes "
                    "a new one",
                )
            return
        known = self._known_task(source)
        if known is not None:
            self._put(known)
        elif loaded.outputs == len(source.classes) and (
            self._keeps_head or (loaded.categories is None and loaded.trained)
        ):
            loaded.categories = self._tasks[self._task].classes = source.classes
            self._emit(
                "on_message",
                f"the head has {loaded.outputs} outputs already and stays; %tl_head linear makes a new one",
            )
        else:
            self._new_head("linear", source, self._name_for(source))

    def _first_task(self, loaded: LoadedModel) -> None:
        """The task that the head came with."""
        model = loaded.model
        sides = {place: model.get_submodule(place) for place in loaded.side_heads}
        self._came_with = model.get_submodule(loaded.head) if loaded.head else None
        self._task = loaded.task
        head = self._came_with or nn.Identity()
        self._tasks = {loaded.task: Task(loaded.task, head, sides, loaded.categories)}

    def _head(self) -> nn.Module | None:
        loaded = self._need_model()
        return loaded.model.get_submodule(loaded.head) if loaded.head else None

    def _find_layers(self, loaded: LoadedModel) -> LayerMap | None:
        """The layers; None while the input is not known."""
        if loaded.input is None:
            return None
        device = next(loaded.model.parameters()).device
        found = find_layers(loaded.model, loaded.input.example(device), loaded.head or None, loaded.fixed)
        if loaded.own and found.runs_plain:
            loaded.tell(found.note or "")
        return found

    @staticmethod
    def _own_flags(loaded: LoadedModel, layers: LayerMap) -> list[bool]:
        """Which layers a user's own module has frozen already; none of a named network."""
        return [
            bool(layer.parameter_names) and loaded.fixed.issuperset(layer.parameter_names) for layer in layers
        ]
