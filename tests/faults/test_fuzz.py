"""Any text and any bytes at the doors: one clear line, or a right answer, and never code that runs."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from networks import small
from pictures import GIF, JPEG, PNG, TIFF, odd_but_right

from faults.make_fixture import FOLDER, session
from tlnb.engine.checkpoint import file as checkpoint
from tlnb.engine.data.images.check import check_file
from tlnb.engine.data.images.decode import decode_file
from tlnb.engine.data.images.headers import BadPicture
from tlnb.engine.data.load import load_data
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.models.weights import read_weights
from tlnb.engine.network.layers import find_layers
from tlnb.engine.training.plan import parse_plan
from tlnb.errors import TlnbError
from tlnb.magics.arguments import parse
from tlnb.magics.commands import COMMANDS

BUDGET = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FEWER = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
LAYERS = find_layers(small(), torch.zeros(1, 1, 8, 8))
WORDS = st.sampled_from([
    "freeze", "unfreeze", "train", "body", "head", "all", "none", "0:2", "-1:", "lr", "auto", "epochs", "3",
    "-1", "1e-3", "nan", "inf", "1e999", "keep", "lwf:1", "patience", "#", ",", "=", "--", "$x", "'", '"',
    "\\", "{1}", "--valid", "0.2", "micro", "9" * 400, "\0", "\u202e", "٣",
])  # fmt: skip
LINES = st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=9).map(" ".join))


def one_line_or_fine(work: object) -> None:
    said = ""
    try:
        work()  # type: ignore[operator]
    except TlnbError as error:
        said = str(error)
    assert "\n" not in said, repr(said)


@BUDGET
@given(st.lists(LINES, max_size=4).map("\n".join))
def test_any_plan_is_a_plan_or_one_line(text: str) -> None:
    one_line_or_fine(lambda: parse_plan(text, LAYERS, ()))


@BUDGET
@given(st.sampled_from(sorted(COMMANDS)), LINES, st.booleans())
def test_any_magic_line_is_a_call_or_one_line(name: str, line: str, cell: bool) -> None:
    one_line_or_fine(lambda: parse(COMMANDS[name], line, {"x": 3}, cell=cell))


@FEWER
@given(st.binary(max_size=400), st.sampled_from([".pth", ".safetensors", ".pt", ".bin"]))
@example(b"\x80", ".pth")
@example(b"P", ".bin")
def test_any_file_of_weights_is_refused_in_one_line(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(TlnbError) as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


@FEWER
@given(st.binary(max_size=300), st.sampled_from([".csv", ".tsv"]))
def test_any_table_is_read_or_refused_in_one_line(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"table{suffix}"
    path.write_bytes(content)
    one_line_or_fine(lambda: load_data(str(path)))


@FEWER
@given(st.binary(max_size=300), st.sampled_from([".png", ".jpg", ".gif", ".webp", ".bmp", ".tiff"]))
def test_any_picture_is_read_or_left_out(tmp_path: Path, content: bytes, suffix: str) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / f"picture{suffix}").write_bytes(content)
    one_line_or_fine(lambda: load_data(str(tmp_path)))


PICTURES = {**odd_but_right(), "plain.jpg": JPEG, "plain.png": PNG, "plain.gif": GIF, "plain.tif": TIFF}
FLIPS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=6)


@BUDGET
@given(st.sampled_from(sorted(PICTURES)), FLIPS, st.floats(0.1, 1))
def test_a_damaged_picture_is_read_or_named_broken(
    tmp_path: Path, name: str, flips: list[tuple[float, int]], share: float
) -> None:
    content = bytearray(PICTURES[name])
    for place, bits in flips:
        content[int(place * len(content))] ^= bits
    path = tmp_path / name
    path.write_bytes(content[: max(int(share * len(content)), 1)])
    verdict = check_file(path)
    assert verdict.reason.isprintable()
    said = ""
    try:
        pixels = decode_file(path, Preprocess(3, (16, 16), 16))
        assert (pixels.shape, pixels.dtype) == ((3, 16, 16), torch.uint8)
    except BadPicture as trouble:
        said = str(trouble)
    assert "\n" not in said


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 1 << 70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)


@FEWER
@given(st.data())
def test_a_checkpoint_with_anything_in_any_place_is_read_or_refused_in_one_line(
    tmp_path: Path, data: st.DataObject
) -> None:
    found = checkpoint.read(FOLDER / f"format_{checkpoint.FORMAT}.safetensors")
    at: Any = found.about
    while True:  # walk down to a random place
        keys = sorted(at) if isinstance(at, dict) else list(range(len(at)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(at[key], dict | list) or not at[key] or data.draw(st.integers(0, 3)) == 0:
            break
        at = at[key]
    at[key] = data.draw(JSON)
    if at is found.about and key == "format":
        return
    checkpoint.write(tmp_path / "odd.safetensors", found)
    tl = session()
    weights = [tensor.clone() for tensor in tl.model.state_dict().values()]
    said = ""
    try:
        tl.resume(str(tmp_path / "odd.safetensors"))
    except TlnbError as error:
        said = str(error)
    assert said.isprintable()
    if said:
        assert all(map(torch.equal, weights, tl.model.state_dict().values()))
        assert not len(tl.history)
    assert "\x1b" not in f"{tl.status()}{tl.history}"


class Runs:
    """Makes a file where it is unpickled in full."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("form", ["torch", "old torch", "pickle", "zip"])
def test_a_pickle_that_would_run_code_does_not(tmp_path: Path, form: str) -> None:
    target, path = tmp_path / "it ran", tmp_path / "weights.pth"
    hostile = {"head.weight": torch.ones(2), "x": Runs(target)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(hostile))
    elif form == "zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("archive/data.pkl", pickle.dumps(hostile))
            file.writestr("../../escape", "x")
    else:
        torch.save(hostile, path, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(TlnbError, match=r"^[^\n]*cannot be loaded safely[^\n]*$"):
        read_weights(path)
    assert not target.exists()


def test_a_zip_bomb_of_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", bytes(200 << 20))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(TlnbError, match=r"^[^\n]*$"):
        read_weights(path)
