"""A cluster by name: what is refused in one line, and that nobody pays for it who names none."""

from __future__ import annotations

import importlib.util
import os
import sys

import forked
import networks
import pytest
import torch
from listening import Ear

import tlnb.session.clustering as clustering
from tlnb.cluster.connection import Connection
from tlnb.errors import BadArguments, NotReady
from tlnb.session import Session

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


@pytest.fixture
def session() -> Session:
    return Session([])


def test_without_a_cluster_it_says_where_things_run(session) -> None:
    assert "everything runs in this notebook" in repr(session.cluster())
    assert "everything runs in this notebook" in repr(session.cluster("off"))
    assert "cluster" not in repr(session.status())


def test_without_ray_one_line_says_how_to_get_it(session, monkeypatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "ray" else found(name, *a)
    )
    with pytest.raises(NotReady, match=r'pip install "tlnb\[ray\]"'):
        session.cluster("local")


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        (("nonsense",), {}, "'nonsense' is no address of a cluster"),
        (("ray://head:10001",), {}, "is no address of a cluster"),
        (("10.0.0.1",), {}, "HOST:PORT"),
        (("10.0.0.1:99999",), {}, "is no address of a cluster"),
        (("local",), {"workers": 0}, "--workers takes"),
        (("local",), {"workers": 10_000}, "more than this machine has CPUs"),
        (("local",), {"gpus_per_worker": -1}, "--gpus-per-worker takes"),
        ((), {"workers": 2}, "needs an address"),
    ],
)
@needs_ray
def test_what_is_wrong_is_one_line_and_changes_nothing(session, arguments, options, said) -> None:
    before = dict(os.environ)
    with pytest.raises(BadArguments, match=said) as error:
        session.cluster(*arguments, **options)
    assert "\n" not in str(error.value)
    assert dict(os.environ) == before
    assert "everything runs in this notebook" in repr(session.cluster())


@needs_ray
def test_where_nothing_answers_it_says_so_at_once(session) -> None:
    with pytest.raises(NotReady, match=r"nothing answers at 127\.0\.0\.1:1"):
        session.cluster("127.0.0.1:1")


def test_nothing_else_imports_ray() -> None:
    code = (
        "import sys\n"
        "from tlnb.session import Session\n"
        "tl = Session([])\n"
        "tl.load('convnet5'); tl.data('digits', per_class=3); tl.freeze('body'); tl.train(epochs=1, lr=1e-2)\n"
        "tl.cluster(); tl.status()\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'ray'])\n"
    )
    done = forked.run([sys.executable, "-W", "ignore", "-c", code])
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_what_runs_here_although_a_cluster_is_named_is_said(monkeypatch) -> None:
    there = Connection("127.0.0.1:1", 2, 1, 0.0, torch.get_num_threads(), True, 1)
    monkeypatch.setattr(clustering, "connect", lambda *arguments: there)
    ear, samples = Ear(), networks.blobs(90)
    session = Session([ear])
    session.load(networks.small(), input="1,8,8")
    session.data((samples.inputs, samples.targets))
    session.find_lr(steps=12)
    assert not [line for line in ear.said if "notebook" in line]
    assert "%tl_lr and %tl_choose in this notebook" in repr(session.cluster("local"))
    session.find_lr(steps=12)
    session.choose(networks.small(seed=1), images=60, folds=2)
    said = [
        line.partition(" runs in this notebook, not on the cluster")[0]
        for line in ear.said
        if "cluster" in line
    ]
    assert said == ["the range test", "the choice"]
    session.cluster("off")
