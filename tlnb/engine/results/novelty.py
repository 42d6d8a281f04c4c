"""``None of these``: samples that are like nothing that was learned.

Two signs count, each in standard deviations over the validation samples: how small the largest probability is, as a
logarithm (Hendrycks and Gimpel 2017), and, twice, how far the features lie from the nearest training sample (Sun
et al. 2022), as an angle seen from their mean. Features that were learned elsewhere tell kinds of things apart that
the head never saw; probabilities tell what the head learned of its own classes. Neither alone is good on photos,
drawings, sounds and texts alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from tlnb.engine.core.arguments import number_between
from tlnb.errors import CheckpointError, DataError

FALSE_ALARMS = 0.05
WEIGHTS = (1.0, 2.0)  # of probability and distance
MOST = 2048  # training samples that are kept to be compared with
BLOCK = 1 << 22  # similarities that are worked out at once
NAMES = ("centre", "references", "scale", "threshold")


@dataclass(frozen=True)
class Novelty:
    """What is needed to tell that a sample is none of the classes; plain tensors, for a checkpoint or an export.

    Attributes:
        centre: mean of the training features, float32 of shape (D,).
        references: directions of training features from there, of length 1, float32 of shape (R, D).
        scale: mean and standard deviation over the validation samples of the negative logarithm of the largest
            probability and of the distance, float32 of shape (4,).
        threshold: a sample above it is none of the classes; inf where there are too few samples to say.
        false_alarms: share of samples of the classes that are above it.
    """

    centre: Tensor = field(repr=False)
    references: Tensor = field(repr=False)
    scale: Tensor = field(repr=False)
    threshold: float
    false_alarms: float

    def strangeness(self, features: Tensor, scores: Tensor) -> Tensor:
        """How unlike all that was learned each sample is, float32 (N,); about 0 for an ordinary one.

        Args:
            features: what the head takes, (N, D).
            scores: what it gives, before softmax, (N, classes).
        """
        signs = torch.stack([_doubt(scores), self._distance(features)])
        weights = signs.new_tensor(WEIGHTS)[:, None]
        return (weights * (signs - self.scale[::2, None]) / self.scale[1::2, None]).sum(0)

    def none_of_these(self, features: Tensor, scores: Tensor) -> Tensor:
        """Which samples are none of the classes: bool (N,)."""
        return self.strangeness(features, scores) > self.threshold

    def _distance(self, features: Tensor) -> Tensor:
        ways = _directions(features, self.centre)
        return torch.cat([_nearest(part, self.references) for part in ways.split(_rows(self.references))])

    def tensors(self) -> dict[str, Tensor]:
        """All of it, by name."""
        threshold = torch.tensor([self.threshold, self.false_alarms], dtype=torch.float64)
        return dict(zip(NAMES, (self.centre, self.references, self.scale, threshold), strict=True))

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Novelty:
        """Back from there.

        Raises:
            CheckpointError: one is missing or of another shape.
        """
        try:
            centre, references, scale, threshold = (tensors[name] for name in NAMES)
        except KeyError as missing:
            raise CheckpointError(f"what tells 'none of these' lacks {missing.args[0]}") from None
        if references.shape != (len(references), *centre.shape) or (len(scale), len(threshold)) != (4, 2):
            raise CheckpointError("what tells 'none of these' is of another shape than it should be")
        return cls(centre, references, scale, *threshold.tolist())


def fit_novelty(
    train: Tensor,
    valid: Tensor,
    scores: Tensor,
    *,
    targets: Tensor | None = None,
    false_alarms: float = FALSE_ALARMS,
    seed: int = 0,
) -> Novelty:
    """Learn what samples of the classes look like.

    Args:
        train: features of the training samples, as the head takes them, (n, D).
        valid: features of validation samples, (m, D).
        scores: of these, before softmax, (m, classes).
        targets: classes of the training samples, (n,); where more than ``MOST`` are there, each class keeps as
            many. None to keep any.
        false_alarms: share of samples of the classes that may be taken for none of them.
        seed: of the choice that is kept.

    Raises:
        DataError: an impossible share, or no samples.
    """
    number_between(false_alarms, "the share of false alarms", 0, 1, DataError)
    if not len(train) or len(valid) < 2:
        raise DataError("'none of these' needs training samples and two validation samples or more")
    centre = train.detach().float().cpu().mean(0)
    references = _directions(train[_kept(len(train), targets, seed)], centre)
    plain = Novelty(centre, references, torch.tensor([0.0, 1.0, 0.0, 1.0]), math.inf, false_alarms)
    signs = torch.stack([_doubt(scores), plain._distance(valid)])
    spread = signs.std(1)
    scale = torch.stack([signs.mean(1), torch.where(spread > 0, spread, 1.0)], 1).flatten()
    fitted = Novelty(centre, references, scale, math.inf, false_alarms)
    strange = fitted.strangeness(valid, scores).sort().values
    place = math.ceil((len(strange) + 1) * (1 - false_alarms) - 1e-9)
    threshold = float(strange[place - 1]) if place <= len(strange) else math.inf
    return Novelty(centre, references, scale, threshold, false_alarms)


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


def _directions(features: Tensor, centre: Tensor) -> Tensor:
    return functional.normalize(features.detach().float().cpu().flatten(1) - centre, dim=1)


def _doubt(scores: Tensor) -> Tensor:
    return -scores.detach().float().cpu().log_softmax(1).amax(1)


def _nearest(ways: Tensor, references: Tensor) -> Tensor:
    """The chord to the nearest reference, 0 to 2."""
    return (2 - 2 * (ways @ references.T).amax(1)).clamp(min=0).sqrt()


def _rows(references: Tensor) -> int:
    return max(BLOCK // max(len(references), 1), 1)
