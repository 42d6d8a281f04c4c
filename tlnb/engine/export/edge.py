"""The network for small machines: the graphs of OpenVINO and LiteRT, each written by its own converter."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from torch import Tensor

from tlnb.engine.core.tree import Batch, Tree
from tlnb.engine.export.deployed import KEY, Deployed, example, program_of
from tlnb.errors import ExportError, first_line

NEEDS_OPENVINO = 'OpenVINO needs one more package: pip install "tlnb[openvino]"'
NEEDS_LITERT = 'LiteRT needs more packages: pip install "tlnb[litert]"'


def to_openvino(path: Path, network: Deployed, inputs: Batch, about: dict[str, Any]) -> None:
    """A graph of OpenVINO in float32 for any batch size, with its weights in a ``.bin`` beside it.

    Raises:
        ExportError: openvino is not installed, or cannot take this network.
    """
    openvino = _openvino()
    _write_openvino(openvino, program_of(network, inputs), path, inputs, about)


def onnx_to_openvino(source: Path, path: Path, inputs: Batch, about: dict[str, Any]) -> None:
    """The same from a file of ONNX, whose quantised layers stay quantised.

    Raises:
        ExportError: openvino is not installed, or cannot take this network.
    """
    _write_openvino(_openvino(), source, path, inputs, about)


def _openvino() -> Any:
    try:
        import openvino
    except ImportError:
        raise ExportError(NEEDS_OPENVINO) from None
    return openvino


def _write_openvino(openvino: Any, source: object, path: Path, inputs: Batch, about: dict[str, Any]) -> None:
    _, named, shapes = example(inputs)
    try:
        model = openvino.convert_model(source)
        if isinstance(inputs, Tree):
            model.reshape({name: [-1 if at in shapes[name] else n for at, n in enumerate(part.shape)]
                           for name, part in named.items()})  # fmt: skip
        else:
            model.reshape([-1, *inputs.shape[1:]])
            model.inputs[0].get_tensor().set_names({"pixels" if about.get("preprocess") else "inputs"})
        model.outputs[0].get_tensor().set_names({"answers"})
        model.set_rt_info(json.dumps(about), [KEY])
        openvino.save_model(model, str(path), compress_to_fp16=False)
    except Exception as error:  # it names what it cannot convert in exceptions of its own
        raise ExportError(f"this network cannot be written for OpenVINO: {first_line(error)[:160]}") from None


def to_litert(path: Path, network: Deployed, inputs: Batch, about: dict[str, Any]) -> None:
    """A flatbuffer of LiteRT that takes one sample at a time; what has to be known is a zip at its end.

    Raises:
        ExportError: litert-torch is not installed, or cannot take this network, or it takes several inputs.
    """
    if not isinstance(inputs, Tensor):
        raise ExportError("texts are not written for LiteRT; --to onnx and --to openvino take them")
    try:
        import litert_torch
    except ImportError:
        raise ExportError(NEEDS_LITERT) from None
    try:
        litert_torch.convert(network, (inputs[:1],)).export(str(path))
    except Exception as error:
        raise ExportError(f"this network cannot be written for LiteRT: {first_line(error)[:160]}") from None
    put_about(path, about)


def put_about(path: Path, about: dict[str, Any]) -> None:
    """Append what has to be known, as TensorFlow Lite's metadata appends its labels: a zip that interpreters skip."""
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(KEY, json.dumps(about))
