"""Networks of Hugging Face: a folder, a Hub that answers on the loopback, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import forked
import pytest
import torch

pytest.importorskip("transformers")

from texts import network_folder
from transformer_configs import PICTURES, network

from tlnb import Session
from tlnb.engine.models import hub
from tlnb.engine.models.catalogue import load_model
from tlnb.errors import ModelError, WeightsError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("key", "how"),
    [
        ("pooling_mode_mean_tokens", "mean"),
        ("pooling_mode_cls_token", "cls"),
        ("pooling_mode_max_tokens", "max"),
    ],
)
def test_pooling_is_that_of_modules_json(tmp_path, key, how):
    network_folder(tmp_path / "net", pooling=key)
    assert load_model(str(tmp_path / "net")).model.pooling.how == how
    loaded = load_model(str(network_folder(tmp_path / "plain")))
    assert loaded.model.pooling.how == "mean"
    assert any("mean over the tokens" in note for note in loaded.notes)


def test_pooling_leaves_padding_out():
    from tlnb.engine.models.encoder import POOLINGS, Pooling

    tokens, mask = torch.randn(2, 5, 3), torch.tensor([[1, 1, 1, 0, 0], [1] * 5])
    for how in POOLINGS:
        alone = Pooling(how)(tokens[:1, :3], mask[:1, :3])
        torch.testing.assert_close(Pooling(how)(tokens, mask)[:1], alone)
    assert Pooling("mean", True)(tokens, mask).norm(dim=1).tolist() == pytest.approx([1.0, 1.0])


def test_a_classifier_keeps_its_head_and_its_classes(tmp_path):
    network_folder(tmp_path / "net", kind="BertForSequenceClassification")
    config = json.loads((tmp_path / "net" / "config.json").read_text())
    config |= {"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}}
    (tmp_path / "net" / "config.json").write_text(json.dumps(config))
    loaded = load_model(str(tmp_path / "net"))
    assert loaded.categories == ("no", "yes")
    assert (loaded.head, loaded.outputs) == ("classifier", 2)


@pytest.mark.parametrize("name", PICTURES)
def test_networks_for_pictures_have_the_preprocessing_of_their_image_processor(tmp_path, name):
    import numpy as np
    import transformers
    from PIL import Image

    model = network(name)
    model.save_pretrained(tmp_path)
    kinds = {
        "vit": {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}, "resample": 2},
        "swin": {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}, "resample": 3},
        "convnext": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 32},
                     "crop_pct": 0.875, "resample": 3},
        "dinov2": {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 40}, "resample": 3,
                   "do_center_crop": True, "crop_size": {"height": 32, "width": 32}},
    }  # fmt: skip
    told = {"do_resize": True, "do_normalize": True, "do_rescale": True, "image_mean": [0.4, 0.5, 0.6],
            "image_std": [0.2, 0.25, 0.3], "rescale_factor": 1 / 255, **kinds[name]}  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(told))
    loaded = load_model(str(tmp_path))
    generator = np.random.default_rng(0)
    small = generator.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(small).resize((80, 60), Image.Resampling.BICUBIC)
    wanted = transformers.AutoImageProcessor.from_pretrained(tmp_path)(picture, return_tensors="pt")[
        "pixel_values"
    ]
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    found = loaded.preprocess.normalise(loaded.preprocess.fit(pixels))
    assert found.shape == wanted.shape == (1, 3, 32, 32)
    # Resizing rounds to whole values at other places; a value is 1 / (255 * 0.2).
    assert float((found - wanted).abs().mean()) < 0.03
    with torch.no_grad():
        theirs = type(model).from_pretrained(tmp_path).eval()(wanted).logits
        torch.testing.assert_close(loaded.model(wanted).logits, theirs)


def test_a_picture_network_trains_and_comes_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network("vit").save_pretrained(tmp_path / "vit")
    tl = Session([])
    tl.load("vit")
    tl.data("digits", per_class=8)
    run = tl.run("fit head\nfreeze 0:3 epochs 1 lr 1e-3", cache=False)
    assert run.stages[-1].digest_before == run.stages[-1].digest_after
    tl.save("v")
    again = Session([])
    again.resume("v.safetensors")
    ours, theirs = tl.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    tl.script("train.py")
    done = forked.run([sys.executable, "train.py"], tlnb=False)
    assert done.returncode == 0, done.stderr
    from safetensors.torch import load_file

    found = load_file("train.trained.safetensors")
    assert all(torch.equal(found[name], ours[name]) for name in ours)
    told = tl.export("out/vit.safetensors")
    assert "fresh process" in repr(told)


def test_only_safetensors_are_read_and_no_code_runs(tmp_path):
    place = network_folder(tmp_path / "pickled")
    state = torch.nn.Linear(2, 2).state_dict()
    (place / "model.safetensors").unlink()
    torch.save(state, place / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="may run code"):
        load_model(str(place))
    place = network_folder(tmp_path / "coded")
    config = json.loads((place / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
    (place / "config.json").write_text(json.dumps(config))
    (place / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ModelError, match="needs code of its own"):
        load_model(str(place))
    assert not (tmp_path / "ran").exists()
    place = network_folder(tmp_path / "cut")
    whole = (place / "model.safetensors").read_bytes()
    (place / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="cannot be read"):
        load_model(str(place))


def test_random_weights_and_layers_that_are_kept(tmp_path):
    place = str(network_folder(tmp_path / "net"))
    kept, fresh = load_model(place).model, load_model(place, weights="none").model
    name = "body.encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(kept.state_dict()[name], fresh.state_dict()[name])
    tl = Session([])
    tl.load(place, layers_from="0:2")
    assert torch.equal(tl.model.state_dict()[name], kept.state_dict()[name])
    other = name.replace("layer.0", "layer.2")
    assert not torch.equal(tl.model.state_dict()[other], kept.state_dict()[other])


# ---------------------------------------------------------------- a Hub on the loopback


class _Hub(BaseHTTPRequestHandler):
    folder: Path
    asked: list[str]

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body):
        path = self.path.partition("?")[0]
        type(self).asked.append(path)
        if path.startswith("/api/models/some/net"):
            files = [{"rfilename": p.relative_to(self.folder).as_posix()} for p in sorted(self.folder.rglob("*"))
                     if p.is_file()]  # fmt: skip
            known = path.rstrip("/").endswith(("net", "main", COMMIT, "v1"))
            about = {
                "id": "some/net",
                "modelId": "some/net",
                "sha": COMMIT,
                "siblings": files,
                "private": False,
            }
            if "/tree/" in path:
                tree = [{"type": "file", "path": f["rfilename"], "oid": "0" * 40,
                         "size": (self.folder / f["rfilename"]).stat().st_size} for f in files]  # fmt: skip
                return self._send(200, json.dumps(tree).encode(), body)
            return self._send(200 if known else 404, json.dumps(about).encode(), body)
        if path.startswith((f"/some/net/resolve/{COMMIT}/", "/some/net/resolve/main/")):
            file = self.folder / path.split("/", 5)[5]
            if file.is_file():
                return self._send(200, file.read_bytes(), body)
        return self._send(404, b'{"error": "Repository not found"}', body, {"X-Error-Code": "RepoNotFound"})

    def _send(self, code, content, body, headers=None):
        self.send_response(code)
        for name, value in {
            "Content-Length": str(len(content)), "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
            "X-Repo-Commit": COMMIT, "Content-Type": "application/json", **(headers or {}),
        }.items():  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def endpoint(tmp_path):
    folder = network_folder(tmp_path / "served", pooling="pooling_mode_mean_tokens")
    (folder / "pytorch_model.bin").write_bytes(b"never fetched")
    _Hub.folder, _Hub.asked = folder, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


_RUN = """
import json, sys
from tlnb import Session
tl = Session([])
try:
    loaded = tl.load(sys.argv[1], revision=sys.argv[2] if len(sys.argv) > 2 else None)
    print(json.dumps([loaded.weights, loaded.name, len(tl.layers), tl.layers[0].name]))
    tl.save("kept")
except Exception as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


def ask(tmp_path, endpoint, *words):
    settings = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1",
                "HF_HUB_DISABLE_TELEMETRY": "1", "TLNB_HOME": str(tmp_path / "tlnb")}  # fmt: skip
    done = forked.run([sys.executable, "-c", _RUN, *words], env=settings, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_network_of_the_hub_is_downloaded_once_and_its_commit_is_known(tmp_path, endpoint):
    found = ask(tmp_path, endpoint, "hf/some/net")
    assert found == [f"commit {COMMIT}", "hf/some/net", 5, "body.embeddings"]
    assert not any("pytorch_model.bin" in path for path in _Hub.asked)
    from tlnb.engine.checkpoint.file import read

    saved = read(tmp_path / "kept.safetensors").about["model"]
    assert saved["weights"] == f"commit {COMMIT}"
    assert ask(tmp_path, endpoint, "hf/some/net", "main")[0] == f"commit {COMMIT}"
    kind, message = ask(tmp_path, endpoint, "hf/no/body")
    assert kind in ("ModelError", "WeightsError")
    assert "\n" not in message
    kind, message = ask(tmp_path, "http://127.0.0.1:9", "hf/other/net")
    assert (kind, "\n" in message) == ("WeightsError", False)


@pytest.mark.parametrize(("package", "source"), [("transformers", "net"), ("huggingface_hub", "hf/some/net")])
def test_without_the_extra_one_line_says_how_to_get_it(tmp_path, package, source):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    code = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {package!r}:
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
from tlnb import Session
tl = Session([])
try:
    tl.load({source!r})
except Exception as error:
    print(type(error).__name__, error)
tl.load("convnet5")
tl.data("digits")
"""
    offline = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}
    done = forked.run([sys.executable, "-c", code], cwd=tmp_path, env=offline)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'pip install "tlnb[hf]"' in done.stdout


def test_nothing_of_hugging_face_is_imported_unless_asked_for(tmp_path):
    code = """
import sys
from tlnb import Session
tl = Session([])
tl.load("convnet5")
tl.data("digits", per_class=5)
tl.train(epochs=1, lr=1e-3)
print([name for name in ("transformers", "tokenizers", "huggingface_hub", "datasets") if name in sys.modules])
"""
    done = forked.run([sys.executable, "-c", code], cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr[-2000:]


def test_a_recipe_runs_no_code_and_builds_nothing_huge():
    with pytest.raises(ModelError):
        hub.build({"kind": "encoder", "config": {"model_type": "no such"}, "how": "mean", "normalise": False})
