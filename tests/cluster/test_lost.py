"""A session whose cluster loses a machine and then its head, in training: it says so, and goes on in the notebook."""

from __future__ import annotations

import importlib.util
import threading
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
PLAN = "freeze 0:2 epochs 40 lr 1e-2 batch 8 bn frozen"


class InTraining(Ear):
    """Does something, once, in a thread, when the third epoch begins.

    Attributes:
        act: what is done; None for nothing.
        thread: that does it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.act: Callable[[], None] | None = None
        self.firsts = 0
        self.thread: threading.Thread | None = None

    def on_batch(self, done: int, total: int) -> None:
        self.firsts += done == 1
        if self.act is not None and self.firsts == 3:
            act, self.act = self.act, None
            self.thread = threading.Thread(target=act)
            self.thread.start()


def test_a_machine_and_then_the_head_are_lost(tmp_path, monkeypatch, capfd) -> None:
    """What was trained stays, one line says what happened, and the rest is trained here as if all had been."""
    monkeypatch.setattr(
        spread, "GATHER", 3.0
    )  # seconds without any machine to gather on, not those of a start
    monkeypatch.setattr(spread, "LEAVE", 1.0)
    monkeypatch.setattr(spread, "REPORT", 0.2)
    monkeypatch.setattr(connection, "WATCH", 0.5)
    monkeypatch.setenv("TLNB_HOME", str(tmp_path))
    ear = InTraining()
    here, there = nodes.small_session(), nodes.small_session(ear)
    with nodes.two_nodes() as cluster:
        there.cluster(cluster.address, workers=2)
        ear.act = lambda: nodes.lose(cluster)
        with pytest.raises(TlnbError, match=r"no room for 2 workers any more.*%tl_train --continue"):
            there.run(PLAN)
        left = there.view.plan.result.left
        assert 2 <= left.epoch < 40
        there.cluster("off")

        there.cluster(cluster.address)
        assert "1 worker " in repr(there.status())
        ear.firsts, ear.act = 0, lambda: nodes.lose(cluster, head=True)
        with pytest.raises(TlnbError, match=r"cluster (is gone|was lost)"):
            there.go_on()
        assert there.view.plan.result.left.steps_done > left.steps_done
        ear.thread.join()
        with pytest.raises(TlnbError, match=r"the cluster is gone .*%tl_cluster off"):
            there.go_on()
        assert "GONE" in repr(there.status())
        there.cluster("off")
    there.go_on()
    here.run(PLAN)
    assert nodes.distance(here, there) < NEAR
    assert "state-dump" not in "".join(capfd.readouterr())
