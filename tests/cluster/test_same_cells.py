"""The cells of the quickstart, and a ResNet-18 on photos, on two nodes of a cluster: the numbers of a run here."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import nodes
import pytest

from tlnb.engine.features import planner

if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray is not installed", allow_module_level=True)

PHOTOS = Path(os.environ.get("TLNB_PHOTOS") or Path(__file__).parents[3] / "shared" / "data") / "flowers"
NEAR = 1e-4  # of numbers that convolutions in another order of sums move

# Without dropout, which draws other numbers in each process, and with the BatchNorm of the whole batch.
QUICKSTART = (
    "%tl_load convnet5", "%tl_data digits", "%tl_freeze 0:5",
    "for module in tl.model.modules():\n    if type(module).__name__ == 'Dropout':\n        module.p = 0.0",
    "%%tl_train\nfit head\nunfreeze 3:   epochs 1   init soft   bn frozen\n"
    "unfreeze all   epochs 1   decay 2.6   bn frozen",
)  # fmt: skip
RESNET = (
    "import torch\ntorch.manual_seed(3)", "%tl_load resnet18 --weights none", "%tl_data {photos} --size 64 --batch 8",
    "%%tl_train\nfit head\nunfreeze layer4   epochs 1   lr 1e-3   bn frozen",
)  # fmt: skip


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with nodes.two_nodes() as found:
        yield found.address


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
    assert nodes.distance(here, there) < NEAR
    for a, b in zip(mine.stages, theirs.stages, strict=True):
        assert b.digest_before == b.digest_after == a.digest_after
        assert b.trained == a.trained


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the flowers are not here (TLNB_PHOTOS)")
def test_a_resnet_on_photos(shell, address, few_photos, monkeypatch) -> None:
    monkeypatch.setattr(planner, "WORTH_SENDING", 0.0)  # the pass of the frozen part goes there too
    cells = [cell.format(photos=few_photos) for cell in RESNET]
    (here, there), (mine, theirs) = in_both(shell, cells, address)
    assert nodes.distance(here, there) < NEAR
    assert theirs.accuracy == mine.accuracy
    assert theirs.stages[-1].digest_after == mine.stages[-1].digest_after != ""
