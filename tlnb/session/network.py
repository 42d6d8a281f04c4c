"""The network of a session: loading it, its layers, and what is frozen."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch

from tlnb.engine.core.modules import set_training
from tlnb.engine.models import catalogue as models
from tlnb.engine.models import own_model
from tlnb.engine.models.loaded import LoadedModel
from tlnb.engine.network import address, renewal
from tlnb.engine.network import freeze as freezing
from tlnb.engine.network.layers import LayerMap, find_layers
from tlnb.errors import ModelError
from tlnb.session.answers import Change as ChangeAnswer
from tlnb.session.answers import Lines
from tlnb.session.change import Change
from tlnb.session.state import SessionState
from tlnb.session.tools import Tools


class Network:
    """Reads a network, finds its layers, and sets what is frozen.

    Args:
        tools: of the session.
    """

    def __init__(self, tools: Tools):
        self._tools = tools

    # ---------------------------------------------------------------- loading

    def read(
        self, model: object, weights: str | None, arch: str | None, shape: str | Iterable[int] | None,
        revision: str | None = None, tokenizer: object = None,
    ) -> LoadedModel:  # fmt: skip
        """Read a network; nothing of the session changes, nor of a module of the user's.

        Args:
            model, weights, arch, shape, revision, tokenizer: see ``Session.load``.

        Raises:
            ModelError, WeightsError: it cannot be used.
        """
        if isinstance(model, os.PathLike):
            model = os.fspath(model)
        if isinstance(model, str):
            if shape is not None:
                raise ModelError(
                    "--input is for a module of your own ($name); the input of a named one is known"
                )
            if tokenizer is not None:
                raise ModelError(
                    "--tokenizer is for a module of your own ($net); a named network has its own"
                )
            return models.load_model(
                model, weights=weights, arch=arch, revision=revision, say=self._tools.say
            )
        for option, value in (("--weights", weights), ("--arch", arch), ("--revision", revision)):
            if value is not None:
                raise ModelError(
                    f"{option} is for a network that is loaded by name; a module has its weights"
                )
        return own_model.adopt(model, _shape(shape), tokenizer=tokenizer)

    def take(self, change: Change, loaded: LoadedModel, layers_from: object) -> None:
        """Begin anew with a network; what was named as data stays, and is still to be fitted to it.

        Args:
            change: takes it.
            loaded: from :meth:`read`.
            layers_from: layers that keep their weights; None for all.

        Raises:
            ModelError, AddressError: it cannot be used so.
        """
        before = change.state
        change.journal.device(loaded.model)
        change.journal.modes(loaded.model)
        set_training(loaded.model, False)
        loaded.model.to(self._tools.device)
        # Where data is there already, its samples show what the network will see.
        later = before.data is not None and layers_from is None
        layers = None if later else self.find_layers(loaded)
        if layers_from is not None:
            self._reinitialize(change, loaded, layers, layers_from)
        change.state = SessionState(
            loaded=loaded, data=before.data, step=before.step, looks=before.looks, revision=before.revision,
            network_number=before.network_number + 1,
        )  # fmt: skip
        if layers is not None:
            self.accept_layers(change, layers, own_flags(loaded, layers))

    def drop(self, change: Change) -> Lines:
        """Hold no network any more, nor what was trained with it; the data stays.

        Raises:
            NotReady: there is none.
        """
        before = change.state
        name = before.need_model().name
        change.state = SessionState(
            data=before.data, step=before.step, looks=before.looks, revision=before.revision + 1,
            network_number=before.network_number + 1,
        )  # fmt: skip
        stays = f"; the data {before.data.name} stays" if before.data is not None else ""
        return Lines(f"{name} is dropped, with its history{stays}")

    def move(self, change: Change, device: torch.device) -> None:
        """Take the network, where there is one, to a device; what else needs one goes there when it is used."""
        if change.state.loaded is not None:
            change.journal.device(change.state.loaded.model)
            change.state.loaded.model.to(device)

    def _reinitialize(
        self, change: Change, loaded: LoadedModel, layers: LayerMap | None, where: object
    ) -> None:
        if layers is None:
            raise ModelError("--layers-from needs the layers; say what a sample looks like: --input 1,28,28")
        kept = address.select(where, layers)
        change.journal.tensors([*loaded.model.parameters(), *loaded.model.buffers()])
        with torch.random.fork_rng():
            torch.manual_seed(0)
            fresh = loaded.fresh().state_dict() if loaded.fresh else {}
            renewal.renew(loaded.model, layers, kept, fresh=fresh)
        loaded.tell(
            f"kept: {layers.describe(kept)}; all other layers are new: He normal weights, zero biases"
        )
        if not set(layers.head) <= set(kept):
            loaded.categories, loaded.task = None, f"{loaded.name} (new)"

    # ---------------------------------------------------------------- layers

    def find_layers(self, loaded: LoadedModel) -> LayerMap | None:
        """The layers; None while the input is not known."""
        if loaded.input is None:
            return None
        device = next(loaded.model.parameters()).device
        found = find_layers(loaded.model, loaded.input.example(device), loaded.head or None, loaded.fixed)
        if loaded.own and found.runs_plain:
            loaded.tell(found.note or "")
        return found

    def accept_layers(self, change: Change, layers: LayerMap, frozen: Iterable[bool]) -> None:
        """Take layers that were found, frozen as these flags say."""
        change.set(layers=layers, revision=change.state.revision + 1)
        self.set_frozen(change, frozen)

    def set_frozen(self, change: Change, frozen: Iterable[bool]) -> None:
        """Freeze the layers whose flag is set, and let all others train: in the model, then in the state.

        Said again, it repairs what somebody else has changed in the model.

        Raises:
            ModelError: another number of flags than of layers.
        """
        flags, layers = tuple(map(bool, frozen)), change.state.layers
        if layers is not None and len(flags) != len(layers):
            raise ModelError(f"frozen takes one flag for each of the {len(layers)} layers, not {len(flags)}")
        if layers is not None:
            model = change.state.need_model().model
            change.journal.flags(model)
            freezing.apply(model, layers, tuple(i for i, fixed in enumerate(flags) if fixed))
        change.set(frozen=flags)

    def freeze(self, change: Change, verb: str, where: object, value: bool) -> ChangeAnswer:
        """Freeze or unfreeze some layers; the others stay as they are.

        Raises:
            NotReady: no model yet.
            AddressError: the address hits nothing.
        """
        layers = change.state.need_layers()
        hit = address.select(where, layers)
        flags = (value if i in hit else old for i, old in enumerate(change.state.frozen))
        self.set_frozen(change, flags)
        return ChangeAnswer(verb, hit, layers, change.state.layer_table)


def own_flags(loaded: LoadedModel, layers: LayerMap) -> list[bool]:
    """Which layers a user's own module has frozen already; none of a named network."""
    return [
        bool(layer.parameter_names) and loaded.fixed.issuperset(layer.parameter_names) for layer in layers
    ]


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
