"""A folder of the Hub: read by the libraries that people have, read back equal, and sent to a stand-in of the Hub."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
import torch
from PIL import Image

from tlnb.engine.core.objectives import scores_of
from tlnb.errors import BadArguments, ExportError, ModelError
from tlnb.magics import arguments
from tlnb.session import Session


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Pictures of three colours."""
    draw = np.random.default_rng(0)
    for number, name in enumerate(("red", "green", "blue<b>")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(10):
            pixels = draw.integers(0, 90, (50, 60, 3), dtype=np.uint8)
            pixels[..., number] += 120
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


def trained(name: str, source: object, **keys: Any) -> Session:
    tl = Session([])
    tl.load(name, **keys)
    tl.data(source, batch=8)
    tl.freeze("body")
    tl.train(1, 1e-2)
    return tl


def same(one: Session, other: Session) -> bool:
    mine, theirs = one.model.state_dict(), other.model.state_dict()
    return mine.keys() == theirs.keys() and all(mine[key].equal(theirs[key]) for key in mine)


def reads_back(tl: Session, name: str, source: object) -> None:
    """Weights, classes and preprocessing, and so every answer."""
    other = Session([])
    loaded = other.load(name)
    assert same(tl, other)
    assert loaded.categories == tuple(tl.view.need_data().classes)
    other.data(source, batch=8)
    assert same(tl, other), "the head knows the classes, so it stays"
    mine, theirs = tl.results(worst=0), other.results(worst=0)
    # One session may have features of the frozen part at hand, and the other run it: the same but for rounding.
    assert np.allclose(mine.answers, theirs.answers, rtol=1e-3, atol=1e-5)


def card_of(folder: Path) -> tuple[dict[str, Any], str]:
    """The front matter of the card, and the card."""
    yaml = pytest.importorskip("yaml")
    _, front, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), text


def test_convnet5_in_a_folder_reads_back_equal() -> None:
    tl = trained("convnet5", "digits")
    answer = repr(tl.export("hf/me/digits"))
    assert "bit for bit" in answer
    assert "not sent" in answer
    reads_back(tl, "hf/me/digits", "digits")
    front, text = card_of(Path("hf/me/digits"))
    [metric] = [m for m in front["model-index"][0]["results"][0]["metrics"] if m["type"] == "accuracy"][:1]
    assert metric["value"] == pytest.approx(tl.results(worst=0).accuracy, abs=1e-6)
    assert front["pipeline_tag"] == "image-classification"
    assert "%tl_load hf/me/digits" in text
    config = json.loads(Path("hf/me/digits/config.json").read_text())
    assert list(config["id2label"].values()) == list(tl.view.need_data().classes)
    tl.export("hf/me/digits")  # once more, over its own


def test_torchvision_takes_the_weights(photos: Path) -> None:
    import torchvision
    from safetensors.torch import load_file

    tl = trained("shufflenet_v2_x0_5", str(photos), weights="none")
    tl.export("hf/me/colours")
    reads_back(tl, "hf/me/colours", str(photos))
    model = torchvision.models.get_model("shufflenet_v2_x0_5", num_classes=3)
    model.load_state_dict(load_file("hf/me/colours/model.safetensors"))
    batch = tl.view.need_samples()[1].batch(torch.arange(4))
    with torch.no_grad():
        assert torch.equal(model.eval()(batch), tl.model.eval()(batch))


def test_what_would_answer_otherwise_is_refused(photos: Path) -> None:
    """SqueezeNet's own ReLU behind its head would hide what a new head says below zero."""
    tl = trained("squeezenet1_1", str(photos), weights="none")
    with pytest.raises(ExportError, match="answers otherwise"):
        tl.export("hf/me/colours")
    assert not Path("hf/me/colours/config.json").exists()


def test_timm_reads_its_folder(photos: Path) -> None:
    timm = pytest.importorskip("timm")
    tl = trained("timm/resnet10t", str(photos), weights="none")
    tl.export("hf/me/colours")
    reads_back(tl, "hf/me/colours", str(photos))
    if tuple(map(int, timm.__version__.split(".")[:3])) < (1, 0, 26):
        pytest.skip("timm reads folders of this machine since 1.0.26")
    model = timm.create_model("local-dir:hf/me/colours", pretrained=True).eval()
    samples = tl.view.need_samples()[1]
    batch = samples.batch(torch.arange(4))
    with torch.no_grad():
        assert torch.equal(model(batch), tl.model.eval()(batch))
    assert list(model.pretrained_cfg["label_names"]) == list(tl.view.need_data().classes)
    told = timm.data.resolve_data_config({}, model=model)
    assert tuple(told["mean"]) == samples.preprocess.mean
    assert tuple(told["input_size"][1:]) == samples.preprocess.size


def image_network(place: Path) -> str:
    """A small network for pictures in a folder as transformers writes it."""
    import transformers

    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=4
    )
    transformers.ResNetForImageClassification(config).save_pretrained(place)
    told = {
        "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": 40, "width": 40},
        "do_normalize": True, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.2], "resample": 2,
    }  # fmt: skip
    (place / "preprocessor_config.json").write_text(json.dumps(told))
    return str(place)


def test_transformers_reads_its_folder(photos: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tl = trained(image_network(tmp_path / "net"), str(photos))
    tl.export("hf/me/colours")
    reads_back(tl, "hf/me/colours", str(photos))
    model = transformers.AutoModelForImageClassification.from_pretrained("hf/me/colours").eval()
    assert list(model.config.id2label.values()) == list(tl.view.need_data().classes)
    batch = tl.view.need_samples()[1].batch(torch.arange(4))
    with torch.no_grad():
        assert torch.equal(model(batch).logits, scores_of(tl.model.eval()(batch)))
    processor = transformers.AutoImageProcessor.from_pretrained("hf/me/colours", use_fast=True)
    picture = Image.open(next(photos.glob("*/*.png"))).convert("RGB")
    given = processor(picture, return_tensors="pt")["pixel_values"]
    assert given.shape[1:] == batch.shape[1:]


def test_a_text_network_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from texts import network_folder, rows, table

    network_folder(tmp_path / "net", kind="BertForSequenceClassification")
    table(tmp_path / "t.csv", rows())
    tl = trained(str(tmp_path / "net"), "t.csv")
    tl.export("hf/me/praise")
    reads_back(tl, "hf/me/praise", "t.csv")
    model = transformers.AutoModelForSequenceClassification.from_pretrained("hf/me/praise").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained("hf/me/praise")
    texts = ["w1 good w2", "bad w3"]
    with torch.no_grad():
        scores = model(**tokenizer(texts, return_tensors="pt", padding=True)).logits
    answers = tl.predict(texts).answers
    assert np.allclose(scores.softmax(1).numpy(), answers, atol=1e-5)
    assert card_of(Path("hf/me/praise"))[0]["pipeline_tag"] == "text-classification"


def test_what_no_library_could_build_is_refused_in_one_line(photos: Path) -> None:
    tl = trained("convnet5", "digits", weights="none")
    for wrong in ("hf/", "hf/a/b/c", "hf/../b", "hf/a b/c"):
        with pytest.raises(ExportError, match="hf/OWNER/NAME"):
            tl.export(wrong)
    with pytest.raises(ExportError, match="--push sends a folder"):
        tl.export("net.safetensors", push=True)
    tl.head("mlp:6")
    with pytest.raises(ExportError, match="a linear head is"):
        tl.export("hf/me/digits")
    assert not list(Path("hf").rglob("*.json"))
    Path("hf/me/taken").mkdir(parents=True)
    Path("hf/me/taken/README.md").write_text("mine")
    tl.head("linear")
    with pytest.raises(ExportError, match="was not written by"):
        tl.export("hf/me/taken")
    own = Session([])
    own.load(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2)), input="1,8,8")
    own.data((torch.rand(40, 1, 8, 8), torch.arange(40) % 2))
    with pytest.raises(ExportError, match="a network of your own"):
        own.export("hf/me/own")


def test_a_folder_that_is_none_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    Path("net/config.json").write_text('{"library_name": "tlnb", "architecture": "os.system"}')
    with pytest.raises(ModelError, match="no network known here"):
        Session([]).load("net")
    Path("net/config.json").write_text('{"library_name": "tlnb", "architecture": ["convnet5"]}')
    with pytest.raises((ModelError, BadArguments)):
        Session([]).load("net")


def test_the_flag_is_an_option_of_the_magic() -> None:
    from tlnb.magics.commands import COMMANDS

    words, keys = arguments.parse(COMMANDS["tl_export"], "hf/me/net --push", {})
    assert (list(words), keys) == (["hf/me/net"], {"push": True})


# ---------------------------------------------------------------- a stand-in of the Hub


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub's HTTP interface as its client needs for a folder there and back."""

    files: dict[str, bytes]
    calls: list[str]
    commit = "c" * 40

    def log_message(self, *what: Any) -> None:
        """Nothing."""

    def _answer(self, body: Any, code: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_POST(self) -> None:
        """Make a repository, say how files come, take a commit."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.calls.append(f"POST {self.path}")
        here = f"http://{self.headers['Host']}"
        if self.headers.get("Authorization") != "Bearer hf_right":
            self._answer({"error": "Invalid username or password."}, 401)
        elif self.path == "/api/repos/create":
            self._answer({"url": f"{here}/me/digits", "id": "me/digits", "name": "me/digits"})
        elif "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            self._answer({"files": [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in asked
            ]})  # fmt: skip
        elif "/commit/" in self.path:
            for line in body.splitlines():
                told = json.loads(line)
                if told["key"] == "file":
                    self.files[told["value"]["path"]] = base64.b64decode(told["value"]["content"])
            self._answer({
                "success": True, "commitOid": self.commit, "commitUrl": f"{here}/me/digits/commit/{self.commit}",
            })  # fmt: skip
        else:
            self._answer({})

    def do_GET(self) -> None:
        """Tell what there is, and give it."""
        self.calls.append(f"{self.command} {self.path}")
        if "/resolve/" in self.path:
            data = self.files.get(self.path.rpartition("/resolve/")[2].partition("/")[2])
            if data is None:
                self._answer({}, 404, X_Error_Code="EntryNotFound")
            else:
                tag = hashlib.sha1(data).hexdigest()
                self._answer(data, ETag=f'"{tag}"', X_Repo_Commit=self.commit)
        elif self.path.startswith("/api/models/me/digits"):
            listed = [{"rfilename": name} for name in self.files]
            if "/tree/" in self.path:
                self._answer([
                    {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for name, data in self.files.items()
                ])  # fmt: skip
            else:
                self._answer({"id": "me/digits", "sha": self.commit, "siblings": listed, "private": False})
        elif self.path.startswith("/api/whoami"):
            self._answer({"name": "me", "type": "user", "orgs": []})
        else:
            self._answer({"error": "not here"}, 404, X_Error_Code="RepoNotFound")

    do_HEAD = do_GET


@pytest.fixture
def hub_address() -> Iterator[str]:
    Hub.files, Hub.calls = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def in_a_process(code: str, place: Path, address: str, token: str) -> subprocess.CompletedProcess[str]:
    """The Hub's client reads its address when it is imported, so each of these has a process of its own."""
    import os

    env = os.environ | {
        "HF_ENDPOINT": address, "HF_TOKEN": token, "HF_HOME": str(place / "hub"), "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "TLNB_HOME": str(place / "home"), "NO_PROXY": "*", "HF_HUB_OFFLINE": "0",
    }  # fmt: skip
    return forked.run([sys.executable, "-c", code], cwd=place, env=env)


SEND = """
from tlnb.session import Session
tl = Session([])
tl.load("convnet5")
tl.data("digits", per_class=5)
tl.freeze("body")
tl.train(1, 1e-2)
print(tl.export("hf/me/digits", push=True))
tl.save("sent.safetensors")
"""
FETCH = """
from safetensors.torch import load_file
from tlnb.session import Session
tl = Session([])
loaded = tl.load("hf/me/digits")
kept = Session([])
kept.resume("sent.safetensors")
mine, theirs = tl.model.state_dict(), kept.model.state_dict()
assert mine.keys() == theirs.keys() and all(mine[key].equal(theirs[key]) for key in mine)
assert loaded.categories == tuple("0123456789"), loaded.categories
print("equal")
"""


def test_a_folder_goes_to_the_hub_and_comes_back(tmp_path: Path, hub_address: str) -> None:
    pytest.importorskip("huggingface_hub")
    done = in_a_process(SEND, tmp_path, hub_address, "hf_right")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"sent: {hub_address}/me/digits/commit/" in done.stdout
    folder = tmp_path / "hf" / "me" / "digits"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == Hub.files
    folder.rename(tmp_path / "elsewhere")
    done = in_a_process(FETCH, tmp_path, hub_address, "hf_right")
    assert done.returncode == 0, done.stdout + done.stderr
    assert any("/resolve/" in call for call in Hub.calls)


def test_what_the_hub_does_not_take_stays_as_a_folder(tmp_path: Path, hub_address: str) -> None:
    pytest.importorskip("huggingface_hub")
    done = in_a_process(SEND, tmp_path, hub_address, "hf_wrong")
    assert done.returncode == 1
    assert "ExportError: hf/me/digits is written; the Hub does not take it: " in done.stderr
    assert (tmp_path / "hf" / "me" / "digits" / "model.safetensors").is_file()
