"""Rules on curves whose answer is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from tlnb.engine.training import lr_curve
from tlnb.engine.training.lr_curve import RULES

RATES = np.geomspace(1e-7, 10, 100)
FALLING_RULES = [name for name in RULES if name != "brink"]


def sigmoid(centre: float, width: float = 0.5, high: float = 2.3, low: float = 0.3) -> np.ndarray:
    """A loss that falls from high to low; steepest exactly at ``centre`` in log10 of the rate."""
    return low + (high - low) / (1 + np.exp((np.log10(RATES) - centre) / width))


def basin_curve(down: float, up: float) -> np.ndarray:
    """Falls at 10**down, explodes at 10**up."""
    return sigmoid(down, 0.2) + 3 / (1 + np.exp(-(np.log10(RATES) - up) / 0.05))


@pytest.mark.parametrize("centre", [-3.0, -2.9871, -2.5, -1.93])
def test_steepest_finds_the_centre_of_a_sigmoid_between_the_sampled_rates(centre):
    found = np.log10(lr_curve.steepest(RATES, sigmoid(centre)))
    assert found == pytest.approx(centre, abs=0.01)  # neighbours are 0.08 apart


def test_minimum_is_a_tenth_of_the_lowest_rate():
    losses = (np.log10(RATES) + 2) ** 2
    lowest = RATES[np.argmin(losses)]
    assert lr_curve.minimum(RATES, losses) == pytest.approx(lowest / 10)


@pytest.mark.parametrize("lowest", [-3.0, -2.63, -1.11])
@pytest.mark.parametrize("closest", [1.0, 0.25])
def test_basin_lies_below_the_lowest_place_of_the_parabola(lowest, closest):
    # Half decades, and quarter decades near the lowest place, as the range test measures them.
    log = np.array([-5, -4.5, *np.arange(-4, -0.5, closest), -0.5, 0])
    found = lr_curve.basin(10**log, 2 + (log - lowest) ** 2)
    assert found == pytest.approx(lr_curve.SAFE * 10**lowest)


def test_basin_takes_the_last_rate_where_the_loss_still_falls():
    assert lr_curve.basin(RATES, np.linspace(3, 1, 100)) == pytest.approx(lr_curve.SAFE * 10)


def test_valley_is_the_middle_of_the_descent():
    assert np.log10(lr_curve.valley(RATES, sigmoid(-3))) == pytest.approx(-3, abs=0.08)


def test_valley_takes_the_deeper_of_two_descents_and_bridges_a_bump():
    log = np.log10(RATES)
    two = 2.0 - 0.3 / (1 + np.exp(-(log + 6) / 0.05)) + 0.3 / (1 + np.exp(-(log + 5) / 0.05))
    two -= 1.5 / (1 + np.exp(-(log + 2) / 0.05))
    assert np.log10(lr_curve.valley(RATES, two)) == pytest.approx(-2, abs=0.1)
    bump = sigmoid(-3) + 0.02 * np.exp(-(((log + 2) / 0.05) ** 2))
    assert np.log10(lr_curve.valley(RATES, bump)) == pytest.approx(-3, abs=0.1)


def test_brink_keeps_away_from_the_explosion_and_needs_no_fall():
    flat = 0.05 + 3 / (1 + np.exp(-(np.log10(RATES) + 1) / 0.02))
    found = lr_curve.brink(RATES, flat)
    assert 0.1 / 10 / 2 < found < 0.1 / 10
    assert lr_curve.basin(RATES, np.minimum(flat, 0.05)) is None
    assert lr_curve.brink(RATES, sigmoid(-3)) is None, "it never rises"


def test_order_of_the_rules_on_a_usual_curve():
    found = {name: rule(RATES, basin_curve(-4, -1)) for name, rule in RULES.items()}
    assert found["steepest"] < min(found["minimum"], found["basin"])
    assert found["minimum"] < found["basin"] < 0.1
    assert found["brink"] < 0.1


@pytest.mark.parametrize("name", RULES)
def test_no_rule_answers_on_a_flat_or_short_curve(name):
    assert RULES[name](RATES, np.full(100, 2.3)) is None
    assert RULES[name](RATES[:2], np.array([5.0, 4])) is None
    assert RULES[name](RATES[:0], np.array([])) is None


@pytest.mark.parametrize("name", FALLING_RULES)
def test_no_rule_answers_on_a_curve_that_only_rises(name):
    assert RULES[name](RATES, 1 + np.arange(100) / 10) is None


@pytest.mark.parametrize("name", FALLING_RULES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_comes_after_the_first_non_finite_loss_does_not_count(name, bad):
    losses = sigmoid(-3)
    losses[70] = bad
    losses[71:] = -100
    assert RULES[name](RATES, losses) == RULES[name](RATES[:70], losses[:70])


def test_nan_from_the_first_step_is_no_answer():
    assert {rule(RATES, np.full(100, np.nan)) for rule in RULES.values()} == {None}
