"""Twelve architectures of transformers: layers, cuts with masks, frozen parts, one step of training."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

pytest.importorskip("transformers")

from transformer_configs import ALL, PICTURES, TEXTS, network, samples, tokens

from tlnb.engine.core.tree import CROSSING, Tree, call
from tlnb.engine.network.layers import LayerMap, find_layers
from tlnb.engine.network.replay import Replay

BLOCKS = {"albert": 1, "convnext": 4, "swin": 3}  # one that is called three times; blocks of several stages


def read(name: str) -> tuple[nn.Module, LayerMap]:
    model = network(name)
    layers = find_layers(model, samples(name))
    assert isinstance(layers.graph, Replay)
    return model, layers


@pytest.mark.parametrize("name", ALL)
def test_layers_are_embeddings_blocks_and_head(name):
    model, layers = read(name)
    assert "embeddings" in layers[0].name
    blocks = [layer for layer in layers if any(part.isdigit() for part in layer.name.split("."))]
    assert len(blocks) >= BLOCKS.get(name, 3)
    assert layers[-1].name.split(".")[0] == "classifier"
    assert layers.graph.cuts == tuple(range(len(layers)))
    owned = [n for layer in layers for n in layer.parameter_names]
    assert sorted(owned) == sorted(n for n, _ in model.named_parameters())


@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_each_cut_gives_the_answer_of_the_whole(name):
    model, layers = read(name)
    x = samples(name, 4)  # another number of samples than the example had
    whole = call(model, x).logits
    for cut in layers.graph.cuts[1:]:
        prefix, tail = layers.graph.split(cut)
        torch.testing.assert_close(call(tail.eval(), call(prefix, x)).logits, whole, rtol=1e-5, atol=1e-6)
        assert not any("forward" in vars(module) for module in model.modules()), "nothing stays in the model"


@pytest.mark.parametrize("name", ALL)
def test_a_step_behind_a_cut_is_a_step_of_the_whole_with_frozen_layers(name):
    model, layers = read(name)
    x, cut = samples(name), layers.graph.cuts[len(layers.graph.cuts) // 2]
    frozen = {n for layer in list(layers)[:cut] for n in layer.parameter_names}
    for n, parameter in model.named_parameters():
        parameter.requires_grad_(n not in frozen)
    prefix, tail = layers.graph.split(cut)

    def gradients(answer):
        model.zero_grad()
        answer.logits.square().sum().backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    model.train()
    for index in range(cut):
        for module in layers[index].module_names:
            model.get_submodule(module).training = False
    torch.manual_seed(0)
    whole = gradients(call(model, x))
    torch.manual_seed(0)
    short = gradients(call(tail.train(), call(prefix, x)))
    assert whole.keys() == short.keys()
    assert len(whole) > 1
    scale = max(g.abs().max() for g in whole.values())
    for n in whole:
        torch.testing.assert_close(short[n], whole[n], rtol=1e-3, atol=1e-4 * float(scale))


@pytest.mark.parametrize("name", TEXTS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(2, 12), min_size=2, max_size=5), more=st.integers(0, 6), data=st.data())
@torch.no_grad()
def test_padding_never_changes_an_answer(name, lengths, more, data):
    model, layers = _read_once(name)
    cut = data.draw(st.sampled_from([c for c in layers.graph.cuts[1:] if layers.graph.ragged(c)]))
    x = tokens(lengths, max(lengths) + more)
    together = call(model, x).logits
    prefix, tail = layers.graph.split(cut)
    for row, length in enumerate(lengths):
        alone = x[row : row + 1].map(lambda part, length=length: part[:, :length])
        torch.testing.assert_close(call(model, alone).logits[0], together[row], rtol=1e-3, atol=1e-4)
        kept = call(prefix, alone)[CROSSING]
        wide = torch.zeros(1, x["input_ids"].shape[1], kept.shape[2])
        wide[:, :length] = kept
        behind = call(tail.eval(), x[row : row + 1].with_part(CROSSING, wide)).logits[0]
        torch.testing.assert_close(behind, together[row], rtol=1e-3, atol=1e-4)


_READ: dict[str, tuple[nn.Module, LayerMap]] = {}


def _read_once(name: str) -> tuple[nn.Module, LayerMap]:
    if name not in _READ:
        _READ[name] = read(name)
    return _READ[name]


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_not_looked_at_behind_the_cut(name):
    _, layers = read(name)
    prefix, _ = layers.graph.split(layers.graph.cuts[1])
    assert isinstance(call(prefix, samples(name)), torch.Tensor)


class Two(nn.Module):
    """A picture and a row of a table, joined before the last layer."""

    def __init__(self, late: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8))
        self.table = nn.Linear(3, 4)
        self.last = nn.Linear(12, 2)
        self.late = late

    def forward(self, picture, row):
        first = self.table(row) if not self.late else None
        body = self.body(picture)
        return {"logits": self.last(torch.cat([body, self.table(row) if self.late else first], 1))}


@pytest.mark.parametrize("late", [False, True])
@torch.no_grad()
def test_a_network_of_two_inputs_is_cut_where_one_tensor_crosses(late):
    torch.manual_seed(0)
    model, x = Two(late), Tree({"picture": torch.rand(4, 6), "row": torch.rand(4, 3)})
    layers = find_layers(model, x, "last")
    assert [layer.name for layer in layers][-1] == "last"
    assert len(layers) == 4
    # Before the last layer two tensors cross; where the table is read first, before the last of the body as well.
    assert layers.graph.cuts == ((0, 1, 2) if late else (0, 1))
    for cut in layers.graph.cuts[1:]:
        prefix, tail = layers.graph.split(cut)
        answer = call(tail, call(prefix, x))["logits"]
        torch.testing.assert_close(answer, model(**x)["logits"])


def test_a_forward_that_calls_its_modules_in_another_order_has_no_cut():
    class Moody(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x, y):
            x = self.b(self.a(x)) if self.training else self.a(self.b(x))
            return self.c(x + y)

    layers = find_layers(Moody(), Tree({"x": torch.rand(3, 4), "y": torch.rand(3, 4)}))
    assert layers.graph is None
    assert "another order" in layers.note
