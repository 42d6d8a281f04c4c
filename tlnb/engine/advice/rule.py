"""From figures to a cell of the classic table, a procedure, and a plan.

The thresholds were chosen on the tuning tasks of ``tests/benchmarks/advice`` and judged on others.
"""

from __future__ import annotations

from dataclasses import dataclass

from tlnb.engine.advice.figures import Figures
from tlnb.engine.network.layers import LayerMap

ALIKE = 0.97  # similarity from which on old and new data count as alike
MUCH = 50  # training images of the smallest class from which on there is much data
SLACK = 0.02  # of the best layer's probe that the last one may lack, where two standard errors are less
KEPT = 5 / 7  # of the body that stays where data is little and alike: convnet5's convolutions
BORDER = 0.01  # of the similarity, within which it could as well be on the other side
KNOWN = 0.65  # of the way from chance to all right, that a probe on the last layer goes if it is any use
KNOWN_BY_FEW = 0.5  # the same where few images teach the probe
LOST = 0.15  # accuracy that it may lack against the best layer's if it is any use; few images do not tell
FEW_TO_PROBE = 100  # images below which that holds
LARGE = 1_500_000  # weights of a body from which on a little data moves it for the worse
FEW_IMAGES = 60
FEW_PER_CLASS = 8

CELLS: dict[tuple[str, str], str] = {
    ("little", "low"): "unfreeze more layers of the pretrained model",
    ("little", "high"): "unfreeze fewer layers",
    ("much", "low"): "initialise with the pretrained weights and train completely",
    ("much", "high"): "fine-tune completely",
}


@dataclass(frozen=True)
class Decision:
    """What the figures say to do.

    Attributes:
        amount: ``little`` or ``much``.
        likeness: ``low`` or ``high``.
        kept: how many first layers stay frozen to the end.
        reasons: one line each.
        doubts: why the evidence is thin, one line each; empty where it is not.
        far: whether the last layers hardly know the new classes, so that they have to change much.
        gentle: whether earlier layers learn slower where all layers train: what they know serves, few images
            would harm it, or there is no BatchNorm, without which high rates do.
        whole: whether the whole body is kept, and the head trains alone.
    """

    amount: str
    likeness: str
    kept: int
    reasons: tuple[str, ...]
    doubts: tuple[str, ...]
    far: bool = False
    gentle: bool = False
    whole: bool = False

    @property
    def procedure(self) -> str:
        """The cell of the table, in words."""
        return CELLS[self.amount, self.likeness]


def decide(figures: Figures, layers: LayerMap) -> Decision:
    """The cell and the number of layers to keep.

    Alike means two things at once: the norm layers see the statistics of the old data, and the last layer's
    features tell the new classes apart as well as those of any earlier layer do. Where either fails, the deep
    layers have to learn, and fine-tuning from the pretrained weights loses nothing against keeping them.

    A large network (LARGE; tried on MobileNetV2 alone) whose last layer serves as well as any is kept whole while
    data is little: on 20 to 80 photos every other plan lost 3 to 20 points against its head alone.

    Args:
        figures: measured.
        layers: of the network.
    """
    amount = "much" if (figures.per_class or figures.images // 10) >= MUCH else "little"
    carried, gap = _carried(figures)
    alike = carried and (figures.similarity is None or figures.similarity >= ALIKE)
    large = carried and sum(layers[i].parameters for i in layers.body) >= LARGE
    alike = alike or (large and amount == "little")
    far = not alike and _far(figures, gap)
    share = 1.0 if large else KEPT
    kept = _cut(round(share * len(layers.body)), layers) if alike and amount == "little" else 0
    whole = kept > max(layers.body, default=0)
    reasons = _reasons(figures, gap, far)
    if whole:
        reasons += (
            "the network is large and its last layer serves: so few images would only spoil its body",
        )
    return Decision(
        amount,
        "high" if alike else "low",
        kept,
        reasons,
        _doubts(figures),
        far,
        gentle=figures.similarity is None or alike or _worth_sparing(figures, gap),
        whole=whole,
    )


def _carried(figures: Figures) -> tuple[bool, float]:
    """Whether the last layer is as good as the best, and by how much it is worse."""
    best = max(figures.scores, key=lambda score: score.probe)
    last = figures.scores[-1]
    gap = best.probe - last.probe
    return gap <= max(SLACK, 2 * last.error), gap


def _worth_sparing(figures: Figures, gap: float) -> bool:
    """Whether few images are there, and the last layer's features are as good as any."""
    return figures.images < FEW_TO_PROBE and gap <= max(SLACK, figures.scores[-1].error)


def _far(figures: Figures, gap: float) -> bool:
    """Whether the last layer's features hardly tell the new classes, or far worse than an earlier layer's.

    Never so without BatchNorm: high rates carry such a network to where it learns nothing more.
    """
    if figures.similarity is None:
        return False
    last = figures.scores[-1]
    known = (last.probe - figures.chance) / max(1 - figures.chance, 1e-9)
    if figures.images < FEW_TO_PROBE:
        return known < KNOWN_BY_FEW
    return known < KNOWN or gap > max(LOST, 3 * last.error)


def _cut(kept: int, layers: LayerMap) -> int:
    """The nearest place at or before ``kept`` where the network can be cut, so that the cache serves it."""
    if layers.graph is None:
        return kept
    return max((cut for cut in layers.graph.cuts if cut <= kept), default=0)


def _reasons(figures: Figures, gap: float, far: bool) -> tuple[str, ...]:
    last = figures.scores[-1]
    best = max(figures.scores, key=lambda score: score.probe)
    alike = (
        "similarity: the network has no BatchNorm statistics to tell it by; the probes alone decide"
        if figures.similarity is None
        else f"similarity {figures.similarity:.2f} ({ALIKE:g} and more is high): {figures.measured_on}"
    )
    per_class = (
        f", {figures.per_class} in the smallest class ({MUCH} and more is much)" if figures.per_class else ""
    )
    deepest = (
        f"a linear probe on the last layer scores {last.probe:.3f} ± {last.error:.3f}, the best of all layers"
        if gap <= 0
        else f"a linear probe scores {best.probe:.3f} behind layer {best.kept - 1}, and "
        f"{last.probe:.3f} ± {last.error:.3f} behind the last"
    )
    if far:
        deepest += "; too little to build on, so small batches and a high rate move all layers far"
    return (f"amount: {figures.images:,} training images{per_class}", alike, deepest)


def _doubts(figures: Figures) -> tuple[str, ...]:
    found = []
    if figures.images < FEW_IMAGES or (figures.per_class or FEW_PER_CLASS) < FEW_PER_CLASS:
        found.append(f"only {figures.images} images: probes are rough, and so is any validation")
    if figures.similarity is None:
        found.append("no figure for the similarity")
    elif abs(figures.similarity - ALIKE) < BORDER:
        found.append(f"the similarity {figures.similarity:.2f} is near the border of {ALIKE:g}")
    if max(s.probe for s in figures.scores) < figures.chance + 3 * figures.scores[-1].error:
        found.append("no layer's features tell the classes apart better than chance")
    return tuple(found)


def lengths(images: int) -> tuple[int, int, int]:
    """Batch, epochs of a head alone, and epochs of anything more, for so many training images."""
    if images <= 100:
        return 16, 20, 16
    if images <= 400:
        return 32, 15, 10
    return 64, 10, 5


def write_plan(decision: Decision, images: int) -> str:
    """The plan in the stage language: the head first (Kumar et al. 2022), then what is unfrozen.

    Args:
        decision: what to do.
        images: training images.
    """
    batch, head, rest = lengths(images)
    first = f"train head epochs {head} lr 1e-2 batch {batch}"
    if decision.whole:
        return first
    if decision.kept:
        rest_of_it = f"train {decision.kept}: epochs {rest} lr 1e-3"
    elif decision.far:  # twice the steps at twice the rate, in as many epochs
        rest_of_it, batch = f"train all epochs {rest} lr 2e-3", max(batch // 2, 8)
    elif decision.gentle:
        rest_of_it = f"train all epochs {rest} lr 2e-3 decay 1.6"
    else:
        rest_of_it = f"train all epochs {rest} lr 1e-3"
    return f"{first}\n{rest_of_it} batch {batch}"
