"""The network as a file that others can use: safetensors with a loader, torch.export, ONNX, OpenVINO, LiteRT."""

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

from tlnb.display.tables import printable
from tlnb.engine.checkpoint.file import reason_of
from tlnb.engine.core.arguments import file_to_write
from tlnb.engine.core.tree import Batch
from tlnb.engine.export.deployed import KEY, Deployed, example, program_of
from tlnb.engine.export.edge import to_litert, to_openvino
from tlnb.engine.export.own_files import check_module_name
from tlnb.engine.network.trace import flags
from tlnb.errors import ExportError, did_you_mean, first_line


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
    torch.export.save(program_of(network, inputs), str(path), extra_files={KEY: json.dumps(about)})


def to_onnx(path: Path, network: Deployed, inputs: Batch, about: dict[str, Any]) -> None:
    """An ONNX graph for any batch size, pixels in, probabilities out.

    Raises:
        ExportError: onnx is not installed, or cannot take this network.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError:
        raise ExportError(NEEDS_ONNX) from None
    args, named, shapes = example(inputs)
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


NEEDS_ONNX = 'ONNX needs more packages: pip install "tlnb[onnx]"'
Writer = Callable[[Path, Deployed, Batch, dict[str, Any]], None]
WRITERS: dict[str, Writer] = {
    ".safetensors": to_safetensors, ".pt2": to_torch_export, ".onnx": to_onnx, ".xml": to_openvino,
    ".tflite": to_litert,
}  # fmt: skip
FORMS = {
    "safetensors": ".safetensors", "torch": ".pt2", "onnx": ".onnx", "openvino": ".xml", "litert": ".tflite"
}  # fmt: skip
"""Endings by the names of the forms."""


def target(path: str, to: str | None = None) -> Path:
    """The file that is meant.

    Args:
        path: its ending says the form; without one it is that of ``to``, or ``.safetensors``.
        to: a name of :data:`FORMS`.

    Raises:
        ExportError: no such form, an ending of another form, or a name that would hide a module of Python.
    """
    place = file_to_write(path, "%tl_export birds.safetensors", ExportError)
    if to is not None and to not in FORMS:
        raise ExportError(
            f"no export to {printable(to)}{did_you_mean(to, FORMS)}; there are {', '.join(FORMS)}"
        )
    wanted = FORMS[to or "safetensors"]
    place = place if place.suffix else place.with_suffix(wanted)
    if place.suffix not in WRITERS:
        raise ExportError(
            f"no export to {place.suffix}{did_you_mean(place.suffix, WRITERS)}; "
            f"there are {', '.join(WRITERS)}"
        )
    if to is not None and place.suffix != wanted:
        raise ExportError(f"--to {to} writes a file that ends in {wanted}, not {place.suffix}")
    if place.suffix == ".safetensors":  # its loader is a Python file of that name
        check_module_name(place.with_suffix(".py"))
    return place


def beside(path: Path) -> list[Path]:
    """What the form writes beside the file itself."""
    if path.suffix == ".xml":  # OpenVINO keeps the weights apart
        return [path.with_suffix(".bin")]
    return [path.with_suffix(ending) for ending in (".json", ".py")] if path.suffix == ".safetensors" else []


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
        with flags(network, training=False), torch.no_grad(), silent():
            WRITERS[path.suffix](path, network, inputs, about)
    except (OSError, SafetensorError) as error:
        raise ExportError(f"cannot write {path.name}: {reason_of(error)}") from None


@contextmanager
def silent() -> Iterator[None]:
    """Without what torch and other writers tell about each of their steps; ours asked for a file."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
