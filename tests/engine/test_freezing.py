"""Frozen means frozen: each way in which other libraries were seen to fail (their names stand beside it)."""

import pytest
import torch
from networks import blobs, small
from torch import nn

from tlnb.engine.core.interrupts import StopRequest
from tlnb.engine.core.objectives import Classification
from tlnb.engine.features.planner import ForwardPlan
from tlnb.engine.network import freeze
from tlnb.engine.network.layers import find_layers
from tlnb.engine.training.optim import make_optimizer
from tlnb.engine.training.stage import Stage
from tlnb.engine.training.trainer import StageTrainer
from tlnb.errors import TrainingError

FROZEN = (0, 1)


def setup(stage=None, model=None):
    model = model or small()
    layers = find_layers(model, torch.zeros(1, 1, 8, 8))
    stage = stage or Stage("test", FROZEN, epochs=2, lr=0.05, weight_decay=0.5)
    freeze.apply(model, layers, stage.frozen)
    trainer = StageTrainer(
        model, layers, stage, ForwardPlan(blobs(), blobs(30, seed=1), model), number=1, batch=16, seed=0,
        task=Classification(),
    )  # fmt: skip
    return model, layers, trainer


def train(trainer):
    for _ in range(trainer.stage.epochs):
        trainer.train_epoch(trainer.stage.lr, StopRequest(), lambda *_: None)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("frozen", [(0,), (0, 1), (1,), (0, 1, 2), (2, 3), (0, 3)])
def test_weights_and_buffers_of_frozen_layers_keep_every_bit(frozen, optimizer):
    stage = Stage("test", frozen, epochs=2, lr=0.05, weight_decay=0.5, optimizer=optimizer)
    model, layers, trainer = setup(stage)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    train(trainer)
    fixed = {n for i in frozen for n in (*layers[i].parameter_names, *layers[i].buffer_names)}
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == (name in fixed), name


def test_statistics_do_not_move_and_are_used_in_training():
    # BatchNorm that stands still but normalises with the batch (Lightning) or moves (plain torch, fastai,
    # Finetuning-Scheduler, torch-lr-finder): the frozen part must compute in training what it does in test.
    model, _, trainer = setup()
    x = blobs().inputs[:16]
    with torch.no_grad():
        tested = model.body[:8](x)
        trainer.set_modes(training=True)
        assert torch.equal(model.body[:8](x), tested)


def test_dropout_is_off_in_frozen_layers_and_on_in_others():
    model, _, trainer = setup(Stage("test", (0,), lr=0.1))
    trainer.set_modes(training=True)
    assert not model.body[3].training
    assert model.body[7].training


def test_a_later_train_call_does_not_undo_it():
    model, _, trainer = setup()
    model.train()
    train(trainer)
    assert not model.body[1].training
    assert model.body[9].training


def test_track_running_stats_and_modules_are_the_users_own():
    model = small()
    modules, flags = list(model.modules()), [getattr(m, "track_running_stats", None) for m in model.modules()]
    _, _, trainer = setup(model=model)
    train(trainer)
    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))
    assert [getattr(m, "track_running_stats", None) for m in model.modules()] == flags


def test_gradients_left_from_before_are_dropped():
    # SGD with momentum moved frozen weights through a gradient that was there when they were frozen.
    model = small()
    model(blobs().inputs[:8]).sum().backward()
    layers = find_layers(model, torch.zeros(1, 1, 8, 8))
    freeze.apply(model, layers, FROZEN)
    assert all(
        p.grad is None for i in FROZEN for p in (model.get_parameter(n) for n in layers[i].parameter_names)
    )
    assert model.head.weight.grad is not None


def test_equal_values_are_still_different_parameters():
    # Lightning left out new parameters that equal one in the optimizer: zero biases, fresh BatchNorm.
    model = nn.Sequential(
        nn.Conv2d(1, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.Flatten()
    )
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    layers = find_layers(model, torch.zeros(1, 1, 2, 2))
    freeze.apply(model, layers, ())
    optimizer = make_optimizer(model, layers, Stage("all", ()))
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in model.parameters()}
    assert len(held) == len(list(model.parameters()))


def test_what_is_thawed_later_trains():
    # An optimizer made from filter(requires_grad) never saw what was thawed afterwards.
    model, _, trainer = setup()
    train(trainer)
    stage = Stage("all", (), epochs=1, lr=0.05)
    _, _, second = setup(stage, model)
    before = model.body[0].weight.clone()
    train(second)
    assert not torch.equal(model.body[0].weight, before)


def test_a_flag_flipped_behind_the_back_is_found_before_training():
    model, _, trainer = setup()
    model.body[0].weight.requires_grad_(True)
    with pytest.raises(TrainingError, match=r"not in the optimizer: body\.0\.weight"):
        freeze.check_same_parameters(model, trainer.optimizer)


def test_a_trainable_layer_that_the_loss_does_not_reach_is_named():
    model, _, trainer = setup()
    trainer._step = lambda forward, x, y: forward(x).detach().sum() * model.body[8].weight.sum()
    with pytest.raises(
        TrainingError, match=r"no gradient reached head\.weight, head\.bias.*freeze that layer"
    ):
        train(trainer)


def test_digest_tells_one_changed_bit():
    model, layers, _ = setup()
    before = freeze.digest(model, layers, FROZEN)
    assert freeze.digest(model, layers, FROZEN) == before
    with torch.no_grad():
        model.body[1].running_mean[0] += 1e-7
    assert freeze.digest(model, layers, FROZEN) != before
    assert len(before) == 64


def test_bn_frozen_leaves_statistics_of_unfrozen_layers_alone():
    model, _, trainer = setup()
    trainer.bn = "frozen"
    before = model.body[9].running_mean.clone()
    train(trainer)
    assert torch.equal(model.body[9].running_mean, before)
