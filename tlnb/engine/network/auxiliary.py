"""Classifiers beside the main one, which help in training alone (Inception, GoogLeNet)."""

from __future__ import annotations

import re

from torch import Tensor, nn

AUXILIARY_WEIGHT = 0.3
"""Share of each auxiliary loss in the whole (Szegedy et al. 2015, "Going deeper with convolutions")."""

_AUXILIARY = re.compile(r"(.*\.)?aux[^.]*", re.IGNORECASE)


def is_auxiliary(name: str) -> bool:
    """Whether the module of this qualified name is, or stands in, an auxiliary classifier."""
    return any(_AUXILIARY.fullmatch(name[:end]) for end in _ends(name))


def auxiliary_heads(model: nn.Module) -> tuple[str, ...]:
    """The last linear layer of each auxiliary classifier, by qualified name."""
    last: dict[str, str] = {}
    for name, module in model.named_modules():
        root = next((name[:end] for end in _ends(name) if _AUXILIARY.fullmatch(name[:end])), None)
        if root is not None and isinstance(module, nn.Linear | nn.Conv2d):
            last[root] = name
    return tuple(last.values())


def auxiliary_scores(output: object, model: nn.Module) -> tuple[Tensor, ...]:
    """The class scores of the auxiliary classifiers that train, in what a network returns in training.

    A classifier in a frozen layer is left out: it could teach nothing and would only add to the loss. So the
    loss is the same whether or not a frozen first part is computed anew.

    Args:
        output: of the network; a named tuple whose further fields are called ``aux…``, or anything else.
        model: the network.
    """
    names = getattr(output, "_fields", ())
    if not isinstance(output, tuple) or not names:
        return ()
    training = {_key(name) for name, child in model.named_children() if _trains(child)}
    return tuple(
        scores
        for name, scores in zip(names, output, strict=True)
        if isinstance(scores, Tensor) and is_auxiliary(name) and _key(name) in training
    )


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _key(name: str) -> str:
    """``aux_logits2`` is what the module ``aux2`` gives, ``aux_logits`` what ``AuxLogits`` gives."""
    return name.lower().replace("_", "").replace("logits", "")


def _ends(name: str) -> list[int]:
    return [*(i for i, letter in enumerate(name) if letter == "."), len(name)]
