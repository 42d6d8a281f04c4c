"""The layers of a session as a strip of toggles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import traitlets

from tlnb.engine.features.cost import best_cut, forward_flops, relative_cost
from tlnb.engine.network.adapters import words_of
from tlnb.engine.network.layers import ADAPTED, FROZEN, TRAINS, LayerMap
from tlnb.engine.training.records import spans
from tlnb.errors import BadArguments
from tlnb.session import Session
from tlnb.widgets.view import Action, View, script

PRESETS = ("head", "third", "all", "none")
VERBS = {FROZEN: "freeze", TRAINS: "unfreeze", ADAPTED: "adapt"}  # by the state that they lead to
_flops: WeakKeyDictionary[LayerMap, tuple[int, ...]] = WeakKeyDictionary()


class LayersPart(View):
    """The layers and their state: what ``session.layers`` and ``session.frozen`` hold.

    Args:
        session: whose layers; none are shown before a model is loaded.
        traits: of other parts.

    Attributes:
        frozen: for each layer, whether it stays fixed. Setting it sets that of the session, so that it can be linked
            with other widgets in both directions.
    """

    layers: Any = traitlets.List().tag(sync=True)
    frozen: Any = traitlets.List().tag(sync=True)
    states: Any = traitlets.List(help="of each layer: frozen, adapted or trains").tag(sync=True)
    summary = traitlets.Unicode(help="how much trains, the cut, and what an epoch costs").tag(sync=True)
    _whose: Session | None = None  # of which the flags that are set are those; None while the view is made

    def __init__(self, session: Session, **traits: Any):
        super().__init__(session, **state_of(session), **traits)
        self._whose = session
        self.follow(self._refresh, ["frozen", "revision"])

    @traitlets.validate("frozen")
    def _frozen_is_set(self, proposal: Mapping[str, Any]) -> list[bool]:
        session, wanted = self._whose, proposal["value"]
        if session is None or list(wanted) == list(session.frozen):
            return list(wanted)
        count = len(session.frozen)
        if len(wanted) != count or not all(flag in (False, True) for flag in wanted):
            raise traitlets.TraitError(f"frozen takes {count} of True and False, one a layer; not {wanted!r}")
        session.frozen = tuple(map(bool, wanted))
        return list(session.frozen)

    def actions(self) -> dict[str, Action]:
        """Set a range; take a preset."""
        return super().actions() | {"set": self.set_range, "preset": self.preset}

    def set_range(self, low: int, high: int, frozen: bool | None = None, state: str = "") -> None:
        """Freeze, thaw or adapt layers ``low`` to ``high``, both included; all others stay as they are.

        Args:
            low, high: their numbers.
            frozen: whether they are to be frozen, or else to train; None where ``state`` says it.
            state: ``frozen``, ``adapted`` or ``trains``.

        Raises:
            BadArguments: no such layers, or no such state.
            NotReady: the session is training.
        """
        if frozen is not None:
            state = FROZEN if frozen else TRAINS
        if state not in VERBS:
            raise BadArguments(f"a layer is {', '.join(VERBS)}, not {state!r}")
        if not 0 <= low <= high < len(self.layers):
            raise BadArguments(f"there are layers 0 to {len(self.layers) - 1}; not {low} to {high}")
        lines = [f"%tl_{VERBS[state]} {address_of(low, high)}"]
        if state == ADAPTED:  # which freezes what trains beside it
            body = self.session.view.need_layers().body
            others = [i for i in body if self.states[i] == TRAINS and not low <= i <= high]
            lines += [f"%tl_unfreeze {','.join(map(str, others))}"] if others else []
        self._change(lines)

    def preset(self, name: str) -> None:
        """Train the head only, the last third, all or none.

        Raises:
            BadArguments: no such preset.
            NotReady: the session is training.
        """
        self._change(preset_lines(name, len(self.layers)))

    def _change(self, lines: Sequence[str]) -> None:
        for line in lines:
            verb, _, where = line.removeprefix("%tl_").partition(" ")
            getattr(self.session, verb)(where)
        self.teach("\n".join(lines))

    def said(self) -> str:
        """How many layers there are, and which are frozen."""
        fixed = [i for i, flag in enumerate(self.frozen) if flag]
        words = f"{len(self.layers)} layers, {spans(fixed) if fixed else 'none'} frozen"
        return words if self.layers else "no layers yet"

    def _refresh(self, _: object = None) -> None:
        state = state_of(self.session)
        with self.hold_sync():  # one message, so that the page never sees half of it
            for name, value in state.items():
                setattr(self, name, value)


class LayerToggles(LayersPart):
    """A strip with a box for each layer: click, drag, presets, keys."""

    _esm = script("layer_toggles.js", "layer_toggles.view.js")


def address_of(low: int, high: int) -> str:
    """The address of layers ``low`` to ``high``, both included: ``3`` or ``0:5``."""
    return str(low) if low == high else f"{low}:{high + 1}"


def preset_lines(name: str, count: int) -> list[str]:
    """A preset as magics.

    Raises:
        BadArguments: no such preset.
    """
    third = max(1, round(count / 3))
    lines = {
        "head": ["%tl_freeze body", "%tl_unfreeze head"],
        "third": ["%tl_freeze all", f"%tl_unfreeze -{third}:"],
        "all": ["%tl_unfreeze all"],
        "none": ["%tl_freeze all"],
    }
    if name not in lines:
        raise BadArguments(f"no preset {name!r}; presets: {', '.join(PRESETS)}")
    return lines[name]


def state_of(session: Session) -> dict[str, Any]:
    """What the strip shows: the layers as plain values, their state, and the line below."""
    if session.view.layers is None:
        return {"layers": [], "frozen": [], "states": [], "summary": ""}
    rows = session.layers
    keys = ("name", "kind", "shape", "parameters", "head")
    layers = session.view.need_layers()
    found = set(layers.adaptable(session.model, range(len(layers)), words_of(None, None)))
    can = [bool(found & set(layer.parameter_names)) or layer.index in layers.adapters for layer in layers]
    return {
        "layers": [{key: getattr(row, key) for key in keys} | {"adaptable": can[row.index]} for row in rows],
        "frozen": list(session.frozen),
        "states": [row.state for row in rows],
        "summary": summary_of(session),
    }


def summary_of(session: Session) -> str:
    """How much trains, where the cut is, and what an epoch costs."""
    table, layers = session.layers, session.view.need_layers()
    share = table.trainable_parameters / max(table.parameters, 1)
    words = [f"{table.summary} ({_percent(share) if share else '0 %'})"]
    if all(session.frozen):
        return f"{words[0]}: nothing would train"
    cut = best_cut(layers, session.frozen)
    if cut:
        words.append(f"layers {spans(range(cut))} run once, then training starts behind the cut at {cut}")
    elif layers.note:
        words.append(layers.note)
    else:
        words.append("no frozen layers at the front, so no cut")
    words.append(f"an epoch costs {_cost(session, cut)} of one that trains all")
    return " · ".join(words)


def _cost(session: Session, cut: int) -> str:
    layers = session.view.need_layers()
    if layers not in _flops:
        _flops[layers] = forward_flops(session.model, layers, _example(session))
    share = relative_cost(_flops[layers], session.frozen, cut)
    return f"about {_percent(share)}" if share >= 0.01 else _percent(share)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "less than 1 %"


def _example(session: Session) -> Any:
    import torch

    view = session.view
    if view.samples is not None:
        example = view.samples[0].batch(torch.tensor([0]))
    else:
        entry = view.need_model().input
        assert entry is not None  # layers are known only where the input is
        example = entry.example()
    return example.to(session.device)
