"""Answers for wholes whose pieces are samples: a clip's answer is the mean of those of its pieces."""

from __future__ import annotations

import torch
from torch import Tensor

from tlnb.engine.core.objectives import Classification, MultiLabel, Objective
from tlnb.engine.data.samples import Samples, SubsetSamples

LEAST = 1e-30  # a probability that still has a logarithm


def of_wholes(task: Objective, scores: Tensor, targets: Tensor, wholes: Tensor) -> tuple[Tensor, Tensor]:
    """Scores whose answers are the mean of the answers of each whole's pieces, and the targets of the wholes.

    Probabilities are averaged, not scores: the sum rule of Kittler et al. 1998. Values are averaged as they are.

    Args:
        task: what scores mean.
        scores: (N, outputs), of pieces.
        targets: of pieces, (N,) or (N, outputs).
        wholes: number of the whole of each piece, int64 of shape (N,).

    Returns:
        Scores (M, outputs), float32, and targets (M,) or (M, outputs), in the order of the numbers, on the CPU.
    """
    place = wholes.unique(return_inverse=True)[1]
    scores, targets = scores.detach().cpu().double(), targets.cpu()
    if isinstance(task, Classification):
        found = mean_of_wholes(scores.softmax(1), place).clamp_min(LEAST).log()
    elif isinstance(task, MultiLabel):
        found = mean_of_wholes(scores.sigmoid(), place).clamp(LEAST, 1 - 1e-15).logit()
    else:
        found = mean_of_wholes(scores, place)
    return found.float(), targets[first_pieces(place)]


def mean_of_wholes(rows: Tensor, wholes: Tensor) -> Tensor:
    """The mean of the rows (N, D) of each whole's pieces, (M, D), in the order of their numbers."""
    place = wholes.unique(return_inverse=True)[1]
    count = torch.bincount(place).unsqueeze(1)
    return rows.new_zeros(len(count), rows.shape[1]).index_add_(0, place, rows) / count


def pieces_of(wholes: Tensor | None, chosen: Tensor) -> tuple[Tensor, Tensor | None]:
    """The places of the pieces of some wholes, and the place of its whole among the chosen for each.

    Args:
        wholes: number of the whole of each piece, from 0 without gaps, (N,); None where each stands alone.
        chosen: numbers of wholes, int64 of shape (n,).
    """
    if wholes is None:
        return chosen, None
    order, counts = wholes.argsort(stable=True), torch.bincount(wholes)
    first = (counts.cumsum(0) - counts).tolist()
    sizes = counts.tolist()
    parts = [order[first[n] : first[n] + sizes[n]] for n in chosen.tolist()]
    return torch.cat([*parts, chosen[:0]]), torch.arange(len(chosen)).repeat_interleave(counts[chosen])


def first_pieces(wholes: Tensor) -> Tensor:
    """The place of the first piece of each whole, in the order of their numbers: int64 of shape (M,)."""
    order = wholes.argsort(stable=True)
    own = wholes[order]
    return order[torch.cat([torch.ones(1, dtype=torch.bool), own[1:] != own[:-1]])]


def worst_pieces(losses: Tensor, wholes: Tensor) -> Tensor:
    """The place of the piece with the largest loss of each whole, in the order of their numbers.

    Args:
        losses: of pieces, (N,).
        wholes: number of the whole of each piece, (N,).
    """
    order = losses.argsort(descending=True, stable=True)
    return order[first_pieces(wholes[order])]


def one_of_each(samples: Samples) -> Samples:
    """The first piece of each whole, so that what is counted and compared are wholes; all samples without pieces."""
    return samples if samples.wholes is None else SubsetSamples(samples, first_pieces(samples.wholes))
