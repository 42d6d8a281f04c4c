"""Frozen layers of hand-written networks: one dropout for all, shared weights, weights that never train."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tlnb.errors import ExportError, PlanError
from tlnb.session import Session

INPUTS = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
DATA = INPUTS, torch.arange(60) % 3


class ByHand(nn.Module):
    """Dropout after each layer, by one module or by a function."""

    def __init__(self, function: bool):
        super().__init__()
        self.first, self.norm = nn.Linear(6, 16), nn.BatchNorm1d(16)
        self.second, self.third = nn.Linear(16, 16), nn.Linear(16, 3)
        self.drop, self.function = nn.Dropout(0.5), function
        self.shift = nn.Parameter(torch.randn(16), requires_grad=False)
        self.unused = nn.Parameter(torch.randn(3))

    def dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, self.training) if self.function else self.drop(x)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropped(F.relu(self.norm(self.first(x))) + self.shift)
        return self.third(self.dropped(F.relu(self.second(x))))


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """For each dropout that was computed, whether it acted."""
    seen: list[bool] = []
    usual = F.dropout

    def watched(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        seen.append(training)
        return usual(x, p, training, inplace)

    monkeypatch.setattr(F, "dropout", watched)
    return seen


def session(network: nn.Module) -> Session:
    found = Session([])
    found.load(network)
    found.data(DATA, batch=30, valid=0.5)
    return found


def usual_step(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(model(x), y)


def step_that_sets_modes(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    model.train()
    return F.cross_entropy(model(x), y)


@pytest.mark.parametrize("function", [True, False])
@pytest.mark.parametrize("frozen", ["first", "second"])
@pytest.mark.parametrize("route", ["cached", "whole", "step", "step that sets modes"])
def test_dropout_acts_where_layers_train_and_nowhere_else(
    dropped: list[bool], function: bool, frozen: str, route: str
) -> None:
    tl = session(ByHand(function))
    tl.freeze(frozen)
    steps = {"step": usual_step, "step that sets modes": step_that_sets_modes}
    tl.step = steps.get(route)
    dropped.clear()
    statistics = tl.model.norm.running_mean.clone()
    stage = tl.train(lr=1e-2, cache=route == "cached").stages[0]
    assert sum(dropped) == 1, "one batch, one layer that trains and has a dropout"
    assert stage.digest_before == stage.digest_after != ""
    assert torch.equal(tl.model.norm.running_mean, statistics) == (frozen == "first")
    assert not {"train", "forward"} & {name for module in tl.model.modules() for name in vars(module)}


def test_a_script_is_refused_where_modes_of_modules_do_not_tell() -> None:
    class Plain(ByHand):
        def __init__(self) -> None:
            super().__init__(True)
            del self.unused
            self.shift = None

        def forward(self, x: Tensor) -> Tensor:
            return self.third(self.dropped(F.relu(self.second(self.dropped(self.first(x))))))

    tl = session(Plain())
    tl.freeze("second")
    tl.train(lr=1e-2)
    with pytest.raises(ExportError, match="froze layer 1, whose dropout is a function"):
        tl.script()


def test_weights_that_are_fixed_or_unused_stay_as_they_are() -> None:
    network = ByHand(False)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    tl = session(network)
    assert not any(tl.frozen)
    tl.freeze("all")
    tl.unfreeze("all")
    tl.train(lr=1e-2, guard="off")
    still = {name for name, p in network.named_parameters() if torch.equal(p, before[name])}
    assert still == {"shift", "unused"}
    with pytest.raises(ExportError, match="shift is a weight that never trains"):
        tl.script()


def test_a_layer_that_came_frozen_can_be_unfrozen() -> None:
    network = ByHand(False)
    network.second.requires_grad_(False)
    tl = session(network)
    assert tl.frozen == (False, True, False)
    weight = network.second.weight.clone()
    tl.train(lr=1e-2, guard="off")
    assert torch.equal(network.second.weight, weight)
    tl.unfreeze("second")
    tl.train(lr=1e-2, guard="off")
    assert not torch.equal(network.second.weight, weight)


class Tied(nn.Module):
    """The first and the third layer share their weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6, bias=False)
        self.third.weight = self.first.weight
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.third(F.relu(self.second(F.relu(self.first(x)))))))


@pytest.mark.parametrize("frozen", ["first", "third"])
def test_a_shared_weight_is_frozen_with_either_layer(frozen: str) -> None:
    tl = session(Tied())
    weight = tl.model.first.weight.clone()
    tl.freeze(frozen)
    stage = tl.train(lr=1e-2).stages[0]
    assert torch.equal(tl.model.first.weight, weight)
    assert stage.digest_before == stage.digest_after
    assert tl.view.layers is not None
    assert "first.weight" in tl.view.layers.frozen_parameter_names(stage.stage.frozen)
    tl.unfreeze("all")
    tl.train(lr=1e-2)
    assert not torch.equal(tl.model.first.weight, weight)
    assert tl.model.first.weight is tl.model.third.weight


def test_a_layer_that_shares_all_its_weights_cannot_train_alone() -> None:
    tl = session(Tied())
    tl.freeze("all")
    tl.unfreeze("third")
    with pytest.raises(PlanError, match="nothing would train"):
        tl.train(lr=1e-2)


def test_a_step_may_make_its_loss_from_gradients() -> None:
    def penalised(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        x = x.clone().requires_grad_(True)
        loss = F.cross_entropy(model(x), y)
        (slope,) = torch.autograd.grad(loss, x, create_graph=True)
        return loss + slope.square().sum()

    tl = session(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)))
    tl.step = penalised
    assert tl.find_lr(steps=20).losses


@pytest.mark.parametrize(("batch", "micro"), [(31, 30), (5, 4), (5, 2), (7, 3), (3, 2)])
def test_batch_norm_is_never_given_a_lone_sample(batch: int, micro: int) -> None:
    sizes: list[int] = []
    network = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    network[1].register_forward_pre_hook(
        lambda module, args: sizes.append(len(args[0])) if module.training else None
    )
    tl = session(network)
    sizes.clear()  # of three samples that its forms were tried on
    tl.train(lr=1e-2, batch=batch, micro=micro)
    assert sum(sizes) == 30
    assert min(sizes) > 1
