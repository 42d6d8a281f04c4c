"""The range test on losses that are made up: which rates it tries, what it costs, what it says."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch

from tlnb.engine.training.lr_curve import DEFAULT_RULE, RULES, LRCurve
from tlnb.engine.training.lr_finder import judge, range_test
from tlnb.errors import BadArguments, TrainingError

USUAL = 1e-3


class Made:
    """A loss along a direction; keeps what was asked of it and told.

    Args:
        shape: the loss at log10 of a rate, -inf before any step.
        luck: of a batch, added to all its losses.
    """

    def __init__(self, shape, luck=lambda number: 0.0):
        self.shape, self.luck = shape, luck
        self.asked: list[tuple[float, int]] = []
        self.told: list[tuple[float, float]] = []

    def __call__(self, rate, number):
        self.asked.append((rate, number))
        return self.shape(math.log10(rate) if rate else -math.inf) + self.luck(number)

    def curve(self, batches=9, budget=18, usual=USUAL, **settings) -> LRCurve:
        return range_test(
            self,
            batches,
            usual=usual,
            budget=budget,
            on_point=lambda *point: self.told.append(point),
            **settings,
        )


def bowl(lowest):
    """Falls by 1 to its lowest place, and as fast up again."""
    return lambda log: 3 - math.exp(-((log - lowest) ** 2)) if log < lowest else 2 + (log - lowest) ** 2


SHAPES = {
    "a bowl": bowl(-3.3),
    "far below the usual rate": bowl(-6.0),
    "far above": bowl(0.0),
    "only falls": lambda log: 3 - 0.1 * max(log + 9, 0),
    "only rises": lambda log: 1 + 0.1 * max(log + 9, 0),
    "flat": lambda log: 2.3,
    "explodes": lambda log: 2.0 if log < -3.5 else 1e9,
    "not finite from a rate on": lambda log: bowl(-4.0)(log) if log < -3.1 else math.nan,
    "never finite": lambda log: math.inf,
    "negative": lambda log: -1 - max(log + 9, 0),
    "zero": lambda log: 0.0,
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("batches", "budget"), [(1, 18), (3, 18), (9, 18), (60, 200), (2, 200), (9, 8)])
def test_the_budget_is_kept_and_no_loss_is_measured_twice(name, batches, budget):
    made = Made(SHAPES[name])
    curve = made.curve(batches, budget)
    assert len(made.asked) == len(set(made.asked)) <= budget
    assert all(0 <= number < batches for _, number in made.asked)
    assert list(curve.rates) == sorted(set(curve.rates))
    assert all(map(math.isfinite, curve.losses))
    assert {rate for rate, _ in made.asked} >= set(curve.rates)
    if curve.suggestion is not None:
        assert curve.rates[0] <= curve.suggestion <= curve.rates[-1]


@pytest.mark.parametrize("lowest", [-5.0, -4.2, -3.3, -2.9, -1.0])
def test_the_lowest_place_is_found_and_the_suggestion_is_drawn_to_the_usual_rate(lowest):
    curve = Made(bowl(lowest)).curve(budget=60)
    at = curve.rates[int(np.argmin(curve.losses))]
    assert math.log10(at) == pytest.approx(lowest, abs=0.2)
    low, high = sorted((math.log10(at), math.log10(USUAL)))
    assert low - 0.3 <= math.log10(curve.suggestion) <= high + 0.15


def test_rates_lie_on_one_grid_in_quarter_decades_closest_where_the_loss_is_lowest():
    curve = Made(bowl(-3.3)).curve()
    places = 4 * np.log10(np.array(curve.rates) / USUAL)
    assert places == pytest.approx(places.round(), abs=1e-6)
    steps = np.diff(places.round())
    assert set(steps) == {1, 2}
    at = int(np.argmin(curve.losses))
    assert list(steps[at - 1 : at + 1]) == [1, 1]


def test_what_is_left_of_the_budget_goes_into_batches_and_their_luck_cancels():
    plain, lucky = Made(bowl(-3.3)), Made(bowl(-3.3), luck=lambda number: random.Random(number).gauss(0, 5))
    curves = plain.curve(budget=60), lucky.curve(budget=60)
    assert plain.asked == lucky.asked
    assert len({number for _, number in plain.asked}) == 9
    assert curves[1].suggestion == pytest.approx(curves[0].suggestion)
    assert np.diff(curves[1].losses) == pytest.approx(np.diff(curves[0].losses))


def test_each_point_is_told_when_it_is_measured_and_the_last_word_is_the_curve():
    made = Made(bowl(-3.3))
    curve = made.curve()
    assert {rate for rate, _ in made.told} == set(curve.rates)
    last = dict(made.told)
    assert [last[rate] for rate in curve.rates] == pytest.approx(list(curve.losses), abs=1e-9)
    assert len(made.told) > len(curve.rates), "those near the lowest place were measured on more batches"


def test_a_loss_that_is_not_finite_ends_the_curve_below_it():
    made = Made(SHAPES["not finite from a rate on"])
    curve = made.curve()
    assert max(curve.rates) < 10**-3.1
    assert "the loss was not finite" in curve.reason
    assert not [rate for rate, _ in made.told if rate > 10**-3.1]
    asked = [rate for rate, _ in made.asked if rate > 10**-3.1]
    assert len(asked) == 1, "no higher rate was tried"


@pytest.mark.parametrize("lowest", [-4.0, -5.0, -6.0])
def test_no_rate_is_suggested_at_which_the_loss_was_not_finite(lowest):
    for ends in np.arange(lowest, -2, 0.1):
        curve = Made(lambda log, ends=ends: bowl(lowest)(log) if log < ends else math.nan).curve()
        assert curve.rate is not None
        assert math.log10(curve.rate) < ends


def test_a_loss_that_is_not_finite_before_any_step_gives_no_rate():
    curve = Made(SHAPES["never finite"]).curve()
    assert (curve.rate, curve.rates) == (None, ())
    assert "not finite before any step" in curve.reason


def test_rates_stay_between_start_and_stop():
    for shape in SHAPES.values():
        made = Made(shape)
        curve = made.curve(start=1e-5, stop=2e-3)
        assert all(1e-5 * 0.999 < rate < 2e-3 * 1.001 for rate, _ in made.asked if rate)
        if curve.suggestion is not None:
            assert 1e-5 <= curve.suggestion <= 2e-3
    above = Made(SHAPES["only falls"]).curve(start=1e-2, stop=1.0)
    assert above.rates[0] == pytest.approx(1e-2)
    assert above.reason.startswith("reached ")


def test_a_flat_loss_gives_no_suggestion_and_says_so():
    curve = Made(SHAPES["flat"]).curve()
    assert (curve.suggestion, curve.rate) == (None, None)
    assert curve.reason == "the loss never fell"
    assert "no suggestion: the loss never fell" in repr(curve)


def test_a_trained_network_gets_the_rate_of_the_brink():
    curve = Made(lambda log: 0.05 + (5 * (log + 2.5) if log > -2.5 else 0)).curve()
    assert curve.suggestion is None
    assert 1e-4 < curve.rate < 1e-3
    assert curve.rate == curve.suggestions["brink"]
    assert "brink gives" in repr(curve)


@pytest.mark.parametrize("rule", RULES)
def test_the_chosen_rule_is_the_suggestion(rule):
    curve = Made(bowl(-3.3)).curve(rule=rule)
    assert curve.rule == rule
    assert curve.suggestion == curve.suggestions[rule] == curve.rate
    assert set(curve.suggestions) == set(RULES)


def test_the_default_rule_is_in_the_table():
    assert Made(bowl(-3.3)).curve().rule == DEFAULT_RULE == "basin"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": "vally"}, "no rule 'vally'; did you mean 'valley'? Rules: basin, valley, "),
        ({"start": 0}, "start must be a rate above 0, such as 1e-5, not 0"),
        ({"start": "1e-7"}, "start must be a rate above 0, such as 1e-5, not '1e-7'"),
        ({"stop": math.inf}, "stop must be a rate above 0, such as 1e-5, not inf"),
        ({"stop": math.nan}, "stop must be a rate above 0, such as 1e-5, not nan"),
        ({"stop": True}, "stop must be a rate above 0, such as 1e-5, not True"),
        ({"start": 1.0, "stop": 0.1}, "stop must be at least a hundred times start: 0.1 is too near to 1"),
    ],
)
def test_wrong_arguments_are_one_line_and_nothing_runs(settings, message):
    made = Made(bowl(-3.3))
    with pytest.raises(BadArguments) as caught:
        made.curve(**settings)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert not made.asked


@pytest.mark.parametrize(
    ("loss", "what"),
    [(torch.ones(3), "a tensor of shape (3,)"), (None, "NoneType"), ("low", "str")],
)
def test_a_step_that_returns_no_number(loss, what):
    with pytest.raises(TrainingError, match="must return its loss as one number, not") as caught:
        range_test(lambda rate, number: loss, 1, usual=USUAL, budget=18)
    assert what in str(caught.value)


# ----------------------------------------------------------------------------------------- the curve

LOG = np.linspace(-7, 1, 100)
FALL = 0.3 + 2 / (1 + np.exp((LOG + 3) / 0.4)) + 50 / (1 + np.exp(-(LOG - 0) / 0.1))


def judged(losses=FALL, **settings):
    return judge(10 ** LOG[: len(losses)], losses, rule="basin", reason="it ended", **settings)


def test_the_curve_in_words():
    text = repr(judged())
    assert text.startswith("learning-rate range test: 100 rates from 1.0e-07 to 1.0e+01; basin suggests ")
    for rule in RULES:
        assert rule in text
    assert "\n" not in text


def test_the_picture_marks_every_rule_and_no_pyplot_is_needed():
    import sys

    had = "matplotlib.pyplot" in sys.modules
    curve = judged()
    bundle = curve._repr_mimebundle_()
    assert bundle["text/plain"] == repr(curve)
    assert bundle["image/png"].startswith(b"\x89PNG")
    axes = curve.plot().axes[0]
    assert axes.get_xscale() == "log"
    words = " ".join(t.get_text() for t in (*axes.get_legend().get_texts(), *axes.texts))
    for rule, rate in curve.suggestions.items():
        assert f"{rule} {rate:.1e}" in words
    assert axes.get_ylim()[1] < 5, "the explosion to 50 does not flatten the valley"
    assert ("matplotlib.pyplot" in sys.modules) == had


def test_it_draws_into_given_axes():
    from matplotlib.figure import Figure

    figure = Figure()
    ax = figure.add_subplot()
    assert judged().plot(ax) is figure
    assert ax.lines


@pytest.mark.parametrize("losses", [[], [5.0], [5.0, 4.0], [1.0] * 20, [-1.0] * 20, [0.0] * 20])
def test_odd_curves_can_be_shown_too(losses):
    curve = judged(np.array(losses))
    assert curve._repr_png_().startswith(b"\x89PNG")
    assert "no suggestion" in repr(curve)
