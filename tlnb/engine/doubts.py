"""Doubts about inputs that look as if somebody had prepared them already."""

from __future__ import annotations

from torch import Tensor

_MOST = 10_000_000


def why_normalised(inputs: Tensor) -> str | None:
    """Why a batch looks normalised already, in words; None where it looks like pixels.

    Pixels are never negative. Values that are, and whose mean and deviation lie near 0 and 1 (as after
    ``(x - mean) / std`` with any usual figures, or near ±1 after ``x / 127.5 - 1``), have been normalised
    before; to do it again would show the network something else than what its weights were made for.

    Args:
        inputs: (N, C, H, W), any dtype.
    """
    if not inputs.is_floating_point() or inputs.numel() == 0:
        return None
    values = inputs.detach().flatten()[:_MOST].float()
    least, most = values.min().item(), values.max().item()
    mean, deviation = values.mean().item(), values.std(unbiased=False).item()
    if least >= -0.01:
        return None
    if most > 20 or least < -20:
        return None  # neither pixels nor normalised ones: something else, about which nothing can be said
    if abs(mean) < 2.5 and 0.05 < deviation < 3.5:
        return (
            f"values from {least:.2f} to {most:.2f} with mean {mean:.2f} and deviation {deviation:.2f} "
            "have been normalised before (pixels lie in 0..1 or 0..255)"
        )
    return None


def looks_normalised(inputs: Tensor) -> bool:
    """Whether a batch (N, C, H, W) looks normalised already; see ``why_normalised``."""
    return why_normalised(inputs) is not None
