"""The range test on a network: what it measures, what it costs, that nothing is left of it, and when it is run anew."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from networks import blobs, small
from torch import nn
from torch.nn import functional as F

from tlnb import Session
from tlnb.engine.core.interrupts import Stopped, StopRequest
from tlnb.engine.core.objectives import Classification
from tlnb.engine.core.seeds import batches
from tlnb.engine.features.planner import ForwardPlan
from tlnb.engine.network import freeze
from tlnb.engine.network.layers import find_layers
from tlnb.engine.training import lr_finder
from tlnb.engine.training.lr_finder import budget_of, find_rate, passes_of
from tlnb.engine.training.stage import Stage
from tlnb.engine.training.trainer import StageTrainer
from tlnb.errors import NotReady, TrainingError


def trainer_for(model: nn.Module, stage: Stage, count: int = 90, **options: object) -> StageTrainer:
    layers = find_layers(model, torch.zeros(1, 1, 8, 8))
    freeze.apply(model, layers, stage.frozen)
    forward_plan = ForwardPlan(blobs(count), blobs(30, seed=1), model)
    usual = {"number": 1, "batch": 16, "seed": 0, "task": Classification()} | options
    return StageTrainer(model, layers, stage, forward_plan, **usual)  # type: ignore[arg-type]


def plain() -> nn.Module:
    """Without BatchNorm and dropout, so that a plain loop is easy to write."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 3)
    )


def state_of(trainer: StageTrainer) -> list[bytes]:
    model, optimizer = trainer.model, trainer.optimizer
    tensors = [*model.parameters(), *model.buffers(), torch.get_rng_state()]
    tensors += [v for s in optimizer.state.values() for v in s.values()]
    tensors += [p.grad for p in model.parameters() if p.grad is not None]
    rest = (
        [m.training for m in model.modules()],
        [(p.requires_grad, p.grad is None) for p in model.parameters()],
        [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups],
        random.getstate(), repr(np.random.get_state()), trainer.epoch, trainer.done, trainer.steps_done,
    )  # fmt: skip
    return [*(t.detach().numpy().tobytes() for t in tensors), repr(rest).encode()]


class Passes:
    """Counts what runs through a network: with gradients, and forward only."""

    def __init__(self, model: nn.Module):
        self.forward, self.backward = 0, 0
        model.register_forward_hook(self._on_forward)

    def _on_forward(self, module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        self.forward += not output.requires_grad
        if output.requires_grad:
            output.register_hook(self._on_backward)

    def _on_backward(self, gradient: torch.Tensor) -> None:
        self.backward += 1


# ---------------------------------------------------------------- the cost


@pytest.mark.parametrize(("count", "steps"), [(20, 12), (90, 12), (400, 12), (500, 16), (1000, 31)])
@pytest.mark.parametrize(
    "stage", [Stage("all", ()), Stage("last", (0, 1)), Stage("sgd", (), optimizer="sgd")]
)
def test_a_test_costs_half_an_epoch_at_most_or_twelve_steps(count: int, steps: int, stage: Stage) -> None:
    trainer = trainer_for(small(), stage, count)
    assert budget_of(trainer) == steps
    passes, told = Passes(trainer.model), []
    find_rate(trainer, on_test=lambda *now: told.append(now))
    assert 0 < passes.backward <= steps // 4
    # A pass without gradients is half a step at most.
    assert 0 < passes.forward <= 2 * (steps - steps // 4)
    assert passes.forward + passes.backward <= passes_of(trainer)
    made = [now for now in told if not now[2]]
    assert [done for done, *_ in made] == list(range(1, passes.forward + passes.backward + 1))
    assert {total for _, total, *_ in told} == {passes_of(trainer)}


def test_what_it_may_cost_can_be_given() -> None:
    trainer = trainer_for(small(), Stage("all", ()), 400)
    passes = Passes(trainer.model)
    assert len(find_rate(trainer, steps=40).rates) >= 5
    assert 20 < passes.forward + passes.backward <= passes_of(trainer, 40) == 10 + 2 * 30


# ---------------------------------------------------------------- the curve


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_losses_are_those_of_a_plain_loop_along_the_optimizers_direction(optimizer: str) -> None:
    stage = Stage("test", (0,), decay=2.0, optimizer=optimizer)
    trainer = trainer_for(plain(), stage, 400)
    curve = find_rate(trainer)
    assert curve.ratios == {"2": 0.5, "5": 1.0}

    model, data = plain(), blobs(400)
    model[0].requires_grad_(False)
    weights, order = list(model[2].parameters()) + list(model[5].parameters()), batches(400, 16, 0, 1, -1)

    def loss(indices: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(data.inputs[indices]), data.targets[indices])

    gradients = [torch.autograd.grad(loss(indices), weights) for indices in order[:3]]
    steps = [torch.stack(each).mean(0) for each in zip(*gradients, strict=True)]
    if optimizer == "adamw":
        squares = [torch.stack(each).square().mean(0) for each in zip(*gradients, strict=True)]
        steps = [step / (square.sqrt() + 1e-8) for step, square in zip(steps, squares, strict=True)]
    before = [w.detach().clone() for w in weights]

    def rises(rate: float) -> list[float]:
        """For each batch behind those of the direction."""
        found = []
        with torch.no_grad():
            for indices in order[3:]:
                start = loss(indices).item()
                for w, b, step, ratio in zip(weights, before, steps, (0.5, 0.5, 1, 1), strict=True):
                    w.copy_(b - rate * ratio * step)
                found.append(loss(indices).item() - start)
                for w, b in zip(weights, before, strict=True):
                    w.copy_(b)
        return found

    found = np.array([rises(rate) for rate in curve.rates])
    starts = np.array([loss(indices).item() for indices in order[3:]])
    # Far from the lowest place a rate was measured on one batch, near it on as many as there was budget for.
    fits = []
    for count in range(1, len(starts) + 1):
        choices = np.stack([found[:, 0], found[:, :count].mean(1)]) + starts[:count].mean()
        fits.append(np.isclose(choices, curve.losses, rtol=1e-3).any(0).all())
    assert any(fits)


@pytest.mark.parametrize(
    ("schedule", "rule"), [("one-cycle", "basin"), ("cosine", "basin"), ("constant", "minimum")]
)
def test_a_rate_that_is_held_is_read_off_the_curve_with_more_care(schedule: str, rule: str) -> None:
    trainer = trainer_for(small(), Stage("test", (0, 1), schedule=schedule))
    curve = find_rate(trainer)
    assert (curve.rule, curve.rate) == (rule, curve.suggestions[rule])
    assert curve.rate is not None
    assert find_rate(trainer, rule="steepest").rule == "steepest"


def test_a_step_of_ones_own_may_need_gradients_and_is_measured_too() -> None:
    def step(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x = x.clone().requires_grad_()
        loss = F.cross_entropy(model(x), y)
        (slope,) = torch.autograd.grad(loss, x, create_graph=True)
        return loss + slope.square().sum()

    trainer = trainer_for(plain(), Stage("test", ()), step=step)
    before = state_of(trainer)
    curve = find_rate(trainer)
    assert curve.suggestion is not None
    assert state_of(trainer) == before


# ---------------------------------------------------------------- nothing is left


@pytest.mark.parametrize("frozen", [(), (0, 1)])
@pytest.mark.parametrize("trained", [False, True])
def test_two_tests_give_the_same_curve_and_leave_no_trace(frozen: tuple[int, ...], trained: bool) -> None:
    trainer = trainer_for(small(), Stage("test", frozen))
    if trained:
        trainer.train_epoch(1e-3, StopRequest(), lambda *_: None)
    before = state_of(trainer)
    first = find_rate(trainer)
    assert state_of(trainer) == before
    assert find_rate(trainer) == first
    assert first.rates[0] <= first.suggestion <= first.rates[-1]  # type: ignore[operator]
    assert bool(trainer.optimizer.state) is trained


@pytest.mark.parametrize("at", [0, 1, 3, 4, 9, 15])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_or_error_at_any_pass_leaves_no_trace(at: int, error: type[BaseException]) -> None:
    trainer = trainer_for(small(), Stage("test", ()))
    before, count = state_of(trainer), iter(range(100))

    def fail(*_: object) -> None:
        if next(count) == at:
            raise error("as planned")

    hook = trainer.model.register_forward_hook(fail)
    with pytest.raises(error, match="as planned"):
        find_rate(trainer)
    hook.remove()
    assert state_of(trainer) == before


@pytest.mark.parametrize("at", [1, 3, 4, 12])
def test_a_stop_in_the_middle_ends_it_before_the_next_pass(at: int) -> None:
    trainer, request = trainer_for(small(), Stage("test", ())), StopRequest()
    before, passes = state_of(trainer), Passes(trainer.model)
    with pytest.raises(Stopped):
        find_rate(trainer, request, lambda done, *_: request.ask() if done == at else None)
    assert state_of(trainer) == before
    assert passes.forward + passes.backward == at


def test_losses_that_are_not_finite_end_the_curve_and_leave_no_trace() -> None:
    trainer = trainer_for(small(), Stage("test", ()))
    before, start = state_of(trainer), trainer.model.head.weight.detach().clone()

    def far(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        return output * math.nan if (trainer.model.head.weight - start).abs().max() > 2e-3 else output

    hook = trainer.model.register_forward_hook(far)
    curve = find_rate(trainer)
    hook.remove()
    assert "the loss was not finite" in curve.reason
    assert max(curve.rates) < 3e-3
    assert all(map(math.isfinite, curve.losses))
    assert curve.rate < 3e-3  # type: ignore[operator]
    assert state_of(trainer) == before


# ---------------------------------------------------------------- in a session


def session(data: bool = True, **options: object) -> Session:
    tl = Session([])
    tl.load(small(seed=4), input="1,8,8")
    if data:
        tl.data((blobs(90).inputs, blobs(90).targets), **options)
    return tl


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each test that is run and not remembered."""
    seen, usual = [], lr_finder.find_rate
    monkeypatch.setattr(lr_finder, "find_rate", lambda *a, **k: (seen.append(1), usual(*a, **k))[1])
    return seen


def test_the_same_test_is_not_run_twice(runs: list[int]) -> None:
    tl = session()
    tl.freeze("0")
    first = tl.find_lr()
    assert tl.find_lr() is first
    assert tl.find_lr(epochs=7, schedule="cosine") is first  # what the curve does not follow from
    assert len(runs) == 1
    run = tl.train(lr="auto", epochs=2)
    assert len(runs) == 1
    assert run.stages[0].curve is first
    assert run.stages[0].rate == first.rate


def nudge(tl: Session) -> None:
    with torch.no_grad():
        tl.model.head.bias[0] += 1e-3


def count_otherwise(tl: Session) -> None:
    tl.model.body[1].running_mean[0] += 1e-3


def other_network(tl: Session) -> None:
    tl.load(small(seed=5), input="1,8,8")


def no_dropout(tl: Session) -> None:
    tl.model.body[3].p = 0.0


def other_samples(tl: Session) -> None:
    tl.data((blobs(90, seed=1).inputs, blobs(90, seed=1).targets))


def class_weights(tl: Session) -> None:
    blob = blobs(90)
    tl.data((blob.inputs[:-9], blob.targets[:-9] * (torch.arange(81) > 5)))
    tl.find_lr()
    tl.data((blob.inputs[:-9], blob.targets[:-9] * (torch.arange(81) > 5)), balance="weights")


CHANGES = {
    "a weight": nudge,
    "statistics": count_otherwise,
    "the network": other_network,
    "how the network computes": no_dropout,
    "the samples": other_samples,
    "the batch": lambda tl: tl.data((blobs(90).inputs, blobs(90).targets), batch=8),
    "what is frozen": lambda tl: tl.freeze("0:2"),
    "training": lambda tl: tl.train(1, 1e-3),
    "a step of one's own": lambda tl: setattr(tl, "step", lambda m, x, y: F.cross_entropy(m(x), y)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_it_is_run_anew_after_a_change(runs: list[int], name: str) -> None:
    tl = session()
    tl.find_lr()
    CHANGES[name](tl)
    tl.find_lr()
    assert len(runs) == 2


def test_it_is_run_anew_with_class_weights(runs: list[int]) -> None:
    tl = session(data=False)
    class_weights(tl)
    assert tl._data is not None
    assert tl._data.task.weights is not None  # type: ignore[attr-defined]
    tl.find_lr()
    assert len(runs) == 2


@pytest.mark.parametrize("keys", [
    {"optimizer": "sgd"}, {"decay": 2.0}, {"smoothing": 0.1}, {"schedule": "constant"}, {"bn": "frozen"},
    {"rule": "valley"}, {"stop": 1e-2}, {"steps": 20}, {"batch": 8}, {"micro": 4}, {"keep": "l2sp:1"},
])  # fmt: skip
def test_it_is_run_anew_under_other_settings(runs: list[int], keys: dict[str, object]) -> None:
    tl = session()
    tl.find_lr()
    tl.find_lr(**keys)  # type: ignore[arg-type]
    assert len(runs) == 2


def test_it_is_run_anew_under_other_random_changes(runs: list[int]) -> None:
    tl = session(data=False)
    pictures = (blobs(60).inputs * 20 + 100).clamp(0, 255).to(torch.uint8), blobs(60).targets
    for augment in ("none", "light", "strong"):
        tl.data(pictures, augment=augment)
        assert tl.find_lr() is tl.find_lr()
    assert len(runs) == 3


def test_what_was_found_for_a_network_does_not_keep_it_alive() -> None:
    import gc
    import weakref

    tl = session()
    tl.find_lr()
    old = weakref.ref(tl.model)
    tl.load(small(seed=5), input="1,8,8")
    gc.collect()
    assert old() is None


class Presses:
    """Asks for a stop at a point of the curve, and keeps what was told."""

    def __init__(self, at: int):
        self.at, self.points, self.tests, self.session = at, [], [], Session([])

    def on_test(self, done: int, total: int) -> None:
        self.tests.append((done, total))

    def on_point(self, rate: float, loss: float) -> None:
        self.points.append((rate, loss))
        if len(self.points) == self.at:
            self.session.stop_request.ask()  # type: ignore[union-attr]


def test_a_stop_in_a_session_is_one_line_and_the_next_test_is_whole() -> None:
    tl, other = session(), session()
    tl.listeners = [presses := Presses(3)]
    presses.session = tl
    weights = [p.clone() for p in tl.model.state_dict().values()]
    with pytest.raises(NotReady, match=r"^the range test was stopped; the network is as it was before it$"):
        tl.find_lr()
    assert all(map(torch.equal, tl.model.state_dict().values(), weights))
    assert len(presses.points) == 3
    presses.at = -1
    presses.points.clear()
    assert tl.find_lr() == other.find_lr()
    assert {rate for rate, _ in presses.points} == set(other.find_lr().rates)
    assert presses.tests[0][0] == 0
    done, total = zip(*presses.tests, strict=True)
    assert max(done) <= total[0]


def test_what_a_test_took_stands_in_the_summary_and_nothing_where_the_rate_was_known() -> None:
    tl = session()
    run = tl.run("freeze body epochs 1\nunfreeze 2: epochs 1 lr 1e-3")
    found, given = run.stages
    assert 0 < found.test_seconds < found.seconds
    assert (given.test_seconds, given.curve) == (0.0, None)
    assert f"finding rates took {found.test_seconds:.1f} s of it" in repr(run)


def test_no_rate_is_one_line_and_nothing_trains() -> None:
    tl = session()
    tl.step = lambda model, x, y: model(x).sum() * 0 + 1
    weights = [p.clone() for p in tl.model.state_dict().values()]
    with pytest.raises(
        TrainingError, match=r"the range test found no rate \(the loss never fell\); give one"
    ):
        tl.train(lr="auto")
    assert all(map(torch.equal, tl.model.state_dict().values(), weights))
    assert not len(tl.history)
