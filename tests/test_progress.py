from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tlnb.display.progress import BarProgress, LineProgress, Listener, default_listener, live
from tlnb.engine.training.records import EpochRecord

CURVE = SimpleNamespace()  # shows itself as namespace()
LINES = """\
stage 1/2  freeze body · trains 7 · 650 of 1,032,362 parameters train
namespace()
    epoch      rate   train loss   valid loss    accuracy   seconds
      1/2   3.0e-03       0.5312       0.1240      96.4 %       1.2
      2/2   3.0e-03       0.2656       0.0620      97.4 %       1.2
stage 1 ended early
a message
stage 2/2  unfreeze all
    epoch      rate   train loss   valid loss    accuracy   seconds
      1/1   3.0e-03       0.5312       0.1240      96.4 %       1.2
"""


def record(epoch: int, epochs: int, **changes: Any) -> EpochRecord:
    values: dict[str, Any] = {
        "stage": 1, "epoch": epoch, "epochs": epochs, "trained": (7,), "rate": 3e-3,
        "train_loss": 0.5312 / epoch, "valid_loss": 0.124 / epoch, "accuracy": 0.954 + epoch / 100,
        "seconds": 1.23, "digest": "",
    }  # fmt: skip
    return EpochRecord(**{**values, **changes})


def train(listener: Listener) -> None:
    """What a session tells a listener in a run of two stages."""
    listener.on_stage_start(1, 2, "freeze body · trains 7 · 650 of 1,032,362 parameters train", 2, 30)
    listener.on_curve(CURVE)
    for epoch in (1, 2):
        for step in range(1, 31):
            listener.on_batch(step, 30)
        listener.on_epoch(record(epoch, 2))
    listener.on_batch(1, 30)  # an interrupt leaves an epoch half done
    listener.on_stage_end(SimpleNamespace(number=1, note="ended early"))
    listener.on_batch(1, 30)
    listener.on_message("a message")
    listener.on_batch(1, 30)  # an error ends a stage without on_stage_end
    listener.on_stage_start(2, 2, "unfreeze all", 1, 30)
    listener.on_epoch(record(1, 1))
    listener.on_stage_end(SimpleNamespace(number=2, note=""))
    listener.on_run_end(SimpleNamespace())


def as_seen(text: str) -> str:
    """What is left of text where a carriage return goes back to the start of the line, as front ends do."""
    lines = []
    for line in text.split("\n"):
        seen = ""
        for part in line.split("\r"):
            seen = part + seen[len(part) :]
        lines.append(seen)
    return "\n".join(lines)


def test_lines(capsys: pytest.CaptureFixture[str]) -> None:
    train(LineProgress())
    assert capsys.readouterr().out == LINES


def test_bars_leave_the_same_lines(capsys: pytest.CaptureFixture[str]) -> None:
    train(BarProgress())
    written = capsys.readouterr().out
    assert "█" in written
    assert "1/2 |" in written
    assert "2/2 |" in written
    seen = as_seen(written).splitlines()
    assert [line.rstrip() for line in seen] == LINES.splitlines()
    epochs = [line for line in seen if "3.0e-03" in line]
    assert [len(line) for line in epochs] == [len(line.rstrip()) for line in epochs] == [67] * 3


def test_a_silent_listener(capsys: pytest.CaptureFixture[str]) -> None:
    train(Listener())
    assert capsys.readouterr().out == ""


def test_write_and_show_take_what_is_shown() -> None:
    lines: list[str] = []
    shown: list[object] = []
    train(LineProgress(write=lines.append, show=shown.append))
    assert lines == [line for line in LINES.splitlines() if line != "namespace()"]
    assert shown == [CURVE]


def test_another_figure_than_accuracy() -> None:
    lines: list[str] = []
    LineProgress(lines.append).on_epoch(record(1, 1, accuracy=0.25, metric_name="R²"))
    assert lines[0].split() == ["epoch", "rate", "train", "loss", "valid", "loss", "R²", "seconds"]
    assert lines[1].split()[4] == "0.2500"


def kernel(metadata: dict[str, Any]) -> Any:
    return SimpleNamespace(kernel=object(), get_parent=lambda: {"metadata": metadata})


def test_live_is_where_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: True))
    assert not live()  # a test run is nobody
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    assert live()
    assert isinstance(default_listener(), BarProgress)
    assert live(kernel({"cellId": "a"}))
    assert not live(kernel({}))  # nbclient, nbval, papermill
    assert type(default_listener(kernel({}))) is LineProgress
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: False))
    assert not live()
    assert type(default_listener()) is LineProgress
    assert live(kernel({"cellId": "a"}))


def test_a_bar_for_many_files_and_none_for_few(capsys: pytest.CaptureFixture[str]) -> None:
    listener = BarProgress()
    for done in (4, 12):
        listener.on_check(done, 12)
    assert capsys.readouterr().out == ""
    for done in range(0, 100_001, 20_000):
        listener.on_check(done, 100_000)
    out = capsys.readouterr().out
    assert "checking" in out
    assert as_seen(out).strip() == ""


def test_lines_go_to_any_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(plain, encoding="ascii", write_through=True))
    LineProgress().on_message("layers 0–4: 漢")
    assert plain.getvalue() == b"layers 0?4: ?\n"
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    LineProgress().on_message("nobody reads this")
