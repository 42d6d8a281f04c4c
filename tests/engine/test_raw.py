"""Samples as they were found: what kind they are, and which file and picture each is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pictures import class_folders

from tlnb.engine.data.load import load_data
from tlnb.engine.data.raw import Pictures, Rows, Several
from tlnb.errors import DataError


def test_pictures_in_files_have_paths_and_can_be_looked_at(tmp_path: Path) -> None:
    data = load_data(str(class_folders(tmp_path / "pets")))
    both = Several([data.train, data.valid])
    for part in (data.train, data.valid, both):
        assert part.kind == "pictures"
        assert len(list(part.pictures())) == len(part)
    last = len(both) - 1
    path = both.path(last)
    assert path is not None
    assert path.is_file()
    assert path == data.valid.path(len(data.valid) - 1)
    assert path.name == Path(both.name(last)).name


def test_pictures_in_memory_have_no_file_and_are_given_as_they_are() -> None:
    images = torch.randint(0, 255, (4, 3, 5, 6), dtype=torch.uint8)
    found = Pictures(images, torch.arange(4))
    assert found.kind == "pictures"
    assert found.path(0) is None
    assert torch.equal(torch.stack(list(found.pictures())), images)


def test_rows_of_numbers_are_no_pictures() -> None:
    found = Rows(torch.rand(4, 6), torch.arange(4))
    assert found.kind == "rows"
    with pytest.raises(DataError, match="compares pictures"):
        list(found.pictures())
