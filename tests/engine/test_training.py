"""A stage against the same training written out in plain PyTorch."""

import torch
from networks import blobs, small
from torch import nn

from tlnb.engine.core.interrupts import StopRequest
from tlnb.engine.core.objectives import Classification
from tlnb.engine.core.seeds import batches
from tlnb.engine.features.planner import ForwardPlan
from tlnb.engine.network import freeze
from tlnb.engine.network.layers import find_layers
from tlnb.engine.training.stage import Stage
from tlnb.engine.training.trainer import StageTrainer


def trainer_for(model, stage, **options):
    layers = find_layers(model, torch.zeros(1, 1, 8, 8))
    freeze.apply(model, layers, stage.frozen)
    forward_plan = ForwardPlan(blobs(), blobs(30, seed=1), model)
    usual = {"number": 1, "batch": 16, "seed": 0, "task": Classification()} | options
    return StageTrainer(model, layers, stage, forward_plan, **usual)


def plain_loop(model, stage, frozen_modules, parameters):
    """What a careful person writes by hand: AdamW, OneCycleLR, frozen modules in test mode."""
    data = blobs()
    for module in frozen_modules:
        module.requires_grad_(False)
    optimizer = torch.optim.AdamW(parameters, lr=stage.lr, fused=True)
    steps = len(batches(len(data), 16, 0, 1, 0)) * stage.epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [g["lr"] for g in optimizer.param_groups], total_steps=steps, cycle_momentum=False
    )
    loss_function = nn.CrossEntropyLoss(label_smoothing=stage.smoothing)
    for epoch in range(stage.epochs):
        model.train()
        for module in frozen_modules:
            module.eval()
        for indices in batches(len(data), 16, 0, 1, epoch):
            optimizer.zero_grad()
            loss_function(model(data.inputs[indices]), data.targets[indices]).backward()
            optimizer.step()
            schedule.step()


def test_a_stage_gives_the_weights_of_a_plain_loop():
    stage = Stage("test", (0,), epochs=3, lr=0.02, decay=2.0, smoothing=0.1)
    ours, theirs = small(), small()
    trainer = trainer_for(ours, stage)
    torch.manual_seed(5)
    for _ in range(3):
        trainer.train_epoch(0.02, StopRequest(), lambda *_: None)
    torch.manual_seed(5)
    layers = [(theirs.body[4:8], 0.25), (theirs.body[8:], 0.5), (theirs.head, 1.0)]
    groups = [{"params": list(m.parameters()), "lr": 0.02 * share} for m, share in layers]
    plain_loop(theirs, stage, [theirs.body[:4]], groups)
    for (name, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=name)


def test_discriminative_rates_fall_by_the_decay_a_layer():
    trainer = trainer_for(small(), Stage("test", (), lr=0.1, decay=2.6))
    assert [round(g["ratio"] * 2.6**3, 6) for g in trainer.optimizer.param_groups] == [1, 2.6, 6.76, 17.576]
    assert trainer.ratios["head"] == 1.0


def test_evaluate_agrees_with_scikit_learn():
    from sklearn.metrics import accuracy_score, log_loss

    model = small()
    trainer = trainer_for(model, Stage("test", (0,), lr=0.1))
    loss, accuracy = trainer.evaluate()
    held = blobs(30, seed=1)
    with torch.no_grad():
        shares = model(held.inputs).softmax(1)
    assert accuracy == accuracy_score(held.targets, shares.argmax(1))
    assert abs(loss - log_loss(held.targets, shares.double().numpy())) < 1e-5
