"""What a session holds, as one frozen value: a rollback keeps the old one, a checkpoint writes the present one.

A field that is added here is covered by every transaction from the day it is added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from tlnb.engine.advice.advice import Advice
from tlnb.engine.advice.sweep import Sweep
from tlnb.engine.data.dataset import Data
from tlnb.engine.data.fingerprint import data_fingerprint
from tlnb.engine.data.marks import Log
from tlnb.engine.data.samples import Samples
from tlnb.engine.data.sealed import Look
from tlnb.engine.forgetting.measure import OldData
from tlnb.engine.forgetting.old_network import OldNetwork
from tlnb.engine.models.loaded import LoadedModel
from tlnb.engine.network.layers import LayerMap
from tlnb.engine.results.cross_validation import CrossValidation
from tlnb.engine.results.sure import Sure
from tlnb.engine.training.optim import ByName
from tlnb.engine.training.records import PlanProgress, StageResult
from tlnb.engine.training.trainer import Step
from tlnb.errors import NotReady
from tlnb.session.answers import LayerTable

Split = tuple[Samples, Samples]
"""Training and validation samples."""


@dataclass(frozen=True)
class Task:
    """What changes when a network turns to something else; the body stays.

    Attributes:
        name: what the task is called.
        head: the module that gives its class scores.
        side_heads: further classifiers that help in training, by their place in the network.
        classes: names of the classes in the order of the scores; None where nobody told.
        data: what it learns from; None until data is named.
        samples: the training and validation samples, fitted to the network.
        source: name of the data that it learned from in another kernel, where it is not named again yet.
        asked: the arguments by which that can be read again; None where it was an object.
    """

    name: str
    head: nn.Module
    side_heads: Mapping[str, nn.Module] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    data: Data | None = None
    samples: Split | None = None
    source: str = ""
    asked: dict[str, Any] | None = None

    @property
    def learned_from(self) -> tuple[str, dict[str, Any] | None]:
        """Name of its data, and the arguments by which that can be read again; an empty name for none."""
        if self.data is None:
            return self.source, self.asked
        return self.data.name, None if self.data.asked is None else dict(self.data.asked)


@dataclass(frozen=True)
class Importance:
    """How much each weight matters to the old task, as ``keep ewc`` found it.

    Attributes:
        of: what it was found on: the name of the old data, or the fingerprint of the new.
        weights: diagonal of the Fisher information, by the name of the weight.
    """

    of: str
    weights: Mapping[str, Tensor]


@dataclass(frozen=True)
class OldTaskState:
    """What is known of the network of before training, and of its task.

    Attributes:
        network: a copy of it; None while nothing was trained and nobody asked.
        data: of the old task.
        source: by which that data can be read again; None where it cannot, or was not named.
        importance: what ``keep ewc`` found.
        bodies: weights after stages, by the stage's number, so that old data may be named later.
        ends: the new body of a blend, and the blend; None where nothing was blended.
        share: of the new, in that blend.
        scores: on the old task after a stage, by the stage's number.
    """

    network: OldNetwork | None = None
    data: OldData | None = None
    source: str | None = None
    importance: Importance | None = None
    bodies: Mapping[int, Mapping[str, Tensor]] = field(default_factory=dict)
    ends: tuple[Mapping[str, Tensor], Mapping[str, Tensor]] | None = None
    share: float = 1.0
    scores: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StageStart:
    """What a script needs to know of how a stage began.

    Attributes:
        checksums: of the weights of the body and of the head.
        blend: how much of the new the body held, where it was blended just before; None elsewhere.
        drawn: how the head started that has the weights of a new one; empty for another head.
        whole: whether the weights of the start cannot be had again by loading the network once more.
    """

    checksums: tuple[float, float]
    blend: float | None
    drawn: str
    whole: bool


@dataclass(frozen=True)
class RecorderState:
    """What a script needs beside the history.

    Attributes:
        begun: of the stage under way; None between stages.
        start: the weights before the first stage, where loading does not bring them back.
        objects: data that was an object, by its fingerprint: it cannot be read again, so it is held.
    """

    begun: StageStart | None = None
    start: Mapping[str, Tensor] | None = None
    objects: Mapping[str, tuple[Data, Split]] = field(default_factory=dict)


@dataclass(frozen=True)
class UndoPoint:
    """The network before a stage.

    Attributes:
        stages: how many there were before it.
        head: the module that was its head.
        frozen: for each layer, whether it stayed fixed.
        weights: what the stage changed, by name, in main memory.
        moments: the optimizer's state of the stage before it.
        adapters: for the name of each weight that had an adapter, the adapter's words.
        adapted: indexes of the layers that were adapted.
        merges: whether it is not a stage that comes next, but a merge of the adapters.
        last: the stage before a merge, as it was; None where no adapters were merged.
        notes: of the network before a merge; None where no adapters were merged.
    """

    stages: int
    head: nn.Module | None
    frozen: tuple[bool, ...]
    weights: Mapping[str, Tensor]
    moments: ByName
    adapters: Mapping[str, str] = field(default_factory=dict)
    adapted: tuple[int, ...] = ()
    merges: bool = False
    last: StageResult | None = None
    notes: tuple[str, ...] | None = None

    @property
    def bytes(self) -> int:
        """Size of the copies."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.weights.values())


@dataclass(frozen=True)
class SessionState:
    """One model, its data, its plan and its history.

    Attributes:
        loaded: the network; None before one is loaded.
        layers: its layers; None while its input is not known.
        frozen: for each layer, whether it stays fixed.
        tasks: by name; each with its head.
        task: name of the one whose head is on the network.
        came_with: the head that came with the weights.
        data: that is named.
        samples: the data, fitted to the network.
        foreign: resumed from a file that was saved elsewhere: what it names is not read unasked.
        strict: right after a resume: new data with as many classes gets no new head.
        stages: those that ended, or were left for good; the one that can be gone on with is ``plan.result``.
        plan: what is left of the last plan; None where it ended.
        running: whether the first stage of the plan is training at this moment.
        moments: the optimizer's state after the last stage.
        undo: the way back, the oldest first.
        old: the network of before training, and its task.
        recorder: what a script needs.
        step: the user's own training step.
        advice: what ``advise`` found, and for which network and data.
        sweep: the last one, which may go on.
        folds: the last cross-validation, which may go on.
        sure: what answers are judged by, and for which network and data.
        looks: how often each test part was measured, by its digest.
        marks: what was decided about samples, by the name of their data, in order.
        network_number: goes up when another network is loaded.
        revision: goes up when there is another network, other layers or other data.
    """

    loaded: LoadedModel | None = None
    layers: LayerMap | None = None
    frozen: tuple[bool, ...] = ()
    tasks: Mapping[str, Task] = field(default_factory=dict)
    task: str = ""
    came_with: nn.Module | None = None
    data: Data | None = None
    samples: Split | None = None
    foreign: bool = False
    strict: bool = False
    stages: tuple[StageResult, ...] = ()
    plan: PlanProgress | None = None
    running: bool = False
    moments: ByName = field(default_factory=dict)
    undo: tuple[UndoPoint, ...] = ()
    old: OldTaskState = OldTaskState()
    recorder: RecorderState = RecorderState()
    step: Step | None = None
    advice: tuple[object, Advice] | None = None
    sweep: Sweep | None = None
    folds: CrossValidation | None = None
    sure: tuple[object, Sure] | None = None
    looks: Mapping[str, tuple[Look, ...]] = field(default_factory=dict)
    marks: Mapping[str, Log] = field(default_factory=dict)
    network_number: int = 0
    revision: int = 0

    # ---------------------------------------------------------------- what follows from it

    @property
    def frozen_indexes(self) -> tuple[int, ...]:
        """Indexes of the layers that stay fixed."""
        return tuple(i for i, fixed in enumerate(self.frozen) if fixed)

    @property
    def all_stages(self) -> list[StageResult]:
        """The stages to be shown: those that ended, and the one that was left."""
        left = self.plan.result if self.plan is not None and not self.running else None
        return [*self.stages, left] if left is not None and began(left) else list(self.stages)

    @property
    def head(self) -> nn.Module | None:
        """The head that is on the network."""
        loaded = self.need_model()
        return loaded.model.get_submodule(loaded.head) if loaded.head else None

    @property
    def old_head(self) -> nn.Module | None:
        """The head that came with the weights, once another one stands in its place."""
        return self.came_with if self.loaded is not None and self.came_with is not self.head else None

    @property
    def first_task(self) -> Task | None:
        """The task whose head came with the weights."""
        return next((task for task in self.tasks.values() if task.head is self.came_with), None)

    @property
    def layer_table(self) -> LayerTable:
        """The layers as they are.

        Raises:
            NotReady: no model yet, or its input is not known.
        """
        layers, loaded = self.need_layers(), self.need_model()
        weights = loaded.model.named_parameters() if loaded.fixed else ()
        still = {name: weight.numel() for name, weight in weights if name in loaded.fixed}
        return LayerTable(layers, self.frozen, still)

    @property
    def data_fingerprint(self) -> str:
        """Of the samples; empty where there are none."""
        return fingerprint_of(self.samples) if self.samples is not None else ""

    # ---------------------------------------------------------------- what a call needs

    def need_model(self) -> LoadedModel:
        """The network.

        Raises:
            NotReady: there is none.
        """
        if self.loaded is None:
            raise NotReady("no model yet; load one first, such as: %tl_load convnet5")
        return self.loaded

    def need_layers(self) -> LayerMap:
        """The layers.

        Raises:
            NotReady: no model yet, or its input is not known.
        """
        loaded = self.need_model()
        if self.layers is None:
            raise NotReady(
                f"what {loaded.name} takes is not known yet; name data (%tl_data), "
                "or load it again and say what one sample looks like, such as: --input 1,28,28"
            )
        return self.layers

    def need_data(self) -> Data:
        """The data.

        Raises:
            NotReady: none is named.
        """
        if self.data is None:
            raise NotReady("no data yet; name some first, such as: %tl_data digits")
        return self.data

    def need_samples(self) -> Split:
        """The data, fitted to the network.

        Raises:
            NotReady: no data, or it is not fitted yet.
        """
        self.need_data()
        if self.samples is None:
            raise NotReady("the data is not fitted to the network yet")
        return self.samples

    def need_ready(self) -> LayerMap:
        """The layers, where there is data too.

        Raises:
            NotReady: no model or no data.
        """
        layers = self.need_layers()
        self.need_data()
        return layers


def began(result: StageResult) -> bool:
    """Whether a stage got anywhere: an epoch ended, it was stopped, or its loss diverged."""
    return bool(result.records or result.stopped or result.diverged)


_fingerprints: WeakKeyDictionary[Samples, str] = WeakKeyDictionary()  # taken once for each data


def fingerprint_of(samples: Split) -> str:
    """The fingerprint of training and validation samples."""
    train, valid = samples
    if train not in _fingerprints:
        _fingerprints[train] = data_fingerprint(train, valid)
    return _fingerprints[train]
