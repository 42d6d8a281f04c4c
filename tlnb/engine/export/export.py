"""The network as a file that others can use: safetensors with a loader, torch.export, ONNX."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from tlnb.engine.checkpoint.file import reason_of
from tlnb.engine.core.arguments import path_of
from tlnb.engine.core.tree import Batch, Tree
from tlnb.engine.export.deployed import Deployed
from tlnb.engine.export.own_files import check_module_name
from tlnb.engine.network.trace import flags
from tlnb.errors import ExportError, did_you_mean, first_line

KEY = "tlnb.json"
"""Under this name each file holds what has to be known: preprocessing, class names, shapes."""


def to_safetensors(path: Path, network: Deployed, inputs: Batch, about: dict[str, Any]) -> None:
    """Weights and buffers of the network under its own names, with class names and preprocessing."""
    state = {name: t.detach().cpu().contiguous().clone() for name, t in network.model.state_dict().items()}
    plain = {key: json.dumps(value) for key, value in about.items()}
    save_file(state, path, metadata=plain | {"format": "pt"})
    path.with_suffix(".json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def to_torch_export(path: Path, network: Deployed, inputs: Batch, about: dict[str, Any]) -> None:
    """The graph of the network for any batch size, pixels in, probabilities out.

    Raises:
        ExportError: torch cannot write its forward as a graph.
    """
    try:
        args, named, shapes = _example(inputs)
        program = torch.export.export(network, args, named, dynamic_shapes=shapes)
    except Exception as error:  # torch.export meets others' code with almost any exception
        raise ExportError(f"torch.export cannot take this network: {first_line(error)[:160]}") from None
    torch.export.save(program, str(path), extra_files={KEY: json.dumps(about)})


def to_onnx(path: Path, network: Deployed, inputs: Batch, about: dict[str, Any]) -> None:
    """An ONNX graph for any batch size, pixels in, probabilities out.

    Raises:
        ExportError: onnx is not installed, or cannot take this network.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError:
        raise ExportError('ONNX needs more packages: pip install "tlnb[onnx]"') from None
    args, named, shapes = _example(inputs)
    names = list(named) or ["pixels" if network.pictures else "inputs"]
    try:
        torch.onnx.export(
            network, args, str(path), kwargs=named, dynamo=True, dynamic_shapes=shapes, external_data=False,
            input_names=names, output_names=["answers"],
        )  # fmt: skip
    except Exception as error:
        raise ExportError(f"this network cannot be written as ONNX: {first_line(error)[:160]}") from None
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {KEY: json.dumps(about)})
    onnx.save(model, str(path))


Writer = Callable[[Path, Deployed, Batch, dict[str, Any]], None]
WRITERS: dict[str, Writer] = {".safetensors": to_safetensors, ".pt2": to_torch_export, ".onnx": to_onnx}


def target(path: str) -> Path:
    """The file that is meant; ``.safetensors`` where it has no ending.

    Raises:
        ExportError: another ending, or a name that would hide a module of Python.
    """
    place = path_of(path, ExportError)
    if not place.name:
        raise ExportError("an export needs a name, such as: %tl_export birds.safetensors")
    place = place if place.suffix else place.with_suffix(".safetensors")
    if place.suffix not in WRITERS:
        raise ExportError(
            f"no export to {place.suffix}{did_you_mean(place.suffix, WRITERS)}; "
            f"there are {', '.join(WRITERS)}"
        )
    if place.suffix == ".safetensors":  # its loader is a Python file of that name
        check_module_name(place.with_suffix(".py"))
    return place


def write(path: Path, network: Deployed, inputs: Batch, about: dict[str, Any]) -> None:
    """Write the network in the form that the ending says.

    Args:
        path: see :func:`target`.
        network: on the CPU; its modes are put back.
        inputs: two samples or more.
        about: what has to be known.

    Raises:
        ExportError: it cannot be written so.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with flags(network, training=False), torch.no_grad(), _quiet():
            WRITERS[path.suffix](path, network, inputs, about)
    except (OSError, SafetensorError) as error:
        raise ExportError(f"cannot write {path.name}: {reason_of(error)}") from None


def _example(inputs: Batch) -> tuple[tuple[Tensor, ...], dict[str, Tensor], Any]:
    """Two samples as arguments in order and by name, and which of their dimensions may have any size."""
    free = torch.export.Dim.DYNAMIC
    if isinstance(inputs, Tree):
        return (), dict(inputs[:2].items()), {name: {0: free, 1: free} for name in inputs}
    return (inputs[:2],), {}, ({0: free},)


@contextmanager
def _quiet() -> Iterator[None]:
    """torch tells its users about each step of an export; ours asked for a file."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
