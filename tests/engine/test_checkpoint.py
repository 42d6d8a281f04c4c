"""The file of a checkpoint: whole or not at all, checked when read, and nothing in it can run."""

from __future__ import annotations

import json
import os
import struct
import threading
import time
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tlnb.engine.checkpoint import autosave
from tlnb.engine.checkpoint import file as checkpoint
from tlnb.engine.checkpoint.autosave import Autosave
from tlnb.engine.checkpoint.file import Checkpoint
from tlnb.engine.checkpoint.network import head_from, head_to
from tlnb.errors import CheckpointError

SHORT = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def some(value: float = 1.0) -> Checkpoint:
    return Checkpoint({"hello": [1, "zwei", None, float("nan")]}, {
        "a": torch.full((3, 2), value), "b.c": torch.arange(4, dtype=torch.int64),
        "empty": torch.zeros(0, 5), "scalar": torch.tensor(2.5), "half": torch.ones(3, dtype=torch.bfloat16),
    })  # fmt: skip


def test_what_is_written_is_read(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "x.safetensors", some())
    back = checkpoint.read(tmp_path / "x.safetensors")
    assert back.about["hello"][:3] == [1, "zwei", None]
    assert {n: (t.dtype, t.tolist()) for n, t in back.tensors.items()} == {
        n: (t.dtype, t.tolist()) for n, t in some().tensors.items()
    }
    assert os.listdir(tmp_path) == ["x.safetensors"]


def test_tensors_that_share_memory_are_written_apart(tmp_path: Path) -> None:
    base = torch.arange(6.0)
    checkpoint.write(
        tmp_path / "x", Checkpoint({}, {"whole": base, "part": base[2:], "again": base.view(2, 3)})
    )
    back = checkpoint.read(tmp_path / "x").tensors
    assert back["part"].tolist() == [2, 3, 4, 5]
    assert back["again"].shape == (2, 3)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.999])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.write(path, some())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r"^[^\n]*no sound checkpoint[^\n]*$"):
        checkpoint.read(path)


@SHORT
@given(st.data())
def test_a_bit_that_flips_is_noticed(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.write(path, some())
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    try:
        back = checkpoint.read(path)
    except CheckpointError:
        return
    # A bit that is read by nobody, such as white space in the header: all that counts is the same.
    assert back.about["hello"][:2] == [1, "zwei"]
    assert back.tensors["a"].equal(some().tensors["a"])


@SHORT
@given(st.binary(max_size=300))
def test_any_bytes_are_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "noise.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.read(path)
    assert "\n" not in str(caught.value)


def lying(header: dict[str, object], data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


LIES = {
    "more than there is": lying({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4 << 40]}}),
    "shape and bytes differ": lying({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}, b"1234"),
    "negative": lying({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"1234"),
    "overlap": lying({n: {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]} for n in "ab"}, b"1234"),
    "no such type": lying({"a": {"dtype": "P7", "shape": [1], "data_offsets": [0, 1]}}, b"1"),
    "a header without end": struct.pack("<Q", 1 << 60) + b"{}",
    "an overflow": lying({"a": {"dtype": "F64", "shape": [1 << 62, 1 << 62], "data_offsets": [0, 0]}}),
    "a pickle": b"\x80\x04cos\nsystem\n(S'touch run'\ntR.",
    "a zip": b"PK\x03\x04" + bytes(60),
}


@pytest.mark.parametrize("content", LIES.values(), ids=LIES)
def test_headers_that_lie_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lie.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"^[^\n]*no sound checkpoint[^\n]*$"):
        checkpoint.read(path)


def test_weights_of_others_are_no_checkpoint(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "plain.safetensors")
    with pytest.raises(CheckpointError, match="%tl_load reads plain weights"):
        checkpoint.read(tmp_path / "plain.safetensors")


def with_about(path: Path, about: str) -> Path:
    save_file({"a": torch.ones(2)}, path, {"tlnb": about})
    return path


def test_a_later_format_says_which_and_a_terminal_is_safe(tmp_path: Path) -> None:
    path = with_about(tmp_path / "x", json.dumps({"format": 9, "tlnb": "9.0\x1b[2J"}))
    with pytest.raises(CheckpointError, match=r"has format 9, written by tlnb 9\.0") as caught:
        checkpoint.read(path)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("about", ["[" * 100_000, "{", "7", '{"format": "one"}', '{"format": true}'[:15]])
def test_what_is_no_json_of_ours_is_refused(tmp_path: Path, about: str) -> None:
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.read(with_about(tmp_path / "x", about))


def test_folders_pipes_and_loops_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("pipe", "loop", ".", "missing"):
        with pytest.raises(CheckpointError):
            checkpoint.read(tmp_path / name)


@pytest.mark.parametrize("form", [
    ["linear", 10, 1 << 40, True], ["linear", -1, 3, True], ["exec", "x"],
    ["sequence", ["sequence", ["relu"]]],
    ["linear", "10", 3, True], [], None, 7, ["relu", 1], ["linear", 10, 3],
])  # fmt: skip
def test_a_head_is_of_known_parts_and_of_a_possible_size(form: object) -> None:
    with pytest.raises((ValueError, TypeError, IndexError)):
        head_from(form)


def test_heads_are_described_and_built_again() -> None:
    linear, other = torch.nn.Linear(4, 3, bias=False), torch.nn.Conv2d(5, 2, 1)
    mlp = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    for module in (linear, other, mlp):
        again = head_from(head_to(module))
        assert str(again) == str(module)
    assert head_to(torch.nn.Sequential(torch.nn.GELU())) is None


# ---------------------------------------------------------------- writing


def test_a_write_that_fails_leaves_the_file_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.write(path, some(1.0))

    def full(tensors: object, part: Path, meta: object) -> None:
        part.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(CheckpointError, match="cannot be written: No space left on device"):
        checkpoint.write(path, some(2.0))
    assert checkpoint.read(path).tensors["a"][0, 0] == 1.0
    assert os.listdir(tmp_path) == ["x.safetensors"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"^[^\n]*cannot be written[^\n]*$"):
        checkpoint.write(tmp_path / "file" / "x.safetensors", some())


def test_autosave_keeps_two_and_the_last_good_one_loads(tmp_path: Path) -> None:
    auto = Autosave(tmp_path)
    for value in range(5):
        auto.save(lambda value=value: some(float(value)))
    kept = autosave.files(tmp_path)
    assert len(kept) == autosave.KEEP
    told: list[str] = []
    kept[0].write_bytes(b"damaged")
    path, found = autosave.last_good(tmp_path, mine=auto.name, log=told.append)
    assert (path, found.tensors["a"][0, 0].item()) == (kept[1], 3.0)
    assert "no sound checkpoint" in told[0]


def test_two_kernels_in_one_folder_do_not_take_each_others_files(tmp_path: Path) -> None:
    pid = os.fork()
    if not pid:
        child = Autosave(tmp_path)
        child.save(lambda: some(7.0))
        (tmp_path / "saved").write_text(child.name)
        threading.Event().wait(60)
        os._exit(0)
    try:
        while not (tmp_path / "saved").exists():
            threading.Event().wait(0.01)
        mine = Autosave(tmp_path)
        mine.save(lambda: some(1.0))
        alive = (tmp_path / "saved").read_text()
        newest = next(path for path in autosave.files(tmp_path) if autosave.session_of(path) == alive)
        os.utime(newest, (4e9, 4e9))  # the newest of all, but its kernel runs
        assert autosave.last_good(tmp_path, mine=mine.name)[1].tensors["a"][0, 0] == 1.0
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert autosave.last_good(tmp_path, mine=mine.name)[1].tensors["a"][0, 0] == 7.0


def test_dead_sessions_are_pruned_to_a_number_and_a_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(30):
        path = tmp_path / f"20200101-00000{i % 10}-{i}-abc-000001.safetensors"
        checkpoint.write(path, some())
        os.utime(path, (1e9 + i, 1e9 + i))
    auto = Autosave(tmp_path)
    auto.save(some)
    assert len(autosave.files(tmp_path)) == autosave.SESSIONS
    monkeypatch.setattr(autosave, "LIMIT", 3 * autosave.size_of(autosave.files(tmp_path)[0]))
    auto.save(some)
    assert len(autosave.files(tmp_path)) == 3
    assert autosave.files(tmp_path)[0].name.startswith(auto.name)


def test_saving_takes_a_small_share_of_short_epochs(tmp_path: Path) -> None:
    auto = Autosave(tmp_path, within=60, between=1)
    assert not auto.due(epoch=True)
    auto._when -= 2
    assert auto.due(epoch=True)
    assert not auto.due(epoch=False)
    auto.took = 0.5
    assert not auto.due(epoch=True)  # 10 s for 0.5 s of saving
    auto._when -= 60
    assert auto.due(epoch=False)


def test_a_clock_that_goes_back_costs_no_newer_autosave(tmp_path: Path) -> None:
    auto = Autosave(tmp_path)
    for value in range(4):
        auto.save(lambda value=value: some(float(value)))
        assert auto.last is not None
        os.utime(auto.last, (1e9 - value, 1e9 - value))
    assert autosave.last_good(tmp_path, mine=auto.name)[1].tensors["a"][0, 0] == 3.0


def test_what_a_killed_kernel_left_half_written_goes_in_time(tmp_path: Path) -> None:
    for name, age in (
        (".tmpAb12Cd", 7200), (".tmpXy34Zw", 10), (".x.1.ab.part", 7200), (".tmpwhole.txt", 7200),
    ):  # fmt: skip
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    Autosave(tmp_path).save(some)
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".")} == {
        ".tmpXy34Zw",
        ".tmpwhole.txt",
    }


def test_a_file_has_the_rights_of_any_new_one_or_of_the_old_one(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        checkpoint.write(tmp_path / "new.safetensors", some())
    finally:
        os.umask(before)
    assert (tmp_path / "new.safetensors").stat().st_mode & 0o777 == 0o640
    (tmp_path / "new.safetensors").chmod(0o604)
    checkpoint.write(tmp_path / "new.safetensors", some())
    assert (tmp_path / "new.safetensors").stat().st_mode & 0o777 == 0o604


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    checkpoint.write(tmp_path / "far" / "x.safetensors", some(1.0))
    (tmp_path / "near.safetensors").symlink_to(tmp_path / "far" / "x.safetensors")
    checkpoint.write(tmp_path / "near.safetensors", some(2.0))
    assert (tmp_path / "near.safetensors").is_symlink()
    assert checkpoint.read(tmp_path / "far" / "x.safetensors").tensors["a"][0, 0] == 2.0
