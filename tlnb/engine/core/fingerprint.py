"""Digests of tensors and of the items of a data set: the proof that something did not change."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def tensors_digest(named: Iterable[tuple[str, Tensor]], note: str = "") -> str:
    """SHA-256, in hex, over a note and the name, dtype, shape and bytes of each tensor."""
    sha = hashlib.sha256(note.encode())
    for name, tensor in named:
        flat = tensor.detach().cpu().contiguous()
        sha.update(f"{name}:{flat.dtype}:{tuple(flat.shape)};".encode())
        sha.update(flat.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def item_digest(make: Callable[[], Any]) -> bytes | None:
    """A digest of what ``make`` gives: pictures, tensors, arrays, texts, numbers, and collections of these.

    None where it holds something else, or where making it fails: that is told where it is needed.
    """
    sha = hashlib.blake2b(digest_size=16)
    try:
        _feed(sha, make())
    except Exception:  # another's code may raise anything
        return None
    return sha.digest()


def _feed(sha: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        sha.update(f"{value.dtype} {tuple(value.shape)}".encode() + flat.numpy().tobytes())
    elif isinstance(value, Mapping) and {"bytes", "path"} <= set(value):  # Hugging Face, not decoded
        content = value["bytes"]
        sha.update(Path(value["path"]).read_bytes() if content is None else content)
    elif isinstance(value, Mapping):
        for key in value:
            _feed(sha, str(key))
            _feed(sha, value[key])
    elif isinstance(value, tuple | list):
        sha.update(f"{len(value)} parts".encode())
        for part in value:
            _feed(sha, part)
    elif isinstance(value, Image.Image):
        sha.update(f"{value.mode} {value.size}".encode() + value.tobytes())
    elif isinstance(value, np.ndarray):
        sha.update(f"{value.dtype} {value.shape}".encode() + value.tobytes())
    elif isinstance(value, str | bytes | int | float | None):
        sha.update(repr(value).encode())
    else:
        raise TypeError(type(value).__name__)
