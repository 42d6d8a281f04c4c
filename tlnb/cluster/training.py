"""The notebook's side of training in several processes: a trainer whose epochs run elsewhere, by Ray Train.

The loop of a stage stays in the notebook, with its range test, measurements, digests, patience and saves. Only an epoch
goes out, with weights, optimizer and random states, and comes back with those of its end.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable
from typing import Any

from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from tlnb.cluster.board import GO, PAUSE, STOP, Board, News
from tlnb.cluster.connection import Connection, train_settings
from tlnb.cluster.keeper import Group, free, keep_up, rooms
from tlnb.cluster.parcel import pack, unpack
from tlnb.cluster.worker import EpochEnd, EpochState, StageParcel
from tlnb.engine.core.interrupts import Stopped, StopRequest
from tlnb.engine.features.planner import CacheRequest, ForwardPlan
from tlnb.engine.features.prefix import cut_for
from tlnb.engine.features.samples import FeatureSamples
from tlnb.engine.network import freeze
from tlnb.engine.training.trainer import Diverged, StageTrainer, Step
from tlnb.errors import NotReady, TrainingError

LOOK = 0.1  # seconds between two looks at the board
REPORT = (
    10.0  # seconds of an epoch between two reports of its state: what the death of a worker costs at most
)
GATHER = 180.0  # seconds in which the processes have to come together, also again after one of them died
LEAVE = 10.0  # seconds that are waited for the processes to end


class SpreadStage:
    """One stage, whose epochs several processes train.

    Args:
        connection: to the cluster.
        cache_request: what the stage would like to be kept of frozen layers; None for nothing.
        dtype_policy: number format of frozen parts.
        step: the user's own training step.
        log: told in one line what the user should know.
        report: seconds between two reports of where an epoch stands.
    """

    def __init__(
        self,
        connection: Connection,
        cache_request: CacheRequest | None,
        dtype_policy: str,
        step: Step | None,
        log: Callable[[str], None],
        report: float | None = None,
    ):
        self._connection, self._cache_request, self._dtype_policy = connection, cache_request, dtype_policy
        self._step, self._log = step, log
        self._report = REPORT if report is None else report
        self._raw: ForwardPlan | None = None
        self._board: Any = None
        self._number = 0
        self._groups = 0
        self._rooms: set[str] = set()
        self._folder = ""

    def take(self, trainer: StageTrainer) -> None:
        """Let the epochs of this trainer run on the cluster, as far as they can."""
        self._raw = trainer.forward_plan
        whole = f"keep {trainer.stage.keep}" if trainer.guard is not None else ""
        if trainer.stage.contrast is not None:
            whole = "contrast"
        if whole:
            self._log(f"{whole} looks at the whole batch: this stage trains in this notebook")
        else:
            trainer.elsewhere = self._epoch

    def close(self) -> None:
        """Free the processes; a second time does nothing."""
        board, self._board = self._board, None
        if board is None:
            return
        gone = None
        try:
            with contextlib.suppress(Exception):  # the cluster may be gone
                self._connection.get(board.end.remote())
                end = time.monotonic() + LEAVE
                while (gone := self._connection.get(board.gone.remote())) is None and time.monotonic() < end:
                    time.sleep(LOOK)
        finally:
            with contextlib.suppress(Exception), self._connection.asking():
                if gone is None:
                    _ray().kill(board)  # and with it all that it has kept together
                else:
                    self._connection.board = board
                free(rooms() - self._rooms)
            shutil.rmtree(self._folder, ignore_errors=True)

    # ---------------------------------------------------------------- an epoch

    def _epoch(
        self, trainer: StageTrainer, rate: float, stop: StopRequest, on_batch: Callable[[int, int], None]
    ) -> float:
        """See ``StageTrainer.train_epoch``."""
        self._connection.check()
        self._number += 1
        try:
            if self._board is None and not self._begin(trainer):
                trainer.elsewhere = None
                return trainer.train_epoch(rate, stop, on_batch)
            with self._connection.asking():
                ordered = self._board.order.remote(self._number, pack(EpochState.of(trainer, rate)))
            self._connection.get(ordered)
            end = self._watched(trainer, stop, on_batch)
        except _ray().exceptions.RayError as error:
            self._connection.check()
            raise TrainingError(
                f"the cluster was lost in epoch {trainer.epoch + 1}: {_first_line(error)}"
            ) from None
        own = _digest(trainer)
        wrong = [number for number, digest in enumerate(end.digests) if digest != own]
        if wrong:
            raise TrainingError(
                f"frozen layers are not what they were on worker {wrong[0]}; something wrote to them"
            )
        if end.diverged:
            raise Diverged(end.diverged)
        if end.stopped:
            raise Stopped
        assert trainer.unmeasured is not None
        return trainer.unmeasured

    def _watched(
        self, trainer: StageTrainer, stop: StopRequest, on_batch: Callable[[int, int], None]
    ) -> EpochEnd:
        """Follow the epoch to its end."""
        steps, done, reports = trainer.steps_per_epoch, trainer.done, 0
        heard = time.monotonic()
        while True:
            wish = STOP if stop.asked else PAUSE if stop.paused else GO
            with self._connection.asking():
                asked = self._board.news.remote(reports, wish)
            news: News = self._connection.get(asked)
            if news.state is not None:
                unpack(news.state).load(trainer)
            if news.groups > max(self._groups, 1):
                done = trainer.done
                self._log(
                    f"a worker was lost; training goes on from step {done} of epoch {trainer.epoch + 1}"
                )
            if news.groups != self._groups or news.done > done:
                heard = time.monotonic()
            self._groups, reports = news.groups, news.reports
            for step in range(done + 1, news.done + 1):
                on_batch(step, steps)
            done = max(done, news.done)
            if news.failed is not None:
                raise unpack(news.failed)
            if news.ended is not None:
                end: EpochEnd = unpack(news.ended)
                end.state.load(trainer)
                last = end.state.progress.done if end.stopped or end.diverged else steps
                for step in range(done + 1, last + 1):
                    on_batch(step, steps)
                return end
            self._still_there(news.left, time.monotonic() - heard, trainer, stop)
            time.sleep(LOOK)

    def _still_there(self, left: str | None, silent: float, trainer: StageTrainer, stop: StopRequest) -> None:
        if left is not None:
            raise TrainingError(f"the workers are gone in epoch {trainer.epoch + 1}: {left}")
        if stop.asked and not (self._groups and self._all_there()):
            raise Stopped  # nobody is there who could end the step
        if silent > GATHER and not stop.paused and not self._all_there():
            raise TrainingError(
                f"no room for {self._connection.count} workers any more, in epoch {trainer.epoch + 1}; "
                "%tl_cluster off, and %tl_train --continue goes on in this notebook"
            )

    def _all_there(self) -> bool:
        """Whether the cluster has CPUs for all processes still."""
        with self._connection.asking():
            have = int(_ray().cluster_resources().get("CPU", 0))
        return have >= self._connection.count * self._connection.cpus

    # ---------------------------------------------------------------- the processes

    def _begin(self, trainer: StageTrainer) -> bool:
        """Start the processes; False, and why is said, where this stage cannot be sent."""
        ray = _ray()
        try:
            parcel = pack(self._parcel(trainer))
        except NotReady as error:
            self._log(f"this stage trains in this notebook: {error}")
            return False
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._tell(trainer)
        found = self._connection
        self._log(f"starting {found.count} workers for this stage")
        self._folder = tempfile.mkdtemp(prefix="tlnb-cluster-")
        group = Group(found.count, found.cpus, found.gpus, self._folder, train_settings())
        with found.asking():
            self._rooms = rooms()
            self._board, found.board = found.board, None
            if self._board is None:
                here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
                self._board = ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote()
            told = {"board": self._board, "parcel": [ray.put(parcel)], "shares": self._shares(trainer)}
            kept = self._board.keep.remote(keep_up, group, told)
        found.get(kept)
        return True

    def _parcel(self, trainer: StageTrainer) -> StageParcel:
        forward_plan, raw = trainer.forward_plan, self._raw
        assert raw is not None
        whole, sent = forward_plan.forward is trainer.model, _sent(forward_plan)
        kept = forward_plan.train if isinstance(forward_plan.train, FeatureSamples) else None
        samples = None if sent else (forward_plan.train if whole else raw.train)
        request = None if whole or sent else self._cache_request
        return StageParcel(
            trainer.model, trainer.layers, trainer.stage, trainer.number, trainer.batch, trainer.seed, trainer.task,
            self._step, trainer.bn, trainer.head, forward_plan.train.targets.cpu(), forward_plan.train.lengths, samples,
            request, self._dtype_policy, 0 if whole else cut_for(trainer.layers, trainer.stage.frozen),
            kept.features.channels_last if kept else False, kept.channels_last if kept else False,
            self._report, self._connection.threads,
        )  # fmt: skip

    def _shares(self, trainer: StageTrainer) -> list[Any]:
        """The features of each process, where they are sent."""
        if not _sent(trainer.forward_plan):
            return []
        assert isinstance(trainer.forward_plan.train, FeatureSamples)
        rows, count = trainer.forward_plan.train.features.rows, self._connection.count
        return [_ray().put(pack(rows[rank::count].cpu().clone())) for rank in range(count)]

    def _tell(self, trainer: StageTrainer) -> None:
        """What several processes do otherwise than one."""
        if self._connection.count < 2:
            return
        trainer.set_modes(training=True)
        training = [module for module in trainer.model.modules() if module.training]
        trainer.set_modes(training=False)
        if any(isinstance(m, _BatchNorm) and m.track_running_stats for m in training):
            self._log(
                "BatchNorm that trains sees the share of each worker, not the whole batch, so the result differs a "
                "little from one process; bn frozen makes them the same"
            )
        if any(isinstance(m, _DropoutNd) and m.p > 0 for m in training):
            self._log(
                "dropout draws other numbers on each worker, so the result differs a little from one process"
            )


def _sent(forward_plan: ForwardPlan) -> bool:
    """Whether features that are kept here are sent to those who need them."""
    kept = forward_plan.train
    return isinstance(kept, FeatureSamples) and kept.source is None and kept.places is None


def _digest(trainer: StageTrainer) -> str:
    layers, frozen = trainer.layers, trainer.stage.frozen
    return freeze.fixed_digest(trainer.model, layers, frozen) if layers.held(frozen) else ""


def _first_line(error: BaseException | None) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]


def _ray() -> Any:
    import ray

    return ray
