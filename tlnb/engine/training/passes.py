"""Samples through the network: a batch in pieces that fit into memory, and loss and figure as they are now."""

from __future__ import annotations

import gc
import itertools
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn

from tlnb.engine.core.modules import set_training
from tlnb.engine.core.objectives import Classification, Objective, class_weights, scores_of
from tlnb.engine.core.tree import call
from tlnb.engine.data.samples import Samples
from tlnb.engine.data.wholes import of_wholes

Result = TypeVar("Result")

_SIGNS = (
    "out of memory", "can't allocate memory", "not enough memory", "failed to allocate", "alloc_failed",
    "could not create a primitive", "could not create a memory", "bad_alloc", "bad allocation",
)  # fmt: skip


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of the machine or of an accelerator, has run out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


def free_after(error: BaseException) -> None:
    """Let go of what the frames of an error hold: activations, gradients, the batch.

    A traceback keeps every local variable of the calls that it went through, and a notebook keeps the
    traceback, so the memory would stay full.
    """
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def count_pieces(samples: int, most: int) -> int:
    """Into how many pieces of ``most`` samples a batch goes, where they are as even as can be.

    No piece is a single sample, which BatchNorm cannot take, as long as ``most`` is more than one; three samples
    in twos stay together.
    """
    count = -(-samples // most)
    return max(count - 1, 1) if most > 1 and samples < 2 * count else count


def shares(task: Objective | None, targets: Tensor, pieces: list[Tensor]) -> list[float]:
    """How much the mean loss of each piece counts for in the mean loss of the batch; they sum to 1.

    Args:
        task: what is learned; with class weights a sample counts by the weight of its class. None to count each
            sample alike.
        targets: of all samples.
        pieces: indices of the samples in each piece.
    """
    if isinstance(task, Classification) and task.weights is not None:
        weights = torch.tensor(task.weights)
        amounts = [float(weights[targets[piece.to(targets.device)].cpu()].sum()) for piece in pieces]
    else:
        amounts = [float(len(piece)) for piece in pieces]
    return [amount / sum(amounts) for amount in amounts]


def within_memory(work: Callable[[], Result], smaller: Callable[[], bool]) -> Result:
    """The result of ``work``, which is tried again as long as memory runs out and ``smaller`` finds a way.

    Raises:
        RuntimeError: memory has run out, and there is no smaller way; the frames hold nothing any more.
    """
    while True:
        try:
            return work()
        except Exception as error:
            if not out_of_memory(error):
                raise
            free_after(error)
            if not smaller():
                raise


def in_turn(samples: Samples) -> Tensor:
    """All samples once: in order, or the short ones first, so that little padding is computed."""
    if samples.lengths is None:
        return torch.arange(len(samples))
    return samples.lengths.argsort(stable=True)


BATCH = 256
MOST_ANSWERS = 1 << 18  # numbers that are kept of one pass: a megabyte


class Answers:
    """What a network answers for each sample, kept small: of very many classes the likeliest alone.

    Args:
        task: what scores mean.
        count: of samples.
    """

    def __init__(self, task: Objective, count: int):
        self._task, self._count = task, count
        self._parts: list[Tensor] = []

    def take(self, scores: Tensor) -> None:
        """Take in a batch (B, outputs); nothing waits for the device."""
        if self._count * scores[0].numel() <= MOST_ANSWERS:
            self._parts.append(scores.detach().float())
        elif isinstance(self._task, Classification) and self._count <= MOST_ANSWERS:
            self._parts.append(scores.detach().argmax(1).to(torch.int32))

    def value(self) -> Tensor | None:
        """Probabilities (N, classes), or values in the user's unit, float32; class numbers (N,), int32; or None."""
        if not self._parts:
            return None
        found = torch.cat(self._parts)
        found = found.cpu()
        return self._task.answers(found) if found.is_floating_point() else found


def measure(
    model: nn.Module,
    samples: Samples,
    task: Objective,
    device: torch.device | str = "cpu",
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[float, float]:
    """Mean loss and the task's figure, in test mode; the modes of the model are put back.

    Args:
        model: gives scores (B, outputs).
        samples: what it is measured on.
        task: loss and figure.
        device: where the model is.
        on_progress: called as ``on_progress(done, total)`` in samples, before each batch; what it raises ends the work.
    """
    done = itertools.count()

    def on_batch() -> None:
        on_progress(min(next(done) * BATCH, len(samples)), len(samples))

    modes = [(module, module.training) for module in model.modules()]
    try:
        set_training(model, False)
        return loss_and_figure(model, samples, task, torch.device(device), BATCH, on_batch=on_batch)
    finally:
        for module, training in modes:
            module.training = training


@torch.no_grad()
def loss_and_figure(
    forward: nn.Module,
    samples: Samples,
    task: Objective,
    device: torch.device,
    batch: int,
    *,
    precision: Callable[[], AbstractContextManager[object]] = nullcontext,
    on_batch: Callable[[], None] = lambda: None,
    keep: Callable[[Tensor], None] = lambda scores: None,
) -> tuple[float, float]:
    """Mean loss and the task's figure in the modes that the network is in; the same for any ``batch``.

    Where samples are pieces, both are those of the wholes.

    Args:
        forward: from a batch of the samples to scores.
        samples: what it is measured on.
        task: loss and figure.
        device: where it runs.
        batch: samples at a time.
        precision: the number format that ``forward`` runs under.
        on_batch: called before each batch; what it raises passes through.
        keep: given the scores of each batch (B, outputs).
    """
    if samples.wholes is not None:
        return _of_wholes(forward, samples, samples.wholes, task, device, batch, precision, on_batch)
    loss, meter = torch.zeros((), device=device), task.meter(device)
    weights = class_weights(task, device)
    amounts = torch.zeros((), device=device)  # with class weights, a batch counts by those of its samples
    order = in_turn(samples).split(batch)
    for indices, inputs in zip(order, samples.stream(order), strict=True):
        on_batch()
        targets = samples.targets[indices].to(device)
        with precision():
            scores = scores_of(call(forward, inputs.to(device, non_blocking=True)))
        # On the device: reading the loss of each batch would make an accelerator wait.
        amount = len(indices) if weights is None else weights[targets].sum()
        loss += task.loss(scores.float(), targets) * amount
        amounts += amount
        meter.update(scores, targets)
        keep(scores)
    mean = loss.item() / len(samples) if weights is None else (loss / amounts).item()
    return mean, meter.value()


def _of_wholes(
    forward: nn.Module, samples: Samples, wholes: Tensor, task: Objective, device: torch.device, batch: int,
    precision: Callable[[], AbstractContextManager[object]], on_batch: Callable[[], None],
) -> tuple[float, float]:  # fmt: skip
    """The same for samples that are pieces: their answers are averaged first."""
    found = []
    for inputs in samples.stream(torch.arange(len(samples)).split(batch)):
        on_batch()
        with precision():
            found.append(scores_of(call(forward, inputs.to(device, non_blocking=True))).float().cpu())
    scores, targets = of_wholes(task, torch.cat(found), samples.targets, wholes)
    meter = task.meter(torch.device("cpu"))
    meter.update(scores, targets)
    return task.loss(scores, targets).item(), meter.value()
