"""What people bring, of the newer kinds: folders for files, marks that contradict, sounds, texts and adapters."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import texts
import torch
from faults.calls import pair, plain_net
from sounds import tone, tone_folders, write
from torch import nn

from tlnb.engine.core import fingerprint
from tlnb.errors import BadArguments, CheckpointError, DataError, Interrupted, ModelError, TlnbError
from tlnb.session import Session, testing


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def session(**options: object) -> Session:
    tl = Session([])
    tl.load(plain_net(), input="1,8,8")
    tl.data(pair(), batch=16, **options)
    tl.train(1, 0.01)
    return tl


class Sly:
    """Whatever is asked of it fails."""

    def __bool__(self) -> bool:
        raise ZeroDivisionError("mine")

    __str__ = __getitem__ = __iter__ = __len__ = __eq__ = __bool__  # type: ignore[assignment]
    __hash__ = object.__hash__


# ---------------------------------------------------------------- a folder where a file is meant

WRITERS = {
    "save": lambda tl, path: tl.save(path),
    "export": lambda tl, path: tl.export(path),
    "export as onnx": lambda tl, path: tl.export(path, to="onnx"),
    "script": lambda tl, path: tl.script(path, network="model = None"),
    "marks": lambda tl, path: tl.clean(drop=[3], save=path),
}


@pytest.mark.parametrize("call", WRITERS)
@pytest.mark.parametrize("path", [".", "..", "/", "~", "there/", "../", "there/.", "there/..", Path(".")])
def test_what_names_a_folder_is_no_file(
    call: str, path: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "someone"))
    Path("there").mkdir()
    tl = session()
    samples = tl.view.need_samples()
    before = {*tmp_path.iterdir(), *Path.cwd().iterdir()}
    with pytest.raises(TlnbError, match="names a folder; a file needs a name, such as: %tl_"):
        WRITERS[call](tl, path)
    assert {*tmp_path.iterdir(), *Path.cwd().iterdir()} - {tmp_path / "home"} == before - {tmp_path / "home"}
    assert tl.view.need_samples() is samples
    assert list(Path("there").iterdir()) == []


# ---------------------------------------------------------------- marks


@pytest.mark.parametrize(
    "asked",
    [
        {"drop": [2], "keep": "2"},
        {"drop": "5", "relabel": {5: "1"}},
        {"relabel": "4=0,4=1"},
        {"keep": [1, 7], "relabel": "7=2"},
    ],
)
def test_one_sample_gets_one_mark_in_a_call(asked: dict[str, object]) -> None:
    tl = session()
    with pytest.raises(BadArguments, match=r"sample \d is named twice, .* and .*; say which one it is"):
        tl.clean(**asked)
    assert tl.view.need_data().mending is None
    tl.clean(drop=[2, 2], keep="3")  # the same twice is no contradiction
    assert len(tl.view.need_data().mending.log) == 3


def test_a_call_that_is_stopped_leaves_no_file_of_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    tl = session()

    def pressed(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("tlnb.session.cleaning.keep_safe", pressed)
    with pytest.raises(Interrupted):
        tl.clean(drop=[2], save="marks.csv")
    assert not Path("marks.csv").exists()
    monkeypatch.undo()


def test_a_call_that_is_stopped_leaves_the_file_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    tl = session()
    tl.clean(drop=[1], save="marks.csv")
    before = Path("marks.csv").read_text()
    assert before.count("\n") == 2

    def fails(*_: object) -> None:
        raise RuntimeError("of another kind")

    monkeypatch.setattr("tlnb.session.cleaning.keep_safe", fails)
    with pytest.raises(RuntimeError):
        tl.clean(drop=[2], save="marks.csv")
    assert Path("marks.csv").read_text() == before
    assert [mark.sample for mark in tl.view.need_data().mending.log] == [1]


# ---------------------------------------------------------------- the test part


def test_a_look_counts_when_its_number_is_given_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    tl = session(test=0.2)

    def pressed(tensors: object) -> str:
        signal.raise_signal(signal.SIGINT)
        return fingerprint.tensors_digest(tensors)

    monkeypatch.setattr(testing, "tensors_digest", pressed)
    with pytest.raises(Interrupted, match="nothing has changed"):
        tl.test()
    assert tl.view.need_data().test.looks == ()
    assert tl.history.looks in ((), None)
    monkeypatch.undo()
    tl.test()
    assert len(tl.view.need_data().test.looks) == 1


# ---------------------------------------------------------------- a budget


def test_a_budget_that_is_said_to_be_enough_is_more_than_the_one_that_was_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tlnb.session import advising

    tl = session()
    clock = iter(range(0, 100_000, 5))
    monkeypatch.setattr(advising.time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(advising, "pace_of", lambda state, tools: None)
    monkeypatch.setattr(advising, "plan_seconds", lambda state, pace, text: 0.5)
    monkeypatch.setattr(advising, "advice_seconds", lambda state, pace, images: 1e9)
    with pytest.raises(BadArguments, match="--budget 6s is enough"):  # 5 s to find out, 0.6 s to fit
        tl.train_advised(budget="4s")


# ---------------------------------------------------------------- adapters and whole sessions


class Wide(nn.Module):
    """Layers that are large enough for factors of rank 1."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Linear(64, 20), nn.Linear(20, 20), nn.Linear(20, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.two(self.one(x.flatten(1)).relu()).relu())


def adapted() -> Session:
    torch.manual_seed(0)
    tl = Session([])
    tl.load(Wide(), input="1,8,8")
    tl.data(pair(), batch=16)
    tl.adapt("0", rank=1)
    tl.train(1, 0.01)
    return tl


def test_adapters_never_take_the_place_of_a_whole_session() -> None:
    tl = adapted()
    tl.save("mine")
    tl.save("adapter", adapter=True)
    whole, part = Path("mine.safetensors").read_bytes(), Path("adapter.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="holds a whole session, and this would be adapters alone"):
        tl.save("mine", adapter=True)
    with pytest.raises(CheckpointError, match="holds adapters alone, and this would be a whole session"):
        tl.save("adapter")
    assert (Path("mine.safetensors").read_bytes(), Path("adapter.safetensors").read_bytes()) == (whole, part)
    tl.train(1, 0.01)
    tl.save("mine")
    tl.save("adapter", adapter=True)
    assert Path("mine.safetensors").read_bytes() != whole
    assert Path("adapter.safetensors").read_bytes() != part


def test_a_file_of_adapters_is_no_network() -> None:
    adapted().save("adapter", adapter=True)
    with pytest.raises(
        ModelError, match="holds adapters alone; load the network that they are for, then: %tl_adapt"
    ):
        Session([]).load("adapter.safetensors")


# ---------------------------------------------------------------- texts


@pytest.fixture
def reader(tmp_path: Path) -> Session:
    pytest.importorskip("transformers")
    texts.network_folder(tmp_path / "bert")
    tl = Session([])
    tl.load(str(tmp_path / "bert"))
    return tl


def jsonl(labels: list[object]) -> str:
    lines = [json.dumps({"text": f"w{n % 60} good w{n}", "label": label}) for n, label in enumerate(labels)]
    Path("t.jsonl").write_text("\n".join(lines))
    return "t.jsonl"


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([["x"], []] * 15, ["x"]),
        ([["x"], ["y"]] * 15, ["x", "y"]),
        ([["x"], ["y", "x"], []] * 10, ["x", "y"]),
    ],
)
def test_lists_of_labels_are_labels(reader: Session, labels: list[object], classes: list[str]) -> None:
    data = reader.data(jsonl(labels), text="text", label="label")
    assert list(data.classes) == classes
    assert "any number of them a sample" in repr(data)
    rows = torch.cat([data.train.targets, data.valid.targets])
    wanted = torch.tensor([[float(name in row) for name in classes] for row in labels])
    assert sorted(rows.tolist()) == sorted(wanted.tolist())


def test_a_length_leaves_room_for_words(reader: Session) -> None:
    path = texts.table(Path("t.csv"), texts.rows(40))
    for length in (1, 2):
        with pytest.raises(DataError, match=f"--length {length}: 2 of the tokens .* so 3 is the least"):
            reader.data(str(path), text="text", label="label", length=length)
    reader.data(str(path), text="text", label="label", length=3)


def test_texts_in_which_nothing_is_written_are_said(reader: Session) -> None:
    reader.data(str(texts.table(Path("t.csv"), texts.rows(40))), text="text", label="label")
    found = reader.predict(["good w1", "", " \n", "w2"])
    assert found.names == ("good w1", "w2")
    assert [tuple(problem) for problem in found.problems] == [("text 1", "no text"), ("text 2", "no text")]
    with pytest.raises(DataError, match="text 0 cannot be predicted on: no text"):
        reader.predict([""])
    for other in (5, torch.zeros(3), [None, "a"]):
        with pytest.raises(DataError, match="the network reads texts; give words"):
            reader.predict(other)


# ---------------------------------------------------------------- sounds


def test_sounds_that_cannot_be_heard_are_one_line() -> None:
    pytest.importorskip("soundfile")
    tl = Session([])
    tl.load(plain_net(), input="1,8,8")
    tl.data(str(tone_folders(Path("tones"))), batch=8)
    for rate in (0, -1, 10, 10**9):
        with pytest.raises(DataError, match=r"a rate of .* Hz; 1,000 to 768,000 are heard"):
            tl.predict((np.zeros(800, np.float32), rate))
    Path("note.wav").write_text("no sound")
    with pytest.raises(DataError, match=r"note.wav cannot be predicted on: text, not a sound"):
        tl.predict("note.wav")
    write(Path("some/a.wav"), tone(400))
    Path("some/b.wav").write_text("no sound")
    assert [Path(name).name for name in tl.predict("some").names] == ["a.wav"]


def test_a_score_that_says_nothing_is_said() -> None:
    data = session().data(pair(60, 3), score="top5")
    assert "top5 is 100 % for 3 classes" in repr(data)


@pytest.mark.parametrize("call", WRITERS)
@pytest.mark.parametrize("name", ["half \ud800", "bytes \udc80"])
def test_what_is_no_letter_is_in_no_name(call: str, name: str) -> None:
    tl = session()
    with pytest.raises(TlnbError, match="has what is no letter; take another one"):
        WRITERS[call](tl, name)
    with pytest.raises(TlnbError, match="has what is no letter"):
        tl.export("app", name)
    assert not list(Path.cwd().iterdir())


def test_a_device_of_ones_own_is_one_line() -> None:
    with pytest.raises(BadArguments, match="no device a Sly here; cpu is always one"):
        Session([]).device = Sly()


# ---------------------------------------------------------------- objects of one's own where a word is meant


@pytest.mark.parametrize(
    "call",
    [
        lambda tl, value: tl.cross_validate(2, cache=value),
        lambda tl, value: tl.cross_validate(2, keep_best=value),
        lambda tl, value: tl.save("birds", adapter=value),
        lambda tl, value: tl.export(value),
        lambda tl, value: tl.blend(between=value),
        lambda tl, value: tl.train_advised(budget=value),
    ],
)
@pytest.mark.parametrize("value", [Sly(), np.ones((2, 2)), torch.ones(3), np.ma.masked_array([1, 2], [0, 1])])
def test_objects_that_are_no_word_and_no_flag_are_one_line(call: object, value: object) -> None:
    tl = session()
    with pytest.raises(TlnbError):
        call(tl, value)  # type: ignore[operator]
    assert len(tl.history.stages) == 1
    assert not list(Path.cwd().iterdir())


def test_parts_of_other_shapes_are_refused() -> None:
    x, y = torch.randn(12, 1, 8, 8), torch.arange(12) % 3
    tl = session()
    for other in (torch.randn(12, 3), torch.randn(12, 1, 9, 9)):
        with pytest.raises(
            DataError, match=r"a training sample has shape \(1, 8, 8\) and a validation sample"
        ):
            tl.data(((x, y), (other, y)))
        with pytest.raises(DataError, match="a validation sample"):
            tl.forgetting(((x, y), (other, y)))
    assert tl.train(1, 0.01).stages
