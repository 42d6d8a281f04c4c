"""Every broken file is named with its reason; every odd one comes out right."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
import torch
from pictures import BROKEN, JPEG, broken_folder, class_folders, encoded, odd_but_right
from PIL import Image

from tlnb.engine.data.images.check import check_file, check_files
from tlnb.engine.data.load import load_data
from tlnb.engine.data.preprocess import Preprocess
from tlnb.errors import DataError

SMALL = Preprocess(3, (24, 24), 28)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_with_its_reason(name, tmp_path):
    content, reason = BROKEN[name]
    path = tmp_path / name
    path.write_bytes(content)
    if name.endswith((".txt", ".csv")):
        pytest.skip("not looked into: its name says that it is no picture")
    assert reason in check_file(path).reason


@pytest.mark.parametrize("name", odd_but_right())
def test_an_odd_picture_is_accepted(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(odd_but_right()[name])
    assert check_file(path).reason == ""


def test_large_files_are_judged_by_their_ends(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8))
    for name, kind in (("large.jpg", "JPEG"), ("large.png", "PNG")):
        content = encoded(noise, kind)
        assert len(content) > 256 << 10
        (tmp_path / name).write_bytes(content)
        assert check_file(tmp_path / name).reason == ""
        (tmp_path / name).write_bytes(content[: len(content) - 70_000])
        assert "cut off" in check_file(tmp_path / name).reason


def test_a_pipe_and_a_missing_file_do_not_wait(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    began = time.monotonic()
    assert check_file(tmp_path / "pipe.jpg").reason == "not a regular file"
    assert check_file(tmp_path / "none.jpg").reason == "no such file"
    assert time.monotonic() - began < 5


def test_progress_reaches_the_number_of_files(tmp_path):
    (tmp_path / "one.jpg").write_bytes(JPEG)
    told = []
    verdicts = check_files([tmp_path / "one.jpg"] * 300, lambda done, total: told.append((done, total)))
    assert told[-1] == (300, 300)
    assert told == sorted(told)
    assert all(not verdict.reason for verdict in verdicts)


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    return load_data(broken_folder(tmp_path_factory.mktemp("data") / "pictures"), seed=0)


def test_each_broken_file_of_the_folder_is_listed(named):
    listed = dict(named.problems)
    assert len(BROKEN) >= 40
    for name, (_, reason) in BROKEN.items():
        assert reason in listed[f"ants/{name}"]
    assert "link to nothing" in listed["ants/gone.jpg"]
    assert "leads out of the folder" in listed["ants/outside.jpg"]
    assert "read already" in listed["ants/circle"]
    assert listed["ants/pipe.jpg"] == "not a regular file"
    assert len(listed) == len(named.problems) == len(BROKEN) + 4


def test_hidden_files_and_clutter_are_not_worth_a_word(named):
    assert not [path for path, _ in named.problems if "DS_Store" in path or "Thumbs" in path or "._" in path]


def test_what_is_sound_or_odd_is_used(named):
    names = {named.train.reader.names[i] for part in (named.train, named.valid) for i in part.rows.tolist()}
    assert names == {f"{c}/{i}.jpg" for c in ("ants", "bees") for i in range(8)} | {
        f"bees/{name}" for name in odd_but_right()
    }
    train, valid = named.samples(SMALL)
    for part in (train, valid):
        assert part.batch(torch.arange(len(part))).isfinite().all()
        assert not part.store.broken


def test_the_text_names_the_first_and_the_page_names_all(named):
    assert f"{len(named.problems)} files are left out:" in repr(named)
    assert "more; .problem_table() lists them all" in repr(named)
    assert all(name in named._repr_html_() for name in BROKEN)
    assert "2 files with animated: its first frame is used" not in repr(named)
    assert "first is used" in repr(named)


def test_strict_stops(tmp_path):
    root = class_folders(tmp_path / "data")
    load_data(root, strict=True)
    (root / "cats" / "empty.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"--strict, and 1 files cannot be used; cats/empty.jpg: empty"):
        load_data(root, strict=True)


def test_a_picture_that_breaks_later_is_reported_and_another_of_its_class_stands_in(tmp_path):
    root = class_folders(tmp_path / "data")
    data = load_data(root)
    train, _ = data.samples(SMALL)
    victim = data.train.path(2)
    victim.write_bytes(JPEG[:300])
    told = []
    train, _ = data.samples(SMALL, told.append)
    batch = train.batch(torch.arange(len(train)))
    assert batch.shape == (len(train), 3, 24, 24)
    name = f"{victim.parent.name}/{victim.name}"
    assert [path for path, _ in data.problems] == [name]
    assert told == [f"{name} is left out: {data.problems[0].reason}"]
    others = [i for i in range(len(train)) if i != 2 and train.targets[i] == train.targets[2]]
    assert any(torch.equal(batch[2], batch[i]) for i in others)
