"""SHA-256 over tensors: the proof that something did not change, and the key of what was computed from it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor


def tensors_digest(named: Iterable[tuple[str, Tensor]], note: str = "") -> str:
    """SHA-256, in hex, over a note and the name, dtype, shape and bytes of each tensor."""
    sha = hashlib.sha256(note.encode())
    for name, tensor in named:
        flat = tensor.detach().cpu().contiguous()
        sha.update(f"{name}:{flat.dtype}:{tuple(flat.shape)};".encode())
        sha.update(flat.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()
