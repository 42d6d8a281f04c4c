"""Pictures are decoded once where they fit, anew where they do not, and never served stale."""

from __future__ import annotations

import os
import threading
import tracemalloc

import pytest
import torch
from pictures import class_folders, drawing, encoded

from tlnb.engine.core.machine import ahead
from tlnb.engine.data.image_cache import DecodedSamples
from tlnb.engine.data.load import load_data
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.data.readers import FileReader

PRESET = Preprocess(3, (16, 16), 20)


class Counting(FileReader):
    """Counts what is read."""

    def __init__(self, *of):
        super().__init__(*of)
        self.reads = []

    def read(self, number, preprocess, *, whole=False):
        self.reads.append(number)
        return super().read(number, preprocess, whole=whole)


@pytest.fixture
def reader(tmp_path):
    root = class_folders(tmp_path / "data")
    return Counting(root, [f"{c}/{i}.jpg" for c in ("cats", "dogs") for i in range(6)])


def samples(reader, budget=None):
    return DecodedSamples(reader, torch.arange(12), torch.arange(12) // 6, PRESET, budget=budget)


def test_each_picture_is_decoded_once_where_all_fit(reader):
    found = samples(reader, budget=1 << 20)
    for _ in range(3):
        for order in (torch.arange(12), torch.tensor([11, 0, 0, 3])):
            list(found.stream(order.split(5)))
    assert sorted(reader.reads) == list(range(12))
    assert found.store.held == 12 * 3 * 16 * 16


def test_pictures_that_were_begun_ahead_are_decoded_once_and_are_the_same(reader):
    found = samples(reader, 1 << 20)
    found.warm()
    found.warm()
    batch = found.batch(torch.arange(12))
    found.warm()
    found.fingerprint()
    assert sorted(reader.reads) == list(range(12))
    assert torch.equal(batch, samples(reader, 0).batch(torch.arange(12)))


def test_nothing_is_begun_ahead_that_cannot_be_kept(reader):
    samples(reader, 0).warm()
    assert not reader.reads


def test_nothing_is_kept_beyond_the_budget(reader):
    found = samples(reader, budget=12 * 3 * 16 * 16 - 1)
    first = found.batch(torch.arange(12))
    assert torch.equal(first, found.batch(torch.arange(12)))
    assert len(reader.reads) == 24
    assert found.store.held == 0


def test_kept_and_fresh_pictures_are_the_same(reader):
    order = torch.tensor([5, 2, 2, 9])
    assert torch.equal(samples(reader, 0).batch(order), samples(reader, 1 << 20).batch(order))


def test_a_changed_file_changes_the_fingerprint_and_the_pixels(reader):
    found = samples(reader)
    before, key = found.batch(torch.arange(12)), found.fingerprint()
    assert found.fingerprint() == key
    path = reader.path(3)
    about = path.stat()
    fresh = encoded(drawing(77))
    path.write_bytes(fresh + bytes(max(0, about.st_size - len(fresh))))
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))  # as if nothing had happened
    assert found.fingerprint() != key
    after = found.batch(torch.arange(12))
    changed = [i for i in range(12) if not torch.equal(before[i], after[i])]
    assert changed == [3]


def test_the_fingerprint_follows_targets_order_and_preprocessing(reader):
    base = samples(reader)
    others = [
        DecodedSamples(reader, torch.arange(12).flip(0), base.targets, PRESET),
        DecodedSamples(reader, torch.arange(12), base.targets.flip(0), PRESET),
        DecodedSamples(reader, torch.arange(12), base.targets, PRESET.at(17)),
    ]
    assert len({s.fingerprint() for s in [base, *others]}) == 4
    assert samples(FileReader(reader.root, reader.names)).fingerprint() == base.fingerprint()


def test_memory_stays_flat_while_pictures_stream_by(reader):
    found = samples(reader, budget=0)
    order = torch.arange(12).repeat(40).split(12)
    tracemalloc.start()
    for _ in found.stream(order[:3]):
        pass
    base = tracemalloc.get_traced_memory()[0]
    for _ in found.stream(order):
        pass
    grown = tracemalloc.get_traced_memory()[0] - base
    tracemalloc.stop()
    assert grown < 100_000


def test_work_ahead_is_in_order_and_errors_come_in_their_place():
    def work(number):
        if number == 3:
            raise ValueError("three")
        return number * 10

    found = ahead(work, range(9))
    assert [next(found) for _ in range(3)] == [0, 10, 20]
    with pytest.raises(ValueError, match="three"):
        next(found)


def test_a_loop_that_is_left_leaves_no_thread_behind():
    began = threading.Event()

    def work(number):
        began.set()
        return number

    loop = ahead(work, range(1000))
    assert next(loop) == 0
    loop.close()
    assert began.is_set()
    for thread in [t for t in threading.enumerate() if t.name.startswith("tlnb-ahead")]:
        thread.join(5)
        assert not thread.is_alive()


def test_data_in_a_folder_is_the_same_whether_kept_or_not(tmp_path, monkeypatch):
    data = load_data(class_folders(tmp_path / "data"))
    kept = data.samples(PRESET)[0].batch(torch.arange(9))
    monkeypatch.setattr("tlnb.engine.data.image_cache.picture_budget", lambda: 0)
    assert torch.equal(kept, data.samples(PRESET)[0].batch(torch.arange(9)))


def test_training_and_validation_share_one_budget(tmp_path):
    train, valid = load_data(class_folders(tmp_path / "data")).samples(PRESET)
    for part in (train, valid):
        part.batch(torch.arange(len(part)))
    assert train.store is valid.store
    assert train.store.held == 12 * 3 * 16 * 16


def test_a_broken_picture_is_told_once_and_used_again_when_it_is_mended(reader):
    told = []
    found = DecodedSamples(
        reader, torch.arange(12), torch.arange(12) // 6, PRESET, on_broken=lambda *what: told.append(what)
    )
    sound = reader.path(3).read_bytes()
    reader.path(3).write_bytes(sound[:150])
    for _ in range(3):
        found.batch(torch.arange(12))
        found.fingerprint()
    assert [name for name, _ in told] == ["cats/3.jpg"]
    assert torch.equal(*found.batch(torch.tensor([3, 4])))
    reader.path(3).write_bytes(sound)
    found.fingerprint()
    assert not torch.equal(*found.batch(torch.tensor([3, 4])))
