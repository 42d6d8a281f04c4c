"""The switches that torch keeps for a whole process or thread, as tlnb expects them, whatever a notebook has set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def usual_switches() -> Iterator[None]:
    """Inside, new tensors are float32 on the CPU, gradients are on, and no precision is chosen automatically.

    Networks, heads and samples are made for that; afterwards the notebook's own switches are back.
    """
    dtype = torch.get_default_dtype()
    with ExitStack() as switches:
        if dtype != torch.float32:
            switches.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        if torch.get_default_device().type != "cpu":
            switches.enter_context(torch.device("cpu"))
        if torch.is_inference_mode_enabled():
            switches.enter_context(torch.inference_mode(False))
        if not torch.is_grad_enabled():
            switches.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                switches.enter_context(torch.autocast(device, enabled=False))
        yield
