"""Which number format layers run in: the frozen part in bfloat16 where the hardware has it and the answers agree."""

from __future__ import annotations

import torch
from torch import Tensor

FORMATS = ("auto", "fp32", "bf16")
WORTH = 2e11  # floating-point operations in all; below, float32 takes a second or two anyway
FEATURE_ERROR = 0.03  # relative, a sample; bfloat16 keeps 8 bits, so 0.004 a rounding
CLOSE_CALL = 0.05  # two scores as near as this, relative to their spread, may change places


def native_bfloat16(device: torch.device) -> bool:
    """Whether the hardware computes in bfloat16 itself: AMX or AVX-512 BF16 on a CPU, Ampere and later."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    return _has("amx_bf16", "avx512_bf16", "bf16")


def fast_bfloat16(device: torch.device) -> bool:
    """Whether there are matrix units for bfloat16 (AMX, tensor cores), so that training gains too."""
    if device.type == "cpu":
        return _has("amx_bf16")
    return device.type == "cuda" and native_bfloat16(device)


def training_format(word: str, device: torch.device) -> torch.dtype | None:
    """What the layers that train compute in, beside float32; None for float32 alone.

    ``auto`` is bfloat16 where there are matrix units for it, float16 where a GPU has such units for that alone (Volta
    and Turing, such as the T4), and float32 elsewhere. Gradients of float16 need a scaled loss.

    Args:
        word: ``fp32``, ``bf16``, ``fp16`` or ``auto``.
        device: that trains.
    """
    if word != "auto":
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(word)
    if fast_bfloat16(device):
        return torch.bfloat16
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0):
        return torch.float16
    return None


def _has(*names: str) -> bool:
    """Whether the CPU has one of these; False where torch does not say."""
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    return capabilities is not None and any(capabilities().get(name) for name in names)


def agree(exact: Tensor, fast: Tensor) -> bool:
    """Whether features in a shorter format stand for the exact ones.

    Args:
        exact, fast: (B, ...) of the same shape; the second is computed in the shorter format.

    Returns:
        True where the relative error (L2 norm) of each sample is within ``FEATURE_ERROR``.
    """
    exact, fast = exact.flatten(1).float(), fast.flatten(1).float()
    error = (fast - exact).norm(dim=1)
    # Written so that a value that is not finite fails.
    return bool((error <= FEATURE_ERROR * exact.norm(dim=1)).all())


def same_predictions(exact: Tensor, fast: Tensor) -> bool:
    """Whether two sets of scores name the same classes, close calls aside.

    Args:
        exact, fast: (B, classes).
    """
    top = exact.float().topk(min(2, exact.shape[1]), dim=1).values
    clear = (top[:, 0] - top[:, -1]) > CLOSE_CALL * exact.float().std(dim=1)
    return bool(((exact.argmax(1) == fast.argmax(1)) | ~clear).all())
