"""The classification architectures of torchvision: layers of even size, and cuts that change no bit.

Six run with numbers, and with a session in ``tests/test_architectures.py``; one of each other family runs on the
device ``meta``, where every shape and every gradient's presence is checked but no number. ``--all`` runs all eighty.
"""

from __future__ import annotations

import pytest
import torch
from architectures import NAMES, SHOWN, WITH_NUMBERS, head_of, on_meta, real

from tlnb.engine.core.objectives import Classification
from tlnb.engine.data.samples import TensorSamples
from tlnb.engine.features.planner import ForwardPlan
from tlnb.engine.network import freeze
from tlnb.engine.network.head import auxiliary_heads, find_head, new_head, replace
from tlnb.engine.network.layers import find_layers
from tlnb.engine.training.stage import Stage
from tlnb.engine.training.trainer import StageTrainer

COUNTS = {
    "alexnet": 8, "resnet18": 10, "resnet50": 18, "mobilenet_v2": 20, "vit_b_16": 14, "densenet121": 9,
    "vgg11_bn": 11, "vgg16": 16, "squeezenet1_0": 10, "googlenet": 13, "inception_v3": 17, "maxvit_t": 15,
    "swin_t": 17, "convnext_tiny": 23, "efficientnet_b0": 19, "shufflenet_v2_x1_0": 19, "mnasnet1_0": 21,
    "mobilenet_v3_large": 19, "regnet_y_400mf": 18,
}  # fmt: skip
# One linear layer behind the convolutions holds most of the weights; it cannot be divided.
LINEAR_GIANTS = {"alexnet", *(n for n in NAMES if n.startswith("vgg"))}
# 79 blocks between stem, last convolution and classifier: each block is a layer.
DEEP = {"efficientnet_v2_l": 82}


def test_all_eighty_are_here():
    assert len(NAMES) == 80


@pytest.mark.parametrize("name", SHOWN)
def test_layers_and_cuts(name):
    model, example = real(name) if name in WITH_NUMBERS else on_meta(name)
    layers = find_layers(model, example)
    check_partition(model, layers)
    assert len(layers) == COUNTS.get(name, len(layers))
    assert 4 <= len(layers) <= DEEP.get(name, 80)
    assert layers.note is None
    assert layers.graph.cuts == tuple(range(len(layers))), "every edge between layers is clean"
    if name not in LINEAR_GIANTS:
        body = sum(layers[i].parameters for i in layers.body)
        assert max(layers[i].parameters for i in layers.body) <= 0.6 * body
    if name in WITH_NUMBERS:
        check_test_mode(model, example, layers)
        check_training(model, example, layers)
    else:
        check_shapes(model, example, layers)
        check_new_head(name, model, example)


def check_partition(model, layers):
    """Each weight and buffer is in exactly one layer; a module is in one at most."""
    parameters = [name for layer in layers for name in layer.parameter_names]
    buffers = [name for layer in layers for name in layer.buffer_names]
    modules = [name for layer in layers for name in layer.module_names]
    assert sorted(parameters) == sorted(name for name, _ in model.named_parameters())
    assert sorted(buffers) == sorted(name for name, _ in model.named_buffers())
    assert len(modules) == len(set(modules))
    assert {n for n, m in model.named_modules() if not any(m.children())} <= set(modules)


def some_cuts(layers):
    return sorted({1, len(layers) // 2, len(layers) - 1})


def check_test_mode(model, example, layers):
    model.eval()
    with torch.no_grad():
        expected = model(example)
        for cut in some_cuts(layers):
            prefix, tail = layers.graph.split(cut)
            crossing = prefix(example)
            assert crossing.shape[1:] == layers[cut - 1].shape
            assert torch.equal(tail.eval()(crossing), expected), cut


def check_training(model, example, layers):
    """With the prefix in test mode and the rest in training, both ways draw and compute the same."""
    cut = len(layers) // 2
    modules = dict(model.named_modules())
    model.train()
    for layer in layers[:cut]:
        for name in layer.module_names:
            modules[name].training = False
    prefix, tail = layers.graph.split(cut)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        expected = model(example)
        crossing = prefix(example)
        torch.manual_seed(1)
        answer = tail.train()(crossing)
    if isinstance(expected, tuple):
        assert type(answer) is type(expected)
        expected, answer = expected[0], answer[0]
    assert torch.equal(answer, expected)


def check_shapes(model, example, layers):
    cut = len(layers) // 2
    prefix, tail = layers.graph.split(cut)
    with torch.no_grad():
        crossing = prefix(example)
        assert crossing.shape == (2, *layers[cut - 1].shape)
        assert tail.eval()(crossing).shape == (2, 1000)


def check_new_head(name, model, example, classes=3):
    """A new head; each layer can be frozen; the whole network takes a step."""
    head = find_head(model)
    assert head == head_of(name)
    assert auxiliary_heads(model) == (("AuxLogits.fc",) if name == "inception_v3" else ())
    replace(model, head, new_head(model.get_submodule(head), "linear", classes))
    layers = find_layers(model, example, head)
    assert layers[-1].shape == (classes,)
    for frozen in (layers.body, ()):
        freeze.apply(model, layers, frozen)
        names = {n for i in set(range(len(layers))) - set(frozen) for n in layers[i].parameter_names}
        assert {n for n, p in model.named_parameters() if p.requires_grad} == names
    samples = TensorSamples(example, torch.zeros(2, dtype=torch.int64, device="meta"))
    forward_plan = ForwardPlan(samples, samples, model, torch.device("meta"))
    stage = Stage("all", frozen=(), optimizer="sgd", lr=1e-3)
    trainer = StageTrainer(
        model, layers, stage, forward_plan, number=1, batch=2, seed=0, task=Classification()
    )
    trainer.set_modes(training=True)
    assert trainer.train_step(torch.arange(2, device="meta"), probe=True).shape == ()
