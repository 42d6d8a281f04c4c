"""Whether samples are those of another time: a change shows, a copy is the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from pictures import class_folders

from tlnb.engine.data import fingerprint as module
from tlnb.engine.data.fingerprint import data_fingerprint
from tlnb.engine.data.load import load_data
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.data.samples import Samples, TensorSamples

PREPROCESS = Preprocess(3, (16, 16), 16)


def tensors(count: int = 300) -> TensorSamples:
    inputs = torch.randn(count, 3, 7, generator=torch.Generator().manual_seed(0))
    return TensorSamples(inputs, torch.arange(count) % 3)


@pytest.mark.parametrize("whole", [1 << 20, 1 << 10], ids=["hashed whole", "larger than what is hashed"])
@pytest.mark.parametrize("place", [0, 151, 6299])
def test_a_single_value_in_memory_shows(monkeypatch: pytest.MonkeyPatch, whole: int, place: int) -> None:
    monkeypatch.setattr(module, "WHOLE", whole)
    once, again = tensors(), tensors()
    assert data_fingerprint(once) == data_fingerprint(again)
    again.inputs.view(-1)[place] += 1e-6
    assert data_fingerprint(once) != data_fingerprint(again)


def test_targets_validation_and_the_share_of_each_show() -> None:
    one, other = tensors(), tensors()
    other.targets[7] = 0
    assert len({data_fingerprint(one, one), data_fingerprint(one, other), data_fingerprint(other, one)}) == 3
    parts = [TensorSamples(one.inputs[a:b], one.targets[a:b]) for a, b in ((0, 90), (90, 300), (0, 210))]
    assert data_fingerprint(parts[0], parts[1]) != data_fingerprint(parts[2], parts[0])


def folder(root: Path) -> tuple[Samples, Samples]:
    return load_data(str(root)).samples(PREPROCESS)


def rewrite(path: Path) -> None:
    """Change the last byte of a picture's pixels; size and time stay."""
    about, content = path.stat(), bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def test_any_file_of_a_folder_shows_though_size_and_time_are_the_same(tmp_path: Path) -> None:
    class_folders(tmp_path / "a", each=20)
    before = data_fingerprint(*folder(tmp_path / "a"))
    (tmp_path / "a").rename(tmp_path / "b")
    assert data_fingerprint(*folder(tmp_path / "b")) == before
    rewrite(tmp_path / "b" / "cats" / "11.jpg")
    assert data_fingerprint(*folder(tmp_path / "b")) != before


def test_of_a_large_folder_each_size_and_time_and_some_contents_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HASHED", 100)
    monkeypatch.setattr(module, "LOOKED_AT", 3)
    class_folders(tmp_path / "a", each=20)
    samples = folder(tmp_path / "a")
    before, reader = data_fingerprint(*samples), samples[0].reader  # type: ignore[attr-defined]
    assert data_fingerprint(*folder(tmp_path / "a")) == before
    looked_at = reader.path(int(samples[0].rows[0]))  # type: ignore[attr-defined]
    os.utime(reader.path(5), (1e9, 1e9))
    later = data_fingerprint(*samples)
    assert later != before
    rewrite(looked_at)
    assert data_fingerprint(*samples) not in (before, later)


def test_a_dataset_of_anothers_is_asked_for_some_items_only() -> None:
    class Own(torch.utils.data.Dataset):  # type: ignore[type-arg]
        asked = 0
        shift = 0.0

        def __len__(self) -> int:
            return 500

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            self.asked += 1
            return torch.full((4,), index + self.shift), index % 2

    own = Own()
    samples = load_data(own).samples(PREPROCESS)
    own.asked = 0
    before = data_fingerprint(*samples)
    assert own.asked <= 2 * module.LOOKED_AT
    own.shift = 1.0
    assert data_fingerprint(*samples) != before
