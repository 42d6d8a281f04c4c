"""The clean cut: two parts that together are the model, share all with it, and disturb nothing."""

from collections import OrderedDict

import pytest
import torch
from architectures import real
from networks import small
from oddities import Functional, Maskable, Noisy, Outer, PreActivation, Recurrent, Text
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from tlnb.engine.models.convnet5 import convnet5
from tlnb.engine.network.layers import find_layers
from tlnb.errors import ModelError

VECTORS = torch.linspace(-1, 1, 32).reshape(4, 8)


def graph_of(model, example):
    return find_layers(model, example).graph


@pytest.mark.parametrize(
    ("make", "example"),
    [
        (lambda: convnet5(10), torch.linspace(-1, 1, 3 * 1024).reshape(3, 1, 32, 32)),
        (small, torch.linspace(-1, 1, 5 * 64).reshape(5, 1, 8, 8)),
        (Text, Text.example()),
        (lambda: Text(mask=True), Text.example()),
        (Recurrent, Text.example()),
        (Functional, VECTORS),
        (Noisy, VECTORS),
        (Outer, VECTORS),
        (Maskable, VECTORS),
    ],
)
def test_both_parts_together_are_the_model_in_test_mode(make, example):
    torch.manual_seed(0)
    model = make().eval()
    graph = graph_of(model, example)
    with torch.no_grad():
        # Another batch size than the samples that were looked at, and a single sample.
        for batch in (example, example[:1]):
            expected = model(batch)
            for cut in graph.cuts:
                prefix, tail = graph.split(cut)
                assert torch.equal(tail.eval()(prefix(batch)), expected), cut


@pytest.mark.parametrize("make", [Functional, Noisy])
def test_in_training_the_tail_does_what_the_model_does(make):
    torch.manual_seed(0)
    model = make().train()
    graph = graph_of(model, VECTORS)
    torch.manual_seed(1)
    expected = model(VECTORS)
    tail = graph.tail(0)
    torch.manual_seed(1)
    assert torch.equal(tail(VECTORS), expected)
    torch.manual_seed(2)
    assert not torch.equal(tail(VECTORS), expected), "it draws anew at each call"


def test_functional_dropout_follows_the_flag_of_the_tail():
    graph = graph_of(Functional().train(), VECTORS)
    prefix, tail = graph.split(1)
    crossing = prefix(VECTORS)
    assert torch.equal(prefix(VECTORS), crossing), "the prefix is in test mode whatever the model is in"
    assert not torch.equal(tail(crossing), tail(crossing))
    tail.eval()
    assert torch.equal(tail(crossing), tail(crossing))


def test_functional_dropout_of_a_frozen_layer_behind_a_trainable_one_stays_off():
    model = Functional().train()
    graph = graph_of(model, VECTORS)
    off = graph.tail(0, frozen=(0, 1, 2))
    assert torch.equal(off(VECTORS), off(VECTORS))
    assert torch.equal(off(VECTORS), model.eval()(VECTORS))
    one_on = graph.tail(0, frozen=(1, 2))
    torch.manual_seed(0)
    got = one_on(VECTORS)
    torch.manual_seed(0)
    dropped = nn.functional.dropout(model.one(VECTORS), 0.5)
    assert torch.equal(got, model.four(model.three(model.two(dropped))))


def test_a_branch_for_training_in_a_frozen_layer_is_not_taken():
    model = Noisy().train()
    graph = graph_of(model, VECTORS)
    assert graph.cuts == (0, 1, 2)
    tail = graph.tail(0, frozen=(1,))
    assert torch.equal(tail(VECTORS), model.eval()(VECTORS))
    assert not torch.equal(graph.tail(0)(VECTORS), model(VECTORS))


def test_auxiliary_answers_of_the_prefix_are_none():
    model, example = real("googlenet")
    layers = find_layers(model.train(), example)
    branch = layers.names.index("inception4a")
    before, behind = layers.graph.tail(branch), layers.graph.tail(branch + 1)
    prefixes = [layers.graph.split(cut)[0] for cut in (branch, branch + 1)]
    with torch.no_grad():
        whole, part = (tail(p(example)) for tail, p in zip((before, behind), prefixes, strict=True))
    assert type(whole).__name__ == type(part).__name__ == "GoogLeNetOutputs"
    assert whole.aux_logits1 is not None
    assert whole.aux_logits2 is not None
    assert part.aux_logits1 is None
    assert part.aux_logits2 is not None
    frozen_head = layers.graph.tail(0, frozen=layers.head)
    with torch.no_grad():
        answer = frozen_head(example)
    assert answer.logits.shape == answer.aux_logits1.shape == (2, 1000)


def test_gradients_are_those_of_the_whole_model():
    torch.manual_seed(0)
    model = convnet5(10, dropout=0.0).train()
    images, layers = torch.randn(6, 1, 32, 32), find_layers(model, torch.zeros(2, 1, 32, 32))
    modules = dict(model.named_modules())
    for layer in layers[:3]:
        for name in layer.module_names:
            modules[name].eval()
        for name in layer.parameter_names:
            model.get_parameter(name).requires_grad = False
    model(images).square().sum().backward()
    expected = [p.grad.clone() for p in model.parameters() if p.requires_grad]
    model.zero_grad()
    prefix, tail = layers.graph.split(3)
    with torch.inference_mode():
        crossing = prefix(images)
    tail(crossing).square().sum().backward()
    got = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    assert {name for name, p in tail.named_parameters() if p.grad is not None} == {
        name for layer in layers[3:] for name in layer.parameter_names
    }


def test_the_prefix_gives_what_the_feature_extractor_of_torchvision_gives():
    model, example = real("resnet18")
    layers = find_layers(model.eval(), example)
    names = ["maxpool", *layers.names[1:8]]
    extractor = create_feature_extractor(model, names).eval()
    with torch.no_grad():
        features = extractor(example)
        for cut, name in enumerate(names, start=1):
            assert torch.equal(layers.graph.split(cut)[0](example), features[name]), name


def test_modes_of_the_model_are_its_own():
    model = small().train()
    model.body[1].eval()
    flags = [m.training for m in model.modules()]
    prefix, tail = graph_of(model, torch.zeros(2, 1, 8, 8)).split(1)
    crossing = prefix(torch.randn(3, 1, 8, 8))
    tail.eval()
    prefix.train()
    tail.train()
    tail(crossing)
    assert [m.training for m in model.modules()] == flags


def test_the_prefix_leaves_running_statistics_alone():
    model = small().train()
    prefix, _ = graph_of(model, torch.zeros(2, 1, 8, 8)).split(2)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    prefix(torch.randn(3, 1, 8, 8))
    assert len(before) == 9
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def test_parts_own_nothing_and_list_what_they_use():
    model = small()
    layers = find_layers(model, torch.zeros(2, 1, 8, 8))
    prefix, tail = layers.graph.split(2)
    assert dict(tail.state_dict()) == dict(prefix.state_dict()) == {}
    assert list(tail.children()) == []
    for part, own in ((prefix, layers[:2]), (tail, layers[2:])):
        assert [name for name, _ in part.named_parameters()] == [
            n for layer in own for n in layer.parameter_names
        ]
        assert [name for name, _ in part.named_buffers()] == [n for layer in own for n in layer.buffer_names]
        assert all(p is model.get_parameter(name) for name, p in part.named_parameters())
    assert tail.shared_modules()["head"] is model.head
    with torch.no_grad():
        model.head.bias += 1.0
        before = tail.eval()(torch.zeros(1, 4, 8, 8))
        model.double()
        after = tail(torch.zeros(1, 4, 8, 8, dtype=torch.float64))
    assert after.dtype == torch.float64
    assert torch.allclose(before.double(), after, atol=1e-6)


def test_the_input_of_a_tail_is_never_changed():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), PreActivation(), PreActivation(), nn.Linear(8, 2)).eval()
    graph = graph_of(model, VECTORS)
    prefix, tail = graph.split(1)
    crossing = prefix(VECTORS).detach()
    kept = crossing.clone()
    assert kept.min() < 0, "else the activation has nothing to change"
    for mode in (True, False, True, False):
        answers = [tail.train(mode)(crossing) for _ in range(3)]
        assert torch.equal(crossing, kept)
        assert torch.equal(answers[0], answers[2])
    with torch.inference_mode():
        tail(crossing)
    assert torch.equal(crossing, kept)


def test_dropout_in_place_does_not_change_the_input_once_it_is_switched_on():
    block = nn.Sequential(nn.Dropout(0.5, inplace=True), nn.Linear(8, 8))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = block

        def forward(self, x):
            return self.inside(x)

    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 64), nn.Linear(64, 8), Block()).eval()
    _, tail = graph_of(model, VECTORS).split(3)
    crossing = torch.ones(4, 8)
    tail(crossing)
    block.train()
    tail(crossing)
    assert torch.equal(crossing, torch.ones(4, 8))


def test_a_part_as_graph_module():
    model = small().eval()
    prefix, _ = graph_of(model, torch.zeros(2, 1, 8, 8)).split(2)
    images = torch.randn(3, 1, 8, 8)
    module = prefix.graph_module()
    assert torch.equal(module(images), prefix(images))


def test_a_segment_leads_from_one_cut_to_another():
    model = small().eval()
    graph = graph_of(model, torch.zeros(3, 1, 8, 8))
    images = torch.randn(4, 1, 8, 8)
    first, both = graph.split(1)[0], graph.split(3)[0]
    assert torch.equal(graph.segment(1, 3)(first(images)), both(images))


def test_a_place_without_a_clean_cut_is_refused():
    graph = graph_of(Outer(), VECTORS)
    with pytest.raises(ModelError, match=r"no clean cut before layer 2; cuts are 0, 1, 4"):
        graph.split(2)
    with pytest.raises(ModelError, match="no clean cut before layer 9"):
        graph.tail(9)


def test_a_sequence_first_tensor_is_no_clean_cut():
    class SequenceFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.three = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            hidden = self.two(self.one(x).transpose(0, 1))
            return self.three(hidden.transpose(0, 1))

    layers = find_layers(SequenceFirst(), torch.randn(4, 5, 8))
    assert layers.names == ("one", "two", "three")
    assert layers.graph.cuts == (0, 2), "samples must stand in front, for features are kept sample by sample"


def test_a_model_that_draws_random_numbers_while_it_is_traced_has_no_cut():
    class Drawn(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.two(self.one(x) + 0 * torch.rand(8))

    layers = find_layers(Drawn(), VECTORS)
    assert layers.names == ("one", "two")
    assert layers.note.startswith("no cut: its forward draws random numbers of its own")


@pytest.mark.parametrize("name", ['a"b', "a'b", "a\\b", 'x")\nraise SystemExit("ran")#'])
def test_a_name_that_would_be_code_is_never_compiled(name):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(OrderedDict({name: nn.Linear(4, 4), "more": nn.Linear(4, 4)}))
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.body(x))

    layers = find_layers(Named(), torch.zeros(2, 4))
    assert layers.graph is None
    assert "quote" in layers.note
    assert len(layers) == 3
