"""The frozen first part of a network: where it ends, how it runs over samples once, and how in passing."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tlnb.engine.core.objectives import scores_of
from tlnb.engine.core.tree import CROSSING, Batch, Tree, call
from tlnb.engine.data.samples import Samples
from tlnb.engine.features import precision
from tlnb.engine.features.fold import FastPart, ReplayedPart, fast_part
from tlnb.engine.features.samples import Places, crossing_of, pack
from tlnb.engine.network.graph import Graph
from tlnb.engine.network.layers import LayerMap
from tlnb.engine.network.replay import Replay
from tlnb.engine.network.trace import flags

PROBE = 4  # samples that a format is tried on
PASS_BATCH = {"cuda": 256}  # samples at a time; the same everywhere else, so that results repeat bit for bit
USUAL_PASS_BATCH = 32

OnProgress = Callable[[int, int], None]
Fast = FastPart | ReplayedPart


def cut_for(layers: LayerMap, frozen: Collection[int]) -> int:
    """The last clean cut with nothing but frozen layers before it; 0 where there is none."""
    run = 0
    while run < len(layers) and run in frozen:
        run += 1
    return max((cut for cut in layers.graph.cuts if cut <= run), default=0) if layers.graph else 0


def cuts_ahead(layers: LayerMap, frozen: Collection[int], coming: Sequence[Collection[int]]) -> list[int]:
    """The cuts of this stage and of the coming ones whose frozen part no stage before them trains.

    Args:
        layers: of the model.
        frozen: layers that the stage which starts now leaves fixed.
        coming: the same for each stage after it.

    Returns:
        Cuts above 0, each once, in rising order.
    """
    still = set(frozen)
    cuts = {cut_for(layers, still)}
    for stage in coming:
        cut = cut_for(layers, stage)
        still &= set(stage)
        if set(range(cut)) <= still:
            cuts.add(cut)
    return sorted(cuts - {0})


@dataclass(frozen=True)
class Trial:
    """What a few samples say about a frozen part.

    Attributes:
        dtype: the format that it should run in.
        parts: from cut to cut, in that format.
        shapes: what crosses each cut, without the batch dimension; of texts, for a token.
        dtypes: the dtype of what crosses each cut in exact arithmetic.
        seconds: a sample takes, to each cut.
    """

    dtype: torch.dtype
    parts: list[Fast]
    shapes: list[tuple[int, ...]]
    dtypes: list[torch.dtype]
    seconds: list[float]


def try_out(
    graph: Graph | Replay,
    start: int,
    cuts: Sequence[int],
    samples: Samples,
    device: torch.device,
    wanted: str,
) -> Trial:
    """Run a few samples through the part before the last cut, and choose its number format.

    Args:
        graph: of the model.
        start: the cut at which the samples enter; 0 for images.
        cuts: rising, all above ``start``.
        samples: at least one.
        device: where it runs.
        wanted: ``fp32``, ``bf16``, or ``auto``: bfloat16 where it is native, worth it, and agrees.
    """
    some = torch.linspace(0, len(samples) - 1, min(PROBE, len(samples))).long()
    x = samples.batch(some).to(device)
    samples.warm()  # this is done on one core, so that another is free to decode
    exact: list[Fast] = [fast_part(graph.segment(a, b)) for a, b in pairwise([start, *cuts])]
    outputs = run_chain(exact, x)
    dtype, chosen = torch.float32, exact
    if wanted == "bf16" or (wanted == "auto" and _worth(exact, x, len(samples), device)):
        fast: list[Fast] = [part.in_bfloat16() for part in exact]
        if wanted == "bf16" or _agrees(graph, cuts[-1], outputs[-1], run_chain(fast, x)[-1]):
            dtype, chosen = torch.bfloat16, fast
    crossing = [crossing_of(o) for o in outputs]
    by_token = [2 if samples.lengths is not None and graph.ragged(cut) else 1 for cut in cuts]
    shapes = [tuple(o.shape[first:]) for o, first in zip(crossing, by_token, strict=True)]
    dtypes = [o.dtype for o in crossing]
    return Trial(dtype, chosen, shapes, dtypes, _timed(chosen, x))


def run_chain(parts: Sequence[Fast], x: Batch) -> list[Batch]:
    """What crosses each cut for the batch ``x``, as inference tensors."""
    outputs: list[Batch] = []
    for part in parts:
        x = part(x)
        outputs.append(x)
    return outputs


def _worth(parts: Sequence[Fast], x: Batch, samples: int, device: torch.device) -> bool:
    # By operations and not by the clock: whoever resumes a run must get the same format again.
    if not precision.native_bfloat16(device):
        return False
    counter = FlopCounterMode(display=False)
    with counter:
        run_chain(parts, x[:1])
    return counter.get_total_flops() * samples >= precision.WORTH


@torch.no_grad()
def _agrees(graph: Graph | Replay, cut: int, exact: Batch, fast: Batch) -> bool:
    if not precision.agree(crossing_of(exact), crossing_of(fast)):
        return False
    tail, model = graph.tail(cut).eval(), graph.model
    with flags(model, training=False):
        scores = [scores_of(call(tail, _fresh(features))) for features in (exact, fast)]
    return precision.same_predictions(*scores)


def _fresh(x: Batch) -> Batch:
    """A batch at a cut that may take part in a backward pass; what crosses is float32."""
    if isinstance(x, Tree):
        return x.with_part(CROSSING, x[CROSSING].float().clone())
    return x.float().clone()


def _timed(parts: Sequence[Fast], x: Batch) -> list[float]:
    """Seconds a sample to each cut; the parts have run on ``x`` before."""
    seconds, total = [], 0.0
    for part in parts:
        began = time.perf_counter()
        x = part(x)
        if x.device.type == "cuda":
            torch.cuda.synchronize(x.device)
        total += time.perf_counter() - began
        seconds.append(total / len(x))
    return seconds


def run_pass(
    parts: Sequence[Fast],
    samples: Samples,
    outputs: Sequence[Tensor | None],
    device: torch.device,
    on_progress: OnProgress = lambda done, total: None,
    places: Sequence[Places | None] = (),
) -> list[float]:
    """Run samples through the parts once and write down what crosses each cut.

    Args:
        parts: from cut to cut.
        samples: what enters the first.
        outputs: for each part the rows to fill, in any format and on any device; None to let them go.
        device: where the parts run.
        on_progress: called as ``on_progress(done, total)`` in samples, after each batch; what it raises ends the pass.
        places: for each part where the rows of a sample stand, where it has one for each token.

    Returns:
        Seconds from the samples to each cut.
    """
    seconds, places = [0.0] * len(parts), places or [None] * len(parts)
    # Texts of like lengths together, so that hardly any padding is computed.
    every = torch.arange(len(samples)) if samples.lengths is None else samples.lengths.argsort(stable=True)
    order = every.split(PASS_BATCH.get(device.type, USUAL_PASS_BATCH))
    began = time.perf_counter()
    done = 0
    for indices, x in zip(order, samples.stream(order), strict=True):
        x = x.to(device, non_blocking=True)
        for i, (part, rows, place) in enumerate(zip(parts, outputs, places, strict=True)):
            x = part(x)
            if rows is not None and samples.lengths is None:
                made = crossing_of(x)
                rows[done : done + len(x)].copy_(pack(made, part.channels_last), non_blocking=True)
            elif rows is not None:
                made = crossing_of(x)
                if place is not None:
                    made = made[place.mask(indices, made.shape[1]).to(made.device)]
                where = indices if place is None else place.rows(indices)
                rows.index_copy_(0, where.to(rows.device), made.to(rows.device, rows.dtype))
            now = time.perf_counter()
            seconds[i] += now - began
            began = now
        done += len(x)
        on_progress(done, len(samples))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        seconds[0] += time.perf_counter() - began
    return [sum(seconds[: i + 1]) for i in range(len(seconds))]


class PassingSamples(Samples):
    """Samples that run through the frozen part whenever they are asked for: what is not kept.

    Args:
        source: what enters the part; random samples change from view to view.
        part: from the source to the cut.
        device: where the part runs.
        channels_last: give images with channels last in memory; False for (B, C, H, W) in memory as well.
    """

    def __init__(self, source: Samples, part: Fast, device: torch.device, *, channels_last: bool = True):
        self.source, self.part, self.device = source, part, device
        self.channels_last = channels_last
        self.targets, self.random = source.targets, source.random
        self.lengths, self.wholes = source.lengths, source.wholes

    def batch(self, indices: Tensor) -> Any:
        """What crosses the cut for these samples: float32 (B, ...), or a tree with it."""
        return self._through(self.source.batch(indices))

    def stream(self, batches: Iterable[Tensor]) -> Iterator[Any]:
        """``batch`` for each, in order; what enters the part is prepared ahead where that takes time."""
        return map(self._through, self.source.stream(batches))

    def view(self, *numbers: int) -> Samples:
        """The samples as a certain stage and epoch see them."""
        source = self.source.view(*numbers)
        return PassingSamples(source, self.part, self.device, channels_last=self.channels_last)

    def fingerprint(self) -> str:
        """Of the source, and where it was cut."""
        return f"{self.source.fingerprint()} behind a frozen part"

    def _through(self, x: Batch) -> Batch:
        crossing = self.part(x.to(self.device, non_blocking=True))
        if isinstance(crossing, Tree) or isinstance(self.part, ReplayedPart):
            return _fresh(crossing)
        # An inference tensor cannot take part in a backward pass; its copy, made out here, can.
        copy = crossing.float() if crossing.dtype == torch.bfloat16 else crossing.clone()
        return copy if self.channels_last else copy.contiguous()
