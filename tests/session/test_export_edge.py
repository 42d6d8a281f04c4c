"""%tl_export for small machines and for people: OpenVINO, LiteRT, int8, and a page in the browser."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from session_scripts import run_without_tlnb
from torch import nn

from tlnb.engine.export import app, int8
from tlnb.errors import ExportError
from tlnb.session import Session

openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
litert = pytest.mark.skipif(find_spec("litert_torch") is None, reason="litert-torch is not installed")
quantiser = pytest.mark.skipif(find_spec("onnxruntime") is None, reason="onnxruntime is not installed")
gradio = pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed")


def known(session: Session, count: int) -> np.ndarray:
    return session.results(worst=0).answers[:count]


def pixels(session: Session, count: int) -> np.ndarray:
    return session._samples[1].pixels(torch.arange(count)).numpy()


@openvino
def test_openvino_answers_the_same_for_any_batch(trained: Session, tmp_path: Path) -> None:
    import openvino as ov

    shown = repr(trained.export(str(tmp_path / "net"), to="openvino"))
    assert "without tlnb" in shown
    assert {file.name for file in tmp_path.iterdir()} == {"net.xml", "net.bin", "net.md"}
    model = ov.Core().read_model(tmp_path / "net.xml")
    assert json.loads(model.get_rt_info(["tlnb.json"]).value)["classes"] == list("0123456789")
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for count in (1, 37):
        assert (
            np.abs(compiled({"pixels": pixels(trained, count)})["answers"] - known(trained, count)).max()
            < 1e-3
        )


def by_litert(path: Path, taken: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    (into,), (out,) = interpreter.get_input_details(), interpreter.get_output_details()
    answers = []
    for one in taken:
        interpreter.set_tensor(into["index"], one[None])
        interpreter.invoke()
        answers.append(interpreter.get_tensor(out["index"])[0].copy())
    return np.stack(answers)


@litert
@pytest.mark.slow
def test_litert_answers_the_same(trained: Session, tmp_path: Path) -> None:
    trained.export(str(tmp_path / "net.tflite"))
    with zipfile.ZipFile(tmp_path / "net.tflite") as inside:
        assert json.loads(inside.read("tlnb.json"))["classes"] == list("0123456789")
    answers = by_litert(tmp_path / "net.tflite", pixels(trained, 5))
    assert np.abs(answers - known(trained, 5)).max() < 1e-3


def accuracy_of(path: Path, session: Session) -> float:
    """By a run of our own over all validation samples."""
    samples = session._samples[1]
    taken = samples.pixels(torch.arange(len(samples))).numpy()
    if path.suffix == ".xml":
        import openvino as ov

        answers = ov.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(taken)[0]
    elif path.suffix == ".tflite":
        answers = by_litert(path, taken)
    else:
        import onnxruntime

        answers = onnxruntime.InferenceSession(str(path)).run(None, {"pixels": taken})[0]
    return float((answers.argmax(1) == samples.targets.numpy()).mean())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "ending", "weights"),
    [
        pytest.param("onnx", ".onnx", ".onnx", marks=quantiser),
        pytest.param("openvino", ".xml", ".bin", marks=[quantiser, openvino]),
        pytest.param("litert", ".tflite", ".tflite", marks=litert),
    ],
)
def test_int8_says_what_it_costs_and_gains(
    trained: Session, tmp_path: Path, form: str, ending: str, weights: str
) -> None:
    shown = repr(trained.export(str(tmp_path / "plain"), to=form))
    shown = repr(trained.export(str(tmp_path / "small"), to=form, int8=True))
    found = re.search(r"int8: .* (\S+) % before, (\S+) % after, on (\d+) validation", shown)
    assert found, shown
    for file, share in zip(("plain", "small"), found.groups(), strict=False):
        assert f"{100 * accuracy_of(tmp_path / f'{file}{ending}', trained):.1f}" == share
    assert int(found[3]) == min(len(trained._samples[1]), int8.MEASURED)
    assert abs(float(found[1]) - float(found[2])) <= 1
    assert re.search(r"one sample takes \d+\.\d+ ms before, \d+\.\d+ ms after, .*(fast|slower)", shown)
    assert "int8:" in (tmp_path / "small.md").read_text()
    plain, small = ((tmp_path / f"{name}{weights}").stat().st_size for name in ("plain", "small"))
    assert small < plain / 2
    if form == "onnx":
        import onnx

        model = onnx.load(str(tmp_path / "small.onnx"))
        assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in model.graph.node}
        told = json.loads({p.key: p.value for p in model.metadata_props}["tlnb.json"])
        assert told["classes"] == list("0123456789")
    if form == "litert":
        with zipfile.ZipFile(tmp_path / "small.tflite") as inside:
            assert json.loads(inside.read("tlnb.json"))["int8"] == int8.CALIBRATION
        chances = by_litert(tmp_path / "small.tflite", pixels(trained, 20))
        assert np.abs(chances.sum(1) - 1).max() < 1e-5  # eight bits of a probability would not add up


@pytest.mark.slow
@quantiser
def test_int8_keeps_measured_values_in_their_unit(tmp_path: Path) -> None:
    import onnxruntime

    inputs = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
    session = Session([])
    session.load(nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1)))
    session.data((inputs, inputs[:, :1] * 500 + 1000), target="regression")
    session.train(lr=0.05, epochs=8)
    session.export(str(tmp_path / "net.onnx"), int8=True)
    taken = session._samples[1].batch(torch.arange(80))
    answers = onnxruntime.InferenceSession(str(tmp_path / "net.onnx")).run(None, {"inputs": taken.numpy()})[0]
    own = known(session, 80)
    assert answers.std() > 100
    assert np.abs(answers - own).mean() < 0.05 * own.std()
    if find_spec("ai_edge_quantizer") is not None:
        with pytest.raises(ExportError, match="too few for measured values; --to onnx --int8 takes them"):
            session.export(str(tmp_path / "net.tflite"), int8=True)


@quantiser
def test_int8_that_loses_too_much_writes_nothing(
    trained: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranges from black pictures are of no use to others."""
    quantise = int8.quantise

    def wrongly(source: Path, path: Path, inputs: torch.Tensor, about: dict) -> None:
        quantise(source, path, torch.zeros_like(inputs), about)

    monkeypatch.setattr(int8, "quantise", wrongly)
    with pytest.raises(ExportError, match=r"int8 loses too much: .* % before, .* % after"):
        trained.export(str(tmp_path / "net.onnx"), int8=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            ("net.onnx", None, "openvino", False),
            r"--to openvino writes a file that ends in \.xml, not \.onnx",
        ),
        (("net", None, "opnvino", False), "no export to opnvino; did you mean 'openvino'"),
        (("net.pt2", None, None, True), r"--int8 is written to \.onnx, \.xml, \.tflite"),
        (("net", None, None, True), r"not \.safetensors"),
        (("app", None, None, False), "a page needs a folder"),
        (("net.onnx", "place", None, False), "takes one file, or app and a folder"),
        (("app", "place", "onnx", False), "a page holds the weights as they are"),
        (("hf/me/net", None, "onnx", False), "a folder of the Hub has one form"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    trained: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: tuple, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path, folder, to, small = given
    with pytest.raises(ExportError, match=words):
        trained.export(path, folder, to=to, int8=small)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("module", "to"), [("openvino", "openvino"), ("litert_torch", "litert")])
def test_a_package_that_is_missing_is_named(
    trained: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, to: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ExportError, match=rf'pip install "tlnb\[{to}\]"'):
        trained.export(str(tmp_path / "net"), to=to)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------ the page

RECORDS = """
class Part:
    def __init__(self, *given, **named):
        self.given, self.named = given, named
class Error(Exception):
    pass
Interface = Image = Label = Audio = Textbox = Dataframe = Part
"""
USE = """
import json, sys
sys.path.insert(0, '.')
import app
print(json.dumps(app.answer({given})))
"""


def said(folder: Path, given: str) -> object:
    """What the page's function answers, without tlnb and with parts that only record."""
    (folder / "gradio.py").write_text(RECORDS)
    (folder / "use.py").write_text(USE.format(given=given))
    return json.loads(run_without_tlnb(folder / "use.py"))


def digit(session: Session, path: Path) -> Path:
    Image.fromarray(session.view.need_data().valid.images[0, 0].numpy()).save(path)
    return path


def test_the_page_answers_what_the_session_predicts(trained: Session, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    assert "python app.py" in repr(trained.export("app", str(folder)))
    names = {file.name for file in folder.iterdir()}
    assert names >= {
        "app.py",
        "requirements.txt",
        "network.py",
        "network.safetensors",
        "network.json",
        "network.md",
    }
    for file in ("app.py", "network.py"):
        assert "import tlnb" not in (folder / file).read_text()
        assert "from tlnb" not in (folder / file).read_text()
    picture = digit(trained, folder / "digit.png")
    answer = said(folder, repr(picture.name))
    chances, sure = answer if isinstance(answer, list) else (answer, None)
    own = trained.predict(str(picture))
    assert list(chances) == list("0123456789")
    assert np.abs(np.array(list(chances.values())) - own.answers[0]).max() < 1e-4
    assert sure is None or own.labels[0] in sure or sure == "none of these"
    trained.export("app", str(folder))  # again, over itself


def test_a_page_of_measured_values(tmp_path: Path) -> None:
    images = torch.randint(
        0, 256, (60, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    session = Session([])
    session.load("convnet5")
    session.data((images, images.float().mean((1, 2, 3))[:, None]), target="regression", size=32)
    session.train(5, lr=1e-3)
    session.export("app", str(tmp_path / "values"))
    picture = digit(session, tmp_path / "values" / "one.png")
    ((name, value),) = said(tmp_path / "values", repr(picture.name))
    assert name == session.view.need_data().classes[0]
    assert abs(value - float(session.predict(str(picture)).answers[0, 0])) < 1e-2


def test_a_page_refuses_what_nobody_can_give_it(tmp_path: Path) -> None:
    inputs = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    session = Session([])
    session.load(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
    session.data((inputs, (inputs[:, 0] > 0).long()))
    session.train(lr=0.05)
    with pytest.raises(ExportError, match="a page takes pictures, sounds or texts"):
        session.export("app", str(tmp_path / "page"))
    assert not (tmp_path / "page").exists()


@gradio
@pytest.mark.slow
def test_the_page_starts_by_one_command(trained: Session, tmp_path: Path) -> None:
    from gradio_client import Client, handle_file

    trained.export("app", str(tmp_path / "page"))
    picture = digit(trained, tmp_path / "digit.png")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    without = {"PYTHONPATH": "", "GRADIO_SERVER_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False"}
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, app.PAGE],
            cwd=tmp_path / "page",
            env=os.environ | without,
            stdout=log,
            stderr=log,
        )
    try:
        address, until = f"http://127.0.0.1:{port}", time.monotonic() + 120
        while "Running on" not in (tmp_path / "log").read_text():
            assert server.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < until, (tmp_path / "log").read_text()
            time.sleep(0.5)
        answer = Client(address, verbose=False).predict(handle_file(str(picture)), api_name="/answer")
    finally:
        server.terminate()
        server.wait()
    label = answer[0] if isinstance(answer, list | tuple) else answer
    own = trained.predict(str(picture))
    assert label["label"] == own.labels[0]
    assert abs(label["confidences"][0]["confidence"] - own.answers[0].max()) < 1e-4
