"""The network of a session: loading it, its layers, and what is frozen."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from tlnb.answers import Change
from tlnb.engine.models import catalogue as models
from tlnb.engine.models import own_model
from tlnb.engine.models.loaded import LoadedModel
from tlnb.engine.network import address, renewal
from tlnb.engine.network.layers import LayerMap
from tlnb.engine.network.modes import set_training
from tlnb.engine.training.history import History
from tlnb.errors import ModelError
from tlnb.session.heads import Heads


class Network(Heads):
    """Load a network, freeze and unfreeze its layers."""

    def load(
        self,
        model: object,
        *,
        weights: str | None = None,
        arch: str | None = None,
        input: str | Iterable[int] | None = None,
        layers_from: object = None,
    ) -> LoadedModel:
        """Load a trained network; the session starts anew with it, the data stays.

        Args:
            model: ``convnet5``, the name of a torchvision classification model, ``timm/NAME``, a file of
                weights, or an ``nn.Module``.
            weights: None for the published default, ``none`` for random, an entry's name, or a file.
            arch: for a file, its architecture; None to find it by names and shapes.
            input: for a module, the shape of one sample (``"1,28,28"``); None to guess it.
            layers_from: layers that keep their weights (``"0:5"``); all others get He normal weights and zero
                biases. None keeps all.

        Raises:
            ModelError, WeightsError, AddressError: nothing has changed then.
        """
        loaded = self._read(model, weights, arch, input)
        # Where data is there already, its samples show what the network will see.
        later = self._data is not None and layers_from is None
        layers = None if later else self._find_layers(loaded)
        if layers_from is not None:
            self._renew(loaded, layers, layers_from)
        with self._all_or_nothing():
            self._start_with(loaded, layers)
            if self._data is not None:
                self._fit_data(self._data)
            loaded.model.to(self.device)
        return loaded

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Where something goes wrong inside, the network of before is the session's again."""
        names = ("_loaded", "_history", "_layers", "_tasks", "_task", "_came_with", "_samples")
        before, frozen = {name: getattr(self, name) for name in names}, self.frozen
        try:
            yield
        except BaseException:
            for name, value in before.items():
                setattr(self, name, value)
            self.frozen = frozen
            raise

    def _read(
        self, model: object, weights: str | None, arch: str | None, shape: str | Iterable[int] | None
    ) -> LoadedModel:
        if isinstance(model, os.PathLike):
            model = os.fspath(model)
        if isinstance(model, str):
            if shape is not None:
                raise ModelError(
                    "--input is for a module of your own ($name); the input of a named one is known"
                )
            return models.load_model(
                model, weights=weights, arch=arch, say=lambda text: self._emit("on_message", text)
            )
        for option, value in (("--weights", weights), ("--arch", arch)):
            if value is not None:
                raise ModelError(
                    f"{option} is for a network that is loaded by name; a module has its weights"
                )
        loaded = own_model.adopt(model, _shape(shape))
        set_training(loaded.model, False)
        return loaded

    def _renew(self, loaded: LoadedModel, layers: LayerMap | None, where: object) -> None:
        if layers is None:
            raise ModelError("--layers-from needs the layers; say what a sample looks like: --input 1,28,28")
        kept = address.select(where, layers)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            fresh = loaded.fresh().state_dict() if loaded.fresh else {}
            renewal.renew(loaded.model, layers, kept, fresh=fresh)
        loaded.tell(
            f"kept: {layers.describe(kept)}; all other layers are new: He normal weights, zero biases"
        )
        if not set(layers.head) <= set(kept):
            loaded.categories, loaded.task = None, f"{loaded.name} (new)"

    def _start_with(self, loaded: LoadedModel, layers: LayerMap | None) -> None:
        self._loaded, self._history, self._layers = loaded, History(), None
        self._tasks, self._task, self._came_with, self._samples = {}, "", None, None
        self._first_task(loaded)
        if layers is None:
            self.frozen = ()
        else:
            self._accept_layers(layers, self._own_flags(loaded, layers))

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


def _shape(text: str | Iterable[int] | None) -> tuple[int, ...] | None:
    """``"1,28,28"`` as numbers."""
    if text is None:
        return None
    try:
        parts = text.replace("×", ",").replace("x", ",").split(",") if isinstance(text, str) else text
        shape = tuple(int(part) for part in parts)
    except (TypeError, ValueError):
        shape = ()
    if not shape or min(shape) < 1:
        raise ModelError(f"--input takes the shape of one sample, such as 1,28,28; not {text!r}")
    return shape
