"""The network of before training in a checkpoint: only what training has changed since is written.

Forgetting, blends and the guards against forgetting are measured against that network, so a session that comes
back needs it. A tensor that still has its old bytes stands in the file once, as the network's own: a network
whose body is frozen costs nothing more, one that is trained as a whole its own size again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tlnb.engine.models.loaded import LoadedModel
from tlnb.engine.network.old_network import OldNetwork
from tlnb.engine.saving.checkpoint_network import fill, head_to, tensors_of
from tlnb.engine.saving.plain import Plain, text, texts

HeadFrom = Callable[[Any, Mapping[str, Tensor], str], nn.Module]


@dataclass(frozen=True)
class OldParts:
    """What a checkpoint says of the network of before training.

    Attributes:
        name: of the old task.
        heads: the modules at its head and side heads, by place.
        tensors: all its weights and buffers, by name.
    """

    name: str
    heads: dict[str, nn.Module]
    tensors: dict[str, Tensor]

    def network(self, loaded: LoadedModel) -> OldNetwork:
        """The network of before training, as a twin of the present one.

        Args:
            loaded: the present one, with its weights; it stays as it is.

        Raises:
            ModelError: the network cannot be copied.
        """
        old = OldNetwork.of(loaded.model, loaded.head, self.heads, self.name)
        fill(old.model, self.tensors)
        return old


def old_to(old: OldNetwork, loaded: LoadedModel) -> tuple[Plain, dict[str, Tensor]]:
    """The network of before training as plain values, and those of its tensors that are others now.

    Args:
        old: the network of before training.
        loaded: the network as it is now.
    """
    now, then = tensors_of(loaded.model), tensors_of(old.model)
    same = [name for name, tensor in then.items() if name in now and same_bytes(tensor, now[name])]
    kept = set(same)
    plain = {
        "name": old.name,
        "heads": {place: head_to(old.model.get_submodule(place)) for place in _places(loaded)},
        "same": same,
    }
    return plain, {name: tensor for name, tensor in then.items() if name not in kept}


def old_from(
    plain: Plain,
    saved: Mapping[str, Tensor],
    now: Mapping[str, Tensor],
    loaded: LoadedModel,
    head_from: HeadFrom,
) -> OldParts:
    """The way back from ``old_to``.

    Args:
        plain, saved: what it gave.
        now: the network's own tensors in the checkpoint.
        loaded: the network, with the heads of its architecture.
        head_from: makes a head of its form, its tensors and its place.

    Raises:
        ValueError, KeyError, TypeError, CheckpointError: what the file says does not fit together.
    """
    tensors = dict(saved) | {name: now[name] for name in texts(plain["same"])}
    places, forms = _places(loaded), plain["heads"]
    if _forms(tensors, places) != _forms(now, places):
        raise ValueError("the network of before training has another form than the network")
    heads = {place: head_from(forms[place], _below(tensors, place), place) for place in places}
    return OldParts(text(plain["name"]), heads, tensors)


def same_bytes(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are of one type and shape and agree in every bit; -0 is not 0 here."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(_bytes(one), _bytes(other.to(one.device)))


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _places(loaded: LoadedModel) -> Sequence[str]:
    return loaded.places


def _forms(tensors: Mapping[str, Tensor], heads: Sequence[str]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape and type of each tensor outside the heads, by name."""
    starts = tuple(f"{place}." for place in heads)
    return {name: (t.shape, t.dtype) for name, t in tensors.items() if not name.startswith(starts)}


def _below(tensors: Mapping[str, Tensor], place: str) -> dict[str, Tensor]:
    start = f"{place}."
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
