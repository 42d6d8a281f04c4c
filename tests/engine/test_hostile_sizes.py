"""Small files that ask for much are refused before anything of that size is made; exports never hide or lose a name."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tlnb.engine.checkpoint import file as checkpoint
from tlnb.engine.checkpoint.file import whole_files
from tlnb.engine.export.export import target
from tlnb.engine.export.script.shown import Script
from tlnb.engine.models.catalogue import load_model
from tlnb.errors import CheckpointError, ExportError, TlnbError, WeightsError
from tlnb.session import Session

Plain = dict[str, Any]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tl, path = Session([]), tmp_path_factory.mktemp("saved") / "x.safetensors"
    tl.load("convnet5")
    tl.data("digits", per_class=3)
    tl.save(str(path))
    return path


def named(name: str) -> Callable[[Plain], None]:
    return lambda about: about["model"].update(name=name, kind="X")


ASKS: dict[str, Callable[[Plain], None]] = {
    "a network of 2.5 GB": named("regnet_y_128gf"),
    "one of 1.2 GB": named("vit_l_16"),
    "timm's of 4 GB": named("timm/vit_giant_patch14_224"),
    "a side of 20,000 for a transformer": lambda a: a["model"].update(
        name="vit_b_16", kind="X", image_size=20_000
    ),
    "samples of 1×20,000×20,000": lambda a: a["model"].update(
        input={"shape": [1, 20_000, 20_000], "dtype": "torch.float32", "parts": []}
    ),
    "pictures of 20,000": lambda a: a["model"]["preprocess"].update(size=[20_000, 20_000]),
    "data of size 20,000": lambda a: a["data"]["asked"].update(size=20_000),
    "a mean of 10^30": lambda a: a["model"]["preprocess"].update(mean=[1e30]),
    "a deviation of 10^30": lambda a: a["model"]["preprocess"].update(std=[1e30]),
    "batches of 10^20": lambda a: a["data"]["asked"].update(batch=10**20),
}


@pytest.mark.parametrize("ask", ASKS)
def test_a_small_checkpoint_that_asks_for_much_is_refused_at_once(
    ask: str, saved: Path, tmp_path: Path
) -> None:
    if "timm" in ask:
        pytest.importorskip("timm")
    found = checkpoint.read(saved)
    ASKS[ask](found.about)
    tensors: dict[str, Tensor] = {} if "name" in ask or "network" in ask or "GB" in ask else found.tensors
    plain = {key: value for key, value in found.about.items() if key != "format"}
    checkpoint.write(tmp_path / "y.safetensors", checkpoint.Checkpoint(plain, tensors))
    tl = Session([])
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(CheckpointError) as caught:
        tl.resume(str(tmp_path / "y.safetensors"))
    assert len(str(caught.value).splitlines()) == 1
    assert tl._loaded is None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB
    assert time.monotonic() - began < 60


def test_weights_of_stride_zero_make_no_head(tmp_path: Path) -> None:
    state = load_model("convnet5").model.state_dict()
    for shape in ((10_000_000, 256), (2**40, 256)):
        many = {"classifier.6.weight": torch.zeros(1).as_strided(shape, (0, 0))}
        torch.save(state | many, tmp_path / "w.pth")
        with pytest.raises(WeightsError, match=r"w\.pth has .* bytes, and its tensors stand for .* more"):
            load_model(str(tmp_path / "w.pth"), arch="convnet5")


@pytest.mark.parametrize(
    "name",
    ["random", "torch", "json", "types", "tokenize", "numpy", "_thread", "PIL", "sitecustomize", "__init__"],
)
def test_no_file_takes_the_name_of_a_module(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError, match=rf"{name}\.py would hide the module {name} .* such as my_{name}"):
        target(f"{name}.safetensors")
    with pytest.raises(ExportError, match="would hide the module"):
        Script("print()", {}).write(tmp_path / f"{name}.py")
    assert list(tmp_path.iterdir()) == []
    assert target(f"{name}.onnx").name == f"{name}.onnx"  # nothing ends in .py there
    (tmp_path / "net.py").write_text("")
    assert target("net.safetensors").name == "net.safetensors"  # an earlier export's own file hides nothing


def broken_off(folder: Path, error: BaseException) -> None:
    with whole_files(folder, first="net.md") as draft:
        (draft / "net.safetensors").write_text("half")
        raise error


def test_files_appear_together_or_not_at_all(tmp_path: Path) -> None:
    for kind in (KeyboardInterrupt, RuntimeError, ExportError):
        with pytest.raises(kind):
            broken_off(tmp_path, kind())
        assert list(tmp_path.iterdir()) == []
    names = ("net.safetensors", "net.md", "net.py")
    for text in ("first", "second"):
        with whole_files(tmp_path, first="net.md") as draft:
            for name in names:
                (draft / name).write_text(text)
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(names, text)
    with pytest.raises(OSError, match="No space left on device"):
        broken_off(tmp_path, OSError(28, "No space left on device"))
    assert (tmp_path / "net.safetensors").read_text() == "second"


@pytest.mark.usefixtures("new_process")
def test_an_export_goes_through_beside_a_torch_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tl = Session([])
    tl.load("convnet5")
    tl.data("digits", per_class=2)
    (tmp_path / "torch.py").write_text("raise SystemExit('the wrong torch')")
    (tmp_path / "safetensors.py").write_text("raise SystemExit('the wrong safetensors')")
    assert "loaded in a fresh process" in repr(tl.export("net.safetensors"))
    (tmp_path / "torch.py").unlink()
    (tmp_path / "safetensors.py").unlink()
    for name in ("net.safetensors", "net.py", "net.md", "net.json"):
        assert (tmp_path / name).is_file()
    done = subprocess.run([sys.executable, "-c", "import random, json"], cwd=tmp_path, env=dict(os.environ))
    assert done.returncode == 0
    with pytest.raises(TlnbError, match="would hide the module random"):
        tl.script("random.py") if len(tl.history.stages) else tl.export("random")
