"""Checkpoints of every format that was ever written are read; one of a later format says what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from faults.make_fixture import FOLDER, PLAN, session
from tlnb.engine.checkpoint.file import FORMAT, checksum
from tlnb.errors import CheckpointError

FILES = sorted(FOLDER.glob("*.safetensors"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLNB_HOME", str(tmp_path))


def test_each_format_up_to_the_present_one_has_a_small_file() -> None:
    assert [path.name for path in FILES] == [f"format_{n}.safetensors" for n in range(1, FORMAT + 1)]
    assert sum(path.stat().st_size for path in FILES) < 50_000 * FORMAT


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_of_that_time_loads_and_its_plan_goes_on(path: Path) -> None:
    whole, fresh = session(), session()
    said = str(fresh.resume(str(path)))
    assert "stage 2/3 stands after epoch 1 of 3, 2 batches into the next" in said
    assert [stage.number for stage in fresh.history.stages] == [1, 2]
    fresh.go_on()
    if path.stem == "format_1":  # of before heads that start at zero, guards and statistics that may stay
        whole.head("linear", init="he")
        whole.run(PLAN, guard=False, bn="train")
    else:
        whole.run(PLAN)
    # The file may come from another processor, whose sums are rounded otherwise.
    pairs = zip(fresh.history, whole.history, strict=True)
    assert all(ours.valid_loss == pytest.approx(theirs.valid_loss, rel=0.02) for ours, theirs in pairs)
    assert fresh.task == whole.task
    assert fresh.heads.keys() == whole.heads.keys()


def test_a_file_of_a_later_format_says_to_update(tmp_path: Path) -> None:
    with safe_open(FILES[-1], "pt") as file:
        about = json.loads(file.metadata()["tlnb"])
    about |= {"format": FORMAT + 1, "tlnb": "9.1.0"}
    text, tensors = json.dumps(about), load_file(FILES[-1])
    save_file(tensors, tmp_path / "later.safetensors", {"tlnb": text, "tlnb.crc32": checksum(text, tensors)})
    fresh = session()
    expected = rf"has format {FORMAT + 1}, written by tlnb 9\.1\.0; this version reads up to {FORMAT}: update"
    with pytest.raises(CheckpointError, match=expected):
        fresh.resume(str(tmp_path / "later.safetensors"))
    assert not len(fresh.history)
