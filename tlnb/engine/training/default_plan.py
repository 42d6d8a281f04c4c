"""What trains where the user says nothing: the head first, fitted; then what is unfrozen, from a soft head.

Head first because a new head on moving features spoils them (LP-FT, Kumar et al. 2022), and because a fitted head is
at once as good as the features are. What comes after it begins with a soft head: a fitted one tells the few training
samples apart already, so that the body would have nothing to learn. A handful of images trains the last part of a
pretrained body alone, which is better there and costs less. The figures behind each number stand in
``tests/benchmarks/accuracy/RESULTS.md``, which says on what they were tuned.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch import nn

from tlnb.engine.network.layers import LayerMap

LOW = 3e-4  # AdamW's highest rate for pretrained layers
NORMED = 1e-3  # the same where a few BatchNorm layers keep what moves in bounds, and for random weights
DEEP = (
    12  # BatchNorm layers from which on the noise of batch statistics adds up to harm; their statistics stay
)
HANDFUL = 60  # images up to which the last part of a pretrained body learns more than the whole does
KEPT = 5 / 7  # of the body that stays then


@dataclass(frozen=True)
class Traits:
    """What rates and norms depend on.

    Attributes:
        norms: how many BatchNorm layers the network has.
        trained: whether it has weights that are worth keeping.
    """

    norms: int
    trained: bool

    @classmethod
    def of(cls, model: nn.Module, *, trained: bool) -> Traits:
        """Of a network."""
        return cls(sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()), trained)

    @property
    def rate(self) -> float:
        """AdamW's highest rate for all layers, under one-cycle."""
        return NORMED if not self.trained or 0 < self.norms < DEEP else LOW

    @property
    def bn(self) -> str:
        """What ``bn auto`` means: ``frozen`` or ``train``."""
        return "frozen" if self.trained and self.norms >= DEEP else "train"

    def handful(self, images: int) -> bool:
        """Whether so few training images teach the last part of the body more than the whole of it."""
        return self.trained and self.rate == LOW and images <= HANDFUL


def usual_epochs(images: int) -> int:
    """Epochs of all that is unfrozen, for so many training images."""
    if images <= 100:
        return 16
    return 10 if images <= 400 else 5


def first_part(layers: LayerMap) -> int:
    """How many first layers stay where only the last part of the body trains.

    It is the nearest place at or before ``KEPT`` where the network can be cut, so that the cache serves it.
    """
    kept = round(KEPT * len(layers.body))
    if layers.graph is None:
        return kept
    return max((cut for cut in layers.graph.cuts if cut <= kept), default=0)


def default_plan(layers: LayerMap, frozen: Collection[int], images: int, traits: Traits, *, fit: bool) -> str:
    """The plan in the stage language.

    Args:
        layers: of the network.
        frozen: those that the user has frozen; they stay so.
        images: training samples.
        traits: of the network.
        fit: whether the head is new, and can be fitted.
    """
    free = [i for i in range(len(layers)) if i not in frozen]
    fit = fit and set(layers.head) <= set(free)
    if fit and traits.handful(images):
        last = [i for i in free if i >= first_part(layers)]
        free = last if set(last) - set(layers.head) else free
    lines = ["fit head"] if fit else []
    if not fit or set(free) - set(layers.head):
        lines.append(train_line(_address(free, len(layers)), images, traits, soft=fit))
    return "\n".join(lines)


def _address(free: list[int], count: int) -> str:
    if len(free) == count:
        return "all"
    if free and free == list(range(free[0], count)):
        return f"{free[0]}:"
    return ",".join(map(str, free)) or "none"


def train_line(where: str, images: int, traits: Traits, *, soft: bool) -> str:
    """A stage that trains these layers for as long as so many images ask for.

    Args:
        where: an address.
        images: training samples.
        traits: of the network.
        soft: whether the head begins soft, after it was fitted.
    """
    keys = [f"epochs {usual_epochs(images)}", f"lr {traits.rate:g}"]
    if soft:
        keys.append("init soft")
    if traits.trained:
        keys.append("blend auto")
    return f"train {where} {' '.join(keys)}"
