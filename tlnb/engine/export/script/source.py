"""One data set of a script: where it comes from, and how its pictures become network input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tlnb.engine.core.objectives import Classification, MultiLabel
from tlnb.engine.data.augment import NONE
from tlnb.engine.data.dataset import Data
from tlnb.engine.data.samples import Samples
from tlnb.engine.data.text_samples import TextSamples
from tlnb.engine.data.tokens import AnyPreprocess
from tlnb.errors import ExportError

PRESETS = ("light", "standard", "strong")


@dataclass
class Source:
    """A data set that stages of the script learn from.

    Attributes:
        data: what was named.
        samples: training and validation samples, fitted to the network.
        preset: the random changes under which stages train on it; ``none`` for the pictures as they are.
        place: among the data sets of the script, from 1.
        stem: what its files beside the script are called, without an ending.
        files: of the script; what has to lie beside it is added.
        network: preprocessing of the network, for samples that have none of their own.
    """

    data: Data
    samples: tuple[Samples, Samples]
    preset: str
    place: int
    stem: str
    files: dict[str, Any]
    network: AnyPreprocess

    @property
    def asked(self) -> dict[str, Any]:
        """How the data was named; an object by its name alone."""
        return self.data.asked or {"source": None, "name": self.data.name}

    @property
    def preprocess(self) -> Any:
        """How pictures or texts become network input."""
        found: AnyPreprocess = getattr(self.samples[1], "preprocess", self.network)
        return found

    @property
    def kind(self) -> str:
        """``classes``, ``labels`` or ``values``."""
        if isinstance(self.data.task, Classification):
            return "classes"
        return "labels" if isinstance(self.data.task, MultiLabel) else "values"

    @property
    def texts(self) -> bool:
        """Whether its samples are texts."""
        return isinstance(self.samples[1], TextSamples)

    @property
    def changed(self) -> bool:
        """Whether training pictures are changed at random."""
        return self.preset != NONE

    def check(self) -> None:
        """See whether its random changes can be written down.

        Raises:
            ExportError: a transform of the user's own.
        """
        if self.changed and self.preset not in PRESETS:
            raise ExportError(
                f"{self.preset} cannot be written into a script; a preset can: {', '.join(PRESETS)}"
            )
