"""Several processes that train one stage together, each on its share of every batch (data parallelism).

The gradient of a batch is the sum of the gradients of its shares, each weighted by how much of the batch it is, so
the step is that of one process on the whole batch, to rounding. A sample always belongs to the same process, which
thereby keeps features for its own samples alone. One reduction a step carries the gradients, the loss, and what the
first process was asked meanwhile, so that all of them stop at the same edge. ``torch.distributed`` must have been set
up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tlnb.engine.core.interrupts import StopRequest
from tlnb.engine.core.tree import Batch
from tlnb.engine.data.samples import Samples


class Severed(Exception):
    """Another process of the crew is gone."""


class Crew:
    """One process of several that train together.

    Args:
        rank: its number, from 0.
        count: how many there are.
        asked: read by the first process at each step: whether to stop, and whether to report where the stage stands.

    Attributes:
        stop: is asked in all processes at the same step.
        report: whether all processes were asked, at the last step, to report where the stage stands.
    """

    def __init__(
        self, rank: int, count: int, asked: Callable[[], tuple[bool, bool]] = lambda: (False, False)
    ):
        self.rank, self.count, self._asked = rank, count, asked
        self.stop, self.report = StopRequest(), False

    def pieces(self, indices: Tensor) -> list[Tensor]:
        """The share of each process in a batch; one may be empty."""
        return [indices[indices % self.count == rank] for rank in range(self.count)]

    def own(self, indices: Tensor) -> Tensor:
        """The share of this process in a batch."""
        return indices[indices % self.count == self.rank]

    def rows(self, count: int) -> Tensor:
        """All samples of this process, of so many: int64."""
        return torch.arange(self.rank, count, self.count)

    def join(self, weights: Sequence[nn.Parameter], loss: Tensor) -> Tensor:
        """Add up the gradients of all processes, and their losses; the sum of these.

        Args:
            weights: those that learn, in the same order everywhere; their gradients are those of this share.
            loss: of this share, detached, times its weight.

        Raises:
            Severed: another process is gone.
        """
        stop, report = self._asked() if self.rank == 0 else (False, False)
        told = loss.new_tensor([float(stop), float(report)], dtype=torch.float32)
        told = torch.cat([loss.reshape(1).float(), told])
        by_dtype: dict[torch.dtype, list[nn.Parameter]] = {}
        for weight in weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            by_dtype.setdefault(weight.dtype, []).append(weight)
        for dtype, group in by_dtype.items():
            grads = [weight.grad for weight in group if weight.grad is not None]
            flat = torch.cat(
                [grad.reshape(-1) for grad in grads] + ([told] if dtype == torch.float32 else [])
            )
            self._sum(flat)
            if dtype == torch.float32:
                told = flat[-len(told) :]
            at = 0
            for grad in grads:
                grad.copy_(flat[at : at + grad.numel()].view_as(grad))
                at += grad.numel()
        if torch.float32 not in by_dtype:
            self._sum(told)
        loss_of_all, stop_, report_ = told.unbind()
        self.report = bool(report_ > 0)
        if stop_ > 0:
            self.stop.ask()
        return loss_of_all.clone()

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes the mean of these buffers, such as the statistics of BatchNorm.

        Raises:
            Severed: another process is gone.
        """
        for tensor in tensors:
            if tensor.is_floating_point():
                self._sum(tensor)
                tensor.div_(self.count)

    def gather(self, value: Any) -> list[Any]:
        """The value of each process, in order of their numbers.

        Raises:
            Severed: another process is gone.
        """
        found: list[Any] = [None] * self.count
        try:
            dist.all_gather_object(found, value)
        except RuntimeError as error:
            raise Severed(str(error)) from None
        return found

    def _sum(self, tensor: Tensor) -> None:
        try:
            dist.all_reduce(tensor)
        except RuntimeError as error:  # torch has one class for all that goes wrong between processes
            raise Severed(str(error)) from None


class ShareSamples(Samples):
    """The samples of one process of a crew, under the numbers that they have among all.

    Args:
        own: its samples, rising by their number.
        crew: whose process it is.
        targets: of all samples.
        lengths: of all samples; None where all have one size.
    """

    def __init__(self, own: Samples, crew: Crew, targets: Tensor, lengths: Tensor | None):
        self.own, self.crew, self.targets, self.lengths = own, crew, targets, lengths
        self.random, self.at_hand = own.random, own.at_hand

    def batch(self, indices: Tensor) -> Any:
        """Input for samples of this process."""
        return self.own.batch(indices // self.crew.count)

    def stream(self, batches: Iterable[Tensor]) -> Iterator[Any]:
        """``batch`` for each, in order."""
        return self.own.stream(indices // self.crew.count for indices in batches)

    def view(self, *numbers: int) -> Samples:
        """The samples as a certain stage and epoch see them."""
        return ShareSamples(self.own.view(*numbers), self.crew, self.targets, self.lengths)

    def fingerprint(self) -> str:
        """Of the samples of this process."""
        return self.own.fingerprint()


def inputs_of(samples: Samples, parts: Sequence[Tensor]) -> Iterator[Batch | None]:
    """Input for each part of a batch, in order; None for an empty one."""
    made = iter(samples.stream(part for part in parts if len(part)))
    for part in parts:
        yield next(made) if len(part) else None
