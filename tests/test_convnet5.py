from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import fx, nn

from tlnb.assets import MODEL_CARD
from tlnb.assets import train as training
from tlnb.engine.data.glyphs import CLASSES, HELD_OUT_FONTS, draw
from tlnb.engine.models.convnet5 import HEAD, WEIGHTS, convnet5


def metadata(path):
    with safe_open(path, "pt") as file:
        return file.metadata()


def shipped():
    model = convnet5(len(CLASSES))
    model.load_state_dict(load_file(WEIGHTS))
    return model.eval()


def test_five_convolutions_then_three_linear_layers_about_a_million_parameters():
    model = convnet5(41)
    kinds = [type(m) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert kinds == [nn.Conv2d] * 5 + [nn.Linear] * 3
    assert 0.9e6 < sum(p.numel() for p in model.parameters()) < 1.1e6
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 41)


def test_dropout_stands_between_the_linear_layers_only():
    kinds = [type(m) for m in convnet5(10).classifier]
    drops = [i for i, kind in enumerate(kinds) if kind is nn.Dropout]
    linear = [i for i, kind in enumerate(kinds) if kind is nn.Linear]
    assert len(drops) == 2
    assert linear[0] < drops[0] < linear[1] < drops[1] < linear[2]


def test_every_parameter_matters():
    model = convnet5(7).train()
    model(torch.randn(4, 1, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_the_graph_can_be_traced_and_computes_the_same():
    model = convnet5(10).eval()
    x = torch.randn(3, 1, 32, 32)
    assert torch.equal(fx.symbolic_trace(model)(x), model(x))


def test_the_head_is_the_last_linear_layer():
    model = convnet5(10)
    assert model.get_submodule(HEAD) is [m for m in model.modules() if isinstance(m, nn.Linear)][-1]


def test_new_weights_are_he_normal_with_zero_biases():
    torch.manual_seed(0)
    for module in convnet5(41).modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            expected = math.sqrt(2 / module.weight[0].numel())
            assert module.weight.std().item() == pytest.approx(expected, rel=0.15)
            assert module.bias is None or not module.bias.any()


def test_the_weights_file_is_small_float32_and_says_what_it_is():
    assert WEIGHTS.stat().st_size <= 5_000_000
    said = metadata(WEIGHTS)
    assert said["model"] == "convnet5"
    assert tuple(json.loads(said["classes"])) == CLASSES
    preprocess = json.loads(said["preprocess"])
    assert (preprocess["channels"], preprocess["size"]) == (1, [32, 32])
    assert len(preprocess["mean"]) == len(preprocess["std"]) == 1
    state = load_file(WEIGHTS)
    assert {v.dtype for k, v in state.items() if not k.endswith("num_batches_tracked")} == {torch.float32}


def test_the_shipped_weights_read_letters_of_unseen_fonts():
    preprocess = json.loads(metadata(WEIGHTS)["preprocess"])
    images, labels = draw(1000, seed=123, fonts=HELD_OUT_FONTS)
    inputs = training.normalise(images, preprocess["mean"][0], preprocess["std"][0])
    assert training.accuracy(shipped(), inputs, labels) > 96


def test_the_card_gives_the_normalisation_and_classes_of_the_file():
    card = MODEL_CARD.read_text(encoding="utf-8")
    preprocess = json.loads(metadata(WEIGHTS)["preprocess"])
    assert f"minus {preprocess['mean'][0]}, divided by {preprocess['std'][0]}" in card
    assert ", ".join(CLASSES) in card
    assert "Apache-2.0" in card
    assert f"{sum(p.numel() for p in shipped().parameters()):,}" in card


def test_training_again_gives_the_same_weights_and_files(tmp_path):
    runs = [training.train(1, 256, seed=3, valid=64, report=False) for _ in range(2)]
    first, second = (run[0].state_dict() for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert runs[0][1].unseen == runs[1][1].unseen
    other = training.train(1, 256, seed=4, valid=64, report=False)[0]
    assert not torch.equal(first["classifier.7.weight"], other.state_dict()["classifier.7.weight"])

    training.save(*runs[0], tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["MODEL_CARD.md", "convnet5.safetensors"]
    saved = load_file(tmp_path / "convnet5.safetensors")
    assert all(torch.equal(saved[name], first[name]) for name in first)
    assert metadata(tmp_path / "convnet5.safetensors").keys() == metadata(WEIGHTS).keys()


def test_one_epoch_of_training_learns():
    figures = training.train(1, 3072, seed=0, valid=500, report=False)[1]
    assert figures.seen > 4 * 100 / len(CLASSES)
