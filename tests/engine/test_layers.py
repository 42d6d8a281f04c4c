"""Layers: where they start, what belongs to them, and that looking changes nothing."""

import hashlib
import time

import pytest
import torch
import torchvision.models as tv
from architectures import real
from networks import small
from oddities import Decides, Functional, Maskable, Outer, PreActivation, Recurrent, Text, Tied, Twice
from torch import nn
from torchvision.models.feature_extraction import get_graph_node_names

from tlnb.engine.models.convnet5 import HEAD, convnet5
from tlnb.engine.network.layers import LayerMap, find_layers
from tlnb.errors import ModelError

VECTORS = torch.linspace(-1, 1, 32).reshape(4, 8)


def owner(layers: LayerMap, name: str) -> str:
    """Name of the layer that has the weight or buffer ``name``."""
    (found,) = [layer.name for layer in layers if name in layer.parameter_names + layer.buffer_names]
    return found


def test_convnet5_has_five_convolutions_and_three_linear_layers():
    layers = find_layers(convnet5(10), torch.zeros(2, 1, 32, 32), HEAD)
    assert [layer.kind for layer in layers] == ["Conv2d"] * 5 + ["Linear"] * 3
    assert layers.head == (7,)
    assert layers.body == tuple(range(7))
    assert layers[4].shape == (128 * 4 * 4,)
    assert layers[7].shape == (10,)


def test_norms_and_activations_belong_to_the_layer_they_follow():
    layers = find_layers(small(), torch.zeros(2, 1, 8, 8))
    assert layers.names == ("body.0", "body.4", "body.8", "head")
    assert layers[0].module_names == ("body.0", "body.1", "body.2", "body.3")
    assert layers[0].parameter_names == ("body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias")
    assert layers[0].buffer_names == (
        "body.1.running_mean", "body.1.running_var", "body.1.num_batches_tracked"
    )  # fmt: skip
    assert layers[2].shape == (8,), "pooling and flatten stand before the head"
    assert layers[2].module_names[-1] == "flat"
    assert not any("body" in layer.module_names for layer in layers), "body reaches over three layers"


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("resnet18", ["Conv2d"] + ["BasicBlock"] * 8 + ["Linear"]),
        (
            "mobilenet_v2",
            ["Conv2dNormActivation", *["InvertedResidual"] * 17, "Conv2dNormActivation", "Linear"],
        ),
        ("alexnet", ["Conv2d"] * 5 + ["Linear"] * 3),
    ],
)  # fmt: skip
def test_kinds(name, kinds):
    model, example = real(name)
    assert [layer.kind for layer in find_layers(model, example)] == kinds


def test_loose_weights_belong_to_the_span_they_are_read_in():
    model = tv.VisionTransformer(32, 16, 3, 2, 24, 48, num_classes=5)
    layers = find_layers(model, torch.zeros(2, 3, 32, 32), "heads")
    assert layers.names == (
        "conv_proj", *(f"encoder.layers.encoder_layer_{i}" for i in range(3)), "heads.head"
    )  # fmt: skip
    assert owner(layers, "class_token") == owner(layers, "encoder.pos_embedding") == "conv_proj"
    assert owner(layers, "encoder.ln.weight") == "encoder.layers.encoder_layer_2"
    assert layers[1].shape == (5, 24)


@pytest.mark.parametrize(
    ("name", "weight", "layer"),
    [
        ("googlenet", "aux1.fc1.weight", "inception4a"),
        ("googlenet", "aux2.conv.bn.running_mean", "inception4d"),
        ("inception_v3", "AuxLogits.fc.weight", "Mixed_6e"),
    ],
)
def test_an_auxiliary_head_belongs_to_the_layer_it_branches_off(name, weight, layer):
    model, example = real(name, 96)
    assert owner(find_layers(model, example), weight) == layer


def test_order_agrees_with_the_node_names_of_torchvision():
    for name in ("resnet18", "squeezenet1_1", "shufflenet_v2_x0_5"):
        model, example = real(name)
        nodes = get_graph_node_names(model)[1]
        places = [
            next(i for i, node in enumerate(nodes) if f"{node}.".startswith(f"{layer.name}."))
            for layer in find_layers(model, example)
        ]
        assert places == sorted(places)


def test_the_head_takes_its_own_norm_and_dropout_with_it():
    model = nn.Sequential(
        nn.Linear(8, 8), nn.ReLU(), nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 2))
    )
    layers = find_layers(model, VECTORS, "2")
    assert layers.head == (1,)
    assert layers[1].module_names == ("2", "2.0", "2.1", "2.2")
    assert layers[0].module_names == ("0", "1")


def test_a_head_of_several_layers():
    model = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2)))
    layers = find_layers(model, VECTORS, "1")
    assert (layers.body, layers.head) == ((0,), (1, 2))


def test_a_head_that_does_not_exist_is_refused():
    with pytest.raises(ModelError, match=r"no module 'claser'.*did you mean 'classifier'"):
        find_layers(convnet5(10), torch.zeros(2, 1, 32, 32), "claser")


def test_a_module_called_twice_makes_one_layer_of_all_between():
    layers = find_layers(Twice(), VECTORS)
    assert layers.names == ("first", "second", "last")
    assert owner(layers, "third.weight") == "second"
    assert "drop" in layers[1].module_names, "a shared dropout goes with its last call"


def test_a_tied_weight_belongs_to_the_first_layer():
    layers = find_layers(Tied(), torch.zeros(2, 5, dtype=torch.long))
    assert layers.names == ("embedding", "middle", "out")
    assert layers[0].parameter_names == ("embedding.weight",)
    assert layers[2].parameter_names == ()


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("mask", [False, True])
def test_a_text_model_has_a_layer_for_each_transformer_layer(mask, nested):
    layers = find_layers(Text(mask, nested), Text.example())
    assert layers.names == ("embedding", *(f"encoder.layers.{i}" for i in range(3)), "classifier")
    assert owner(layers, "position") == owner(layers, "scale") == "embedding"
    cuts = layers.graph.cuts if layers.graph else None
    # A padding mask crosses every edge in the encoder, so only what lies behind it can be cut off; the
    # nested-tensor path of the encoder is no fixed graph.
    assert cuts == {
        (False, False): (0, 1, 2, 3, 4),
        (False, True): (0, 1, 2, 3, 4),
        (True, False): (0, 4),
    }.get((mask, nested))


def test_a_recurrent_model():
    layers = find_layers(Recurrent(), Text.example())
    assert [layer.kind for layer in layers] == ["Embedding", "LSTM", "Linear"]
    assert layers.graph.cuts == (0, 1, 2)


def test_what_cannot_be_traced_has_layers_in_the_order_of_its_calls():
    layers = find_layers(Decides(), VECTORS)
    assert layers.names == ("early", "middle", "late")
    assert layers.graph is None
    assert layers.note == (
        "no cut: its forward takes decisions that depend on the data, so it trains the ordinary way"
    )
    assert [layer.shape for layer in layers] == [(8,), (8,), (2,)]
    assert layers[0].buffer_names[0] == "norm.running_mean"
    assert len([n for layer in layers for n in layer.parameter_names if n.startswith("unused.")]) == 2


def test_a_part_that_cannot_be_traced_has_layers_inside_and_cuts_around():
    layers = find_layers(Outer(), VECTORS, "head")
    assert layers.names == ("stem", "inner.early", "inner.middle", "inner.late", "head.2")
    assert layers.graph.cuts == (0, 1, 4)
    assert layers[0].parameter_names == ("stem.weight", "stem.bias")
    assert "inner.offset" in layers[1].parameter_names


def test_every_weight_is_in_one_layer_also_of_odd_models():
    for model, example in [
        (Decides(), VECTORS), (Outer(), VECTORS), (Twice(), VECTORS), (Functional(), VECTORS),
        (Text(True, True), Text.example()), (Recurrent(), Text.example()), (nn.Linear(8, 2), VECTORS),
        (nn.Sequential(PreActivation(), PreActivation()), VECTORS), (Maskable(), VECTORS),
        (torch.jit.script(nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2))), VECTORS),
    ]:  # fmt: skip
        layers = find_layers(model, example)
        names = sorted(n for layer in layers for n in layer.parameter_names + layer.buffer_names)
        assert names == sorted([*dict(model.named_parameters()), *dict(model.named_buffers())])
        assert sum(layer.parameters for layer in layers) == sum(p.numel() for p in model.parameters())
        assert (layers.graph is None) == (layers.note is not None)
        assert layers.note is None or (layers.note.startswith("no cut: ") and "\n" not in layers.note)


def test_a_single_module_is_one_layer():
    layers = find_layers(nn.Linear(8, 2), VECTORS)
    assert (layers[0].kind, layers.head, layers.body) == ("Linear", (0,), ())
    assert layers.note == "no cut: the network is a single layer"


def test_a_norm_or_a_scale_never_starts_a_layer():
    model = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.PReLU(8), nn.GroupNorm(2, 8), nn.Linear(8, 1))
    assert find_layers(model, VECTORS).names == ("1", "4")


def test_a_stage_of_like_blocks_is_opened():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

        def forward(self, x):
            return x + self.down(self.up(x))

    class Stage(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(Block() for _ in range(3))

        def forward(self, x):
            for block in self.blocks:
                x = block(x)
            return x

    layers = find_layers(nn.Sequential(Stage(), Stage(), Stage(), nn.Linear(8, 2)), VECTORS)
    assert layers.names == (*(f"{s}.blocks.{b}" for s in range(3) for b in range(3)), "3")


def test_branches_inside_a_heavy_module_stay_together_under_its_name():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(8, 64), nn.Linear(8, 64)

        def forward(self, x):
            return self.left(x) + self.right(x)

    layers = find_layers(nn.Sequential(nn.Linear(8, 8), Branches(), nn.Linear(64, 2)), VECTORS)
    assert layers.names == ("0", "1", "2")
    assert layers[1].kind == "Branches"


def test_looking_changes_nothing():
    model, example = real("googlenet")
    model.train()
    model.aux1.eval()
    model(example).logits.sum().backward()
    before, flags = state(model), [m.training for m in model.modules()]
    random = torch.get_rng_state()
    find_layers(model, example)
    assert state(model) == before
    assert [m.training for m in model.modules()] == flags
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_looking_at_what_cannot_be_traced_changes_nothing():
    model = Decides().train()
    before, random = state(model), torch.get_rng_state()
    find_layers(model, VECTORS)
    assert state(model) == before
    assert model.norm.training
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def state(model):
    parts = [t.detach().numpy().tobytes() for t in model.state_dict().values()]
    parts += [b"none" if p.grad is None else p.grad.numpy().tobytes() for p in model.parameters()]
    return hashlib.sha256(b"".join(parts)).hexdigest(), sorted(vars(model))


def test_an_example_that_does_not_fit_is_one_line():
    with pytest.raises(ModelError, match=r"cannot run on a batch of shape \(3, 3, 8, 8\)") as raised:
        find_layers(small(), torch.zeros(5, 3, 8, 8))
    assert "\n" not in str(raised.value)


def test_lazy_weights_are_refused():
    with pytest.raises(ModelError, match=r"'0\.weight' is not made yet"):
        find_layers(nn.Sequential(nn.LazyLinear(3)), VECTORS)


def test_one_sample_is_enough():
    assert find_layers(convnet5(10), torch.zeros(1, 1, 32, 32)).graph.cuts == tuple(range(8))


def test_describe():
    layers = find_layers(convnet5(10), torch.zeros(2, 1, 32, 32))
    first, last = layers.names[0], layers.names[4]
    assert layers.describe(range(5)) == f"layers 0–4 ({first} … {last})"
    assert layers.describe([7]) == "layer 7 (classifier.7)"
    assert layers.describe([7, 0]) == f"layers 0, 7 ({first}, classifier.7)"
    assert layers.describe([]) == "no layers"


def test_resnet18_is_quick():
    model, example = real("resnet18")
    find_layers(model, example)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        find_layers(model, example)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.5
