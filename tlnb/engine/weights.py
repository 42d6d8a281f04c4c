"""Weights from files and from the publisher, loaded without ever running code from them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from tlnb.errors import WeightsError

StateDict = dict[str, Tensor]


def read_weights(path: str | Path) -> StateDict:
    """A state dict from a safetensors file, or from a ``.pth`` by torch's safe loader.

    Raises:
        WeightsError: no such file, not a state dict, or a file that would need to run code to load.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise WeightsError(f"no weights file {str(path)!r}")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else _safe_torch_load(path)
    except SafetensorError as error:
        raise WeightsError(f"{path.name} is not a sound safetensors file: {error}") from None
    except Exception as error:
        # torch.load meets damaged and hostile files with almost any exception; each means the same here.
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"{path.name} cannot be loaded safely ({reason}); tlnb never runs code from a file: "
            "save the state dict alone, as safetensors or with torch.save(model.state_dict(), ...)"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path.name} holds no state dict (names and tensors)")
    return state


def metadata(path: str | Path) -> dict[str, str]:
    """What a safetensors file says about itself; empty where it says nothing."""
    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def _safe_torch_load(path: Path) -> StateDict:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def download(url: str, say: Callable[[str], None]) -> StateDict:
    """Published weights, from torch's cache folder or the network, checked against the hash in their name.

    Args:
        url: address of the file.
        say: is told about a download before it starts.

    Raises:
        WeightsError: they cannot be had; names the file, and the ways to give it.
    """
    name = url.rsplit("/", 1)[-1]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not cached.is_file():
        say(f"downloading {name} to {cached.parent}")
        try:
            cached.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(cached), hash_prefix=_hash_in(name), progress=False)
        except (URLError, OSError, RuntimeError) as error:
            cause = getattr(error, "reason", None) or error
            raise WeightsError(
                f"cannot download {name} ({cause}); put that file into {cached.parent}, "
                "or give it with --weights FILE, or take random weights with --weights none"
            ) from None
    return read_weights(cached)


def _hash_in(name: str) -> str | None:
    found = re.search(r"-([0-9a-f]{8,})\.", name)
    return found.group(1) if found else None


def load_into(model: nn.Module, state: StateDict, source: str) -> None:
    """Put a state dict into a model; every name and shape must fit.

    Raises:
        WeightsError: says how many names are missing, unexpected or of another shape, and the first of each.
            The model has not changed then.
    """
    own = model.state_dict()
    missing = [n for n in own if n not in state and not n.endswith("num_batches_tracked")]
    unexpected = [n for n in state if n not in own]
    reshaped = [n for n in own if n in state and own[n].shape != state[n].shape]
    problems = [
        f"{len(names)} {word} (such as {names[0]})"
        for names, word in ((missing, "missing"), (unexpected, "unexpected"), (reshaped, "of another shape"))
        if names
    ]
    if problems:
        raise WeightsError(f"{source} does not fit this model: names {', '.join(problems)}")
    model.load_state_dict(state, strict=False)
