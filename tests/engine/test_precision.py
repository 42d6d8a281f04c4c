"""Which number format layers train in, by what the device has."""

from __future__ import annotations

import pytest
import torch

from tlnb.engine.features import precision


@pytest.mark.parametrize(
    ("capability", "auto"),
    [
        ((6, 1), None),
        ((7, 0), torch.float16),
        ((7, 5), torch.float16),
        ((8, 0), torch.bfloat16),
    ],
)
def test_auto_takes_what_the_gpu_is_fast_in(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], auto: torch.dtype | None
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    device = torch.device("cuda")
    assert precision.training_format("auto", device) == auto
    assert precision.training_format("fp32", device) is None
    assert precision.training_format("bf16", device) == torch.bfloat16
    assert precision.training_format("fp16", device) == torch.float16


def test_auto_is_float32_where_nothing_is_known() -> None:
    assert precision.training_format("auto", torch.device("mps")) is None
