"""The network of a session: loading it, its layers, and what is frozen."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from tlnb.display.tables import printable
from tlnb.engine.checkpoint import file as checkpoint
from tlnb.engine.core.modules import set_training
from tlnb.engine.models import catalogue as models
from tlnb.engine.models import own_model
from tlnb.engine.models.loaded import LoadedModel
from tlnb.engine.network import adapters, address, renewal
from tlnb.engine.network import freeze as freezing
from tlnb.engine.network.layers import LayerMap, find_layers
from tlnb.engine.training.plan import adapter_words, check_body
from tlnb.engine.training.stage import Stage
from tlnb.errors import CheckpointError, ModelError, NotReady, PlanError
from tlnb.session.answers import Change as ChangeAnswer
from tlnb.session.answers import Lines
from tlnb.session.change import Change
from tlnb.session.state import SessionState
from tlnb.session.tools import Tools

MERGED = "adapter: merged into the weights before any stage"
LOADED = "adapter: loaded from"  # a file; the rest of the note is its name


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
            _no_adapter(model)
            return models.load_model(
                model, weights=weights, arch=arch, revision=revision, log=self._tools.log
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
            renewal.reinitialize(loaded.model, layers, kept, fresh=fresh)
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

    def accept_layers(
        self, change: Change, layers: LayerMap, frozen: Iterable[bool], adapted: Iterable[int] | None = None
    ) -> None:
        """Take layers that were found, in these states; None for the layers that were adapted before."""
        before = change.state.layers
        adapted = before.adapted if adapted is None and before is not None else adapted or ()
        change.set(layers=layers, revision=change.state.revision + 1)
        self.set_frozen(change, frozen, adapted)

    def set_frozen(
        self, change: Change, frozen: Iterable[bool], adapted: Iterable[int] | None = None
    ) -> None:
        """Freeze the layers whose flag is set, and let all others adapt or train: in the model, then in the state.

        Said again, it repairs what somebody else has changed in the model.

        Args:
            change: takes it.
            frozen: a flag for each layer.
            adapted: numbers of the layers that are adapted, where they are not frozen; None for those that are now.

        Raises:
            ModelError: another number of flags than of layers.
        """
        flags, layers = tuple(map(bool, frozen)), change.state.layers
        if layers is not None and len(flags) != len(layers):
            raise ModelError(f"frozen takes one flag for each of the {len(layers)} layers, not {len(flags)}")
        if layers is not None:
            model = change.state.need_model().model
            change.journal.flags(model)
            now = layers.adapted if adapted is None else frozenset(adapted)
            layers = layers.with_adapters(model, (i for i in now if not flags[i]))
            moved = layers.adapted != (change.state.layers or layers).adapted
            change.set(layers=layers, revision=change.state.revision + moved)
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
        self._drop_unlearned(change, hit)
        self.set_frozen(change, flags, layers.adapted - set(hit))
        return ChangeAnswer(verb, hit, layers, change.state.layer_table)

    def _drop_unlearned(self, change: Change, hit: Iterable[int]) -> None:
        """Take away what adapts these layers and has learned nothing yet."""
        layers, model = change.state.need_layers(), change.state.need_model().model
        chosen = [layers.adapters[i] for i in hit if i in layers.adapters]
        names = [n for a in chosen if not adapters.learned(model, dict.fromkeys(a.on, a.words)) for n in a.on]
        if names:
            change.journal.adapters(model)
            adapters.detach(model, names)

    # ---------------------------------------------------------------- adapters

    def adapt(self, change: Change, where: object, kind: object, rank: object) -> ChangeAnswer:
        """Adapt layers of the body, let the head train, and freeze what else there is; see ``Session.adapt``."""
        state = change.state
        layers, words = state.need_layers(), adapter_words(kind, rank)
        hit = set(address.select(where, layers))
        check_body(hit, layers)
        model = state.need_model().model
        found = {i: layers.adaptable(model, [i], words) for i in sorted(hit)}
        chosen = {i: words for i, names in found.items() if names}
        if not chosen:
            raise PlanError(nothing_to_adapt(layers, hit & set(layers.body), words))
        others = {i: a for i, a in layers.adapters.items() if i in chosen and a.words != words}
        if any(adapters.learned(model, dict.fromkeys(a.on, a.words)) for a in others.values()):
            raise NotReady(
                f"{layers.describe(others)} learned by {next(iter(others.values())).words}; %tl_merge puts that into "
                "the weights first"
            )
        if others:
            change.journal.adapters(model)
            adapters.detach(model, [name for a in others.values() for name in a.on])
        self.attach(change, chosen)
        adapted = layers.adapted | set(chosen)
        frozen = [i in layers.body and i not in adapted for i in range(len(layers))]
        self.set_frozen(change, frozen, adapted)
        left = hit & set(layers.body) - set(chosen)
        more = self._adapted_lines(change.state, layers.describe(left) if left else "")
        table = change.state.layer_table
        return ChangeAnswer("adapted", sorted(chosen), layers, table, f"by {words}", *more)

    def _adapted_lines(self, state: SessionState, left: str) -> Iterable[str]:
        layers = state.need_layers()
        count = sum(layers.adapters[i].parameters for i in layers.adapted)
        whole = sum(layer.parameters for layer in layers)
        yield (
            f"their weights and buffers stay; what is added to them has {count:,} numbers, {count / whole:.1%} of the "
            "network's, and the head trains"
        )
        if left:
            yield f"{left}: nothing there that this could adapt, so frozen"
        frozen = [i for i in layers.body if i in state.frozen_indexes]
        if frozen and not left:
            yield f"frozen: {layers.describe(frozen)}"

    def attach(self, change: Change, wanted: Mapping[int, str]) -> None:
        """Give layers the adapters of these words, where they lack them; the network answers as before."""
        state = change.state
        layers, model = state.need_layers(), state.need_model().model
        spec = {
            name: words
            for index, words in wanted.items()
            if index not in layers.adapters
            for name in layers.adaptable(model, [index], words)
        }
        if spec:
            change.journal.adapters(model)
            adapters.attach(model, spec)
            change.set(layers=layers.with_adapters(model, layers.adapted))

    def match(self, change: Change, spec: Mapping[str, str]) -> None:
        """Give the network these adapters, by the names of the weights, and no others."""
        state = change.state
        layers, model = state.need_layers(), state.need_model().model
        if adapters.attached(model) == dict(spec):
            return
        change.journal.adapters(model)
        adapters.match(model, spec)
        change.set(layers=layers.with_adapters(model, layers.adapted))

    def fitting(self, state: SessionState, stages: Iterable[Stage]) -> list[Stage]:
        """The stages of a plan with layers frozen that have nothing to adapt.

        Raises:
            PlanError: a stage has nothing to adapt, or layers that are adapted otherwise before it.
        """
        layers, model = state.need_layers(), state.need_model().model
        known = {index: adapter.words for index, adapter in layers.adapters.items()}
        fitted = []
        for stage in stages:
            if stage.merges:
                known = {}
            held = {i: words for i, words in stage.adapted if layers.adaptable(model, [i], words)}
            if stage.adapted and not held:
                missing, words = [i for i, _ in stage.adapted], stage.adapted[0][1]
                raise PlanError(f"{stage.text!r}: {nothing_to_adapt(layers, missing, words)}")
            other = next((i for i, words in held.items() if known.get(i, words) != words), None)
            if other is not None:
                raise PlanError(
                    f"{stage.text!r}: layer {other} is adapted by {known[other]} before; %tl_merge puts that into the "
                    "weights, between two plans"
                )
            known |= held
            frozen = sorted({*stage.frozen, *(i for i, _ in stage.adapted if i not in held)})
            fitted.append(replace(stage, frozen=tuple(frozen), adapted=tuple(sorted(held.items()))))
        return fitted


def nothing_to_adapt(layers: LayerMap, indexes: Iterable[int], words: str) -> str:
    """Why layers cannot be adapted so, in words."""
    what = {"bias": "a bias", "norm": "a norm"}.get(words, f"a matrix that is larger than {words} would be")
    return f"nothing to adapt: no weight of {layers.describe(indexes)} is {what}"


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


def _no_adapter(name: str) -> None:
    """Say what a file of adapters is, and what to do with it.

    Raises:
        ModelError: this is one.
    """
    try:
        kind = checkpoint.read_about(Path(name)).get("kind")
    except CheckpointError:  # no file, plain weights, or damaged: said where it is read
        return
    if kind == checkpoint.ADAPTER:
        shown = printable(name)
        raise ModelError(
            f"{shown} holds adapters alone; load the network that they are for, then: %tl_adapt --file {shown}"
        )
