"""``None of these``: samples that are like nothing that was learned.

Two signs count, each in standard deviations over the validation samples: how small the largest probability is, as a
logarithm (Hendrycks and Gimpel 2017), and, twice, how far the features lie from the nearest training sample (Sun
et al. 2022), as an angle seen from their mean. Features that were learned elsewhere tell kinds of things apart that
the head never saw; probabilities tell what the head learned of its own classes. Neither alone is good on photos,
drawings, sounds and texts alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from tlnb.engine.core.arguments import number_between
from tlnb.engine.results.judging import (
    directions,
    distance,
    doubt,
    none_of_these,
    strangeness,
    threshold_of,
)
from tlnb.errors import CheckpointError, DataError

FALSE_ALARMS = 0.05
MOST = 2048  # training samples that are kept to be compared with
NAMES = ("centre", "references", "scale", "ordinary")


@dataclass(frozen=True)
class Novelty:
    """What is needed to tell that a sample is none of the classes; plain tensors, for an export.

    Attributes:
        centre: mean of the training features, float32 of shape (D,).
        references: directions of training features from there, of length 1, float32 of shape (R, D).
        scale: mean and standard deviation over the validation samples of the negative logarithm of the largest
            probability and of the distance, float32 of shape (4,).
        ordinary: how strange each validation sample is, rising, float32 of shape (m,).
    """

    centre: Tensor = field(repr=False)
    references: Tensor = field(repr=False)
    scale: Tensor = field(repr=False)
    ordinary: Tensor = field(repr=False)

    def strangeness(self, features: Tensor, scores: Tensor) -> Tensor:
        """How unlike all that was learned each sample is, float32 (N,); about 0 for an ordinary one.

        Args:
            features: what the head takes, (N, D).
            scores: what it gives, before softmax, (N, classes).
        """
        return strangeness(features, scores, self.tensors())

    def threshold(self, false_alarms: float = FALSE_ALARMS) -> float:
        """A sample above it is none of the classes; inf where there are too few samples to say.

        Args:
            false_alarms: share of samples of the classes that may be taken for none of them.

        Raises:
            DataError: an impossible share.
        """
        number_between(false_alarms, "the share of false alarms", 0, 1, DataError)
        return threshold_of(self.ordinary, false_alarms)

    def none_of_these(self, features: Tensor, scores: Tensor, false_alarms: float = FALSE_ALARMS) -> Tensor:
        """Which samples are none of the classes: bool (N,)."""
        self.threshold(false_alarms)
        return none_of_these(self.strangeness(features, scores), self.ordinary, false_alarms)

    def tensors(self) -> dict[str, Tensor]:
        """All of it, by name."""
        return {name: getattr(self, name) for name in NAMES}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Novelty:
        """Back from there.

        Raises:
            CheckpointError: one is missing or of another shape.
        """
        try:
            centre, references, scale, ordinary = (tensors[name] for name in NAMES)
        except KeyError as missing:
            raise CheckpointError(f"what tells 'none of these' lacks {missing.args[0]}") from None
        if references.shape != (len(references), *centre.shape) or len(scale) != 4 or ordinary.dim() != 1:
            raise CheckpointError("what tells 'none of these' is of another shape than it should be")
        return cls(centre, references, scale, ordinary)


def fit_novelty(
    train: Tensor, valid: Tensor, scores: Tensor, *, targets: Tensor | None = None, seed: int = 0
) -> Novelty:
    """Learn what samples of the classes look like.

    Args:
        train: features of the training samples, as the head takes them, (n, D).
        valid: features of validation samples, (m, D).
        scores: of these, before softmax, (m, classes).
        targets: classes of the training samples, (n,); where more than ``MOST`` are there, each class keeps as
            many. None to keep any.
        seed: of the choice that is kept.

    Raises:
        DataError: no samples, or what is not finite.
    """
    if not len(train) or len(valid) < 2:
        raise DataError("'none of these' needs training samples and two validation samples or more")
    if not all(found.isfinite().all() for found in (train, valid, scores)):
        raise DataError("'none of these' needs finite features; the network gives some that are not")
    centre = train.detach().float().cpu().mean(0)
    references = directions(train[_kept(len(train), targets, seed)], centre)
    signs = torch.stack([doubt(scores), distance(valid, centre, references)])
    spread = signs.std(1)
    scale = torch.stack([signs.mean(1), torch.where(spread > 0, spread, 1.0)], 1).flatten()
    plain = Novelty(centre, references, scale, scale)
    return Novelty(centre, references, scale, plain.strangeness(valid, scores).sort().values)


def _kept(count: int, targets: Tensor | None, seed: int) -> Tensor:
    """Places of at most ``MOST`` training samples, rising; of classes as evenly as they are there."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    if count > MOST and targets is not None and not targets.is_floating_point():
        turn = torch.empty(count, dtype=torch.int64)
        for number in targets.unique():
            members = (targets[order] == number).nonzero().flatten()
            turn[members] = torch.arange(len(members))
        order = order[turn.argsort(stable=True)]
    return order[:MOST].sort().values
