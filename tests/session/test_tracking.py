"""A tracker of experiments gets the numbers of the history; whatever it does, no bit of training changes."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from listening import Ear
from networks import blobs, small

from tlnb.errors import BadArguments, NotReady
from tlnb.session import Session, tracking
from tlnb.tracking import post
from tlnb.tracking.tracker import TRACKERS

PLAN = "freeze 0 epochs 3 lr 1e-2\nunfreeze all epochs 2"


class Kept:
    """A tracker that keeps what it is told."""

    last: Kept

    def __init__(self, where: str | None, name: str):
        self.where = f"{where} {name}"
        self.told: list[tuple[Any, ...]] = []
        self.closed = False
        type(self).last = self

    def facts(self, values: Any) -> None:
        self.told.append(("facts", dict(values)))

    def numbers(self, values: Any, step: int) -> None:
        self.told.append(("numbers", dict(values), step))

    def text(self, name: str, text: str) -> None:
        self.told.append(("text", name, text))

    def picture(self, name: str, png: bytes, step: int) -> None:
        self.told.append(("picture", name, png, step))

    def close(self) -> None:
        self.closed = True

    def texts(self) -> dict[str, str]:
        return {note[1]: note[2] for note in self.told if note[0] == "text"}


class Blocks(Kept):
    """Stands still at the second epoch, for as long as the test lasts."""

    free = threading.Event()

    def numbers(self, values: Any, step: int) -> None:
        if step >= 2:
            self.free.wait()
        super().numbers(values, step)


class Raises(Kept):
    """Works for one epoch, then its server is gone."""

    def numbers(self, values: Any, step: int) -> None:
        if step >= 2:
            raise ConnectionError("no route to host\nmore lines")
        super().numbers(values, step)


class Exits(Kept):
    """Ends the thread that calls it."""

    def numbers(self, values: Any, step: int) -> None:
        sys.exit(3)


class Draws(Kept):
    """Slow, and works with torch in its own thread meanwhile."""

    def numbers(self, values: Any, step: int) -> None:
        time.sleep(0.02)
        (torch.ones(64, 64) @ torch.ones(64, 64)).sum()
        super().numbers(values, step)


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("tracker_of_tests")
    for kind in (Kept, Blocks, Raises, Exits, Draws):
        setattr(module, kind.__name__, kind)
        monkeypatch.setitem(TRACKERS, kind.__name__.lower(), ("json", "tracker_of_tests", kind.__name__))
    monkeypatch.setitem(sys.modules, "tracker_of_tests", module)
    monkeypatch.setattr(tracking, "CLOSING", 0.3)
    Blocks.free.clear()
    yield
    Blocks.free.set()


def session() -> Session:
    torch.manual_seed(7)
    tl = Session([Ear()])
    tl.load(small(3), input="1,8,8")
    data = blobs(60, 3, 0)
    tl.data((data.inputs, data.targets), batch=16)
    return tl


def weights(tl: Session) -> bytes:
    return b"".join(tensor.numpy().tobytes() for tensor in tl.model.state_dict().values())


def lines(tl: Session) -> list[str]:
    return tl.listeners[0].said


@pytest.fixture(scope="module")
def untracked(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLNB_HOME", str(tmp_path_factory.mktemp("home")))
        tl = session()
        tl.run(PLAN)
    return weights(tl)


def told_epochs(tracker: Kept) -> list[tuple[dict[str, float], int]]:
    return [(note[1], note[2]) for note in tracker.told if note[0] == "numbers" and "train_loss" in note[1]]


def in_history(tl: Session) -> list[tuple[dict[str, float], int]]:
    return [
        (
            {
                "stage": r.stage, "rate": r.rate, "train_loss": r.train_loss, "valid_loss": r.valid_loss,
                "accuracy": r.accuracy, "seconds": r.seconds,
            },
            number,
        )
        for number, r in enumerate(tl.history, 1)
    ]  # fmt: skip


def test_it_gets_the_numbers_of_the_history_and_all_that_belongs_to_them(untracked: bytes) -> None:
    tl = session()
    assert "where tlnb-" in repr(tl.track("kept", "where"))
    tl.run(PLAN)
    tl.results(worst=2)
    tl.find_lr(steps=12)
    assert "notes arrived" in repr(tl.track("off"))
    tracker = Kept.last
    assert tracker.closed
    assert told_epochs(tracker) == in_history(tl)
    assert weights(tl) == untracked
    texts = tracker.texts()
    assert texts["plan.txt"].splitlines()[:2] == [stage.stage.text for stage in tl.history.stages]
    assert json.loads(texts["history.json"]) == [record.to_dict() for record in tl.history]
    assert texts["train.py"] == tl.script(network="model = None").text or "no script" in texts["train.py"]
    curve = tl.history.stages[1].curve
    assert curve is not None
    assert json.loads(texts["rates-2.json"])["losses"] == list(curve.losses)
    assert {"rates.json", "results.txt"} <= set(texts)
    facts = {name: value for note in tracker.told if note[0] == "facts" for name, value in note[1].items()}
    first = tl.history.stages[0]
    assert facts["stage_1.digest_before"] == facts["stage_1.digest_after"] == first.digest_after
    assert facts["stage_1.line"] == first.stage.text
    assert facts["data_fingerprint"] == tl.view.state.data_fingerprint
    names = [note[1] for note in tracker.told if note[0] == "picture"]
    assert names == ["rates-2", "confusion", "rates"] or names == [
        "rates-2",
        "mistakes",
        "confusion",
        "rates",
    ]
    kept = [note[1] for note in tracker.told if note[0] == "numbers" and "kept/share" in note[1]]
    assert [numbers["kept/accuracy"] for numbers in kept] == [s.accuracy for s in tl.history.stages]


def test_what_was_trained_already_is_sent_first() -> None:
    tl = session()
    tl.run(PLAN)
    assert "5 epochs" in repr(tl.track("kept"))
    tl.train(1, 1e-3)
    tl.track("off")
    assert told_epochs(Kept.last) == in_history(tl)


@pytest.mark.parametrize("name", ["blocks", "raises", "exits", "draws"])
def test_a_tracker_in_trouble_changes_no_bit_and_holds_nothing_up(name: str, untracked: bytes) -> None:
    tl = session()
    tl.track(name)
    begun = time.monotonic()
    run = tl.run(PLAN)
    assert len(run.records) == 5
    assert weights(tl) == untracked
    tl.track("off")
    assert time.monotonic() - begun < 30
    assert len(tl.listeners) == 1
    assert len([line for line in lines(tl) if line.startswith("tracking: ")]) <= 1


def test_trouble_is_said_once_in_one_line() -> None:
    tl = session()
    tl.track("raises")
    tl.run(PLAN)
    _until(lambda: tl.listeners[1].post.failed > 2)
    tl.run(PLAN)
    said = [line for line in lines(tl) if line.startswith("tracking: ")]
    assert said == ["tracking: raises: ConnectionError: no route to host; training goes on without it"]
    answer = repr(tl.track("off"))
    assert "did not (raises: ConnectionError: no route to host)" in answer


def test_a_full_queue_leaves_notes_out_and_says_so(monkeypatch: pytest.MonkeyPatch, untracked: bytes) -> None:
    monkeypatch.setattr(post, "ROOM", 3)
    tl = session()
    tl.track("blocks")
    tl.run(PLAN)
    assert weights(tl) == untracked
    [said] = [line for line in lines(tl) if line.startswith("tracking: ")]
    assert (
        said == "tracking: blocks is too slow, so some figures do not reach it; training goes on without it"
    )
    assert "3 on their way" in repr(tl.track())
    assert "left behind" in repr(tl.track("off"))


def test_a_tracker_that_opens_late_gets_what_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    class Late(Kept):
        def __init__(self, where: str | None, name: str):
            gate.wait()
            super().__init__(where, name)

    monkeypatch.setattr(sys.modules["tracker_of_tests"], "Kept", Late)
    monkeypatch.setattr(tracking, "OPENING", 0.1)
    tl = session()
    assert "not open yet" in repr(tl.track("kept"))
    tl.train(1, 1e-3)
    gate.set()
    tl.track("off")
    assert told_epochs(Late.last) == in_history(tl)


def test_what_cannot_be_opened_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tl = session()
    tl.track("kept")
    before = list(tl.listeners)

    def refuse(where: str | None, name: str) -> Kept:
        raise OSError("no space left on device")

    monkeypatch.setattr(sys.modules["tracker_of_tests"], "Draws", refuse)
    with pytest.raises(NotReady, match="no space left on device"):
        tl.track("draws")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(NotReady, match=r'pip install "tlnb\[wandb\]"'):
        tl.track("wandb")
    with pytest.raises(BadArguments, match="did you mean 'kept'"):
        tl.track("kep")
    for odd in (["kept"], 5, b"kept", Kept):
        with pytest.raises(BadArguments, match="no tracker"):
            tl.track(odd)  # type: ignore[arg-type]
    with pytest.raises(BadArguments, match="by name, not int"):
        tl.track("kept", 5)  # type: ignore[arg-type]
    assert tl.listeners == before
    tl.train(1, 1e-3)
    tl.track("off")
    assert told_epochs(Kept.last) == in_history(tl)


def test_another_tracker_takes_the_place_of_the_first() -> None:
    tl = session()
    assert repr(tl.track()) == repr(tl.track("off")) == "nothing is tracked; %tl_track tensorboard begins it"
    tl.track("kept")
    first = Kept.last
    assert "kept is not told any more" in repr(tl.track("draws"))
    assert first.closed
    tl.train(1, 1e-3)
    assert "tracking to draws" in repr(tl.track())
    tl.track("off")
    assert told_epochs(first) == []
    assert told_epochs(Draws.last) == in_history(tl)


# ---------------------------------------------------------------- the real ones


def test_an_event_file_of_tensorboard_reads_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, untracked: bytes
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr(tracking, "CLOSING", 60.0)
    tl = session()
    tl.track("tensorboard", str(tmp_path / "events"))
    tl.run(PLAN)
    tl.results(worst=2)
    tl.track("off")
    assert weights(tl) == untracked
    found = EventAccumulator(
        str(tmp_path / "events"), size_guidance={"images": 0, "tensors": 0, "scalars": 0}
    )
    found.Reload()
    for name in ("rate", "train_loss", "valid_loss", "accuracy", "stage"):
        scalars = [(event.step, event.value) for event in found.Scalars(name)]
        wanted = [(step, float(np.float32(numbers[name]))) for numbers, step in in_history(tl)]
        assert scalars == wanted, name
    assert "confusion" in found.Tags()["images"]
    texts = found.Tags()["tensors"]
    assert {"plan.txt/text_summary", "train.py/text_summary", "stage_1.digest_after/text_summary"} <= set(
        texts
    )


def test_a_run_of_mlflow_reads_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, untracked: bytes
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setattr(tracking, "CLOSING", 60.0)
    tl = session()
    tl.track("mlflow", str(tmp_path / "runs"))
    tl.run(PLAN)
    tl.results(worst=2)
    tl.track("off")
    assert weights(tl) == untracked
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "runs").as_uri())
    [run] = client.search_runs([client.get_experiment_by_name("tlnb").experiment_id])
    assert run.info.status == "FINISHED"
    for name in ("rate", "train_loss", "valid_loss", "accuracy"):
        metrics = [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]
        assert metrics == [(step, numbers[name]) for numbers, step in in_history(tl)], name
    assert run.data.params["stage_1.digest_after"] == tl.history.stages[0].digest_after
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"plan.txt", "train.py", "history.json", "confusion at 5.png"} <= files


def _tracked(tracker: str) -> str:
    """Code of a run that a tracker was told, for a process of its own."""
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    return f"""
import sys
sys.path[:0] = {folders}
from test_tracking import PLAN, in_history, records_of, session, told_by
from tlnb.session import tracking
tracking.CLOSING = 60
tl = session()
tl.track({tracker!r}, "birds")
tl.run(PLAN)
tl.results(worst=2)
print(tl.track("off"))
"""


def test_a_run_of_trackio_reads_back(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    script = f"""
import os
os.environ["TRACKIO_DIR"] = {str(tmp_path / "kept")!r}
import trackio
{_tracked("trackio")}
[run] = trackio.Api().runs("birds")
from trackio.sqlite_storage import SQLiteStorage
logs = SQLiteStorage.get_logs("birds", run.name)
assert told_by(logs, "step") == in_history(tl), logs
"""
    _in_a_process(script, tmp_path)


def test_a_run_of_wandb_offline_reads_back(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    script = f"""
import os
os.environ["WANDB_MODE"] = "offline"
from pathlib import Path
{_tracked("wandb")}
import json
from wandb.proto import wandb_internal_pb2
[file] = Path("wandb").glob("offline-run-*/run-*.wandb")
rows = []
for data in records_of(file.read_bytes()):
    record = wandb_internal_pb2.Record(); record.ParseFromString(data)
    if record.WhichOneof("record_type") == "history":
        items = record.history.item
        rows.append({{item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}})
assert told_by(rows, "_step") == in_history(tl), rows
assert list(Path("wandb").glob("offline-run-*/files/train.py"))
"""
    _in_a_process(script, tmp_path)


def told_by(rows: list[dict[str, Any]], step: str) -> list[tuple[dict[str, float], int]]:
    """The epochs among the rows that a tracker holds, as ``in_history`` gives them."""
    names = ("stage", "rate", "train_loss", "valid_loss", "accuracy", "seconds")
    return [({name: row[name] for name in names}, row[step]) for row in rows if "train_loss" in row]


def records_of(data: bytes) -> list[bytes]:
    """The records of a file of W&B: LevelDB's log format behind a head of seven bytes, in blocks of 32 KiB."""
    found, parts, at = [], b"", 7
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found.append(parts)
            parts = b""
    return found


def _in_a_process(script: str, place: Path) -> None:
    """Trackers that hold on to the process that they were begun in get one of their own."""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=place, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _until(what: Any) -> None:
    end = time.monotonic() + 20
    while not what() and time.monotonic() < end:
        time.sleep(0.02)
    assert what()
