"""Weights from files and from the publisher, loaded without ever running code from them."""

from __future__ import annotations

import argparse
import hashlib
import re
import warnings
import zipfile
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from tlnb.display.tables import printable
from tlnb.engine.core.arguments import path_of
from tlnb.engine.models.file_kinds import PICKLE, SAFETENSORS, TORCH, class_in, kind_of
from tlnb.engine.models.state_dicts import StateDict, match, state_dicts, without_compiled
from tlnb.errors import WeightsError, did_you_mean

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
"""Endings of files that hold weights."""

MOST_UNHELD = (
    64 << 20
)  # bytes that tensors may stand for beyond what the file holds; an expanded mask is small

_SCALAR = np.float64(0).__reduce__()[0]
PLAIN: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64)),
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),  # as numpy before 2 wrote it
]
"""What training scripts put beside the weights and what runs no code: their options, and figures of numpy."""


def read_weights(path: str | Path) -> StateDict:
    """A state dict from a safetensors file, or from a ``.pth`` by torch's safe loader.

    Raises:
        WeightsError: no such file, no state dict in it, or a file that would need to run code to load.
    """
    return read_parts(path)[0][0]


def read_parts(path: str | Path, part: str | None = None) -> list[tuple[StateDict, str]]:
    """Every state dict in a file with the keys under which it was found, in words (empty: at the top).

    Args:
        path: of the file.
        part: a key of the file, or the first word of names in it, under which the weights stand; None for all, the
            one that is meant most likely first.

    Raises:
        WeightsError: no such file, no state dict in it, a file that would need to run code to load, or tensors
            that are no weights.
    """
    path = path_of(path, WeightsError)
    if not path.is_file():
        raise WeightsError(f"no weights file {str(path)!r}")
    found = [(without_compiled(state), keys) for state, keys in state_dicts(_read(path))]
    if part is not None:
        found = _named(found, part, path.name)
    if not found:
        raise WeightsError(f"{path.name} holds no state dict (names and tensors)")
    for state, _ in found:
        _check_tensors(state, path)
    return found


def named_by_kind(path: str | Path) -> str:
    """The name of a file, with its kind where its ending says something else."""
    path = path_of(path, WeightsError)
    told, kind = path.suffix.lower() == ".safetensors", kind_of(path)
    wrong = (kind == SAFETENSORS) != told and kind in (SAFETENSORS, TORCH)
    return f"{path.name} (a {kind})" if wrong else path.name


def _named(found: list[tuple[StateDict, str]], part: str, file: str) -> list[tuple[StateDict, str]]:
    under = [(state, keys) for state, keys in found if part in keys.split("/")]
    words = {name.split(".")[0] for state, _ in found for name in state if "." in name}
    if not under and part in words:
        under = [({n: t for n, t in state.items() if part in n.split(".")}, keys) for state, keys in found]
        under = [(state, keys) for state, keys in under if state]
    if not under:
        keys = {key for _, path in found for key in path.split("/") if key}
        there = sorted(keys | words)
        raise WeightsError(
            f"{file} has no weights under {part!r}{did_you_mean(part, there)}; there are {', '.join(there[:8])}"
        )
    return under


def _check_tensors(state: StateDict, path: Path) -> None:
    """Refuse what is no weight of a network, and what stands for far more numbers than the file holds."""
    unheld = 0
    for name, tensor in state.items():
        if printable(name) != name:
            raise WeightsError(f"{path.name} holds names that no network has, such as {name!r}")
        kind = _odd_kind(tensor)
        if kind:
            raise WeightsError(
                f"{path.name} holds {kind} ({name}); weights are dense tensors: save them as such, "
                "by model.state_dict() of the network in float32"
            )
        unheld += max(0, tensor.numel() * tensor.element_size() - tensor.untyped_storage().nbytes())
    if unheld > MOST_UNHELD:
        size = path.stat().st_size
        raise WeightsError(
            f"{path.name} has {size:,} bytes, and its tensors stand for {unheld:,} more; it is no file of weights"
        )


def _odd_kind(tensor: Tensor) -> str:
    if tensor.is_meta:
        return "a tensor without numbers (device meta)"
    if tensor.is_quantized:
        return "a quantised tensor"
    if tensor.is_nested:
        return "a nested tensor"
    return "" if tensor.layout == torch.strided else "a sparse tensor"


def _read(path: Path) -> object:
    kind = kind_of(path)
    try:
        if kind == SAFETENSORS or (path.suffix == ".safetensors" and kind not in (TORCH, PICKLE)):
            return load_file(path)
        return _safe_torch_load(path)
    except SafetensorError as error:
        reason = f"it is {kind}" if kind and kind != SAFETENSORS else error
        raise WeightsError(f"{path.name} is not a sound safetensors file: {reason}") from None
    except Exception as error:
        # torch.load meets damaged and hostile files with almost any exception; each means the same here.
        raise WeightsError(
            f"{path.name} cannot be loaded safely ({_reason(kind, error)}); tlnb never runs code from a file: "
            "save the state dict alone, as safetensors or with torch.save(model.state_dict(), ...)"
        ) from None


def _reason(kind: str, error: Exception) -> str:
    if kind not in ("", TORCH, PICKLE, SAFETENSORS):
        return f"it is {kind}"
    held = class_in(str(error))
    if held:
        return f"it holds an object of the class {printable(held)}"
    lines = str(error).strip().splitlines()
    return printable(lines[0])[:160] if lines else type(error).__name__


def metadata(path: str | Path) -> dict[str, str]:
    """What a safetensors file says about itself; empty where it says nothing, or is another kind of file."""
    try:
        with safe_open(path_of(path, WeightsError), "pt") as file:
            return file.metadata() or {}
    except SafetensorError:
        return {}


def _safe_torch_load(path: Path) -> object:
    _check_unpacked(path)
    with warnings.catch_warnings(), torch.serialization.safe_globals(PLAIN):
        warnings.simplefilter("ignore")
        with path.open("rb") as file:  # by its name torch would guess what it is
            return torch.load(file, map_location="cpu", weights_only=True)


def _check_unpacked(path: Path) -> None:
    """Refuse an archive that holds more than its own size.

    torch.save never compresses, so only a zip bomb, or a file that somebody packed anew, does.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(part.file_size for part in archive.infolist())
    size = path.stat().st_size
    if unpacked > size:
        raise ValueError(f"{size:,} bytes that unpack to {unpacked:,}; torch.save never packs")


def download(url: str, log: Callable[[str], None]) -> StateDict:
    """Published weights, from torch's cache folder or the network, checked against the hash in their name.

    Args:
        url: address of the file.
        log: is told about a download before it starts.

    Raises:
        WeightsError: they cannot be had; names the file, and the ways to give it.
    """
    name = url.rsplit("/", 1)[-1]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not cached.is_file():
        log(f"downloading {name} to {cached.parent}")
        try:
            cached.parent.mkdir(parents=True, exist_ok=True)
            # It writes to a temporary file and moves that, so an interrupt leaves nothing half done.
            torch.hub.download_url_to_file(url, str(cached), hash_prefix=_hash_in(name), progress=False)
        except (OSError, RuntimeError, HTTPException, ValueError) as error:
            cause = getattr(error, "reason", None) or error
            raise WeightsError(
                f"cannot download {name} ({cause}); put that file into {cached.parent}, "
                "or give it with --weights FILE, or take random weights with --weights none"
            ) from None
    _check_hash(cached)
    return read_weights(cached)


def _hash_in(name: str) -> str | None:
    found = re.search(r"-([0-9a-f]{8,})\.", name)
    return found.group(1) if found else None


def _check_hash(path: Path) -> None:
    """What lies in the cache may have been cut off or exchanged since it was downloaded."""
    expected = _hash_in(path.name)
    if expected is None:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(expected):
        raise WeightsError(
            f"{path} is damaged: its SHA-256 starts with {found[:8]}, not {expected}; "
            "delete it and load again"
        )


def load_into(model: nn.Module, state: StateDict, source: str) -> None:
    """Put a state dict into a model; every name and shape must fit, old spellings and prefixes aside.

    Raises:
        WeightsError: says how many names are missing, unexpected or of another shape, and the first of each.
            The model has not changed then.
    """
    found = match({name: tuple(t.shape) for name, t in model.state_dict().items()}, state)
    if found.missing or found.unexpected or found.reshaped:
        raise WeightsError(f"{source} does not fit this model: {found.describe()}")
    found.put_into(model)
