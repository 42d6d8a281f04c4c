"""A test part is measured by one command, which counts; nothing else reads a row of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import JPEG

from tlnb.engine.data.load import load_data
from tlnb.engine.data.sealed import Sealed
from tlnb.errors import DataError, NotReady, TlnbError
from tlnb.magics.arguments import parse
from tlnb.magics.commands import COMMANDS
from tlnb.session import Session


class Trap:
    """Test samples of which nothing but their number may be asked."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"{name} of a test row was read")


def small(**options: object) -> Session:
    found = Session([])
    found.load("convnet5")
    found.data("digits", per_class=5, test=0.2, **options)
    return found


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A session whose test part was measured once; a test must leave it as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLNB_HOME", str(tmp_path_factory.mktemp("home")))
        found = small()
        found.freeze("body")
        found.train(lr=2e-2, epochs=1)
        found.test()
    return found


def test_the_three_parts_share_no_sample():
    data = load_data("digits", test=0.2, groups=np.arange(1797) // 3)
    places = data.split
    every = torch.cat([places.train, places.valid, places.test])
    assert len(every) == 1797 == len(every.unique())
    sides = [set((part // 3).tolist()) for part in (places.train, places.valid, places.test)]
    assert not (sides[0] & sides[1])
    assert not (sides[0] & sides[2])
    assert not (sides[1] & sides[2])
    assert abs(len(data.test) / 1797 - 0.2) < 0.02
    assert data.asked is None  # an array is not plain
    assert load_data("digits", test=0.2, per_class=7).split.train.shape == (70,)


def test_no_command_but_one_reads_a_test_row(tmp_path, monkeypatch):
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    session = small()
    data = session.view.data
    data.test = Sealed(Trap(len(data.test)), data.test.digest)
    session.freeze("body")
    session.find_lr(steps=12)
    first = session.train(lr=2e-2, epochs=1)
    session.advise(images=50)
    session.sweep(epochs=1, seeds=1, images=20)
    session.results()
    session.show_batch()
    session.compare(first, first)
    session.cross_validate(2, "freeze body  epochs 1  lr 1e-2")
    assert "never looked at" in repr(session.history)
    session.predict(np.zeros((2, 8, 8), np.uint8))
    session.predict(np.zeros((2, 8, 8), np.uint8), sure=0.9)
    session.save("here")
    session.script("made.py")
    session.export("net.safetensors")
    session.undo()
    assert "never looked at" in repr(session.status())
    assert "never looked at" in (tmp_path / "net.md").read_text(encoding="utf-8")
    with pytest.raises(AssertionError, match="was read"):
        session.test()


def test_a_measurement_says_score_interval_classes_and_confusion(looked):
    again = looked.test()
    assert f"{again.look}. accuracy {again.value:.4g}" in repr(looked.history)
    assert again.warning in looked.history._repr_html_()
    assert again.score.name == "accuracy"
    assert again.interval.low < again.value < again.interval.high
    assert again.confusion.sum() == len(looked.view.data.test) == 359
    assert again.value == np.trace(again.confusion) / 359
    assert len(again.table.rows) == 10
    assert "accuracy" in repr(again)
    assert again.warning in repr(again)
    assert "<p>" in again._repr_html_()


def test_the_second_look_says_so_and_nothing_takes_a_look_back(looked, tmp_path, monkeypatch):
    monkeypatch.setenv("TLNB_HOME", str(tmp_path))
    session = small()
    first = session.test()
    assert (first.look, first.warning) == (1, None)
    session.data("digits", per_class=5, test=0.2)  # named anew: the same samples
    second = session.test()
    assert second.look == 2
    assert "second look" in second.warning
    assert f"{first.value:.4g}" in second.warning
    session.train(lr=1e-2, epochs=1)
    session.undo()
    session.load("convnet5")
    assert session.test().look == 3
    session.data("digits", per_class=5, test=0.2, seed=1)  # other samples
    assert session.test().look == 1


def test_looks_come_back_with_the_file_and_files_of_before_load(tmp_path, monkeypatch):
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))
    session = small()
    session.save(str(tmp_path / "before"))
    session.test()
    session.save(str(tmp_path / "after"))
    other = Session([])
    other.resume(str(tmp_path / "after"))
    assert other.test().look == 2
    session.resume(str(tmp_path / "before"))  # going back takes no look back
    assert session.test().look == 2
    old = _without_looks(tmp_path / "after.safetensors", tmp_path / "old.safetensors")
    third = Session([])
    third.resume(str(old))
    assert third.test().look == 1


def _without_looks(path: Path, to: Path) -> Path:
    """The same file as a version wrote it that knew of no test part."""
    from tlnb.engine.checkpoint import file as checkpoint

    found = checkpoint.read(path)
    about = json.loads(json.dumps(found.about))
    del about["looks"]
    checkpoint.write(to, checkpoint.Checkpoint(about, found.tensors))
    return to


def test_card_and_script_count_the_looks(looked, tmp_path):
    count = len(looked.view.data.test.looks)
    said = "once" if count == 1 else "twice"
    assert f"looked at {said}" in looked.script().text
    looked.export(str(tmp_path / "net.safetensors"))
    assert f"looked at {said}" in (tmp_path / "net.md").read_text(encoding="utf-8")


def test_a_script_of_data_with_a_test_part_runs_on_the_same_samples(looked):
    files = looked.script().files
    assert len(files["train.data.safetensors"]["valid_targets"]) == len(looked.view.data.valid)


# -------------------------------------------------------------------- sources


def folders(root: Path, *parts: str, each: int = 4) -> Path:
    for part in parts:
        for name in "ab":
            for number in range(each):
                file = root / part / name / f"p{number // 2}_{number}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(JPEG + f"{part}{name}{number}".encode())
    return root


def test_the_own_test_part_of_a_folder(tmp_path):
    data = load_data(folders(tmp_path, "train", "val", "test"), test=True)
    assert (len(data.train), len(data.valid), len(data.test)) == (8, 8, 8)
    assert data.asked["test"] == "own"
    with data.test.opened() as opened:
        assert all(opened.samples.name(i).startswith("test") for i in range(8))


def test_a_folder_with_a_test_part_alone_gets_a_validation_part(tmp_path):
    root = folders(tmp_path, "train", "test", each=10)
    data = load_data(root, test=True)
    assert (len(data.train), len(data.valid), len(data.test)) == (16, 4, 20)
    assert all(data.valid.name(i).startswith("train") for i in range(4))
    assert len(load_data(root).valid) == 20  # without --test it is what is measured on


def test_groups_by_the_path(tmp_path):
    data = load_data(folders(tmp_path, ".", each=12), groups=r"(p\d)_")
    sides = [
        {data_part.name(i).split("/")[-1][:2] for i in range(len(data_part))}
        for data_part in (data.train, data.valid)
    ]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 6


def test_a_column_of_groups_a_column_of_times_and_a_test_part_of_a_table(tmp_path):
    folders(tmp_path, "x", each=20)
    rows = [
        (f"x/{c}/p{n // 2}_{n}.jpg", c, f"w{n % 5}", f"2026-01-{n + 1:02}") for c in "ab" for n in range(20)
    ]
    table = tmp_path / "t.csv"
    text = "\n".join(map(",".join, [("path", "label", "ward", "day"), *rows]))
    table.write_text(text, encoding="utf-8")
    data = load_data(table, groups="ward", test=0.2)
    ward = np.array([int(row[2][1]) for row in rows])
    sides = [set(ward[part.numpy()]) for part in (data.split.train, data.split.valid, data.split.test)]
    assert [len(side) for side in sides] == [3, 1, 1]
    assert len(set.union(*sides)) == 5
    timed = load_data(table, time="day", test=0.2)
    day = np.array([int(row[3][-2:]) for row in rows])
    assert day[timed.split.train.numpy()].max() < day[timed.split.valid.numpy()].min()
    assert day[timed.split.valid.numpy()].max() < day[timed.split.test.numpy()].min()
    with pytest.raises(DataError, match="no column 'wart'"):
        load_data(table, groups="wart")


def test_measured_values_are_in_their_own_unit(tmp_path, monkeypatch):
    monkeypatch.setenv("TLNB_HOME", str(tmp_path))
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 3, generator=generator)
    targets = 100 + 10 * inputs[:, 0]
    session = Session([])
    session.load(
        torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1)), input=(3,)
    )
    session.data((inputs, targets), test=0.2)
    found = session.test()
    assert found.score.name == "r2"
    assert 60 < found.results.targets.mean() < 140
    places = session.split.test
    assert np.allclose(found.results.targets[:, 0], targets[places].numpy(), atol=1e-3)


@pytest.mark.parametrize(
    "options", [{"test": 2}, {"test": "much"}, {"test": True}, {"groups": np.zeros(1797)}, {"time": "day"}]
)
def test_wrong_use_is_one_line_and_changes_nothing(options):
    session = Session([])
    with pytest.raises(TlnbError) as caught:
        session.data("digits", **options)
    assert "\n" not in str(caught.value)
    assert session.view.data is None


def test_without_a_test_part_there_is_nothing_to_measure(trained):
    with pytest.raises(NotReady, match="--test"):
        trained.test()


def test_the_option_stands_alone_or_with_a_share():
    assert parse(COMMANDS["tl_data"], "birds --test", {}) == (["birds"], {"test": "own"})
    assert parse(COMMANDS["tl_data"], "birds --test --seed 1", {})[1] == {"test": "own", "seed": 1}
    assert parse(COMMANDS["tl_data"], "birds --test 0.2", {})[1] == {"test": "0.2"}
