"""A pass of frozen layers in slices that workers take; each slice is a file at once, so a pass goes on where it was.

The slices are whole numbers of batches, and the batches are those of a pass in one process, so the rows are the same to
the last bit where a worker computes as this process would.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tlnb.engine.core.workers import Workers
from tlnb.engine.data.samples import Samples, SubsetSamples
from tlnb.engine.features.prefix import USUAL_PASS_BATCH, Fast, OnProgress, run_pass
from tlnb.engine.features.samples import Places
from tlnb.engine.features.shards import Shards
from tlnb.errors import DataError

WORTH_SENDING = 4.0  # seconds of a pass, from which on sending it costs less than it saves
SLICE_SECONDS = 4.0  # of a slice: what an interrupt loses, and far more than sending it costs
SLICES = 4  # for each worker at least, so that none waits long for the last one

Row = tuple[tuple[int, ...], torch.dtype]
"""Shape and format of a row of features."""


@dataclass
class PassJob:
    """A pass over samples, as workers take it.

    Args:
        parts: from cut to cut.
        samples: what enters the first.
        order: the samples in the order of the batches, int64 of shape (N,).
        rows: for each part what a row of its output is; None where the output is let go.
        by_token: for each part whether it has a row for each token.
    """

    parts: Sequence[Fast]
    samples: Samples
    order: Tensor
    rows: Sequence[Row | None]
    by_token: Sequence[bool]

    def arrive(self, device: torch.device, folder: Path | None) -> None:
        """See :class:`tlnb.engine.core.workers.Job`."""
        self._device = device
        for part in self.parts:
            part.to(device)

    def run(self, item: tuple[int, int]) -> tuple[list[Tensor | None], list[float]]:
        """The rows of a slice at each cut, and the seconds to each."""
        chosen = SubsetSamples(self.samples, self.order[slice(*item)])
        lengths = chosen.lengths
        places = [Places(lengths) if told and lengths is not None else None for told in self.by_token]
        counts = [place.total if place else len(chosen) for place in places]
        made = [
            None if row is None else torch.empty((count, *row[0]), dtype=row[1])
            for row, count in zip(self.rows, counts, strict=True)
        ]
        try:
            return made, run_pass(self.parts, chosen, made, self._device, places=places)
        except DataError as error:
            # Another sample may not stand in for it: whoever asks would take it for the right one.
            raise DataError(
                f"{error} (on {socket.gethostname()}); each machine must see the files under the same path"
            ) from None


def spread_pass(
    workers: Workers,
    parts: Sequence[Fast],
    samples: Samples,
    outputs: Sequence[Tensor | None],
    seconds_each: float,
    on_progress: OnProgress,
    places: Sequence[Places | None],
    shards: Shards | None = None,
) -> list[float]:
    """Like :func:`tlnb.engine.features.prefix.run_pass`, on workers.

    Args:
        workers: take the slices.
        parts, samples, outputs, places: as for ``run_pass``; the outputs are those of this process.
        seconds_each: that a sample takes.
        on_progress: called several times a second with how many samples are done; what it raises ends the pass.
        shards: where slices that end are kept until all have; None to keep none.

    Returns:
        Seconds that the workers took in all, from the samples to each cut.
    """
    count = len(samples)
    order = torch.arange(count) if samples.lengths is None else samples.lengths.argsort(stable=True)
    kept = [i for i, rows in enumerate(outputs) if rows is not None]
    known = shards.find() if shards is not None else {}
    done = 0
    for (start, stop), rows in _apart(known, count, len(kept)):
        for i, tensor in zip(kept, rows, strict=True):
            _put(outputs[i], tensor, order, start, stop, samples, places[i])
        done += stop - start
    there = [span for span, _ in _apart(known, count, len(kept))]
    items = _slices(there, count, seconds_each, workers.count)
    seconds = [0.0] * len(parts)
    shapes: list[Row | None] = [None if o is None else (tuple(o.shape[1:]), o.dtype) for o in outputs]
    job = PassJob(parts, samples, order, shapes, [place is not None for place in places])
    with closing(workers.each(job, items, lambda: on_progress(done, count))) as outcomes:
        for number, (made, took) in outcomes:
            start, stop = items[number]
            for i in kept:
                _put(outputs[i], made[i], order, start, stop, samples, places[i])
            if shards is not None:
                shards.add((start, stop), [made[i] for i in kept])
            seconds = [a + b for a, b in zip(seconds, took, strict=True)]
            done += stop - start
            on_progress(done, count)
    if shards is not None:
        shards.remove()
    return seconds


def _apart(
    known: dict[tuple[int, int], list[Tensor]], count: int, tensors: int
) -> list[tuple[tuple[int, int], list[Tensor]]]:
    """The slices that are there, without those that overlap an earlier one or are of something else."""
    found, end = [], 0
    for (start, stop), rows in sorted(known.items(), key=lambda pair: pair[0]):
        edges = start % USUAL_PASS_BATCH == 0 and (stop % USUAL_PASS_BATCH == 0 or stop == count)
        if start >= end and start < stop <= count and edges and len(rows) == tensors:
            found.append(((start, stop), rows))
            end = stop
    return found


def _slices(
    there: Sequence[tuple[int, int]], count: int, seconds: float, workers: int
) -> list[tuple[int, int]]:
    """What is left between the slices that are there, in whole batches."""
    most = min(SLICE_SECONDS / max(seconds, 1e-9), count / (SLICES * workers))
    size = max(int(most) // USUAL_PASS_BATCH, 1) * USUAL_PASS_BATCH
    found, at = [], 0
    for start, stop in [*there, (count, count)]:
        found += [(first, min(first + size, start)) for first in range(at, start, size)]
        at = stop
    return found


def _put(
    rows: Tensor | None, made: Tensor | None, order: Tensor, start: int, stop: int, samples: Samples,
    place: Places | None,
) -> None:  # fmt: skip
    assert rows is not None
    assert made is not None
    if samples.lengths is None:
        rows[start:stop].copy_(made)
        return
    where = order[start:stop] if place is None else place.rows(order[start:stop])
    rows.index_copy_(0, where.to(rows.device), made.to(rows.device, rows.dtype))
