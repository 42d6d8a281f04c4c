"""Files of weights, as training scripts write them: found, matched, filled, reported on, never run."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tlnb.engine.models.catalogue import load_model, weight_names
from tlnb.engine.models.published import blueprint, build, torchvision_names
from tlnb.engine.models.recognise import recognise
from tlnb.errors import ModelError, WeightsError

SHARED = Path(__file__).parents[3] / "shared" / "data" / "weights"


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """SqueezeNet 1.1 for seven classes."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return build("squeezenet1_1", classes=7).state_dict()


def same(model: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    own = model.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[name], state[name]) for name in own)


@pytest.mark.parametrize("wrapper", ["", "state_dict", "model", "model_state", "net", "ema", "my_own_key"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "backbone.", "_orig_mod.", "module.model."])
def test_wrappers_and_prefixes_come_off(
    tmp_path: Path, state: dict[str, torch.Tensor], wrapper: str, prefix: str
) -> None:
    named = {prefix + name: tensor for name, tensor in state.items()}
    path = tmp_path / "squeezenet1_1.pth"
    torch.save({wrapper: named, "epoch": 3} if wrapper else named, path)
    loaded = load_model(str(path))
    assert loaded.name == "squeezenet1_1"
    assert loaded.outputs == 7
    assert same(loaded.model, state)
    assert "the file's head has 7 classes, not 1000: built to that size" in loaded.notes
    assert same(load_model("squeezenet1_1", weights=str(path)).model, state)


def test_what_scripts_put_beside_the_weights_does_no_harm(
    tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    optimizer = torch.optim.Adam(build("squeezenet1_1").parameters())
    beside = {
        "args": argparse.Namespace(lr=0.1),
        "best": np.float64(0.9),
        "optimizer": optimizer.state_dict(),
    }
    torch.save({**beside, "model": state}, tmp_path / "a.pth")
    loaded = load_model(str(tmp_path / "a.pth"))
    assert same(loaded.model, state)
    assert "the weights were found under the key 'model'" in loaded.notes


def test_safetensors_with_what_it_says_of_itself(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    classes = [f"<b>{i}</b>" for i in range(7)]
    about = {"channels": 3, "size": [64, 64], "resize": None, "mean": [0.5] * 3, "std": [0.5] * 3}
    metadata = {"classes": json.dumps(classes), "preprocess": json.dumps(about)}
    save_file(state, tmp_path / "a.safetensors", metadata)
    loaded = load_model(str(tmp_path / "a.safetensors"))
    assert same(loaded.model, state)
    assert loaded.categories == tuple(classes)
    assert (loaded.preprocess.size, loaded.preprocess.mean) == ((64, 64), (0.5, 0.5, 0.5))


@pytest.mark.parametrize("about", ["[1]", "{", '{"size": 3, "colour": 1}', "7"])
def test_foolish_metadata_is_passed_over(tmp_path: Path, state: dict[str, torch.Tensor], about: str) -> None:
    save_file(state, tmp_path / "a.safetensors", {"classes": about, "preprocess": about})
    loaded = load_model(str(tmp_path / "a.safetensors"))
    assert loaded.categories is None
    assert loaded.preprocess.size == (224, 224)


class Ran:
    happened = False

    def __reduce__(self) -> tuple[object, ...]:
        return (setattr, (Ran, "happened", True))


def test_code_in_a_file_is_never_run(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save({"model": state, "hook": Ran()}, tmp_path / "squeezenet1_1.pth")
    with pytest.raises(WeightsError, match="never runs code from a file"):
        load_model(str(tmp_path / "squeezenet1_1.pth"))
    assert not Ran.happened


@pytest.mark.parametrize("content", [{}, {"a": 1}, [1, 2], {"step": {"x": 3}}])
def test_a_file_without_weights_is_one_line(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"a\.pth holds no state dict"):
        load_model(str(tmp_path / "a.pth"))


def test_the_body_must_be_complete(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    part = dict(state)
    del part["features.3.squeeze.weight"]
    part["features.0.weight"] = torch.zeros(64, 1, 3, 3)
    torch.save(part, tmp_path / "a.pth")
    with pytest.raises(WeightsError) as error:
        load_model("squeezenet1_1", weights=str(tmp_path / "a.pth"))
    assert "1 missing (such as features.3.squeeze.weight)" in str(error.value)
    assert "1 of another shape (such as features.0.weight: 64×1×3×3, not 64×3×3×3)" in str(error.value)
    with pytest.raises(WeightsError, match="fits no architecture that tlnb knows; nearest is squeezenet1_1"):
        load_model(str(tmp_path / "a.pth"))


def test_other_heads(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = build("resnet18")
    path = str(tmp_path / "a.pth")
    model.fc = nn.Sequential(nn.Dropout(), nn.Linear(512, 5))
    torch.save(model.state_dict(), path)
    loaded = load_model(path)
    assert torch.equal(loaded.model.fc.weight, model.fc[1].weight)
    assert "the file keeps its head as fc.1" in loaded.notes

    model.fc = nn.Sequential(nn.Linear(512, 9), nn.ReLU(), nn.Linear(9, 5))
    torch.save(model.state_dict(), path)
    loaded = load_model(path)
    assert loaded.name == "resnet18"
    assert "the file has no head that fits, so the head is random" in loaded.notes
    assert any("4 names unexpected" in note for note in loaded.notes)
    assert torch.equal(loaded.model.conv1.weight, model.conv1.weight)


def test_every_architecture_is_recognised_by_names_and_shapes() -> None:
    for name in torchvision_names():
        plan = blueprint(name)
        shapes = {k: (3, *s[1:]) if k.startswith(plan.head) else s for k, s in plan.shapes.items()}
        state = {f"module.{key}": torch.empty(shape, device="meta") for key, shape in shapes.items()}
        assert recognise(state, "best.pth") == name


def test_old_spellings_and_another_input_size(tmp_path: Path) -> None:
    dense = build("densenet121").state_dict()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name): t for name, t in dense.items()}
    assert old.keys() != dense.keys()
    torch.save(old, tmp_path / "a.pth")
    assert same(load_model("densenet121", weights=str(tmp_path / "a.pth")).model, dense)

    vit = build("vit_b_32", classes=2, image_size=96).state_dict()
    swap = {"mlp.0": "mlp.linear_1", "mlp.3": "mlp.linear_2"}
    old = {re.sub(r"mlp\.[03]", lambda m: swap[m[0]], name): tensor for name, tensor in vit.items()}
    torch.save(old, tmp_path / "b.pth")
    loaded = load_model(str(tmp_path / "b.pth"))
    assert (loaded.name, loaded.preprocess.size) == ("vit_b_32", (96, 96))
    assert same(loaded.model, vit)


def test_default_is_the_word_for_the_published_weights() -> None:
    assert load_model("convnet5", weights="DEFAULT").weights == load_model("convnet5").weights
    assert weight_names("convnet5") == ("DEFAULT", "none")
    assert weight_names("resnet50") == ("DEFAULT", "IMAGENET1K_V1", "IMAGENET1K_V2", "none")
    assert weight_names("nothing") == ("none",)


def test_wrong_words_are_one_line(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(WeightsError, match=r"no weights file 'nowhere\.pth'"):
        load_model("nowhere.pth")
    with pytest.raises(ModelError, match="'resnet18' is no file"):
        load_model("resnet18", arch="resnet18")
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ModelError, match="did you mean 'squeezenet1_1'"):
        load_model(str(tmp_path / "a.pth"), arch="squeezenet11")
    with pytest.raises(WeightsError, match=r"does not fit resnet18: names 1\d\d missing"):
        load_model(str(tmp_path / "a.pth"), arch="resnet18")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared weights are not here")
@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet1_1"])
def test_published_files_load_both_ways(name: str) -> None:
    path = SHARED / f"{name}.pth"
    direct, named = load_model(str(path)), load_model(name, weights=str(path))
    assert direct.name == named.name == name
    assert same(direct.model, torch.load(path, weights_only=True))
    assert same(named.model, direct.model.state_dict())
    assert direct.categories is not None
    assert direct.categories[309] == "bee"
    assert (direct.task, direct.preprocess.resize) == ("imagenet", 256)
