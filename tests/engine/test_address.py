"""Addresses: every form that hits, and every wrong word as one line that helps."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tlnb.engine.network.address import select
from tlnb.engine.network.layers import find_layers
from tlnb.errors import AddressError


def network(linears=3):
    features = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.ReLU())
    stages = nn.Sequential(*(nn.Linear(4, 4) for _ in range(linears)))
    model = nn.Sequential()
    model.add_module("features", features)
    model.add_module("pool", nn.AdaptiveAvgPool2d((2, 1)))
    model.add_module("flat", nn.Flatten())
    model.add_module("stage1", stages)
    model.add_module("stage10", nn.Linear(4, 4))
    model.add_module("head", nn.Linear(4, 3))
    return find_layers(model.eval(), torch.zeros(2, 1, 8, 8), "head")


LAYERS = network()
# 0 features.0, 1 features.3, 2 stage1.0, 3 stage1.1, 4 stage1.2, 5 stage10, 6 head


@pytest.mark.parametrize(
    ("address", "hits"),
    [
        ("0:5", (0, 1, 2, 3, 4)), ("-1:", (6,)), (":3", (0, 1, 2)), ("::2", (0, 2, 4, 6)), ("-1", (6,)),
        ("3", (3,)), ("2:4,6", (2, 3, 6)), (" 2:4 , 6 ", (2, 3, 6)), ("6,0,6", (0, 6)), ("1 : 3", (1, 2)),
        ("-3:-1", (4, 5)), ("0:7", tuple(range(7))), ("::-1", tuple(range(7))), ("features.0", (0,)),
        ("features", (0, 1)), ("stage1", (2, 3, 4)), ("stage1.1", (3,)), ("stage10", (5,)),
        ("features.*", (0, 1)), ("stage1*", (2, 3, 4, 5)), ("stage1.[02]", (2, 4)), ("*", tuple(range(7))),
        ("body", (0, 1, 2, 3, 4, 5)), ("head", (6,)), ("all", tuple(range(7))), ("none", ()),
        ("stage1,head", (2, 3, 4, 6)),
        (3, (3,)), (-1, (6,)), (slice(2), (0, 1)), (slice(None, None, 3), (0, 3, 6)), (range(2, 4), (2, 3)),
        ([1, "head"], (1, 6)), ((0, -1), (0, 6)), ([], ()), (torch.tensor(2), (2,)), ({1, 0}, (0, 1)),
    ],
)  # fmt: skip
def test_hits(address, hits):
    assert select(address, LAYERS) == hits


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("9:12", "no layer '9:12'"), ("7", "no layer '7'"), ("-8", "no layer '-8'"),
        ("0:8", "no layer '0:8'"),
        ("3:3", "no layer '3:3'"), ("5:2", "no layer '5:2'"),
        ("::0", "no layer '::0'"), ("1,9", "no layer '9'"),
        ("featurs.0", "nearest: 'features.0'"), ("boddy", "nearest: 'body'"), 
        ("stage", "nearest: 'stage1'"),
        ("Head", "nearest: 'head'"), ("xyz.*", "no layer 'xyz.*'"), ("1.5", "no layer '1.5'"),
        ("1:2:3:4", "no layer '1:2:3:4'"), ("", "empty"), ("1,,2", "empty"), (9, "no layer '9'"),
        (None, "None"), (True, "True"), (2.5, "2.5"), ([0, 9], "no layer '9'"),
        (slice(9, 12), "no layer '9:12'"),
    ],
)  # fmt: skip
def test_misses(address, says):
    with pytest.raises(AddressError) as raised:
        select(address, LAYERS)
    message = str(raised.value)
    assert says in message
    assert "\n" not in message
    assert "layers are 0-6: 0 features.0, 1 features.3" in message
    assert message.endswith("6 head")


@pytest.mark.parametrize(("name", "holder"), [("features.1", "features.0"), ("stage1.1.weight", "stage1.1")])
def test_a_name_inside_a_layer_says_which_layer(name, holder):
    with pytest.raises(AddressError, match=f"{name!r} lies inside .*layers are whole, so name '{holder}'"):
        select(name, LAYERS)


def test_many_layers_are_listed_briefly():
    layers = network(linears=20)
    with pytest.raises(AddressError) as raised:
        select("99", layers)
    assert "layers are 0-23: 0 features.0, " in str(raised.value)
    assert ", ..., " in str(raised.value)
    assert len(str(raised.value)) < 200


@given(st.integers(-7, 6), st.integers(-7, 7), st.integers(1, 4))
def test_ranges_mean_what_they_mean_in_python(start, stop, step):
    expected = tuple(range(7)[start:stop:step])
    if expected:
        assert select(f"{start}:{stop}:{step}", LAYERS) == expected
        assert select(slice(start, stop, step), LAYERS) == expected
    else:
        with pytest.raises(AddressError):
            select(f"{start}:{stop}:{step}", LAYERS)


@given(st.text(alphabet="0123456789:-,. abfehdotlr*[]?", max_size=8))
def test_any_text_hits_layers_or_is_refused_in_one_line(text):
    refused = ""
    try:
        found = select(text, LAYERS)
    except AddressError as error:
        refused = str(error)
        found = ()
    assert "\n" not in refused
    assert found == tuple(sorted(set(found)))
    assert set(found) <= set(range(7))
    assert found or refused or "none" in text
