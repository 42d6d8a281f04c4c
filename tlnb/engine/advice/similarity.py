"""How similar new data is to what a network was trained on, told by the network itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tlnb.engine.data.samples import Samples
from tlnb.engine.network.observe import quiet

SEEN = 256  # samples that are looked at
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Similarity:
    """How alike the new data and the old are.

    Attributes:
        value: between 0 and 1; 1 where each channel has the mean and spread that it had in training.
        layers: the same for each norm layer, by name.
        measured_on: how it was found, in words.
    """

    value: float
    layers: dict[str, float]
    measured_on: str


def norm_similarity(model: nn.Module, samples: Samples, device: torch.device) -> Similarity | None:
    """Similarity by the statistics that BatchNorm layers remember of the data they were trained on.

    A channel that had mean m and standard deviation s in training, and has m' and s' now, lies the squared
    Fréchet distance ``(m - m')^2 + (s - s')^2`` of two normal distributions away (Dowson and Landau 1982; the
    FID of Heusel et al. 2017 channel by channel), here in units of ``s^2``. With D its mean over a layer's
    channels, a layer's similarity is ``exp(-D)``; the value is that of the mean D over all norm layers. That
    these statistics describe the old data is what AdaBN (Li et al. 2016) and DeepInversion (Yin et al. 2020)
    rest on.

    Args:
        model: in which nothing changes.
        samples: of the new data.
        device: where the model is.

    Returns:
        None for a network without BatchNorm statistics.
    """
    norms = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, NORMS) and module.running_mean is not None
    }
    if not norms:
        return None
    sums: dict[str, list[Tensor]] = {name: [] for name in norms}
    hooks = [module.register_forward_pre_hook(_note(sums[name])) for name, module in norms.items()]
    try:
        with quiet(model):
            for indices in _some(samples).split(64):
                model(samples.batch(indices).to(device))
    finally:
        for hook in hooks:
            hook.remove()
    distances = {name: _distance(norms[name], parts) for name, parts in sums.items() if parts}
    if not distances:
        return None
    middle = sum(distances.values()) / len(distances)
    return Similarity(
        math.exp(-middle),
        {name: math.exp(-d) for name, d in distances.items()},
        f"means and spreads at {len(distances)} BatchNorm layers against those of the old data",
    )


def _note(parts: list[Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    """Gathers count, sum and sum of squares of each channel."""

    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].detach().float().transpose(0, 1).flatten(1)
        count = torch.full((len(x),), x.shape[1], dtype=torch.float64)
        parts.append(torch.stack([count, x.sum(1).double().cpu(), x.square().sum(1).double().cpu()]))

    return hook


def _distance(norm: nn.Module, parts: list[Tensor]) -> float:
    count, total, squares = torch.stack(parts).sum(0)
    mean = total / count
    spread = (squares / count - mean.square()).clamp(min=0).sqrt()
    old_mean, old_var = norm.running_mean, norm.running_var
    assert isinstance(old_mean, Tensor)
    assert isinstance(old_var, Tensor)
    old_spread = (old_var.double().cpu() + float(norm.eps)).sqrt()  # type: ignore[arg-type]
    return float(
        (((mean - old_mean.double().cpu()) / old_spread).square() + (spread / old_spread - 1).square()).mean()
    )


def _some(samples: Samples) -> Tensor:
    return torch.linspace(0, len(samples) - 1, min(SEEN, len(samples))).long().unique()
