"""A read-only look at a session, for what shows it and for what is computed from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tlnb.engine.data.dataset import Data
from tlnb.engine.features.planner import FeaturePlanner
from tlnb.engine.models.loaded import LoadedModel
from tlnb.engine.network.layers import LayerMap
from tlnb.engine.training.records import PlanProgress
from tlnb.session.answers import LayerTable
from tlnb.session.state import SessionState, Split, Task


@dataclass(frozen=True)
class SessionView:
    """The state of a session at a moment.

    Attributes:
        state: all of it.
        device: where training runs.
        planner: what is kept of frozen first parts.
        saved: one line about the last autosave; empty where there was none.
        cluster: one line about the cluster on which work runs; empty for none.
    """

    state: SessionState
    device: torch.device
    planner: FeaturePlanner
    saved: str = ""
    cluster: str = ""

    @property
    def loaded(self) -> LoadedModel | None:
        """The network; None before one is loaded."""
        return self.state.loaded

    @property
    def layers(self) -> LayerMap | None:
        """Its layers; None while its input is not known."""
        return self.state.layers

    @property
    def layer_table(self) -> LayerTable:
        """The layers with their state.

        Raises:
            NotReady: there are none.
        """
        return self.state.layer_table

    @property
    def frozen(self) -> tuple[bool, ...]:
        """For each layer, whether it stays fixed."""
        return self.state.frozen

    @property
    def data(self) -> Data | None:
        """The data that is named; None for none."""
        return self.state.data

    @property
    def samples(self) -> Split | None:
        """The data, fitted to the network; None where there is none."""
        return self.state.samples

    @property
    def tasks(self) -> dict[str, Task]:
        """The tasks of the network, by name."""
        return dict(self.state.tasks)

    @property
    def plan(self) -> PlanProgress | None:
        """What is left of the last plan; None where it ended."""
        return self.state.plan

    def need_model(self) -> LoadedModel:
        """The network.

        Raises:
            NotReady: there is none.
        """
        return self.state.need_model()

    def need_layers(self) -> LayerMap:
        """The layers.

        Raises:
            NotReady: no model, or its input is not known.
        """
        return self.state.need_layers()

    def need_data(self) -> Data:
        """The data.

        Raises:
            NotReady: none is named.
        """
        return self.state.need_data()

    def need_samples(self) -> Split:
        """The data, fitted to the network.

        Raises:
            NotReady: there is none.
        """
        return self.state.need_samples()

    def need_ready(self) -> LayerMap:
        """The layers, where there is data too.

        Raises:
            NotReady: no model or no data.
        """
        return self.state.need_ready()
