"""What a session holds, and what each of its parts may ask for."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import traitlets

from tlnb.answers import LayerTable
from tlnb.engine.data import load as data
from tlnb.engine.data.samples import Samples
from tlnb.engine.features.cache import FeatureCache
from tlnb.engine.features.routes import Routes
from tlnb.engine.models import catalogue as models
from tlnb.engine.network import freezing
from tlnb.engine.network.layers import LayerMap
from tlnb.engine.saving.home import home
from tlnb.engine.training.history import History
from tlnb.engine.training.stopping import StopRequest
from tlnb.engine.training.trainer import Step
from tlnb.errors import ModelError, NotReady


class State(traitlets.HasTraits):
    """The state of a session: widgets are views of it, magics and methods change it.

    Attributes:
        frozen: for each layer, whether it stays fixed; setting it changes the model at once.
        listeners: objects that are told what happens (``on_stage_start``, ``on_epoch`` …); a method that one
            lacks is left out.
        device: where training runs.
        revision: goes up when there is another network, other layers or other data.
        busy: what the session is doing in words, such as ``training``; empty while it is at rest.
        stop_request: of the run that is under way, by which another thread may stop or pause it; or None.
    """

    frozen: tuple[bool, ...] = traitlets.Tuple(help="for each layer, whether it stays fixed")  # type: ignore[assignment]

    revision: int = traitlets.Int(help="counts changes of network, layers and data")  # type: ignore[assignment]
    busy: str = traitlets.Unicode(help="what the session is doing; empty at rest")  # type: ignore[assignment]

    def __init__(self, listeners: Iterable[object] = ()):
        super().__init__()
        self.stop_request: StopRequest | None = None
        self._worker: int | None = None  # the thread that works
        self.listeners = list(listeners)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._history = History()
        self._loaded: models.LoadedModel | None = None
        self._layers: LayerMap | None = None
        self._data: data.Data | None = None
        self._samples: tuple[Samples, Samples] | None = None
        self._step: Step | None = None
        self._keeps_head = False  # strict transfer: new data with as many classes gets no new head
        self._routes = Routes(FeatureCache(home() / "features"))

    @traitlets.validate("frozen")
    def _check_frozen(self, proposal: Mapping[str, Any]) -> tuple[bool, ...]:
        self._need_rest("layers can be frozen or unfrozen")
        flags = tuple(map(bool, proposal["value"]))
        if self._layers is not None and len(flags) != len(self._layers):
            count = len(self._layers)
            raise ModelError(f"frozen takes one flag for each of the {count} layers, not {len(flags)}")
        return flags

    @traitlets.observe("frozen")
    def _apply_frozen(self, change: object = None) -> None:
        if self._loaded is not None and self._layers is not None:
            freezing.apply(self._loaded.model, self._layers, self._frozen_indexes())

    def _accept_layers(self, layers: LayerMap, frozen: Iterable[bool]) -> None:
        self._layers = layers
        self.frozen = tuple(frozen)
        self._apply_frozen()
        self.revision += 1

    def _frozen_indexes(self) -> tuple[int, ...]:
        return tuple(i for i, fixed in enumerate(self.frozen) if fixed)

    def _need_rest(self, wish: str) -> None:
        """Refuse what would disturb a run, when it comes from another thread, such as a click in a widget.

        Raises:
            NotReady: the session is working in another thread.
        """
        if self._worker not in (None, threading.get_ident()):
            raise NotReady(f"{self.busy} is under way; {wish} when it has ended, or after a Stop")

    @contextmanager
    def _working(self, what: str, stop: StopRequest | None = None) -> Iterator[None]:
        """Say what is done meanwhile, and keep other threads from changing the session.

        Raises:
            NotReady: another thread works already.
        """
        self._need_rest("this can be done")
        before = self._worker, self.stop_request, self.busy
        self._worker, self.stop_request = threading.get_ident(), stop or self.stop_request
        self.busy = what
        try:
            yield
        finally:
            self._worker, self.stop_request, self.busy = before

    def _emit(self, event: str, *what: Any) -> None:
        for listener in self.listeners:
            method = getattr(listener, event, None)
            if method is not None:
                method(*what)

    @property
    def layers(self) -> LayerTable:
        """The layers as they are now."""
        return LayerTable(self._need_layers(), self.frozen)

    def _need_model(self) -> models.LoadedModel:
        if self._loaded is None:
            raise NotReady("no model yet; load one first, such as: %tl_load convnet5")
        return self._loaded

    def _need_layers(self) -> LayerMap:
        loaded = self._need_model()
        if self._layers is None:
            raise NotReady(
                f"what {loaded.name} takes is not known yet; name data (%tl_data), "
                "or load it again and say what one sample looks like, such as: --input 1,28,28"
            )
        return self._layers

    def _need_data(self) -> data.Data:
        if self._data is None:
            raise NotReady("no data yet; name some first, such as: %tl_data digits")
        return self._data

    def _need_ready(self) -> LayerMap:
        layers = self._need_layers()
        self._need_data()
        return layers
