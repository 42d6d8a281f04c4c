import pytest
import torch
import torchvision
from torch import nn

from tlnb.engine.network.head import find_head, new_head, outputs_of, replace
from tlnb.errors import ModelError


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("alexnet", "classifier.6"),
        ("resnet18", "fc"),
        ("mobilenet_v2", "classifier.1"),
        ("squeezenet1_1", "classifier.1"),
        ("googlenet", "fc"),
    ],
)
def test_finds_the_classifier(name, head):
    with torch.device("meta"):
        options = {"init_weights": False} if name == "googlenet" else {}
        assert find_head(torchvision.models.get_model(name, **options)) == head


@pytest.mark.parametrize("init", ["zero", "fit"])
def test_the_last_layer_starts_at_zero_and_those_before_it_he_normal(init):
    head = new_head(nn.Linear(2000, 7), "mlp:50", 5, torch.Generator().manual_seed(0), init)
    first, last = head[0], head[2]
    assert first.weight.std().item() == pytest.approx((2 / 2000) ** 0.5, rel=0.02)
    assert not last.weight.any()
    assert not new_head(nn.Linear(20, 7), "linear", 5, init=init).weight.any()


def test_he_gives_all_layers_he_normal_weights_and_draws_the_same_for_those_before_the_last():
    head = new_head(nn.Linear(2000, 7), "linear", 50, torch.Generator().manual_seed(0), "he")
    assert head.weight.shape == (50, 2000)
    assert head.weight.std().item() == pytest.approx((2 / 2000) ** 0.5, rel=0.02)
    assert head.weight.mean().abs().item() < 1e-3
    assert not head.bias.any()
    he, zero = (
        new_head(nn.Linear(8, 2), "mlp:4", 3, torch.Generator().manual_seed(1), i) for i in ("he", "zero")
    )
    assert torch.equal(he[0].weight, zero[0].weight)
    assert he[2].weight.all()


def test_mlp_head_has_the_widths_asked_for():
    head = new_head(nn.Linear(64, 7), "mlp:32,16", 5)
    assert [(m.in_features, m.out_features) for m in head if isinstance(m, nn.Linear)] == [
        (64, 32),
        (32, 16),
        (16, 5),
    ]
    assert outputs_of(head) == 5
    assert all(not m.bias.any() for m in head if isinstance(m, nn.Linear))


def test_a_convolutional_head_stays_one():
    head = new_head(nn.Conv2d(512, 1000, 1), "linear", 3)
    assert isinstance(head, nn.Conv2d)
    assert head(torch.zeros(1, 512, 4, 4)).shape == (1, 3, 4, 4)


def test_the_same_generator_seed_gives_the_same_head():
    heads = [new_head(nn.Linear(8, 2), "linear", 3, torch.Generator().manual_seed(4), "he") for _ in range(2)]
    assert torch.equal(heads[0].weight, heads[1].weight)


@pytest.mark.parametrize("spec", ["lineer", "mlp", "mlp:", "mlp:0", "mlp:a", "mlp:3,", ""])
def test_an_unknown_spec_is_one_clear_line(spec):
    with pytest.raises(ModelError, match=r"a head is linear, nearest, knn:5, all-layers, or mlp: and widths"):
        new_head(nn.Linear(4, 2), spec, 3)


def test_replace_hands_the_old_module_back():
    model = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(4, 2)))
    old, new = model[1][0], nn.Linear(4, 9)
    assert replace(model, "1.0", new) is old
    assert model[1][0] is new


def test_a_model_without_any_linear_layer_is_refused():
    with pytest.raises(ModelError, match="no linear or convolution layer"):
        find_head(nn.Sequential(nn.Flatten(), nn.ReLU()))
