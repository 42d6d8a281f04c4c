"""What trains where nothing is said: by network, amount of data, and what is frozen."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from networks import small
from torch import nn

from tlnb.engine.network.layers import find_layers
from tlnb.engine.training.plan import DEEP, LOW, NORMED, Traits, default_plan, parse_plan, usual_epochs

LAYERS = find_layers(small(), torch.zeros(1, 1, 8, 8))
PLAIN, FEW, MANY = Traits(0, True), Traits(3, True), Traits(DEEP, True)
RANDOM = Traits(DEEP, False)


def test_a_text_network_learns_the_slower_the_wider_it_is_and_goes_on_from_the_fitted_head():
    assert Traits(0, True, words=384).rate == Traits(0, True, words=32).rate == 3e-4
    assert Traits(0, True, words=768).rate == 1.5e-4
    assert Traits(0, False, words=384).rate == RANDOM.rate
    small, more = (
        default_plan(LAYERS, (), count, Traits(0, True, words=384), fit=True) for count in (770, 2310)
    )
    assert small == "fit head\ntrain all epochs 10 lr 0.0003 blend auto"
    assert more == "fit head\ntrain all epochs 5 lr 0.0003 blend auto"


@pytest.mark.parametrize(
    ("traits", "rate", "bn"),
    [(PLAIN, LOW, "train"), (FEW, NORMED, "train"), (MANY, LOW, "frozen"), (RANDOM, NORMED, "train")],
)
def test_rate_and_statistics_follow_the_norm_layers(traits: Traits, rate: float, bn: str) -> None:
    assert (traits.rate, traits.bn) == (rate, bn)
    assert f"lr {rate:g}" in default_plan(LAYERS, (), 50, traits, fit=True)


def test_traits_are_counted_in_the_network() -> None:
    assert Traits.of(small(), trained=True) == replace(FEW, depth=4)
    deep = nn.Sequential(*(nn.BatchNorm1d(3) for _ in range(DEEP)))
    assert Traits.of(deep, trained=True).bn == "frozen"
    assert Traits.of(deep, trained=False).bn == "train"
    assert Traits.of(nn.Linear(2, 2), trained=True) == PLAIN


@pytest.mark.parametrize(
    ("images", "epochs"), [(15, 16), (100, 16), (101, 10), (400, 10), (401, 5), (9999, 5)]
)
def test_less_data_is_gone_through_more_often(images: int, epochs: int) -> None:
    assert usual_epochs(images) == epochs
    assert parse_plan(default_plan(LAYERS, (), images, FEW, fit=True), LAYERS, ())[-1].epochs == epochs


@pytest.mark.parametrize(
    ("frozen", "fit", "expected"),
    [
        ((), True, ["fit head", "train all"]),
        ((0, 1), True, ["fit head", "train 2:"]),
        ((0, 1, 2), True, ["fit head"]),
        ((), False, ["train all"]),
        ((0, 1, 2), False, ["train 3:"]),
        ((3,), True, ["train 0,1,2"]),
    ],
)
def test_what_is_frozen_stays_so_and_the_head_comes_first(
    frozen: tuple[int, ...], fit: bool, expected: list[str]
) -> None:
    lines = default_plan(LAYERS, frozen, 50, FEW, fit=fit).splitlines()
    assert [line.split(" epochs ")[0] for line in lines] == expected
    stages = parse_plan("\n".join(lines), LAYERS, ())
    assert stages[-1].frozen == frozen
    if "epochs" in lines[-1]:
        assert stages[-1].init == ("soft" if expected[0] == "fit head" else "keep")
        assert stages[-1].blend == "auto"


@pytest.mark.parametrize(
    ("images", "traits", "frozen", "fit", "expected"),
    [
        (60, PLAIN, (), True, "train 2:"),
        (60, MANY, (), True, "train 2:"),
        (61, PLAIN, (), True, "train all"),
        (60, FEW, (), True, "train all"),
        (60, RANDOM, (), True, "train all"),
        (60, PLAIN, (), False, "train all"),
        (60, PLAIN, (0,), True, "train 2:"),
        (60, PLAIN, (2,), True, "train 0,1,3"),
    ],
)
def test_a_handful_of_images_trains_the_last_part_of_a_pretrained_body(
    images: int, traits: Traits, frozen: tuple[int, ...], fit: bool, expected: str
) -> None:
    last = default_plan(LAYERS, frozen, images, traits, fit=fit).splitlines()[-1]
    assert last.split(" epochs ")[0] == expected


def test_random_weights_are_not_blended() -> None:
    assert "blend" not in default_plan(LAYERS, (), 50, RANDOM, fit=False)


NEAR = Traits(DEEP, True, biased=frozenset((0, 1, 2)), depth=DEEP)


@pytest.mark.parametrize(
    ("images", "frozen", "biased", "expected"),
    [
        (500, (), (0, 1, 2), ["adapt all bias", "train all"]),
        (500, (0,), (0, 1, 2), ["adapt 1: bias", "train 1:"]),
        (500, (0, 1), (0, 1), ["train 2:"]),  # the layers that are free have no bias
        (60, (), (0, 1, 2), ["adapt all bias", "train 2:"]),
        (60, (1,), (0,), ["adapt 0,2,3 bias", "train 2:"]),
        (500, (0, 1, 2), (0, 1, 2), []),
    ],
)
def test_biases_adapt_before_weights_train(
    images: int, frozen: tuple[int, ...], biased: tuple[int, ...], expected: list[str]
) -> None:
    traits = Traits(DEEP, True, biased=frozenset(biased), depth=DEEP)
    lines = default_plan(LAYERS, frozen, images, traits, fit=True).splitlines()
    assert [line.split(" epochs ")[0] for line in lines] == ["fit head", *expected]
    assert [line.endswith("guard strict") for line in lines[1:]] == [False, True][: len(expected)] or len(
        expected
    ) == 1
    stages = parse_plan("\n".join(lines), LAYERS, frozen)
    if len(expected) == 2:
        assert stages[1].lr == 1e-3
        assert dict(stages[1].adapted) == {i: "bias" for i in range(3) if i not in frozen}
        assert stages[1].frozen == frozen


@pytest.mark.parametrize(
    "traits",
    [
        Traits(DEEP, True, biased=NEAR.biased),  # not for pictures
        Traits(0, True, biased=NEAR.biased, depth=DEEP - 1),
        Traits(3, True, biased=NEAR.biased, depth=DEEP),
        Traits(DEEP, False, biased=NEAR.biased, depth=DEEP),
        Traits(0, True, words=384, biased=NEAR.biased, depth=DEEP),
    ],
)
def test_shallow_random_and_text_networks_train_at_once(traits: Traits) -> None:
    assert "adapt" not in default_plan(LAYERS, (), 500, traits, fit=True)
