"""An optimizer's state by the names of the parameters, so that it outlives the optimizer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

ByName = dict[str, dict[str, Tensor]]
"""For each parameter's name: ``exp_avg``, ``exp_avg_sq``, ``step`` (AdamW) or ``momentum_buffer`` (SGD)."""


def named_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> ByName:
    """Copies of the optimizer's state, in main memory.

    Positions in a list of groups change with what is frozen; names stay.
    """
    return {
        name: {
            key: value.detach().to("cpu", copy=True)
            for key, value in optimizer.state[parameter].items()
            if isinstance(value, Tensor)
        }
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
    }


def load_named_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Mapping[str, Tensor]]
) -> int:
    """Copy state into an optimizer, for the parameters that it holds; how many of them found theirs.

    Parameters of another shape than their state start anew. The state given stays the caller's own: an
    optimizer that took it over would change it by its next step.
    """
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    found = 0
    for name, parameter in model.named_parameters():
        saved = state.get(name)
        if id(parameter) not in held or not saved or not _fits(saved, parameter):
            continue
        fused = any(group.get("fused") for group in optimizer.param_groups)
        optimizer.state[parameter] = {
            # The step counter stays in main memory unless a fused kernel counts on the device.
            key: value.to(parameter.device if key != "step" or fused else "cpu", copy=True)
            for key, value in saved.items()
        }
        found += 1
    return found


def size_of_state(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of an optimizer's state."""
    tensors = (v for state in optimizer.state.values() for v in state.values() if isinstance(v, Tensor))
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _fits(saved: Mapping[str, Tensor], parameter: nn.Parameter) -> bool:
    return all(value.dim() == 0 or value.shape == parameter.shape for value in saved.values())
