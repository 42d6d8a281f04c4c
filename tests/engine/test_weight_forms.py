"""Files of weights as people have them: below any prefix, by place, of two networks, headless, and of other kinds."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tlnb.engine.models.catalogue import load_model
from tlnb.engine.models.file_kinds import kind_of
from tlnb.engine.models.published import build
from tlnb.errors import WeightsError

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def resnet() -> State:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return build("resnet18", classes=4).state_dict()


def body(state: State) -> State:
    return {name: t for name, t in state.items() if not name.startswith("fc.")}


def loaded_from(content: object, path: Path, arch: str | None = "resnet18", weights: str | None = None):
    torch.save(content, path)
    return load_model(str(path), arch=arch, weights=weights)


def has_body(model: nn.Module, state: State) -> bool:
    own = model.state_dict()
    return all(torch.equal(own[name], tensor) for name, tensor in body(state).items())


def by_place(state: State) -> State:
    children = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool", "fc"]
    named = ((name.partition("."), tensor) for name, tensor in state.items())
    return {f"{children.index(child)}.{rest}": tensor for (child, _, rest), tensor in named}


FORMS: dict[str, Callable[[State], object]] = {
    "query encoder": lambda s: {f"module.encoder_q.{n}": t for n, t in s.items()},
    "online": lambda s: {"model": {f"online_network.0.{n}": t for n, t in s.items()}},
    "detector": lambda s: (
        {f"backbone.body.{n}": t for n, t in s.items()} | {"rpn.head.weight": torch.zeros(3)}
    ),
    "any word": lambda s: {f"my.odd_word.{n}": t for n, t in s.items()},
    "lightning": lambda s: {
        "state_dict": {f"model.backbone.{n}": t for n, t in s.items()} | {"loss.w": torch.ones(2)}
    },
    "module in the middle": lambda s: {
        n.replace("layer1.", "layer1.module.").replace("layer3.", "layer3._orig_mod."): t
        for n, t in s.items()
    },
    "prefix and module": lambda s: {"net." + n.replace("layer2.", "layer2.module."): t for n, t in s.items()},
    "by place": by_place,
    "by place below a prefix": lambda s: {f"features.{n}": t for n, t in by_place(s).items()},
    "an odd key": lambda s: {"G": {"a": torch.zeros(2)}, "classifier_net": s, "step": 3},
    "half precision": lambda s: {n: t.half().float() if t.is_floating_point() else t for n, t in s.items()},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_body_is_found_by_matching(form: str, resnet: State, tmp_path: Path) -> None:
    state = resnet if form != "half precision" else FORMS[form](resnet)
    loaded = loaded_from(FORMS[form](body(resnet)), tmp_path / "w.pth")
    assert has_body(loaded.model, state)  # type: ignore[arg-type]
    assert "the file has no head that fits, so the head is random" in loaded.notes
    named = loaded_from(FORMS[form](resnet), tmp_path / "w.pth", arch=None)
    assert named.name == "resnet18"
    assert torch.equal(named.model.get_parameter("fc.weight"), state["fc.weight"])  # type: ignore[index]


def test_two_networks_in_a_file_and_the_option_that_takes_the_other(resnet: State, tmp_path: Path) -> None:
    other = {name: t + 1 for name, t in resnet.items()}
    path = tmp_path / "w.pth"
    for first, second in (("student", "teacher"), ("encoder_q", "encoder_k"), ("online_net", "target_net")):
        joined = {f"{second}.{n}": t for n, t in other.items()} | {
            f"{first}.{n}": t for n, t in resnet.items()
        }
        loaded = loaded_from(joined, path)
        assert has_body(loaded.model, resnet)
        assert any(f"prefix '{first}.'" in n and f"'{second}': --weights NAME" in n for n in loaded.notes)
        assert has_body(loaded_from(joined, path, weights=second).model, other)
        keyed = loaded_from({second: other, first: resnet}, path)
        assert has_body(keyed.model, resnet)
        assert any(
            f"key '{first}' (--weights NAME takes those under '{second}')" in note for note in keyed.notes
        )
        assert has_body(loaded_from({second: other, first: resnet}, path, weights=second).model, other)
    with pytest.raises(WeightsError, match="no weights under 'studnt'; did you mean 'student'"):
        loaded_from({"teacher": other, "student": resnet}, path, weights="studnt")


def test_both_doors_take_a_body_without_a_head(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    net = timm.create_model("vit_tiny_patch16_224", num_classes=3)
    state = net.state_dict()
    headless = {n: t for n, t in state.items() if not n.startswith("head.")}
    decoder = {"mask_token": torch.zeros(1, 1, 192), "decoder.weight": torch.zeros(3, 3)}
    for content in (headless, {"model": headless}, {"teacher": {f"backbone.{n}": t for n, t in headless.items()}},
                    {f"module.encoder.{n}": t for n, t in headless.items()}, headless | decoder):  # fmt: skip
        loaded = loaded_from(content, tmp_path / "w.pth", arch="timm/vit_tiny_patch16_224")
        own = loaded.model.state_dict()
        assert all(torch.equal(own[name], tensor) for name, tensor in headless.items())
        assert loaded.outputs == 1000
        assert any("head is random" in note for note in loaded.notes)
    with_head = loaded_from(state, tmp_path / "w.pth", arch="timm/vit_tiny_patch16_224")
    assert with_head.outputs == 3
    assert torch.equal(with_head.model.get_parameter("head.weight"), state["head.weight"])
    del headless["blocks.3.mlp.fc1.weight"]
    with pytest.raises(WeightsError, match=r"does not fit timm/vit_tiny_patch16_224: names 1 missing"):
        loaded_from(headless, tmp_path / "w.pth", arch="timm/vit_tiny_patch16_224")


ODD: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "sparse": (lambda t: t.to_sparse(), "a sparse tensor"),
    "meta": (lambda t: t.to("meta"), "without numbers"),
    "quantised": (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "a quantised tensor"),
    "nested": (lambda t: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "a nested tensor"),
    "NaN": (lambda t: torch.full_like(t, float("nan")), "9,408 numbers that are not finite"),
    "one infinity": (
        lambda t: t.clone().index_fill_(0, torch.tensor(1), float("inf")),
        "147 numbers that are not",
    ),
    "whole numbers": (
        lambda t: (t * 100).to(torch.int8),
        r"whole numbers \(int8\): weights of a quantised network",
    ),
    "truth values": (lambda t: t > 0, r"whole numbers \(bool\)"),
    "eight bits": (lambda t: t.to(torch.float8_e4m3fn), r"numbers of eight bits \(float8_e4m3fn\)"),
    "complex": (lambda t: t.to(torch.complex64), "complex numbers"),
    "no storage behind": (
        lambda t: torch.zeros(1).as_strided((64, 3, 7, 200_000), (0, 0, 0, 0)),
        "stand for",
    ),
}


@pytest.mark.parametrize("kind", ODD)
def test_tensors_that_are_no_weights_are_one_line(kind: str, resnet: State, tmp_path: Path) -> None:
    make, words = ODD[kind]
    with pytest.raises(WeightsError, match=words) as caught:
        loaded_from(resnet | {"conv1.weight": make(resnet["conv1.weight"])}, tmp_path / "w.pth")
    assert "w.pth" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


class Own:
    """Of a class that torch's safe loader does not know."""


def test_files_that_are_no_state_dict_are_called_by_their_kind(resnet: State, tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "script.pt")
    torch.save({"state_dict": resnet, "config": Path("x")}, tmp_path / "lightning.ckpt")
    torch.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "whole.pth")
    torch.save(resnet, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:100_000])
    with zipfile.ZipFile(tmp_path / "packed.pth", "w") as archive:
        archive.writestr("readme.txt", "x")
    plain = {
        "a.onnx": b"\x08\x08\x12\x07pytorch", "b.pth": b"\x08\x07\x12\x07pytorch\x1a\x032.1",
        "c.h5": b"\x89HDF\r\n\x1a\n", "d.bin": b"GGUF\x03\0\0\0", "e.pth": b"", "g.pth": b"\x1f\x8b\x08\0",
        "f.pth": b"<!DOCTYPE html><html>", "h.pth": b"version https://git-lfs.github.com/spec/v1\n",
        "i.pth": b'{"a": 1}', "j.safetensors": b"\x89PNG\r\n",
    }  # fmt: skip
    for name, content in plain.items():
        (tmp_path / name).write_bytes(content)
    words = {
        "script.pt": "it is a TorchScript file", "lightning.ckpt": r"class pathlib\.", "cut.pth": "it is cut off",
        "whole.pth": r"class torch\.nn\.", "packed.pth": "a zip archive", "a.onnx": "an ONNX file",
        "b.pth": "an ONNX file", "c.h5": "an HDF5 file", "d.bin": "a GGUF file", "e.pth": "an empty file",
        "f.pth": "a web page", "g.pth": "packed by gzip", "h.pth": "a pointer of Git LFS", "i.pth": "a text in JSON",
        "j.safetensors": "a picture",
    }  # fmt: skip
    for name, expected in words.items():
        with pytest.raises(WeightsError, match=expected) as caught:
            load_model(str(tmp_path / name))
        text = str(caught.value)
        assert "weights_only" not in text
        assert "\x1b" not in text


def test_a_file_under_a_wrong_ending_is_read_as_what_it_is(resnet: State, tmp_path: Path) -> None:
    save_file(resnet, tmp_path / "a.pth")
    torch.save(resnet, tmp_path / "b.safetensors")
    assert kind_of(tmp_path / "a.pth") == "safetensors file"
    for name in ("a.pth", "b.safetensors"):
        assert has_body(load_model(str(tmp_path / name), arch="resnet18").model, resnet)
    save_file({"w": torch.zeros(3)}, tmp_path / "c.pth")
    with pytest.raises(WeightsError, match=r"c\.pth \(a safetensors file\) fits no architecture"):
        load_model(str(tmp_path / "c.pth"))
