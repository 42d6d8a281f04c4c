"""What a network's answers are judged by: the very code that an exported loader carries.

Sets of classes go by log odds against a bound (split conformal prediction), ``none of these`` by how strange a sample
is. Everything from ``ROUNDING`` on is plain torch, so that a file without tlnb judges as the session does.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tlnb.engine.training.fit_head import as_vectors

ROUNDING = 1e-4  # by which figures may differ between machines; who stands at a bound is within it
WEIGHTS = (1.0, 2.0)  # of probability and distance
BLOCK = 1 << 22  # similarities that are worked out at once


def watched(model: nn.Module, reads: str, forward: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    """What enters a module of the network, as vectors (B, D), and the network's scores (B, outputs), on the CPU.

    ``reads`` is the module's name, empty for none: the scores stand for what enters it then.
    """
    seen: list[Tensor] = []
    module = model.get_submodule(reads) if reads else nn.Identity()
    handle = module.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        scores = forward()
    finally:
        handle.remove()
    scores = scores.detach().float().cpu()
    if not reads:
        return scores, scores
    if len(seen) != 1 or len(seen[0]) != len(scores):
        raise LookupError(f"{reads} does not run once for each sample")
    return as_vectors(seen[0], module).detach().float().cpu(), scores


def log_odds(scores: Tensor) -> Tensor:
    """How much likelier each class is than all others together, as a logarithm: float64 of shape (N, classes).

    It is in the order of the probabilities, but does not come to rest at 1 where the network is very sure, so
    that no two samples are alike by rounding.
    """
    exact = scores.detach().double().cpu()
    top = exact.argmax(1, keepdim=True)
    others = exact.scatter(1, top, -math.inf).logsumexp(1, keepdim=True)
    chances = exact.log_softmax(1)
    # Only that of the likeliest class can be near 1, where 1 minus it would be lost to rounding.
    odds = chances - torch.log1p(-chances.exp().clamp(max=0.75))
    return odds.scatter(1, top, exact.gather(1, top) - others)


def bound_of(margins: Tensor, sure: float) -> float:
    """The margin that this share of samples has at least; -inf where there are too few samples to say."""
    # Rounding must not turn 0.9 of 9 + 1 samples into a tenth one.
    place = math.ceil((len(margins) + 1) * sure - 1e-9)
    return float(margins[len(margins) - place]) if place <= len(margins) else -math.inf


def threshold_of(ordinary: Tensor, false_alarms: float) -> float:
    """The strangeness that this share of samples exceeds at most; inf where there are too few samples to say."""
    place = math.ceil((len(ordinary) + 1) * (1 - false_alarms) - 1e-9)
    return float(ordinary[place - 1]) if place <= len(ordinary) else math.inf


def sets_of(scores: Tensor, margins: Tensor, sure: float) -> Tensor:
    """Which classes each sample may be of: bool (N, classes)."""
    bound = bound_of(margins, sure)
    return log_odds(scores) >= bound - ROUNDING * (1 + abs(bound))


def doubt(scores: Tensor) -> Tensor:
    """How small the largest probability is, as a negative logarithm: float32 (N,)."""
    return -scores.detach().float().cpu().log_softmax(1).amax(1)


def directions(features: Tensor, centre: Tensor) -> Tensor:
    """Where features lie seen from a centre: float32 (N, D), of length 1."""
    return functional.normalize(features.detach().float().cpu().flatten(1) - centre, dim=1)


def distance(features: Tensor, centre: Tensor, references: Tensor) -> Tensor:
    """The chord from each sample's direction to the nearest reference, 0 to 2: float32 (N,)."""
    rows = max(BLOCK // max(len(references), 1), 1)
    ways = directions(features, centre)
    return torch.cat(
        [(2 - 2 * (part @ references.T).amax(1)).clamp(min=0).sqrt() for part in ways.split(rows)]
    )


def strangeness(features: Tensor, scores: Tensor, known: dict[str, Tensor]) -> Tensor:
    """How unlike all that was learned each sample is: float32 (N,); about 0 for an ordinary one."""
    signs = torch.stack([doubt(scores), distance(features, known["centre"], known["references"])])
    mean, spread = known["scale"][::2, None], known["scale"][1::2, None]
    return (torch.tensor(WEIGHTS)[:, None] * (signs - mean) / spread).sum(0)


def none_of_these(strange: Tensor, ordinary: Tensor, false_alarms: float) -> Tensor:
    """Which samples are none of the classes: bool (N,)."""
    threshold = threshold_of(ordinary, false_alarms)
    return ~(strange <= threshold + ROUNDING * (1 + abs(threshold)))  # what is no number is none of them too
