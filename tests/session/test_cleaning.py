"""Suspects in a session's data, and the marks that mend it: what they find, what they change, and what stays."""

from __future__ import annotations

import csv
import gc
from pathlib import Path

import numpy as np
import pytest
import torch
from listening import Ear
from pictures import class_folders, encoded
from PIL import Image, ImageFilter
from sounds import tone_folders
from texts import network_folder, rows, table

from tlnb.engine.data.load import load_data
from tlnb.errors import BadArguments, DataError, NotReady
from tlnb.session import Session

FLIPPED = 24


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks are kept in a home of this test's own."""
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def flipped() -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """240 digits, of which every tenth has a wrong label: pictures, labels, places of the wrong ones."""
    data = load_data("digits", per_class=24)
    images, labels = data.train.images, data.train.targets.clone()
    wrong = np.random.default_rng(0).choice(len(labels), FLIPPED, replace=False)
    labels[wrong] = (labels[wrong] + 3) % 10
    return images, labels, np.sort(wrong)


@pytest.fixture
def session(flipped) -> Session:
    images, labels, _ = flipped
    tl = Session([Ear()])
    tl.load("convnet5")
    tl.data((images, labels))
    tl.freeze("body")
    return tl


def test_flipped_labels_come_first_and_the_test_part_is_not_read(flipped) -> None:
    images, labels, wrong = flipped
    tl = Session([])
    tl.load("convnet5")
    data = tl.data((images, labels), test=0.2)
    suspects = tl.clean()
    assert data.test.looks == ()
    there = set(data.split.train.tolist()) | set(data.split.valid.tolist())
    assert {row.sample for row in suspects} <= there
    hidden = set(wrong.tolist()) & there
    first = {row.sample for row in suspects[: round(0.15 * len(there))]}
    assert len(first & hidden) >= 0.8 * len(hidden)
    found = next(row for row in suspects if row.sample in hidden)
    assert found.likely == str((int(found.given) - 3) % 10)
    assert set(suspects.frame().columns) >= {"sample", "part", "given", "likely", "why", "mark"}


def test_classes_that_are_taken_for_each_other_are_found_out(flipped) -> None:
    images, labels, wrong = flipped
    true = labels.clone()
    true[wrong] = (true[wrong] - 3) % 10
    # Threes are called eights and nothing else is wrong: a third of one class by one other name.
    threes = (true == 3).nonzero().flatten()
    given, hidden = true.clone(), set(threes[::3].tolist())
    given[threes[::3]] = 8
    tl = Session([])
    tl.load("convnet5")
    tl.data((images, given))
    suspects = tl.clean()
    first = [row.sample for row in suspects if "label" in row.kinds][: 2 * len(hidden)]
    assert len(hidden & set(first)) >= 0.75 * len(hidden)
    sure = [row for row in suspects if row.why.startswith("likely")]
    right = [row for row in sure if row.sample in hidden]
    assert len(right) >= max(0.7 * len(sure), 1)
    assert {row.likely for row in right} == {"3"}


def test_a_relabel_and_a_drop_are_trained_on_and_kept_features_stay(session, flipped) -> None:
    before = session.view.samples[0]
    session.train(1, lr=1e-3)
    kept = session.view.planner.cache.spent
    suspects = session.clean()
    at = next(i for i, row in enumerate(suspects) if row.part == "train" and row.likely)
    other = next(i for i, row in enumerate(suspects) if row.part == "train" and i != at)
    suspects.relabel(at)
    suspects.drop(other)
    data = session.view.data
    place = data.split.train.tolist().index(suspects[at].sample)
    assert data.classes[int(data.train.targets[place])] == suspects[at].likely
    assert suspects[other].sample not in data.split.train.tolist()
    assert suspects[other].sample in data.split.left_out.tolist()
    samples = session.view.samples[0]
    assert len(samples) == len(before) - 1
    assert torch.equal(samples.targets, data.train.targets)
    run = session.train(1, lr=1e-3)
    assert run.records[-1].epoch == 1
    assert session.view.planner.cache.spent == kept  # no sample went through the frozen layers again


def test_undo_goes_back_one_mark_at_a_time_to_the_data_as_it_was_read(session) -> None:
    print_before = session.view.state.data_fingerprint
    suspects = session.clean()
    suspects.relabel(0, "5")
    suspects.drop(0)
    assert [mark.act for mark in suspects.marks.values()] == ["drop"]
    suspects.undo()
    assert [mark.words for mark in suspects.marks.values()] == ["relabel 5"]
    suspects.undo()
    assert suspects.marks == {}
    assert session.view.data.mending is None
    assert session.view.state.data_fingerprint == print_before
    with pytest.raises(NotReady, match="no mark to take back"):
        suspects.undo()


def test_wrong_words_change_nothing(session) -> None:
    suspects = session.clean()
    before = session.view.state
    with pytest.raises(DataError, match="no class 'x'"):
        suspects.relabel(0, "x")
    with pytest.raises(BadArguments, match="suspects 0 to"):
        suspects.drop(10_000)
    with pytest.raises(BadArguments, match="3=cat"):
        session.clean(relabel="three=cat")
    with pytest.raises(DataError, match="no training or validation sample 99999"):
        session.clean(drop="99999")
    data = session.view.data
    zeros = data.split.train[data.train.targets == 0].tolist()
    with pytest.raises(DataError, match="no training sample of the class"):
        session.clean(drop=zeros)
    assert session.view.state is before


def test_marks_hold_again_after_other_data_another_order_and_a_resume(session, flipped, tmp_path) -> None:
    images, labels, _ = flipped
    session.clean(relabel={3: "1"}, drop=[7], keep="11")
    session.data("digits", per_class=3)
    assert session.view.data.mending is None
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    again = session.data((images[order], labels[order]))
    assert {mark.act: order[place].item() for place, mark in again.mending.marks.items()} == {
        "relabel": 3, "drop": 7, "keep": 11,
    }  # fmt: skip
    session.data((images, labels))
    print_before = session.view.state.data_fingerprint
    session.save(str(tmp_path / "saved"))
    other = Session([])
    other.data((images, labels))
    told = other.resume(str(tmp_path / "saved"))
    assert "1 relabelled, 1 dropped, 1 kept" in repr(told)
    assert other.view.state.data_fingerprint == print_before
    other.clean(undo=True)
    assert sorted(mark.act for mark in other.view.data.mending.marks.values()) == ["drop", "relabel"]


def test_marks_of_files_survive_another_name_and_class_and_go_by_a_csv(tmp_path) -> None:
    root = class_folders(tmp_path / "pets", each=8)
    tl = Session([])
    tl.load("convnet5")
    data = tl.data(root)
    number = {name: n for n in data.split.train.tolist() + data.split.valid.tolist()
              if (name := _name(tl, n))}  # fmt: skip
    tl.clean(relabel={number["cats/3.jpg"]: "dogs"}, drop=[number["dogs/2.jpg"]])
    bytes_before = {path: path.read_bytes() for path in root.rglob("*.jpg")}
    told = tl.clean(save=tmp_path / "marks")
    assert "2 marks" in repr(told)
    rows = list(csv.DictReader((tmp_path / "marks.csv").open()))
    assert {(row["act"], row["name"], row["label"]) for row in rows} == {
        ("relabel", "cats/3.jpg", "dogs"), ("drop", "dogs/2.jpg", ""),
    }  # fmt: skip
    assert {path: path.read_bytes() for path in root.rglob("*.jpg")} == bytes_before
    (root / "dogs" / "2.jpg").rename(root / "cats" / "moved.jpg")
    fresh = load_data(root, marks=str(tmp_path / "marks.csv"))
    assert {fresh.mending.numbers.name(n): mark.act for n, mark in fresh.mending.marks.items()} == {
        "cats/3.jpg": "relabel", "cats/moved.jpg": "drop",
    }  # fmt: skip
    assert "1 relabelled, 1 dropped" in repr(fresh)


def _name(tl: Session, number: int) -> str:
    from tlnb.engine.data.marks import Numbers

    return Numbers(tl.view.data).name(number)


def test_a_file_of_marks_is_read_with_care(tmp_path) -> None:
    for text, words in (
        ("act,name\nburn,a.jpg\n", "a mark is keep, relabel, drop"),
        ("act,name\nrelabel,a.jpg\n", "relabel needs a label"),
        ("some,thing\n1,2\n", "no table of marks"),
        ("act,name,sample\ndrop,a.jpg,x\n", "whole number"),
    ):
        (tmp_path / "m.csv").write_text(text)
        with pytest.raises(DataError, match=words):
            load_data("digits", marks=str(tmp_path / "m.csv"))
    with pytest.raises(DataError, match="no file of marks"):
        load_data("digits", marks=str(tmp_path / "none.csv"))
    (tmp_path / "m.csv").write_text("act,name\ndrop,nowhere.jpg\n")
    data = load_data("digits", marks=str(tmp_path / "m.csv"))
    assert "1 mark fit no training or validation sample" in repr(data)


def test_copies_dark_blurred_and_empty_pictures_are_told(tmp_path) -> None:
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
        for index in range(12):
            noise = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize((160, 120), 2)
            noise.save(tmp_path / name / f"{index}.png")
    first = Image.open(tmp_path / "cats" / "0.png")
    (tmp_path / "cats" / "copy.jpg").write_bytes(encoded(first, quality=60))
    first.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "dogs" / "mirror.png")
    first = Image.open(tmp_path / "cats" / "1.png")
    first.crop((8, 6, 152, 114)).save(tmp_path / "cats" / "crop.png")
    Image.open(tmp_path / "cats" / "2.png").filter(ImageFilter.GaussianBlur(9)).save(
        tmp_path / "cats" / "blur.png"
    )
    Image.open(tmp_path / "cats" / "3.png").point(lambda v: v // 9).save(tmp_path / "cats" / "dark.png")
    Image.new("RGB", (160, 120), (120, 130, 140)).save(tmp_path / "cats" / "empty.png")
    tl = Session([])
    tl.load("convnet5")
    tl.data(tmp_path)
    suspects = tl.clean()
    of = {
        kind: {row.name for row in suspects if kind in row.kinds}
        for kind in ("copy", "dark", "blurred", "empty")
    }
    # Copies with two labels are all told; of those with one label all but one.
    assert {"cats/0.png", "cats/copy.jpg", "dogs/mirror.png"} <= of["copy"] | {"cats/0.png"}
    assert of["copy"] & {"cats/1.png", "cats/crop.png"}
    assert len(of["copy"]) <= 5
    assert of["dark"] == {"cats/dark.png"}
    assert of["empty"] == {"cats/empty.png"}
    assert of["blurred"] <= {"cats/blur.png"}
    twins = next(row for row in suspects if row.name == "dogs/mirror.png")
    assert "mirror image of" in twins.why or "copy of" in twins.why
    assert twins.suspicion > 0.9  # two labels for one picture


def test_names_and_classes_of_html_show_as_text(tmp_path) -> None:
    root = class_folders(tmp_path / "odd", names=("<b>cats</b>", "dogs & co"), each=6)
    (root / "dogs & co" / "<img src=x onerror=alert(1)>.jpg").write_bytes(
        (root / "<b>cats</b>" / "0.jpg").read_bytes()
    )
    tl = Session([])
    tl.load("convnet5")
    tl.data(root)
    page = tl.clean()._repr_html_()
    assert "<b>cats</b>" not in page.replace("<b>&lt;b&gt;", "")
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;.jpg" in page


def test_values_have_no_labels_to_doubt_but_can_be_dropped() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 1, 8, 8, generator=generator)
    tl = Session([])
    tl.load("convnet5")
    pictures = (x - x.min()) / (x.max() - x.min())
    pictures[9] = pictures[4]
    tl.data((pictures, torch.rand(60, 1, generator=generator)))
    suspects = tl.clean()
    assert suspects.rate is None
    assert any("samples have values, not one class each" in note for note in suspects.notes)
    assert {row.sample for row in suspects if "copy" in row.kinds} & {4, 9}
    with pytest.raises(DataError, match="one class each"):
        tl.clean(relabel={4: "1"})
    tl.clean(drop=[4])
    assert 4 not in tl.split.train.tolist() + tl.split.valid.tolist()


def test_of_several_labels_none_is_doubted_and_the_answer_says_so() -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(60, 1, 8, 8, generator=generator)
    pictures[9] = pictures[4]
    tl = Session([])
    tl.load("convnet5")
    tl.data((pictures, (torch.rand(60, 3, generator=generator) > 0.5).to(torch.uint8)))
    suspects = tl.clean()
    assert suspects.count("label") == 0
    assert suspects.count("copy") >= 1
    assert "samples have several labels, not one class each, so no label is doubted" in repr(suspects)
    with pytest.raises(DataError, match="drop this one, or mend its table"):
        suspects.relabel(0, "1")
    suspects.drop(0)
    assert suspects[0].sample not in tl.split.train.tolist() + tl.split.valid.tolist()


def test_balanced_and_augmented_data_is_mended_too(flipped) -> None:
    images, labels, _ = flipped
    tl = Session([])
    tl.load("convnet5")
    data = tl.data((images, labels), balance="samples", augment="light")
    sample = int(data.split.train[5])
    tl.clean(relabel={sample: "2"}, drop=[int(data.split.train[0])])
    mended = tl.view.data
    place = mended.split.train.tolist().index(sample)
    train = tl.view.samples[0]
    assert train.random
    assert int(mended.train.targets[place]) == 2
    counts = torch.bincount(train.targets, minlength=10)
    assert int(counts.max()) - int(counts.min()) <= 1
    fresh = mended.samples(tl.view.samples[1].preprocess)[0]
    assert torch.equal(fresh.targets, train.targets)
    assert torch.equal(fresh.plain.pixels(torch.arange(20)), train.plain.pixels(torch.arange(20)))


def test_a_script_of_mended_data_holds_its_samples(session, tmp_path) -> None:
    session.clean(relabel={3: "1"}, drop=[7])
    session.train(1, lr=1e-3)
    session.script(str(tmp_path / "job.py"))
    from safetensors.torch import load_file

    written = load_file(next(tmp_path.glob("*.data.safetensors")))
    assert torch.equal(written["train_targets"], session.view.data.train.targets)


def test_marks_outlive_the_kernel(flipped, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("TLNB_HOME", str(tmp_path))
    tl = Session([])
    tl.load("convnet5")
    tl.data("digits", per_class=12)
    tl.train(1, lr=1e-3)
    tl.clean(drop=[int(tl.split.train[0])])  # after the last autosave
    del tl
    gc.collect()
    other = Session([])
    told = other.resume()
    assert "1 dropped" in repr(told)
    assert len(other.view.data.mending.marks) == 1
    ear = Ear()
    third = Session([ear])
    third.data("digits", per_class=12)
    assert third.view.data.mending is None
    assert any("--marks" in line for line in ear.said)


def test_texts_that_say_the_same_are_copies_and_signs_alone_are_empty() -> None:
    from tlnb.engine.cleaning.copies import normal, text_copies

    texts = [
        "Where is my card?",
        "where is my CARD",
        "My card has not arrived yet",
        "something else entirely",
    ]
    found = text_copies([normal(text) for text in texts], None)
    assert found.pairs.tolist() == [[0, 1]]


def test_texts_are_told_apart_by_their_letters_and_mended(tmp_path) -> None:
    pytest.importorskip("transformers")
    tl = Session([])
    tl.load(str(network_folder(tmp_path / "bert")))
    lines = [*rows(40), ("...", rows(1)[0][1])]
    lines.append((f"  {lines[0][0].upper()}!", lines[0][1]))
    tl.data(table(tmp_path / "t.csv", lines))
    suspects = tl.clean()
    copies = {row.sample for row in suspects if "copy" in row.kinds}
    assert copies & {0, 41}
    assert {row.sample for row in suspects if "empty" in row.kinds} <= {40}
    at = next(i for i, row in enumerate(suspects) if "copy" in row.kinds)
    suspects.drop(at)
    train, valid = tl.view.samples
    assert len(train) + len(valid) == 41
    assert torch.equal(train.targets, tl.view.data.train.targets)
    fresh = tl.view.data.samples(train.preprocess)[0]
    assert fresh.fingerprint() == train.fingerprint()
    assert suspects.gallery.kind == "text"
    assert suspects.gallery.text(0)


def test_sounds_in_pieces_are_mended_as_wholes(tmp_path) -> None:
    pytest.importorskip("soundfile")
    root = tone_folders(tmp_path / "tones", each=8, long=(1, 3))
    tl = Session([])
    tl.load("convnet5")
    tl.data(root, window=0.5)
    suspects = tl.clean()
    assert suspects.gallery.kind == "sound"
    first = int(tl.split.train[0])
    assert suspects.gallery.sound(first).startswith("data:audio/wav;base64,")
    before = tl.view.samples[0]
    tl.clean(drop=[first])
    train = tl.view.samples[0]
    assert int(train.wholes.max()) + 1 == len(tl.view.data.train)
    assert len(train) < len(before)
    fresh = tl.view.data.samples(train.preprocess)[0]
    assert torch.equal(fresh.targets, train.targets)
    assert torch.equal(fresh.rows, train.rows)
