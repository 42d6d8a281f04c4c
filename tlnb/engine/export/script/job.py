"""What a script is written from: the network, the data sets and the stages, as the session knows them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from tlnb.display.tables import printable
from tlnb.engine.data.dataset import Data
from tlnb.engine.data.samples import Samples
from tlnb.engine.export.script.refusals import check, recipe_of
from tlnb.engine.export.script.source import Source
from tlnb.engine.models.loaded import LoadedModel
from tlnb.engine.network.layers import LayerMap
from tlnb.engine.training.recipe import DataUsed, StageRecipe
from tlnb.engine.training.records import StageResult
from tlnb.errors import ExportError

Fetch = Callable[[DataUsed], tuple[Data, tuple[Samples, Samples]]]


@dataclass(frozen=True)
class Part:
    """The epochs that a stage learned from one data set.

    Attributes:
        source: the data set.
        first: epochs that the stage had trained before.
        last: epochs that it had trained after.
        left: batches of one more epoch, which was broken off there.
    """

    source: Source
    first: int
    last: int
    left: int = 0


@dataclass
class Job:
    """A session that trained.

    Attributes:
        loaded: the network as it is now.
        layers: its layers.
        results: the stages, each with its recipe.
        fetch: gives the data of a part of a stage, from what its recipe says of it.
        start: gives the weights before the first stage, by name.
        stem: what the files beside the script are called, without an ending.
        network: a line of code of the user's that makes ``model``; empty where the writers know one.
        blend: how much of the new the body holds after the last stage; None where it was not blended.
        importance: gives the weights of an EWC guard, by name.
        files: what has to lie beside the script: file name to tensors or text.
        sources: the data sets, in the order of their first use.
        parts: for each stage, what it learned from which.
    """

    loaded: LoadedModel
    layers: LayerMap
    results: Sequence[StageResult]
    fetch: Fetch
    start: Callable[[], dict[str, Tensor]]
    stem: str = "train"
    network: str = ""
    blend: float | None = None
    importance: Callable[[], dict[str, Tensor]] = dict
    files: dict[str, dict[str, Tensor] | str] = field(default_factory=dict)
    sources: list[Source] = field(default_factory=list)
    parts: list[list[Part]] = field(default_factory=list)

    def read(self) -> None:
        """See whether the session can be written down, and find the data sets.

        Raises:
            ExportError: names what a script cannot hold, and what to do.
        """
        check(self.results)
        self._check_network()
        known: dict[str, Source] = {}
        self.parts = [self._parts(result, known) for result in self.results]
        self.sources = list(known.values())
        for source in self.sources:
            source.check()
        if self.texts and self.several:
            raise ExportError("several data sets of texts are not one script")

    def _check_network(self) -> None:
        odd = {*self.layers.fixed, *(name for layer in self.layers for name in layer.tied)}
        if odd:
            raise ExportError(
                f"{printable(sorted(odd)[0])} is a weight that never trains, or that several layers share; "
                "a script cannot hold that"
            )
        for result in self.results:
            held = {*result.stage.frozen, *(i for i, _ in result.stage.adapted)}
            act = self.layers.mode_dependent_layers & held
            if act:
                raise ExportError(
                    f"stage {result.number} froze layer {min(act)}, whose dropout is a function or serves other "
                    "layers too; a script cannot hold that"
                )

    def _parts(self, result: StageResult, known: dict[str, Source]) -> list[Part]:
        parts, first = [], 0
        recipe = recipe_of(result)
        for used in recipe.data:
            source = self._source(used, recipe.augment, known)
            last, left = used.until
            parts.append(Part(source, first, last, left))
            first = last
        return parts

    def _source(self, used: DataUsed, preset: str, known: dict[str, Source]) -> Source:
        key = json.dumps([used.asked, used.fingerprint, used.seed, preset], sort_keys=True)
        if key not in known:
            data, samples = self.fetch(used)
            place = len(known) + 1
            stem = self.stem if place == 1 else f"{self.stem}.{place}"
            known[key] = Source(data, samples, preset, place, stem, self.files, self.loaded.preprocess)
        return known[key]

    @property
    def recipes(self) -> list[StageRecipe]:
        """How each stage was set up."""
        return [recipe_of(result) for result in self.results]

    @property
    def recipe(self) -> StageRecipe:
        """What holds for all stages."""
        return recipe_of(self.results[0])

    @property
    def last(self) -> Source:
        """What the last stage learned from."""
        return self.parts[-1][-1].source

    @property
    def texts(self) -> bool:
        """Whether the samples are texts."""
        return any(source.texts for source in self.sources)

    @property
    def several(self) -> bool:
        """Whether there is more than one data set."""
        return len(self.sources) > 1

    @property
    def blends(self) -> bool:
        """Whether the body was blended with the old one."""
        return self.blend is not None or any(recipe.blend is not None for recipe in self.recipes)

    @property
    def old(self) -> bool:
        """Whether the network as it was has a part in what was done."""
        return self.blends or self.any("keep")

    @property
    def adapts(self) -> bool:
        """Whether weights had adapters at some time."""
        return any(recipe.adapters for recipe in self.recipes)

    def any(self, key: str) -> bool:
        """Whether a stage has this setting, other than false, zero or none."""
        return any(getattr(result.stage, key) for result in self.results)
