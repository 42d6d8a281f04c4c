"""A sweep: what it runs, that it can be left and gone on with, and what it shows."""

from __future__ import annotations

import pytest
import torch
from networks import blobs, small

from tlnb.engine.advice.sweep import BLOCK, FLOOR, FROZEN, TUNED, Sweep, SweepPlan, SweepRun
from tlnb.engine.advice.trial import TrialGround, copy_of, try_plan
from tlnb.engine.core.interrupts import StopRequest
from tlnb.engine.core.objectives import Classification
from tlnb.engine.training.trainer import StageTrainer
from tlnb.errors import PlanError


def ground() -> TrialGround:
    model = small().eval()
    head = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)][-1]
    return TrialGround(
        model, head, (blobs(), blobs(30, seed=1)), int(blobs().targets.max()) + 1, Classification(), 16
    )


def plan(**settings: object) -> SweepPlan:
    return SweepPlan(**({"body": 2, "epochs": 1, "seeds": 2, "lr": 1e-2, "blocks": False} | settings))


def test_the_runs_are_every_depth_twice_and_the_floor_once_seed_by_seed() -> None:
    assert list(plan(seeds=1).runs()) == [
        SweepRun(FLOOR, 0, 0), SweepRun(FROZEN, 1, 0), SweepRun(TUNED, 1, 0), SweepRun(FROZEN, 2, 0),
        SweepRun(TUNED, 2, 0),
    ]  # fmt: skip
    assert [run.seed for run in plan().runs()] == [0] * 5 + [1] * 5
    assert plan(body=40).places == (0, 6, 11, 17, 23, 29, 34, 40)
    assert plan(body=40, blocks=True).block(28) == range(28, 33)
    assert plan(blocks=True).text(SweepRun(BLOCK, 1, 0)) == "train 1:2,head epochs 1 lr 0.01"


def test_a_copy_keeps_the_first_layers_and_renews_the_rest() -> None:
    start = ground()
    model, layers = copy_of(start, kept=1, seed=0)
    before, after = start.model.state_dict(), model.state_dict()
    first = layers[0].parameter_names[0]
    second = layers[1].parameter_names[0]
    assert torch.equal(before[first], after[first])
    assert not torch.equal(before[second], after[second])
    assert not torch.equal(copy_of(start, 1, seed=1)[0].state_dict()[second], after[second])


def test_a_trial_leaves_the_network_and_the_random_state_alone() -> None:
    start = ground()
    before = {k: v.clone() for k, v in start.model.state_dict().items()}
    state = torch.get_rng_state()
    first = try_plan(start, "train all epochs 2 lr 1e-2", seed=3)
    assert try_plan(start, "train all epochs 2 lr 1e-2", seed=3).loss == first.loss
    assert all(torch.equal(v, before[k]) for k, v in start.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(PlanError):
        try_plan(start, "train nowhere")


def test_a_trial_is_measured_once_and_as_if_it_had_been_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    measured, evaluate = [], StageTrainer.evaluate
    monkeypatch.setattr(
        StageTrainer, "evaluate", lambda self, *rest: measured.append(self.epoch) or evaluate(self, *rest)
    )
    text = "train head epochs 2 lr 1e-2\ntrain all epochs 3 lr 1e-2"
    once = try_plan(ground(), text, seed=1)
    assert measured == [3]
    always = try_plan(ground(), text.replace("\n", " patience 9\n") + " patience 9", seed=1)
    assert measured == [3, 1, 2, 1, 2, 3]
    assert (once.loss, once.accuracy) == (always.loss, always.accuracy)


def test_a_trial_that_diverges_is_measured_where_it_was_left() -> None:
    wild = try_plan(ground(), "train all epochs 3 lr 1e30 optimizer sgd", seed=1)
    assert wild.loss == wild.loss
    assert 0 <= wild.accuracy <= 1


def test_a_sweep_that_is_stopped_goes_on_where_it_was() -> None:
    whole, left, said = Sweep(plan()), Sweep(plan()), []
    whole.go_on(ground(), log=said.append)
    assert "10 runs: about" in said[0]
    stop = StopRequest()

    def at_third(text: str) -> None:
        stop.ask()

    left.go_on(ground(), stop, at_third)  # the estimate comes before the first run
    assert left.stopped
    assert left.done == {}
    assert "0 of 10 runs" in repr(left)
    left.go_on(ground())
    assert not left.stopped
    assert left.done == whole.done


def test_what_it_shows_is_mean_and_spread_over_seeds() -> None:
    sweep = Sweep(plan())
    sweep.done = {
        SweepRun(FLOOR, 0, 0): 0.2,
        SweepRun(FLOOR, 0, 1): 0.4,
        SweepRun(FROZEN, 2, 0): 0.7,
        SweepRun(TUNED, 2, 0): 0.9,
        SweepRun(TUNED, 2, 1): 0.8,
    }
    assert sweep.curve(TUNED)[2] == pytest.approx((0.85, 0.05))
    assert sweep.curve(FROZEN)[0] == pytest.approx((0.3, 0.1))
    assert 1 not in sweep.curve(TUNED)
    assert sweep.best == (TUNED, 2)
    assert "0.850 ± 0.050" in repr(sweep)
    assert repr(sweep).splitlines()[-1].split() == [
        "2",
        "0.700",
        "0.850",
        "±",
        "0.050",
    ]  # one seed: no spread
    assert "over 2 seeds (± their spread), 5 of 10 runs" in repr(sweep)
    assert "highest fine-tuned, with 2 layers kept" in repr(sweep)
    assert "image/png;base64" in sweep._repr_html_()
    assert {t.get_text() for t in sweep.plot().axes[0].get_legend().get_texts()} == {
        "frozen",
        "fine-tuned",
        "random weights",
    }
