"""What is written holds no code of a file, and goes over nothing but what tlnb wrote before."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.test_saving import rewrite
from tlnb.errors import CheckpointError, ExportError
from tlnb.magics.step import CellStep
from tlnb.session import Session

EVIL = "__import__('os').system('touch evil')"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session with a new head, saved."""
    place = tmp_path_factory.mktemp("saved")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLNB_HOME", str(place / "home"))
        tl = Session([])
        tl.load("convnet5")
        tl.data("digits", per_class=2, valid=0.05)
        tl.freeze("body")
        tl.train(lr=1e-3)
        tl.save(str(place / "good"))
    return place / "good.safetensors"


Change = Callable[[dict[str, Any]], object]
CHANGES: dict[str, Change] = {
    "threads": lambda setup: setup.update(threads=f"1) or {EVIL}"),
    "batch": lambda setup: setup.update(batch=EVIL),
    "epochs": lambda setup: setup.update(epochs=f"1 or {EVIL}"),
    "blend": lambda setup: setup.update(blend=EVIL),
    "device": lambda setup: setup.update(device=f'cpu"\n{EVIL}\n"'),
    "outputs": lambda setup: setup["network"].update(outputs=EVIL),
    "seed of a head": lambda setup: setup["head"].update(seed=EVIL),
    "a head by code": lambda setup: setup["head"].update(code=[EVIL]),
    "a head with code inside": lambda setup: setup["head"].update(code=[f"nn.Linear({EVIL}, 2)"]),
    "a head of a function": lambda setup: setup["head"].update(code=["nn.Module.apply(1, 2)"]),
    "a head beside": lambda setup: setup["head"].update(code=["nn.init.zeros_(2)"]),
    "data by other words": lambda setup: setup["data"][0]["asked"].update(progress=1),
    "a part": lambda setup: setup.pop("threads"),
    "a list": lambda setup: setup.update(layers=EVIL),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_setup_that_is_not_what_it_must_be_is_refused(change: str, saved: Path, tmp_path: Path) -> None:
    rewrite(
        saved, tmp_path / "evil.safetensors", lambda about, _: CHANGES[change](about["history"][0]["recipe"])
    )
    tl = Session([])
    with pytest.raises(CheckpointError):
        tl.resume(str(tmp_path / "evil"))
    assert tl._loaded is None


def test_what_was_saved_can_be_written_as_a_script_in_another_kernel(saved: Path) -> None:
    tl = Session([])
    tl.resume(str(saved))
    assert "nn.Linear(in_features=256, out_features=10)" in tl.script().text


def test_a_step_of_a_file_stands_in_no_script_until_it_is_the_users_own(saved: Path, tmp_path: Path) -> None:
    body = "loss = torch.nn.functional.cross_entropy(model(x), y)"
    rewrite(
        saved, tmp_path / "evil.safetensors", lambda about, _: about["history"][0]["recipe"].update(step=body)
    )
    tl = Session([])
    tl.resume(str(tmp_path / "evil"))
    with pytest.raises(ExportError, match="the step of stage 1 came with the saved session"):
        tl.script()
    tl.step = CellStep(body, {"torch": torch})
    assert body in tl.script().text


def test_a_name_from_a_file_ends_no_docstring(saved: Path, tmp_path: Path) -> None:
    tl = Session([])
    tl.load(nn.Sequential(nn.Flatten(), nn.Linear(6, 2)), input="6")
    tl.data((torch.randn(20, 6), torch.arange(20) % 2))
    tl.train(lr=1e-3)
    tl.save(str(tmp_path / "own"))
    name = f'x"""; {EVIL}; """'
    rewrite(
        tmp_path / "own.safetensors", tmp_path / "evil.safetensors", lambda a, _: a["model"].update(name=name)
    )
    tl.resume(str(tmp_path / "evil"))
    tl.data((torch.randn(20, 6), torch.arange(20) % 2))
    tl.export(str(tmp_path / "net"))
    code = ast.parse((tmp_path / "net.py").read_text())
    called = {node.id for node in ast.walk(code) if isinstance(node, ast.Name)}
    assert "__import__" not in called


def test_a_script_and_an_export_go_over_their_own_files_alone(saved: Path, tmp_path: Path) -> None:
    tl = Session([])
    tl.resume(str(saved))
    (tmp_path / "mine.py").write_text("years = 'of work'\n")
    (tmp_path / "net.md").write_text("notes of mine\n")
    tl.save(str(tmp_path / "kept"))
    before = (tmp_path / "kept.safetensors").read_bytes()
    for write in (
        lambda: tl.script(str(tmp_path / "mine.py")),
        lambda: tl.export(str(tmp_path / "mine.safetensors")),
        lambda: tl.export(str(tmp_path / "net.safetensors")),
        lambda: tl.export(str(tmp_path / "kept.safetensors")),
    ):
        with pytest.raises(ExportError, match="is there and was not written by such a command"):
            write()
    assert (tmp_path / "kept.safetensors").read_bytes() == before
    assert (tmp_path / "mine.py").read_text() == "years = 'of work'\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.safetensors", "mine.py", "net.md"]
    for _ in range(2):
        tl.script(str(tmp_path / "train"))
