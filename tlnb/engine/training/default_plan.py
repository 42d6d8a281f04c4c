"""What trains where the user says nothing: the head first, fitted; then what is unfrozen, at a low rate.

Head first because a new head on top of moving features spoils them (LP-FT, Kumar et al. 2022). The figures of this
page were chosen on the sets that ``tests/benchmarks/accuracy/RESULTS.md`` names as tuned on.
"""

from __future__ import annotations

from collections.abc import Collection

from tlnb.engine.network.layers import LayerMap

LOW = 3e-4  # AdamW's highest rate for pretrained layers
FRESH = 1e-3  # the same where the weights are random


def usual_epochs(images: int) -> int:
    """Epochs of all that is unfrozen, for so many training images."""
    if images <= 100:
        return 16
    return 10 if images <= 400 else 5


def usual_bn(images: int, *, trained: bool) -> str:
    """What ``bn auto`` means: ``frozen`` or ``train``."""
    return "frozen" if trained and images <= 1000 else "train"


def default_plan(layers: LayerMap, frozen: Collection[int], images: int, *, fit: bool, trained: bool) -> str:
    """The plan in the stage language.

    Args:
        layers: of the network.
        frozen: those that the user has frozen; they stay so.
        images: training samples.
        fit: whether the head is new, and can be fitted.
        trained: whether the network has weights that are worth keeping.
    """
    free = [i for i in range(len(layers)) if i not in frozen]
    lines = ["fit head"] if fit and trained and set(layers.head) <= set(free) else []
    if not lines or set(free) - set(layers.head):
        where = "all" if len(free) == len(layers) else ",".join(map(str, free)) or "none"
        rate = f"lr {LOW:g}{' init soft' if lines else ''} blend auto" if trained else f"lr {FRESH:g}"
        lines.append(f"train {where} epochs {usual_epochs(images)} {rate}")
    return "\n".join(lines)
