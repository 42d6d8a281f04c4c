"""One of the processes that train a stage together: it takes orders from the board, an epoch each."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tlnb.cluster.board import PAUSE, STOP
from tlnb.cluster.parcel import pack, unpack
from tlnb.engine.core.interrupts import Stopped
from tlnb.engine.core.objectives import Objective
from tlnb.engine.core.seeds import seed_for
from tlnb.engine.core.switches import usual_switches
from tlnb.engine.data.samples import Samples, SubsetSamples
from tlnb.engine.features.cache import FeatureCache
from tlnb.engine.features.planner import CacheRequest, FeaturePlanner, ForwardPlan
from tlnb.engine.features.samples import Features, FeatureSamples
from tlnb.engine.network import freeze
from tlnb.engine.network.layers import LayerMap
from tlnb.engine.training.crew import Crew, Severed, ShareSamples
from tlnb.engine.training.ending import FrozenDigest
from tlnb.engine.training.loop import capture, restore
from tlnb.engine.training.records import ResumePoint
from tlnb.engine.training.stage import Stage
from tlnb.engine.training.trainer import Diverged, StageTrainer, Step

LOOK = 0.05  # seconds between two looks at the board
BEAT = 0.1  # seconds between two words of how far it is


@dataclass
class StageParcel:
    """A stage, as a process needs it to train a share.

    Attributes:
        model, layers, stage, number, batch, seed, task, step, bn, head: of the stage's trainer.
        targets: of all training samples.
        lengths: of these; None where all have one size.
        samples: to learn from, where the whole network runs, or where each process finds its own way past the frozen
            part; None where their features are sent.
        cache_request: what the stage would like to be kept; None where the whole network runs.
        dtype_policy: number format of the frozen part.
        cut: behind which the features enter.
        packed, channels_last: how the features are stored, and how they are given.
        report: seconds between two reports of where the epoch stands.
        threads: that each process computes with.
    """

    model: nn.Module
    layers: LayerMap
    stage: Stage
    number: int
    batch: int
    seed: int
    task: Objective
    step: Step | None
    bn: str
    head: str
    targets: Tensor
    lengths: Tensor | None
    samples: Samples | None
    cache_request: CacheRequest | None
    dtype_policy: str
    cut: int
    packed: bool
    channels_last: bool
    report: float
    threads: int

    def trainer(self, crew: Crew, features: Tensor | None, device: torch.device) -> StageTrainer:
        """The stage's trainer in this process.

        Args:
            crew: whose process it is.
            features: of its samples, where they are sent.
            device: where it trains.
        """
        self.model.to(device)
        made = StageTrainer(
            self.model, self.layers, self.stage, self._forward_plan(crew, features, device), number=self.number,
            batch=self.batch, seed=self.seed, task=self.task, step=self.step, bn=self.bn, head=self.head,
        )  # fmt: skip
        made.crew = crew
        return made

    def _forward_plan(self, crew: Crew, features: Tensor | None, device: torch.device) -> ForwardPlan:
        rows = crew.rows(len(self.targets))
        if features is not None:
            kept = Features("", features, 0.0, "memory", self.packed)
            own: Samples = FeatureSamples(kept, self.targets[rows], device, channels_last=self.channels_last)
            assert self.layers.graph is not None
            forward: nn.Module = self.layers.graph.tail(self.cut, frozen=self.layers.held(self.stage.frozen))
        else:
            assert self.samples is not None
            if self.cache_request is None:
                return ForwardPlan(self.samples, self.samples, self.model, device)
            chosen = SubsetSamples(self.samples, rows)
            planner = FeaturePlanner(FeatureCache(None), self.dtype_policy)
            short = planner.forward_plan(
                self.model, self.layers, self.cache_request, (chosen, chosen), device
            )
            own, forward = short.train, short.forward
        train = ShareSamples(own, crew, self.targets, self.lengths)
        return ForwardPlan(train, train, forward, device)


@dataclass
class EpochState:
    """Where a stage stands: all that an epoch begins from, or ends with.

    Attributes:
        rate: of the stage.
        progress: optimizer, random states and place.
        weights: what the stage changes, by name.
    """

    rate: float
    progress: ResumePoint
    weights: dict[str, Tensor]

    @classmethod
    def of(cls, trainer: StageTrainer, rate: float) -> EpochState:
        """The state of now, copied to main memory."""
        moving = freeze.moving_state(trainer.model, trainer.layers, trainer.stage.frozen)
        weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in moving}
        return cls(rate, capture(trainer, rate), weights)

    @torch.no_grad()
    def load(self, trainer: StageTrainer) -> None:
        """Take a trainer there, with its weights, its optimizer and the random states."""
        for name, tensor in freeze.moving_state(trainer.model, trainer.layers, trainer.stage.frozen):
            tensor.copy_(self.weights[name])
        restore(trainer, self.progress)


@dataclass
class EpochEnd:
    """What came of an epoch.

    Attributes:
        state: in which it ended.
        stopped: a stop was asked for.
        diverged: where a loss was not finite, in words; empty elsewhere.
        digests: of the frozen layers, of each process.
    """

    state: EpochState
    stopped: bool
    diverged: str
    digests: list[str]


def work(config: dict[str, Any]) -> None:
    """What each process does, from its start to the end of the stage."""
    import ray
    import ray.train
    import ray.train.torch

    context, board = ray.train.get_context(), config["board"]
    rank, count = context.get_world_rank(), context.get_world_size()
    parcel: StageParcel = unpack(ray.get(config["parcel"][0]))
    torch.set_num_threads(parcel.threads)
    device = ray.train.torch.get_device() if config["gpu"] else torch.device("cpu")
    shares = config["shares"]
    with usual_switches(), ExitStack() as stack:
        first = _First(board, parcel.report) if rank == 0 else None
        if first is not None:
            stack.callback(first.close)
        crew = Crew(rank, count, first.asked if first is not None else lambda: (False, False))
        features = _own_features(shares, crew, len(parcel.targets)) if shares else None
        trainer = parcel.trainer(crew, features, device)
        proof = FrozenDigest(trainer.model, trainer.layers, trainer.stage.frozen)
        try:
            if rank == 0:
                ray.get(board.joined.remote())
            _take_orders(board, trainer, crew, proof, first)
        except ray.exceptions.RayActorError:
            return  # the board is gone: the notebook does not wait for this stage any more


def _take_orders(
    board: Any, trainer: StageTrainer, crew: Crew, proof: FrozenDigest, first: _First | None
) -> None:
    """Train an epoch for each order, until none follows."""
    import ray

    seen = 0
    while True:
        told = ray.get(board.next.remote(seen))
        if told is None:
            time.sleep(LOOK)
            continue
        seen, start = told
        if start is None:
            return
        try:
            end = _epoch(trainer, crew, proof, unpack(start), first, seen)
        except (Severed, ray.exceptions.RayActorError):
            raise  # after the loss of a process, those that are left begin anew with another one
        except Exception as error:
            ray.get(board.fail.remote(seen, pack(error)))
            raise
        if first is not None:
            ray.get(board.finish.remote(seen, pack(end)))


def _own_features(shares: list[Any], crew: Crew, count: int) -> Tensor:
    """The rows of this process, from the parts in which they were sent: every ``len(shares)``-th sample each."""
    import ray

    if len(shares) == crew.count:
        return _tensor(ray.get(shares[crew.rank]))
    parts = [_tensor(ray.get(share)) for share in shares]
    rows = torch.empty((count, *parts[0].shape[1:]), dtype=parts[0].dtype)
    for number, part in enumerate(parts):
        rows[number :: len(parts)] = part
    return rows[crew.rows(count)].clone()


def _tensor(parcel: Any) -> Tensor:
    found: Tensor = unpack(parcel)
    return found


def _epoch(
    trainer: StageTrainer,
    crew: Crew,
    proof: FrozenDigest,
    start: EpochState,
    first: _First | None,
    number: int,
) -> EpochEnd:
    """Train an epoch, or the rest of one."""
    start.load(trainer)
    crew.stop.asked = False
    if crew.rank:  # the first process goes on with the stream of the notebook, and each other one has its own
        torch.manual_seed(seed_for(trainer.seed, trainer.number, trainer.steps_done, crew.rank))
    if first is not None:
        first.begin(number, trainer.done)
    buffers = _statistics(trainer)
    stopped, diverged = False, ""

    def on_batch(done: int, total: int) -> None:
        if first is not None:
            first.done = done
        if crew.report and done < total:
            crew.average(buffers)
            if first is not None:
                first.report(EpochState.of(trainer, start.rate))

    try:
        trainer.train_epoch(start.rate, crew.stop, on_batch)
    except Stopped:
        stopped = True
    except Diverged as trouble:
        diverged = str(trouble)
    crew.average(buffers)
    digests = crew.gather(proof.taken_anew())
    return EpochEnd(EpochState.of(trainer, start.rate), stopped, diverged, digests)


def _statistics(trainer: StageTrainer) -> list[Tensor]:
    """Buffers that training changes: each process changes them by its own share."""
    learning = _names(trainer.model.named_parameters())
    moving = freeze.moving_state(trainer.model, trainer.layers, trainer.stage.frozen)
    return [tensor for name, tensor in moving if name not in learning]


def _names(named: Any) -> Collection[str]:
    return {name for name, _ in named}


class _First:
    """What the first process does beside training: it tells how far it is, and hears what is wished.

    Args:
        board: the notebook's.
        every: seconds between two reports.
    """

    def __init__(self, board: Any, every: float):
        self.done, self._number = 0, 0
        self._board, self._every, self._last = board, every, time.monotonic()
        self._wish, self._over = "", threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def begin(self, number: int, done: int) -> None:
        """An epoch begins."""
        self._number, self.done, self._wish, self._last = number, done, "", time.monotonic()

    def asked(self) -> tuple[bool, bool]:
        """Whether to stop, and whether to report; waits during a pause."""
        while self._wish == PAUSE:
            time.sleep(LOOK)
        return self._wish == STOP, time.monotonic() - self._last >= self._every

    def report(self, state: EpochState) -> None:
        """Tell where the epoch stands, and wait until that is noted."""
        import ray

        ray.get(self._board.report.remote(self._number, pack(state)))
        self._last = time.monotonic()

    def close(self) -> None:
        """Tell nothing any more."""
        self._over.set()

    def _beat(self) -> None:
        import ray

        while not self._over.wait(BEAT):
            number = self._number
            try:
                wish = ray.get(self._board.beat.remote(number, self.done))
            except Exception:  # the board is gone, and with it the notebook: Ray ends this process soon
                return
            if number == self._number:
                self._wish = wish
