"""The network of a session: loading it, its head, its layers, and what is frozen."""

from __future__ import annotations

import torch
from torch import nn

from tlnb.answers import Change, Lines
from tlnb.engine import address, data, head, models
from tlnb.engine.history import History
from tlnb.engine.layers import LayerMap, find_layers
from tlnb.engine.order import seed_for
from tlnb.session.state import State


class Network(State):
    """Load a network, give it a head, freeze and unfreeze its layers."""

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

    @property
    def model(self) -> nn.Module:
        """The user's own network, never a copy or a wrapper."""
        return self._need_model().model

    def freeze(self, where: object) -> Change:
        """Fix these layers; the others stay as they are.

        Raises:
            NotReady: no model yet.
            AddressError: the address hits nothing; nothing has changed then.
        """
        return self._set_frozen("froze", where, True)

    def unfreeze(self, where: object) -> Change:
        """Let these layers train; the others stay as they are.

        Raises:
            NotReady: no model yet.
            AddressError: the address hits nothing; nothing has changed then.
        """
        return self._set_frozen("unfroze", where, False)

    def _set_frozen(self, verb: str, where: object, value: bool) -> Change:
        layers = self._need_layers()
        hit = address.select(where, layers)
        self.frozen = tuple(value if i in hit else old for i, old in enumerate(self.frozen))
        return Change(verb, hit, layers, self.layers)
