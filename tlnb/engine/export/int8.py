"""Int8 by static quantisation: ranges from samples, then what it costs in accuracy and gains in time.

Weights get a scale a channel, activations one a tensor, from the smallest and largest value that calibration samples
give (Jacob et al. 2018, *Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference*; Nagel et al. 2021). A graph of ONNX holds pairs of QuantizeLinear and DequantizeLinear (QDQ), which ONNX
Runtime and OpenVINO run as integer layers. Their weights use seven bits: processors without VNNI add products of eight
bits in sixteen, which overflows. LiteRT has a quantiser of its own, and layers of eight bits.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tlnb.engine.core.metrics import Score
from tlnb.engine.core.tree import Batch, Tree
from tlnb.engine.export.check import race
from tlnb.engine.export.deployed import KEY
from tlnb.engine.export.edge import NEEDS_LITERT, onnx_to_openvino, put_about
from tlnb.errors import ExportError, first_line

ENDINGS = (".onnx", ".xml", ".tflite")
NEEDS = 'int8 needs more packages: pip install "tlnb[onnx]"'
POINT = 0.01  # of a score that is a share, at most, may be lost
CALIBRATION = 100  # samples
MEASURED = 1000  # samples, at most
_TOGETHER = 10  # samples in a batch of calibration
# What integer units do well; the mean that is taken off, softmax and norms stay as they are.
_TYPES = (
    "Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool",
    "ReduceMean", "Concat", "Flatten", "Reshape", "Transpose",
)  # fmt: skip


@dataclass(frozen=True)
class Quantised:
    """What int8 costs and gains, on samples that were not trained on.

    Attributes:
        score: by which it is told.
        before, after: in float32 and in int8.
        seconds: of one sample, in float32 and in int8, by the same runtime.
        sizes: of the file, bytes.
        samples: that were measured.
        calibrated: samples that the ranges are from.
    """

    score: Score
    before: float
    after: float
    seconds: tuple[float, float]
    sizes: tuple[int, int]
    samples: int
    calibrated: int

    def __str__(self) -> str:
        slow, fast = (1000 * seconds for seconds in self.seconds)
        faster, slower = f"{slow / fast:.1f} times as fast", f"{fast / slow:.1f} times slower on this machine"
        show = self.score.show
        return (
            f"int8: {self.score.title} {show(self.before)} before, {show(self.after)} after, on {self.samples} "
            f"validation samples, of which {self.calibrated} set the ranges; one sample takes {slow:.2f} ms before, "
            f"{fast:.2f} ms after, {faster if fast <= slow else slower}; the file is "
            f"{self.sizes[0] / self.sizes[1]:.1f} times smaller"
        )


def check_form(path: Path) -> None:
    """See that int8 can be written in this form, and that what is needed is there.

    Raises:
        ExportError: it cannot, or onnxruntime is missing.
    """
    if path.suffix not in ENDINGS:
        raise ExportError(
            f"--int8 is written to {', '.join(ENDINGS)} (--to onnx, openvino, litert), not {path.suffix}"
        )
    try:
        if path.suffix == ".tflite":
            import ai_edge_quantizer  # noqa: F401
        else:
            import onnxruntime.quantization  # noqa: F401
    except ImportError:
        raise ExportError(NEEDS_LITERT if path.suffix == ".tflite" else NEEDS) from None


def source_of(path: Path) -> str:
    """The ending of the float32 file that :func:`quantise` begins with: OpenVINO takes what ONNX quantised."""
    return ".tflite" if path.suffix == ".tflite" else ".onnx"


def quantise(source: Path, path: Path, inputs: Batch, about: dict[str, Any]) -> None:
    """Write a network in int8.

    Args:
        source: a file in float32, of the form that :func:`source_of` says.
        path: ends in ``.onnx``, ``.xml`` (OpenVINO) or ``.tflite`` (LiteRT; pictures or rows, and scores, not values).
        inputs: samples that the ranges are taken from.
        about: what has to be known.

    Raises:
        ExportError: it cannot be quantised.
    """
    try:
        _litert(source, path, inputs) if path.suffix == ".tflite" else _onnx(source, path, inputs, about)
    except ExportError:
        raise
    except Exception as error:  # quantisers meet others' graphs with almost any exception
        raise ExportError(f"this network cannot be quantised: {first_line(error)[:160]}") from None
    if path.suffix == ".tflite":
        put_about(path, about)


def _onnx(source: Path, path: Path, inputs: Batch, about: dict[str, Any]) -> None:
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = _batches(inputs, [given.name for given in graph.input])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    with tempfile.TemporaryDirectory() as place:
        ready, found = Path(place) / "ready.onnx", Path(place) / "int8.onnx"
        quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
        graph = onnx.load(str(ready)).graph
        quantize_static(
            str(ready), str(found), Reader(), quant_format=QuantFormat.QDQ, per_channel=True, reduce_range=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=list(_TYPES),
            nodes_to_exclude=_last(graph), calibrate_method=CalibrationMethod.MinMax,
        )  # fmt: skip
        if path.suffix == ".xml":
            onnx_to_openvino(found, path, inputs, about)
            return
        model = onnx.load(str(found))
        onnx.helper.set_model_props(model, {KEY: json.dumps(about)})
        onnx.save(model, str(path))


def _litert(source: Path, path: Path, inputs: Batch) -> None:
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import qtyping, quantizer, recipe

    if not isinstance(inputs, Tensor):
        raise ExportError("LiteRT's integers are for networks of one input; write this one to .onnx")
    ((signature, names),) = Interpreter(str(source)).get_signature_list().items()
    own = quantizer.Quantizer(str(source), recipe.static_wi8_ai8())
    for kind in ("OUTPUT", "SOFTMAX", "LOGISTIC"):  # eight bits of a probability are too few
        own.update_quantization_recipe(".*", qtyping.TFLOperationName[kind], algorithm_key="no_quantize")
    given = [{names["inputs"][0]: one[None]} for one in inputs.numpy()]
    with contextlib.redirect_stderr(io.StringIO()):  # a bar of its own
        own.quantize(own.calibrate({signature: given})).export_model(str(path))


def compare(
    before: Path, after: Path, inputs: Batch, targets: Tensor, score: Score, calibrated: int
) -> Quantised:  # fmt: skip
    """Answer all samples by both files, in a fresh process without tlnb.

    Args:
        before, after: files of one form, in float32 and int8.
        inputs: what the network takes.
        targets: as the score takes them.
        score: accuracy, say.
        calibrated: samples that the ranges are from.

    Raises:
        ExportError: a file cannot be loaded, or int8 loses more than a point (and more than one sample).
    """
    runs = race([before, after], inputs)
    was, now = (score(targets.numpy(), run.answers.numpy()) for run in runs)
    lost = was - now if score.larger else now - was
    allowed = max(POINT, 1 / len(targets)) if score.kind != "values" else POINT * max(abs(was), POINT)
    if not lost <= allowed + 1e-9:
        raise ExportError(
            f"int8 loses too much: {score.title} {score.show(was)} before, {score.show(now)} after, on {len(targets)} "
            "samples; leave --int8 away, or train with more samples"
        )
    sizes = tuple(_size(path) for path in (before, after))
    return Quantised(
        score, was, now, (runs[0].seconds, runs[1].seconds), (sizes[0], sizes[1]), len(targets), calibrated
    )


def _batches(inputs: Batch, names: list[str]) -> Iterator[dict[str, np.ndarray]]:
    for at in range(0, len(inputs), _TOGETHER):
        part = inputs[at : at + _TOGETHER]
        yield {n: t.numpy() for n, t in part.items()} if isinstance(part, Tree) else {names[0]: part.numpy()}


def _last(graph: Any) -> list[str]:
    """The nodes that make the answer of scores: eight bits of a probability or a value are too few."""
    wanted, found = {given.name for given in graph.output}, []
    for node in reversed(graph.node):
        if wanted & set(node.output) and node.op_type in ("Softmax", "Sigmoid", "Mul", "Add"):
            found.append(node.name)
            wanted = set(node.input) if node.op_type in ("Mul", "Add") else set()
    return found


def _size(path: Path) -> int:
    files = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
    return sum(file.stat().st_size for file in files)


def spread(count: int, most: int) -> Tensor:
    """Indices of up to ``most`` of ``count`` samples, evenly spread."""
    return torch.linspace(0, count - 1, min(most, count)).long()
