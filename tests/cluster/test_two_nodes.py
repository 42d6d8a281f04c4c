"""A session on two nodes of a cluster, with the numbers of a run here; workers that die, and the stop button."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import nodes
import pytest
import torch
from listening import Ear

from tlnb.engine.features import planner
from tlnb.session import Session

if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray is not installed", allow_module_level=True)

import tlnb.cluster.keeper as keeper
import tlnb.cluster.training as spread

PHOTOS = Path(os.environ.get("TLNB_PHOTOS") or Path(__file__).parents[3] / "shared" / "data") / "flowers"
NEAR = 1e-5
NEARLY = 1e-4  # where convolutions are summed up in another order

# Without dropout, which draws other numbers in each process, and with the BatchNorm of the whole batch.
QUICKSTART = (
    "%tl_load convnet5", "%tl_data digits", "%tl_freeze 0:5",
    "for module in tl.model.modules():\n    if type(module).__name__ == 'Dropout':\n        module.p = 0.0",
    "%%tl_train\nfit head\nunfreeze 3:   epochs 1   init soft   bn frozen\n"
    "unfreeze all   epochs 1   decay 2.6   bn frozen",
)  # fmt: skip
RESNET = (
    "import torch\ntorch.manual_seed(3)", "%tl_load resnet18 --weights none", "%tl_data {photos} --size 64 --batch 8",
    "%%tl_train\nfit head\nunfreeze 8   epochs 1   lr 1e-3   bn frozen",
)  # fmt: skip


class Steps(Ear):
    """Hears what is said, and each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []

    def on_batch(self, done: int, total: int) -> None:
        self.steps.append(done)


def session_in(folder, monkeypatch, *listeners: object) -> Session:
    """A small session with a home of its own."""
    monkeypatch.setenv("TLNB_HOME", str(folder))
    return nodes.small_session(*listeners)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with nodes.two_nodes() as found:
        yield found.address


@pytest.fixture
def pair(address, tmp_path, monkeypatch) -> Iterator[tuple[Session, Session, Steps]]:
    """A session here, the same on the cluster, and what the second says."""
    ear = Steps()
    here, there = (
        session_in(tmp_path / "here", monkeypatch), session_in(tmp_path / "there", monkeypatch, ear),
    )  # fmt: skip
    there.cluster(address, workers=2)
    yield here, there, ear
    there.cluster("off")


def test_sweep_folds_and_pass_give_the_same_bits(pair, monkeypatch) -> None:
    here, there, _ = pair
    assert "2 workers" in repr(there.status())
    killer = threading.Thread(target=nodes.kill_one, args=("ray::_piece",))
    killer.start()
    settings = {"epochs": 1, "seeds": 1, "images": 40}
    swept = there.sweep(**settings)
    killer.join()
    assert swept.done == here.sweep(**settings).done
    plan = "freeze 0:2 epochs 1 lr 1e-2"
    cross = [each.cross_validate(3, plan) for each in (here, there)]
    assert (cross[0].answers == cross[1].answers).all()
    monkeypatch.setattr(planner, "WORTH_SENDING", 0.0)
    for each in (here, there):
        each.run("fit head")
    mine, theirs = (each.view.planner.cache.entries for each in (here, there))
    assert theirs.keys() <= mine.keys()  # the folds that ran here have left theirs too
    assert theirs
    assert all(torch.equal(mine[key].rows, theirs[key].rows) for key in theirs)
    assert nodes.distance(here, there) == 0


def test_room_that_a_failed_start_left_behind_is_free_for_the_next(pair, monkeypatch, tmp_path) -> None:
    """As Ray Train ends where a worker dies while it gets its work: with an error, and all the room is still held."""
    import ray
    from ray.train import ControllerError
    from ray.train.torch import TorchTrainer

    free: list[int] = []

    def fit(trainer: TorchTrainer) -> None:
        free.append(nodes.free_cpus())
        if len(free) == 1:
            ray.get(ray.util.placement_group([{"CPU": 1}] * 2, strategy="SPREAD").ready())
            raise ControllerError(RuntimeError("a worker died"))

    monkeypatch.setattr(TorchTrainer, "fit", fit)
    keeper.keep_up(keeper.Group(2, 1, 0.0, str(tmp_path), {}), {}, lambda: False)
    assert free == [2, 2]


def test_training_outlives_a_worker_and_ends_as_here(pair, monkeypatch) -> None:
    here, there, ear = pair
    plan = "freeze 0:2 epochs 3 lr 1e-2 batch 8 bn frozen"
    monkeypatch.setattr(spread, "REPORT", 0.2)

    def kill_in_the_middle() -> None:
        while not ear.steps:
            time.sleep(0.01)
        nodes.kill_one("ray::RayTrainWorker")

    killer = threading.Thread(target=kill_in_the_middle)
    killer.start()
    run = there.run(plan)
    killer.join()
    here.run(plan)
    assert not run.stopped
    assert nodes.distance(here, there) < NEAR
    mine, theirs = here.history.stages[-1], there.history.stages[-1]
    assert theirs.digest_after == theirs.digest_before == mine.digest_after
    assert [r.train_loss for r in theirs.records] == pytest.approx(
        [r.train_loss for r in mine.records], abs=NEAR
    )
    assert nodes.processes("ray::RayTrainWorker") == []


def test_an_interrupt_frees_the_workers_and_the_rest_is_trained_here(pair, monkeypatch) -> None:
    """Also those that do not end by themselves in the time that they are given."""
    _, there, ear = pair
    monkeypatch.setattr(spread, "LEAVE", 0.0)
    plan = "freeze 0:2 epochs 300 lr 1e-3 batch 8 bn frozen"
    before = signal.getsignal(signal.SIGINT)

    def interrupt() -> None:
        while not ear.steps:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    asker = threading.Thread(target=interrupt)
    asker.start()
    run = there.run(plan)
    asker.join()
    assert run.stopped
    assert signal.getsignal(signal.SIGINT) is before
    assert nodes.all_gone("ray::RayTrainWorker")
    assert nodes.free_cpus() == 2
    left = there.view.plan.result.left
    assert 0 < left.steps_done < 300 * 9
    there.cluster("off")
    there.go_on(epochs=left.epoch + 1)
    assert there.history.stages[-1].records[-1].epoch == left.epoch + 1


@pytest.fixture
def few_photos(tmp_path) -> Path:
    """Ten photos of each of two flowers to learn from, and four to judge by."""
    for part, count in (("train", 10), ("val", 4)):
        for name in ("daisy", "roses"):
            (tmp_path / "few" / part / name).mkdir(parents=True)
            for photo in sorted((PHOTOS / part / name).iterdir())[:count]:
                shutil.copy(photo, tmp_path / "few" / part / name)
    return tmp_path / "few"


def in_both(shell, cells, address):
    """The sessions without and with a cluster, and what the last cell answered in each."""
    sessions, answers = [], []
    for one, first in (
        (shell, []),
        (type(shell)(config=shell.config), [f"%tl_cluster {address} --workers 2"]),
    ):
        one.run("%load_ext tlnb")
        for cell in (*first, *cells):
            answer = one.run(cell)
        sessions.append(one.user_ns["tl"])
        answers.append(answer)
    one.run("%tl_cluster off")
    return sessions, answers


def test_the_quickstart(shell, address) -> None:
    (here, there), (mine, theirs) = in_both(shell, QUICKSTART, address)
    assert theirs.accuracy == mine.accuracy >= 0.97
    assert nodes.distance(here, there) < NEARLY
    for a, b in zip(mine.stages, theirs.stages, strict=True):
        assert b.digest_before == b.digest_after == a.digest_after
        assert b.trained == a.trained


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the flowers are not here (TLNB_PHOTOS)")
def test_a_resnet_on_photos(shell, address, few_photos, monkeypatch) -> None:
    monkeypatch.setattr(planner, "WORTH_SENDING", 0.0)  # the pass of the frozen part goes there too
    cells = [cell.format(photos=few_photos) for cell in RESNET]
    (here, there), (mine, theirs) = in_both(shell, cells, address)
    assert nodes.distance(here, there) < NEARLY
    assert theirs.accuracy == mine.accuracy
    assert theirs.stages[-1].digest_after == mine.stages[-1].digest_after != ""
