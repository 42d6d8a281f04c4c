"""A session whose cluster loses a node or its head, or that is interrupted: it says so, and goes on in the notebook."""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
import time
from collections.abc import Callable

import nodes
import pytest
from listening import Ear

from tlnb.errors import TlnbError

if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray is not installed", allow_module_level=True)

import tlnb.cluster.connection as connection
import tlnb.cluster.training as spread

NEAR = 1e-5
PLAN = "freeze 0:2 epochs {} lr 1e-2 batch 8 bn frozen"


class InTraining(Ear):
    """Does something, once, in a thread, when the first batch has come through on a cluster.

    Attributes:
        act: what is done; None for nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.act: Callable[[], None] | None = None

    def on_batch(self, done: int, total: int) -> None:
        if (act := self.act) is not None:
            self.act = None
            threading.Thread(target=act).start()


def two_sessions(folder, monkeypatch):
    """One for here and one for the cluster, and the ear of the second."""
    monkeypatch.setenv("TLNB_HOME", str(folder))
    ear = InTraining()
    return nodes.small_session(), nodes.small_session(ear), ear


def test_a_node_and_then_the_head_are_lost(tmp_path, monkeypatch) -> None:
    """What was trained stays, one line says what happened, and the rest is trained here as if all had been."""
    monkeypatch.setattr(spread, "GATHER", 3.0)
    monkeypatch.setattr(spread, "REPORT", 0.2)
    monkeypatch.setattr(connection, "WATCH", 0.5)
    here, there, ear = two_sessions(tmp_path, monkeypatch)
    with nodes.two_nodes() as cluster:
        there.cluster(cluster.address, workers=2)
        ear.act = lambda: nodes.lose(cluster)
        with pytest.raises(TlnbError, match=r"no room for 2 workers any more.*%tl_train --continue"):
            there.run(PLAN.format(20))
        assert there.view.plan is not None
        nodes.lose(cluster, head=True)
        end = time.monotonic() + 60
        while "GONE" not in repr(there.status()) and time.monotonic() < end:
            time.sleep(0.1)
        with pytest.raises(TlnbError, match=r"the cluster is gone .*%tl_cluster off"):
            there.go_on()
        there.cluster("off")
    there.go_on()
    here.run(PLAN.format(20))
    assert nodes.distance(here, there) < NEAR


def test_an_interrupt_keeps_what_was_learned_and_frees_the_workers(tmp_path, monkeypatch) -> None:
    _, there, ear = two_sessions(tmp_path, monkeypatch)
    with nodes.two_nodes() as cluster:
        there.cluster(cluster.address, workers=2)
        before = signal.getsignal(signal.SIGINT)
        ear.act = lambda: os.kill(os.getpid(), signal.SIGINT)
        run = there.run(PLAN.format(300))
        assert run.stopped
        assert signal.getsignal(signal.SIGINT) is before
        assert nodes.processes("ray::RayTrainWorker") == []
        assert 0 < there.view.plan.result.left.steps_done < 300 * 9
        curve = there.find_lr(steps=12)
        assert len(curve.rates)
        assert "the range test runs in this notebook, not on the cluster" in " ".join(ear.said)
        there.cluster("off")
