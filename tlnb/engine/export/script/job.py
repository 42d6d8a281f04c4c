"""What a script is written from: the network, the data and the stages, as the session knows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from tlnb.engine.data.dataset import Data
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.data.samples import Samples
from tlnb.engine.models.loaded import LoadedModel
from tlnb.engine.network.layers import LayerMap
from tlnb.engine.training.history import StageResult
from tlnb.engine.training.tasks import Classification, MultiLabel
from tlnb.errors import ExportError

STAGE_KEYS = frozenset(
    (
        "text", "frozen", "epochs", "lr", "decay", "batch", "optimizer", "schedule", "momentum",
        "weight_decay", "smoothing", "patience", "augment", "precision", "views", "micro", "asked",
    )
)  # fmt: skip
"""The settings of a stage that the writers know; a script never leaves one out in silence."""

SAME = ("network", "data", "fingerprint", "head", "device", "threads")


@dataclass
class Job:
    """A session that trained.

    Attributes:
        loaded: the network as it is now.
        layers: its layers.
        data: the data that it learned from.
        samples: training and validation samples, fitted to the network.
        results: the stages, each with its ``setup``.
        start: gives the weights before the first stage, by name.
        fingerprint: of the training samples now.
        stem: what the files beside the script are called, without an ending.
        network: a line of code of the user's that makes ``model``; empty where the writers know one.
        files: what has to lie beside the script: file name to tensors or text.
    """

    loaded: LoadedModel
    layers: LayerMap
    data: Data
    samples: tuple[Samples, Samples]
    results: Sequence[StageResult]
    start: Callable[[], dict[str, Tensor]]
    fingerprint: str = ""
    stem: str = "train"
    network: str = ""
    files: dict[str, dict[str, Tensor] | str] = field(default_factory=dict)

    @property
    def setup(self) -> dict[str, Any]:
        """What holds for all stages."""
        return self.results[0].setup

    @property
    def asked(self) -> dict[str, Any]:
        """How the data was named; an object by its name alone."""
        return self.data.asked or {"source": None, "name": self.data.name}

    @property
    def preprocess(self) -> Preprocess:
        """How pictures become network input."""
        found: Preprocess = getattr(self.samples[1], "preprocess", self.loaded.preprocess)
        return found

    @property
    def kind(self) -> str:
        """``classes``, ``labels`` or ``values``."""
        if isinstance(self.data.task, Classification):
            return "classes"
        return "labels" if isinstance(self.data.task, MultiLabel) else "values"

    @property
    def weighted(self) -> bool:
        """Whether the loss weighs classes or labels."""
        return getattr(self.data.task, "weights", None) is not None

    def any(self, key: str) -> bool:
        """Whether a stage has this setting, other than false, zero or none."""
        return any(getattr(result.stage, key) for result in self.results)

    def check(self) -> None:
        """See whether the whole session can be written down.

        Raises:
            ExportError: names what a script cannot hold, and what to do.
        """
        if not self.results:
            raise ExportError("nothing was trained yet, so there is nothing to write; train first: %tl_train")
        for result in self.results:
            self._check_stage(result)
        self._check_between()
        if self.setup["data"] != self.asked or self.setup["fingerprint"] != self.fingerprint:
            raise ExportError(
                "the data has changed since the stages were trained; name the data of then again (%tl_data), "
                "or train on the new data first"
            )

    def _check_between(self) -> None:
        """Whether training alone changed the weights."""
        after: float | None = None
        for result in self.results:
            before = result.setup["before"]
            if after is not None and before is not None and before != after:
                raise ExportError(
                    f"the weights were changed before stage {result.number} by something other than training, "
                    "which a script cannot tell"
                )
            after = result.setup["after"]

    def _check_stage(self, result: StageResult) -> None:
        number, setup = result.number, result.setup
        if not setup:
            raise ExportError(f"how stage {number} was set up is not known, so it cannot be written down")
        for key in SAME:
            if setup[key] != self.setup[key]:
                raise ExportError(
                    f"stage {number} had another {key} than stage {self.results[0].number}; one script holds "
                    "one network, one head and one data set"
                )
        if setup.get("unknown"):
            raise ExportError(f"stage {number}: {setup['unknown']} cannot be written into a script")
        unknown = [k for k, v in vars(result.stage).items() if k not in STAGE_KEYS and v]
        if unknown:
            raise ExportError(f"stage {number} used {unknown[0]}, which a script cannot hold")
        if setup.get("micro") != result.stage.micro:
            raise ExportError(
                f"memory ran short in stage {number}, so its batches were cut at places of chance"
            )
        if result.stopped:
            raise ExportError(
                f"stage {number} was stopped in the middle of an epoch; go on with it or undo it first"
            )
