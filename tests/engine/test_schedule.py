import pytest
import torch

from tlnb.engine.training.schedules import SHAPES, cosine_decay, one_cycle


@pytest.mark.parametrize("steps", [4, 10, 23, 100])
def test_one_cycle_is_torchs_own(steps):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2.0, total_steps=steps)
    for step in range(steps):
        assert 2.0 * one_cycle(step, steps) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step + 1 < steps:
            schedule.step()


def test_cosine_is_torchs_own():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=3.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)
    for step in range(12):
        assert 3.0 * cosine_decay(step, 12) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("schedule", SHAPES)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_stage_of_very_few_steps_has_a_rate_at_each(schedule, steps):
    assert all(0 < SHAPES[schedule](step, steps) <= 1 for step in range(steps))
