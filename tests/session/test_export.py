"""%tl_export: each form loads where there is no tlnb and answers the same; the card says what it is."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from session_scripts import run_without_tlnb
from torch import nn

from tlnb.engine.export import export
from tlnb.engine.export.check import check
from tlnb.engine.export.deployed import Deployed
from tlnb.errors import ExportError
from tlnb.session import Session

USE = {
    ".pt2": """
import json, torch
inside = {"tlnb.json": ""}
program = torch.export.load("net.pt2", extra_files=inside).module()
about = json.loads(inside["tlnb.json"])
answers = program(pixels)
""",
    ".onnx": """
import json, onnx, onnxruntime
about = json.loads({p.key: p.value for p in onnx.load("net.onnx").metadata_props}["tlnb.json"])
answers = torch.from_numpy(
    onnxruntime.InferenceSession("net.onnx").run(None, {"pixels": pixels.numpy()})[0])
""",
    ".safetensors": """
import json, net
from safetensors import safe_open
with safe_open("net.safetensors", "pt") as file:
    about = {key: json.loads(value) for key, value in file.metadata().items() if key != "format" or value != "pt"}
answers = net.predict(net.load(), pixels)
""",
}


@pytest.fixture(scope="module")
def branching(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A network with branches, on small pictures in colour; a test must leave it as it is."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (125, 3, 64, 64), dtype=torch.uint8, generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLNB_HOME", str(tmp_path_factory.mktemp("home")))
        found = Session([])
        found.load("resnet18", weights="none")
        found.data((images, torch.arange(125) % 10), valid=0.8, size=64, batch=25)
        found.train(lr=1e-3)
    return found


@pytest.mark.parametrize("ending", USE)
@pytest.mark.parametrize("which", ["trained", "branching"])
def test_each_form_answers_the_same_without_tlnb(
    request: pytest.FixtureRequest, which: str, tmp_path: Path, ending: str
) -> None:
    session = request.getfixturevalue(which)
    shown = repr(session.export(str(tmp_path / f"net{ending}")))
    assert "without tlnb" in shown
    pixels = session._samples[1].pixels(torch.arange(100))
    known = session.results(worst=0).answers[:100]
    np.save(tmp_path / "pixels.npy", pixels.numpy())
    (tmp_path / "use.py").write_text(
        "import sys, numpy, torch\nsys.path.insert(0, '.')\npixels = torch.from_numpy(numpy.load('pixels.npy'))\n"
        f"torch.set_grad_enabled(False)\n{USE[ending]}\n"
        "numpy.save('answers.npy', answers.numpy())\nprint(','.join(about['classes']))"
    )
    assert run_without_tlnb(tmp_path / "use.py").strip() == "0,1,2,3,4,5,6,7,8,9"
    answers = np.load(tmp_path / "answers.npy")
    assert answers.shape == (100, 10)
    assert "Not measured" in (tmp_path / "net.md").read_text()
    assert np.abs(answers - known).max() < 1e-4


def test_the_card_says_how_it_came_about(tmp_path: Path) -> None:
    session = Session([])
    session.load("convnet5")
    session.data("digits", per_class=5, batch=25)
    session.train(4, lr=3e-3)
    found = session.forgetting("glyphs")
    session.export(str(tmp_path / "net.safetensors"))
    card = (tmp_path / "net.md").read_text()
    assert f"| before |  | {100 * found.before:.1f} % |" in card
    assert f"| now |  | {100 * found.now:.1f} % |" in card
    assert found.before > found.now
    for words in ("convnet5 on digits", "glyphs, version 1", "1×32×32 (resize, bilinear)", "| 1 | train 0–7 |",
                  "3.0e-03", f"torch {version('torch')}", "To be filled in by you: the licence"):  # fmt: skip
        assert words in card, words


def test_the_loader_reads_a_picture_file(trained: Session, tmp_path: Path) -> None:
    from PIL import Image

    trained.export(str(tmp_path / "net"))
    data = trained.view.need_data()
    Image.fromarray(data.valid.images[0, 0].numpy()).save(tmp_path / "digit.png")
    (tmp_path / "use.py").write_text(
        "import sys, torch\nsys.path.insert(0, '.')\nimport net\n"
        "print(net.predict(net.load(), net.read_picture('digit.png')).argmax().item())"
    )
    assert int(run_without_tlnb(tmp_path / "use.py")) == trained.results().predicted[0]


def test_preprocessing_and_names_are_beside_the_weights(trained: Session, tmp_path: Path) -> None:
    trained.export(str(tmp_path / "net.safetensors"))
    about = json.loads((tmp_path / "net.json").read_text())
    assert about["classes"] == list("0123456789")
    assert about["preprocess"]["size"] == [32, 32]
    assert about["input"]["shape"] == ["batch", 1, 32, 32]
    with safe_open(tmp_path / "net.safetensors", "pt") as file:
        assert set(file.keys()) == set(trained.model.state_dict())


@pytest.mark.usefixtures("new_process")
def test_tlnb_loads_its_own_export(trained: Session, tmp_path: Path) -> None:
    trained.export(str(tmp_path / "net.safetensors"))
    other = Session([])
    loaded = other.load(str(tmp_path / "net.safetensors"))
    assert loaded.categories == tuple("0123456789")
    assert all(torch.equal(t, trained.model.state_dict()[n]) for n, t in other.model.state_dict().items())


def test_measured_values_come_out_in_their_unit(tmp_path: Path) -> None:
    inputs = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    session = Session([])
    session.load(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)))
    session.data((inputs, inputs[:, :1] * 500 + 1000), target="regression")
    session.train(lr=0.05, epochs=2)
    for ending in USE:
        session.export(str(tmp_path / f"net{ending}"))
    answers = torch.export.load(str(tmp_path / "net.pt2")).module()(inputs[:5])
    assert torch.allclose(answers, torch.from_numpy(session.predict(inputs[:5]).answers), rtol=1e-4)
    assert answers.abs().max() > 500


def test_other_endings_are_refused(trained: Session, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"'\.onnx'"):
        trained.export(str(tmp_path / "net.onx"))
    assert not list(tmp_path.iterdir())


def test_the_check_finds_what_answers_otherwise(trained: Session, tmp_path: Path) -> None:
    samples = trained._samples[1]
    network = Deployed(trained.model, samples.preprocess, trained.view.need_data().task, False).eval()
    pixels = samples.pixels(torch.arange(8))
    path = export.target(str(tmp_path / "net.pt2"))
    export.write(path, network, pixels, {})
    with torch.no_grad():
        answers = network(pixels)
    assert check(path, pixels, answers) < 1e-6
    with pytest.raises(ExportError, match="answers otherwise"):
        check(path, pixels, answers + 0.01)
    path.write_bytes(b"nothing")
    with pytest.raises(ExportError, match="cannot be loaded again"):
        check(path, pixels, answers)
