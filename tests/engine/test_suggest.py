"""Rules on curves whose answer is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from tlnb.engine.rates.smoothing import clear_fall, noise, smooth

from tlnb.engine.rates import suggest
from tlnb.engine.rates.suggest import RULES

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
    found = np.log10(suggest.steepest(RATES, sigmoid(centre)))
    assert found == pytest.approx(centre, abs=0.01)  # neighbours are 0.08 apart


def test_minimum_is_a_tenth_of_the_lowest_rate():
    losses = (np.log10(RATES) + 2) ** 2
    lowest = RATES[np.argmin(losses)]
    assert suggest.minimum(RATES, losses) == pytest.approx(lowest / 10)


@pytest.mark.parametrize(("down", "up"), [(-4, -2.2), (-3.2, -1.5), (-2.5, -0.5)])
def test_basin_is_a_quarter_along_the_floor(down, up):
    # Four fifths of a sigmoid of width 0.2 are done 0.28 decades after its centre; the rise of width 0.05 and
    # height 3 passes a tenth of the fall (0.2) 0.13 decades before its own.
    first, last = down + 0.2 * np.log(4), up - 0.05 * np.log(14)
    expected = first + (last - first) / 4
    assert np.log10(suggest.basin(RATES, basin_curve(down, up))) == pytest.approx(expected, abs=0.08)


def test_basin_goes_to_the_end_of_a_sweep_that_never_explodes():
    first = -0.5 + 0.2 * np.log(4)
    found = np.log10(suggest.basin(RATES, sigmoid(-0.5, 0.2)))
    assert found == pytest.approx(first + (1 - first) / 4, abs=0.08)


@pytest.mark.parametrize("up", [-0.5, 0.5, 5.0])
def test_basin_stays_near_the_descent_however_wide_the_floor_is(up):
    # The end of a wide floor says where the loss explodes, not where training goes well.
    expected = -4 + np.log10(suggest.CAP)
    assert np.log10(suggest.basin(RATES, basin_curve(-4, up))) == pytest.approx(expected, abs=0.08)


def test_basin_is_cautious_where_scores_die_quietly_at_high_rates():
    # A head with ReLU: the loss falls, stays low for two decades, and creeps up to chance without exploding.
    losses = sigmoid(-2.4, 0.25, high=1.2, low=0.35) + 0.05 / (1 + np.exp(-(np.log10(RATES) - 0.5) / 0.2))
    assert 5e-3 < suggest.basin(RATES, losses) < 3e-2


def test_valley_is_the_middle_of_the_descent():
    assert np.log10(suggest.valley(RATES, sigmoid(-3))) == pytest.approx(-3, abs=0.08)


def test_valley_takes_the_deeper_of_two_descents_and_bridges_a_bump():
    log = np.log10(RATES)
    two = 2.0 - 0.3 / (1 + np.exp(-(log + 6) / 0.05)) + 0.3 / (1 + np.exp(-(log + 5) / 0.05))
    two -= 1.5 / (1 + np.exp(-(log + 2) / 0.05))
    assert np.log10(suggest.valley(RATES, two)) == pytest.approx(-2, abs=0.1)
    bump = sigmoid(-3) + 0.02 * np.exp(-(((log + 2) / 0.05) ** 2))
    assert np.log10(suggest.valley(RATES, bump)) == pytest.approx(-3, abs=0.1)


def test_brink_keeps_away_from_the_explosion_and_needs_no_fall():
    flat = 0.05 + 3 / (1 + np.exp(-(np.log10(RATES) + 1) / 0.02))
    found = suggest.brink(RATES, flat)
    assert 0.1 / 10 / 2 < found < 0.1 / 10
    assert suggest.basin(RATES, np.minimum(flat, 0.05)) is None
    assert suggest.brink(RATES, sigmoid(-3)) is None, "it never rises"


def test_order_of_the_rules_on_a_usual_curve():
    found = {name: rule(RATES, basin_curve(-4, -1)) for name, rule in RULES.items()}
    assert found["steepest"] < min(found["minimum"], found["basin"])
    assert max(found["minimum"], found["basin"]) < 0.1
    assert found["brink"] < 0.1


@pytest.mark.parametrize("name", RULES)
def test_no_rule_answers_on_a_flat_or_short_curve(name):
    assert RULES[name](RATES, np.full(100, 2.3)) is None
    assert RULES[name](RATES[:5], np.array([5.0, 4, 3, 2, 1])) is None
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


def test_smoothing_keeps_a_straight_line_in_place_and_stops_an_explosion():
    line = np.linspace(3, 1, 101)
    assert smooth(line)[20:80] == pytest.approx(line[20:80], abs=1e-2), "no lag"
    exploded = np.concatenate([np.full(50, 2.0), [1e6]])
    assert smooth(exploded)[45] < 2.3


def test_smoothing_starts_with_the_mean_of_the_first_points_not_with_the_first():
    rng = np.random.default_rng(0)
    firsts = [smooth(2 + 0.5 * rng.standard_normal(100))[0] for _ in range(500)]
    assert np.std(firsts) < 0.25


def test_the_noise_that_is_left_is_estimated_rightly():
    rng = np.random.default_rng(0)
    curves = [2 + 0.5 * rng.standard_normal(100) for _ in range(300)]
    left = np.std([smooth(c)[50] for c in curves])
    assert np.median([noise(c) for c in curves]) == pytest.approx(left, rel=0.25)


@pytest.mark.parametrize("scatter", [0.02, 0.3, 1.0])
def test_noise_alone_is_rarely_taken_for_a_fall_and_a_fall_is_seen(scatter):
    rng = np.random.default_rng(1)
    flat = [2 * np.exp(scatter * rng.standard_normal(100)) for _ in range(400)]
    assert np.mean([clear_fall(c, smooth(c)) for c in flat]) < 0.03
    falling = [sigmoid(-3) + 0.3 * scatter * rng.standard_normal(100) for _ in range(100)]
    assert np.mean([clear_fall(c, smooth(c)) for c in falling]) > 0.95
