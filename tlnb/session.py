"""The session: one model, its data, its plan and its history. Magics and widgets act on it alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import traitlets
from torch import nn

from tlnb.answers import Change, LayerTable, Lines
from tlnb.engine import address, data, freezing, head, models, plan
from tlnb.engine.history import History, Run, StageResult, show_metric, spans
from tlnb.engine.layers import LayerMap, find_layers
from tlnb.engine.lr_curve import LRCurve
from tlnb.engine.order import seed_for
from tlnb.engine.samples import Samples
from tlnb.engine.stage import Stage
from tlnb.engine.stage_run import own_random_state, run_stage
from tlnb.engine.stopping import StopRequest
from tlnb.engine.tasks import Classification
from tlnb.engine.training import Route, StageTrainer, Step
from tlnb.errors import ModelError, NotReady, TrainingError

BN_MODES = ("train", "frozen")
FROZEN_MEANS = "frozen layers take no gradient, are not in the optimizer, and run in test mode"


class Session(traitlets.HasTraits):
    """One model, its data, its plan and its history.

    Attributes:
        frozen: for each layer, whether it stays fixed; setting it changes the model at once.
        listeners: objects that are told what happens (``on_stage_start``, ``on_epoch`` …); a method that one
            lacks is left out.
        old_head: the head that came with the weights, kept to measure what is forgotten.
        device: where training runs.
    """

    frozen: tuple[bool, ...] = traitlets.Tuple(help="for each layer, whether it stays fixed")  # type: ignore[assignment]

    def __init__(self, listeners: Iterable[object] = ()):
        super().__init__()
        self.listeners = list(listeners)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.old_head: nn.Module | None = None
        self._history = History()
        self._loaded: models.LoadedModel | None = None
        self._layers: LayerMap | None = None
        self._data: data.Data | None = None
        self._samples: tuple[Samples, Samples] | None = None
        self._step: Step | None = None

    # ---------------------------------------------------------------- model and data

    def load(self, model: str, *, weights: str | None = None) -> models.LoadedModel:
        """Load a trained network; the session starts anew with it, the data stays.

        Args:
            model: ``convnet5`` or the name of a torchvision classification model.
            weights: None for the published default, ``none`` for random, an entry's name, or a file.

        Raises:
            ModelError, WeightsError: nothing has changed then.
        """
        loaded = models.load_model(model, weights=weights, say=lambda text: self._emit("on_message", text))
        layers = self._find_layers(loaded)
        self._loaded, self._history, self.old_head = loaded, History(), None
        self._accept_layers(layers, frozen=[False] * len(layers))
        if self._data is not None:
            self._fit_data(self._data)
        loaded.model.to(self.device)
        return loaded

    def data(
        self,
        source: object,
        *,
        valid: float = 0.2,
        size: int | None = None,
        batch: int = 64,
        per_class: int | None = None,
        seed: int = 0,
    ) -> data.Data:
        """Name the data; a loaded network gets a new head where the classes are not those it knows.

        Args:
            source: ``digits`` or ``glyphs``.
            valid: share of the samples to validate on.
            size: side of the training images in pixels, where it is not the network's own.
            batch: samples a step.
            per_class: at most this many training samples of each class.
            seed: of the split, the new head, the order of samples and dropout.

        Raises:
            DataError: nothing has changed then.
        """
        fresh = data.load_data(source, valid=valid, per_class=per_class, batch=batch, seed=seed, size=size)
        if self._loaded is not None:
            self._fit_data(fresh)
        self._data = fresh
        return fresh

    def head(self, spec: str = "linear") -> Lines:
        """Put a new head on the network, sized by the data: He normal weights, zero biases.

        Args:
            spec: ``linear`` or ``mlp:512,256``.

        Raises:
            NotReady: no model or no data yet.
            ModelError: an unknown spec.
        """
        loaded, source = self._need_model(), self._need_data()
        self._new_head(spec, source)
        count = sum(p.numel() for p in loaded.model.get_submodule(loaded.head).parameters())
        return Lines(
            f"new head {spec} at {loaded.head}: {len(source.classes)} classes, {count:,} parameters, "
            "He normal weights, zero biases"
        )

    def _fit_data(self, source: data.Data) -> None:
        loaded = self._need_model()
        preprocess = loaded.preprocess if source.size is None else loaded.preprocess.at(source.size)
        samples = source.train.prepare(preprocess), source.valid.prepare(preprocess)
        if loaded.categories != source.classes:
            self._new_head("linear", source)
        self._samples = samples

    def _new_head(self, spec: str, source: data.Data) -> None:
        loaded = self._need_model()
        old = loaded.model.get_submodule(loaded.head)
        generator = torch.Generator().manual_seed(seed_for(source.seed, 0))
        new = head.new_head(old, spec, len(source.classes), generator)
        body = [self.frozen[i] for i in self._need_layers().body]
        head.replace(loaded.model, loaded.head, new)
        if self.old_head is None:
            self.old_head = old
        loaded.categories = source.classes
        layers = self._find_layers(loaded)
        self._accept_layers(layers, frozen=[*body, *[False] * len(layers.head)])

    def _find_layers(self, loaded: models.LoadedModel) -> LayerMap:
        device = next(loaded.model.parameters()).device
        shape = (1, loaded.preprocess.channels, *loaded.preprocess.size)
        return find_layers(loaded.model, torch.zeros(shape, device=device), head=loaded.head)

    # ---------------------------------------------------------------- layers

    @property
    def model(self) -> nn.Module:
        """The user's own network, never a copy or a wrapper."""
        return self._need_model().model

    @property
    def layers(self) -> LayerTable:
        """The layers as they are now."""
        return LayerTable(self._need_layers(), self.frozen)

    def freeze(self, where: address.Address) -> Change:
        """Fix these layers; the others stay as they are.

        Raises:
            NotReady: no model yet.
            AddressError: the address hits nothing; nothing has changed then.
        """
        return self._set_frozen("froze", where, True)

    def unfreeze(self, where: address.Address) -> Change:
        """Let these layers train; the others stay as they are.

        Raises:
            NotReady: no model yet.
            AddressError: the address hits nothing; nothing has changed then.
        """
        return self._set_frozen("unfroze", where, False)

    def _set_frozen(self, verb: str, where: address.Address, value: bool) -> Change:
        layers = self._need_layers()
        hit = address.select(where, layers)
        self.frozen = tuple(value if i in hit else old for i, old in enumerate(self.frozen))
        return Change(verb, hit, layers, self.layers)

    def _accept_layers(self, layers: LayerMap, frozen: list[bool]) -> None:
        self._layers = layers
        self.frozen = tuple(frozen)
        self._apply_frozen()

    @traitlets.validate("frozen")
    def _check_frozen(self, proposal: Mapping[str, Any]) -> tuple[bool, ...]:
        flags = tuple(map(bool, proposal["value"]))
        if self._layers is not None and len(flags) != len(self._layers):
            raise ModelError(
                f"frozen takes one flag for each of the {len(self._layers)} layers, not {len(flags)}"
            )
        return flags

    @traitlets.observe("frozen")
    def _apply_frozen(self, change: object = None) -> None:
        if self._loaded is not None and self._layers is not None:
            freezing.apply(self._loaded.model, self._layers, self._frozen_indexes())

    def _frozen_indexes(self) -> tuple[int, ...]:
        return tuple(i for i, fixed in enumerate(self.frozen) if fixed)

    # ---------------------------------------------------------------- training

    @property
    def step(self) -> Step | None:
        """The training step: ``f(model, x, y) -> loss``; None for the usual one."""
        return self._step

    @step.setter
    def step(self, function: Step | None) -> None:
        if function is not None and not callable(function):
            raise TrainingError(f"a step is a function f(model, x, y) -> loss, not {type(function).__name__}")
        self._step = function

    def find_lr(
        self,
        *,
        rule: str | None = None,
        start: float = 1e-7,
        stop: float = 10.0,
        steps: int = 100,
        **keys: Any,
    ) -> LRCurve:
        """Learning-rate range test on what is unfrozen now; leaves no trace.

        Args:
            rule: which rule's suggestion is the curve's own.
            start, stop: first and last rate.
            steps: how many rates between them.
            keys: settings of the stage that it is for (``decay``, ``batch``, ``optimizer`` …).

        Raises:
            NotReady, PlanError, BadArguments: nothing has run then.
        """
        stage = plan.one_stage("find a rate", self._need_ready(), self._frozen_indexes(), keys)
        settings = {"start": start, "stop": stop, "steps": steps} | ({"rule": rule} if rule else {})
        trainer = self._trainer(stage, "train")
        with own_random_state(0):
            return trainer.find_rate(**settings)

    def train(
        self, epochs: int = 1, lr: float | str | None = "auto", *, bn: str = "train", **keys: Any
    ) -> Run:
        """Train one stage with what is unfrozen now.

        Args:
            epochs: passes over the training samples.
            lr: learning rate of the last layer; ``auto`` runs the range test first.
            bn: ``frozen`` leaves the statistics of unfrozen BatchNorm layers alone too.
            keys: other settings of a stage (``decay``, ``batch``, ``optimizer`` …).

        Raises:
            NotReady, PlanError: nothing has run then.
            TrainingError: no rate was found, or a frozen layer changed.
        """
        settings = {"epochs": epochs, "lr": lr, **keys}
        layers = self._need_ready()
        text = f"train {spans([i for i, fixed in enumerate(self.frozen) if not fixed])}"
        return self._run([plan.one_stage(text, layers, self._frozen_indexes(), settings)], bn)

    def run(self, text: str, *, bn: str = "train", **defaults: Any) -> Run:
        """Run a plan, a stage a line; the whole is checked before anything trains.

        Args:
            text: the plan.
            bn: ``frozen`` leaves the statistics of unfrozen BatchNorm layers alone too.
            defaults: settings for every stage that does not say otherwise.

        Raises:
            NotReady, PlanError: nothing has run then.
            TrainingError: no rate was found, or a frozen layer changed; finished stages stay.
        """
        layers = self._need_ready()
        return self._run(plan.parse_plan(text, layers, self._frozen_indexes(), defaults), bn)

    def _run(self, stages: Iterable[Stage], bn: str) -> Run:
        if bn not in BN_MODES:
            raise TrainingError(f"--bn takes {' or '.join(BN_MODES)}, not {bn!r}")
        stages, run, stop = list(stages), Run(), StopRequest()
        with stop.on_interrupt():
            for position, stage in enumerate(stages, start=1):
                self._run_stage(stage, (position, len(stages)), bn, run, stop)
                if run.stopped:
                    break
        self._emit("on_run_end", run)
        return run

    def _run_stage(self, stage: Stage, place: tuple[int, int], bn: str, run: Run, stop: StopRequest) -> None:
        layers = self._need_layers()
        self.frozen = tuple(i in stage.frozen for i in range(len(layers)))
        trainer = self._trainer(stage, bn)
        names = layers.describe(stage.frozen) if stage.frozen else ""
        result = StageResult(trainer.number, stage, trainer.trained, stage.lr or 0.0, frozen_names=names)
        description = f"{stage.text} · trains {spans(trainer.trained)} · {self.layers.summary}"
        self._emit("on_stage_start", *place, description, stage.epochs, trainer.steps_per_epoch)
        try:
            run_stage(trainer, result, stop, self._emit)
        finally:
            if result.records or result.stopped:
                self._history.stages.append(result)
                run.stages.append(result)
        run.stopped = result.stopped
        self._emit("on_stage_end", result)

    def _trainer(self, stage: Stage, bn: str) -> StageTrainer:
        source, samples = self._need_data(), self._samples
        assert samples is not None
        return StageTrainer(
            self.model,
            self._need_layers(),
            stage,
            Route(*samples, self.model, self.device),
            number=len(self._history.stages) + 1,
            batch=stage.batch or source.batch,
            seed=source.seed,
            task=Classification(),
            step=self._step,
            bn=bn,
        )

    def _emit(self, event: str, *what: Any) -> None:
        for listener in self.listeners:
            method = getattr(listener, event, None)
            if method is not None:
                method(*what)

    # ---------------------------------------------------------------- where it stands

    @property
    def history(self) -> History:
        """Every epoch of every stage since the model was loaded."""
        return self._history

    def status(self) -> Lines:
        """Where the session stands."""
        return Lines(*self._status())

    def _status(self) -> Iterable[str]:
        yield f"model    {self._loaded}" if self._loaded else "model    none; %tl_load convnet5 loads one"
        yield f"data     {self._data}" if self._data else "data     none; %tl_data digits names some"
        if self._layers is not None:
            frozen = self._frozen_indexes()
            yield f"layers   {len(self._layers)}; frozen {spans(frozen)}; {self.layers.summary}"
            yield f"         {FROZEN_MEANS}"
        if len(self._history):
            last = self._history[-1]
            yield (
                f"trained  {len(self._history.stages)} stages, {len(self._history)} epochs; "
                f"{last.metric_name} {show_metric(last)}"
            )
        yield f"device   {self.device}, {torch.get_num_threads()} threads"

    def _need_model(self) -> models.LoadedModel:
        if self._loaded is None:
            raise NotReady("no model yet; load one first, such as: %tl_load convnet5")
        return self._loaded

    def _need_layers(self) -> LayerMap:
        self._need_model()
        assert self._layers is not None
        return self._layers

    def _need_data(self) -> data.Data:
        if self._data is None:
            raise NotReady("no data yet; name some first, such as: %tl_data digits")
        return self._data

    def _need_ready(self) -> LayerMap:
        layers = self._need_layers()
        self._need_data()
        return layers
