"""The sweep: what it does to the rate, when it ends, what it says, and that nothing is left of it."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tlnb.engine.rates.lr_curve import LRCurve
from tlnb.engine.rates.lr_finder import judge, range_test
from tlnb.engine.rates.snapshot import transaction
from tlnb.engine.rates.suggest import DEFAULT_RULE, RULES
from tlnb.errors import BadArguments, TrainingError


class Task:
    """A small real job: a frozen and a trained part, both with batch norm, dropout, AdamW with state."""

    def __init__(self, warm_steps: int = 5, ratios=(0.1, 1.0)):
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(10, 32), nn.BatchNorm1d(32), nn.ReLU())
        self.rest = nn.Sequential(nn.Linear(32, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(32, 4)
        self.model = nn.Sequential(self.body, self.rest, self.head)
        self.body.requires_grad_(False)
        self.model.train()
        self.body.eval()
        self.x = torch.randn(512, 10)
        self.y = (self.x @ torch.randn(10, 4)).argmax(1)
        self.ratios = ratios
        parts = (self.rest.parameters(), self.head.parameters())
        self.optimizer = torch.optim.AdamW([{"params": list(p)} for p in parts], lr=1e-3)
        self.seen: list[list[float]] = []
        for _ in range(warm_steps):
            self.step()

    def step(self):
        chosen = torch.randint(0, 512, (32,))
        loss = F.cross_entropy(self.model(self.x[chosen]), self.y[chosen])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

    def set_rate(self, rate):
        for group, ratio in zip(self.optimizer.param_groups, self.ratios, strict=True):
            group["lr"] = rate * ratio
        self.seen.append([group["lr"] for group in self.optimizer.param_groups])

    def sweep(self, step=None, **settings) -> LRCurve:
        with transaction(self.model, self.optimizer):
            return range_test(step or self.step, self.set_rate, **settings)

    def state(self) -> list[bytes]:
        tensors = [*self.model.parameters(), *self.model.buffers()]
        tensors += [v for s in self.optimizer.state.values() for v in s.values()]
        rest = (
            [m.training for m in self.model.modules()],
            [p.requires_grad for p in self.model.parameters()],
            [p.grad is None for p in self.model.parameters()],
            [{k: v for k, v in g.items() if k != "params"} for g in self.optimizer.param_groups],
            random.getstate(),
            repr(np.random.get_state()),
        )
        tensors += [p.grad for p in self.model.parameters() if p.grad is not None]
        tensors.append(torch.get_rng_state())
        return [*(t.detach().numpy().tobytes() for t in tensors), repr(rest).encode()]


@pytest.mark.parametrize("warm_steps", [0, 5])
def test_two_tests_in_a_row_give_the_same_curve_and_leave_no_trace(warm_steps):
    task = Task(warm_steps)
    before = task.state()
    first = task.sweep()
    assert task.state() == before
    second = task.sweep()
    assert task.state() == before
    assert first == second
    assert first.suggestion is not None
    assert (len(task.optimizer.state) > 0) == (warm_steps > 0)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("at", range(0, 100, 7))
def test_an_interrupt_or_error_at_any_step_leaves_no_trace(at, error):
    task = Task()
    before = task.state()
    count = iter(range(1000))

    def step():
        loss = task.step()
        if next(count) == at:
            raise error("as planned")
        return loss

    with pytest.raises(error, match="as planned"):
        task.sweep(step, stop=0.1)
    assert task.state() == before


@pytest.mark.parametrize("at", [0, 7, 50])
def test_nan_ends_the_sweep_and_leaves_no_trace(at):
    task = Task()
    before = task.state()
    count = iter(range(1000))

    def step():
        if next(count) == at:
            task.head.weight.data.fill_(math.nan)
        return task.step()

    curve = task.sweep(step)
    assert task.state() == before
    assert len(curve.losses) == len(curve.rates) == len(curve.smoothed) == at
    assert all(map(math.isfinite, curve.losses))
    assert next(count) == at + 1, "not a step more"
    if at < 10:
        assert set(curve.suggestions.values()) == {None}
        assert "the loss was nan; too few rates" in curve.reason


def test_against_a_plain_loop_written_for_this_test():
    task, plain = Task(), Task()
    curve = task.sweep(steps=60)
    torch.manual_seed(0)  # Task() ended at the same random state, so both draw the same batches and masks
    reference = Task()
    torch.set_rng_state(torch.get_rng_state())
    losses = []
    for i in range(len(curve.losses)):
        rate = 1e-7 * (10 / 1e-7) ** (i / 59)
        for group, ratio in zip(reference.optimizer.param_groups, (0.1, 1.0), strict=True):
            group["lr"] = rate * ratio
        losses.append(reference.step().item())
    assert curve.losses == pytest.approx(losses, rel=1e-4, abs=1e-6)
    assert curve.losses[:30] == tuple(losses[:30])
    assert plain.state() != reference.state()


def test_the_groups_keep_their_ratios_through_the_sweep():
    task = Task(ratios=(0.25, 1.0))
    curve = task.sweep(ratios={"rest": 0.25, "head": 1.0})
    assert len(task.seen) >= len(curve.rates) > 50
    for low, top in task.seen:
        assert low / top == pytest.approx(0.25)
    assert [top for _, top in task.seen][: len(curve.rates)] == list(curve.rates)
    assert curve.ratios == {"rest": 0.25, "head": 1.0}


# --------------------------------------------------------------------- made-up losses: no model needed


def made_up(losses, **settings):
    """A sweep over a list of losses; returns the curve, the rates set and what ``on_step`` heard."""
    rates, heard = [], []
    source = iter(losses)
    settings = {"steps": len(losses)} | settings
    curve = range_test(
        lambda: next(source), rates.append, on_step=lambda *told: heard.append(told), **settings
    )
    return curve, rates, heard


LOG = np.linspace(-7, 1, 100)
FALL = (0.3 + 2 / (1 + np.exp((LOG + 3) / 0.4)) + 50 / (1 + np.exp(-(LOG - 0) / 0.1))).tolist()


def test_rates_are_evenly_spaced_in_the_logarithm():
    _, rates, _ = made_up([1.0] * 50, start=1e-5, stop=1.0, steps=50)
    assert rates[0] == pytest.approx(1e-5)
    assert rates[-1] == pytest.approx(1.0)
    assert np.diff(np.log(rates)) == pytest.approx(np.log(1e5) / 49)


def test_progress_is_told_each_step():
    curve, rates, heard = made_up(FALL)
    assert heard == [(i, 100, rates[i], FALL[i]) for i in range(len(curve.losses))]


def test_an_explosion_ends_the_sweep_and_the_suggestion_lies_left_of_it():
    curve, rates, _ = made_up(FALL)
    assert 80 < len(rates) < 95, "it ends soon after rate 1, where the loss explodes"
    assert "the loss exploded" in curve.reason
    assert all(1e-4 < rate < 0.5 for rate in curve.suggestions.values())


def test_a_falling_loss_is_no_explosion():
    curve, *_ = made_up(np.geomspace(5, 1e-4, 100).tolist())
    assert len(curve.losses) == 100
    assert curve.reason == "reached 1.0e+01"


@pytest.mark.parametrize("low", [0.0, 0.3])
def test_a_trained_networks_loss_jumps_by_factors_and_does_not_end_the_sweep(low):
    """Losses around 0.1 with bad batches, and where ``low`` > 0 batches of nearly no loss at all."""
    rng = np.random.default_rng(0)
    whole = 0
    for _ in range(100):
        losses = 0.1 * np.exp(0.8 * rng.standard_normal(100))
        losses = np.where(rng.random(100) < low, 10 ** rng.uniform(-6, -2, 100), losses)
        whole += len(made_up(losses.tolist())[0].losses) == 100
    assert whole > 90


def test_where_noise_hides_the_brink_the_end_of_the_sweep_tells_it():
    rng = np.random.default_rng(0)
    losses = 0.1 * np.exp(1.5 * rng.standard_normal(100)) * np.where(LOG > -1, np.exp(8 * (LOG + 1)), 1)
    curve, *_ = made_up(losses.tolist())
    assert judge(list(curve.rates), list(curve.losses), rule="basin").rate is None, "the noise does hide it"
    assert curve.suggestion is None
    assert 0.1 / 20 < curve.rate < 1 / 20


def test_a_flat_noisy_loss_gives_no_suggestion_and_says_so():
    rng = np.random.default_rng(0)
    curve, *_ = made_up((2.3 + 0.2 * rng.standard_normal(100)).tolist())
    assert curve.suggestion is None
    assert curve.rate is None
    assert curve.reason == "the loss never fell by more than its noise"
    assert "no suggestion: the loss never fell by more than its noise" in repr(curve)


def test_a_trained_network_gets_the_rate_of_the_brink():
    rng = np.random.default_rng(0)
    losses = 0.05 * np.exp(0.3 * rng.standard_normal(100)) + np.where(LOG > -1, 5 * (LOG + 1), 0)
    curve, *_ = made_up(losses.tolist())
    assert curve.suggestion is None
    assert 5e-3 < curve.rate < 0.1 / 5
    assert curve.rate == curve.suggestions["brink"]
    assert "brink gives" in repr(curve)


@pytest.mark.parametrize("rule", RULES)
def test_the_chosen_rule_is_the_suggestion(rule):
    curve, *_ = made_up(FALL, rule=rule)
    assert curve.rule == rule
    assert curve.suggestion == curve.suggestions[rule] == curve.rate
    assert set(curve.suggestions) == set(RULES)


def test_the_default_rule_is_in_the_table():
    assert made_up(FALL)[0].rule == DEFAULT_RULE == "basin"


def test_losses_may_be_zero_or_negative():
    curve, *_ = made_up((-np.linspace(0, 5, 100)).tolist())
    assert len(curve.losses) == 100


def test_losses_on_a_device_are_read_in_blocks(monkeypatch):
    """Each reading makes the device wait, so there are ten steps between readings, and none is lost."""
    reads = []

    class OnDevice(torch.Tensor):
        device = torch.device("cuda")

        def detach(self):
            return self

        def __float__(self):
            reads.append(len(rates))
            return super().item()

    rates = []
    source = iter(FALL[:80])
    curve = range_test(lambda: torch.tensor(next(source)).as_subclass(OnDevice), rates.append, steps=25)
    assert reads == [10] * 10 + [20] * 10 + [25] * 5
    assert curve.losses == pytest.approx(FALL[:25])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": "vally"}, "no rule 'vally'; did you mean 'valley'? Rules: basin, valley, "),
        ({"start": 0}, "start must be a rate above 0, such as 1e-5, not 0"),
        ({"start": "1e-7"}, "start must be a rate above 0, such as 1e-5, not '1e-7'"),
        ({"stop": math.inf}, "stop must be a rate above 0, such as 1e-5, not inf"),
        ({"stop": math.nan}, "stop must be a rate above 0, such as 1e-5, not nan"),
        ({"start": 1.0, "stop": 0.1}, "stop must be above start: 0.1 is not above 1"),
        ({"steps": 9}, "steps must be a whole number of at least 10, not 9"),
        ({"steps": 50.0}, "steps must be a whole number of at least 10, not 50.0"),
        ({"steps": True}, "steps must be a whole number of at least 10, not True"),
    ],
)
def test_wrong_arguments_are_one_line_and_nothing_runs(settings, message):
    def never(*_):
        raise AssertionError("a step ran")

    with pytest.raises(BadArguments) as caught:
        range_test(never, never, **settings)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("loss", "what"),
    [(torch.ones(3), "a tensor of shape (3,)"), (None, "NoneType"), ("low", "str")],
)
def test_a_step_that_returns_no_number(loss, what):
    with pytest.raises(TrainingError, match="must return its loss as one number, not") as caught:
        range_test(lambda: loss, lambda rate: None)
    assert what in str(caught.value)


# ----------------------------------------------------------------------------------------- the curve


def test_the_curve_in_words():
    text = repr(made_up(FALL)[0])
    assert text.startswith("learning-rate range test: ")
    assert " rates from 1.0e-07 to " in text
    assert "; basin suggests " in text
    for rule in RULES:
        assert rule in text
    assert "\n" not in text


def test_the_picture_marks_every_rule_and_no_pyplot_is_needed():
    import sys

    had = "matplotlib.pyplot" in sys.modules
    curve = made_up(FALL)[0]
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
    assert made_up(FALL)[0].plot(ax) is figure
    assert ax.lines


@pytest.mark.parametrize(
    "losses", [[math.nan] * 10, [1.0] * 20, [-1.0] * 20, [0.0] * 20, [5.0, math.nan] * 5]
)
def test_odd_curves_can_be_shown_too(losses):
    curve, *_ = made_up(losses)
    assert curve._repr_png_().startswith(b"\x89PNG")
    assert "no suggestion" in repr(curve)
