"""The check after an export: a fresh process loads the file, without tlnb, and predicts the same."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tlnb.engine.core.tree import Batch, Tree
from tlnb.engine.results.sure import Judged
from tlnb.errors import ExportError

CLOSE = 1e-4
"""How far an answer may be from the session's."""

CLOSE_ELSEWHERE = 1e-3
"""How far the answers of a runtime may be that orders a layer's sums in its own way."""

SAMPLES = 100

_BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tlnb":
            raise ImportError("tlnb is not there")
sys.meta_path.insert(0, Blocked())
"""
_LOAD = {
    ".safetensors": """
def load(path):
    import importlib.util
    spec = importlib.util.spec_from_file_location("network", path.with_suffix(".py"))
    network = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(network)
    model = network.load()
    def answer(inputs):
        return network.predict(model, inputs)
    answer.network = network
    return answer
""",
    ".pt2": """
def load(path):
    program = torch.export.load(str(path)).module()
    return lambda inputs: program(**inputs) if isinstance(inputs, dict) else program(inputs)
""",
    ".onnx": """
def load(path):
    import onnxruntime
    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    def answer(inputs):
        named = inputs if isinstance(inputs, dict) else {session.get_inputs()[0].name: inputs}
        return torch.from_numpy(session.run(None, {name: part.numpy() for name, part in named.items()})[0])
    return answer
""",
    ".xml": """
def load(path):
    import openvino
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(path), "CPU", exact)
    def answer(inputs):
        named = {n: part.numpy() for n, part in inputs.items()} if isinstance(inputs, dict) else inputs.numpy()
        return torch.from_numpy(compiled(named)[0].copy())
    return answer
""",
    ".tflite": """
def load(path):
    from ai_edge_litert.interpreter import Interpreter
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    def answer(inputs):
        answers = []
        for one in inputs.numpy():
            interpreter.set_tensor(taken["index"], one[None])
            interpreter.invoke()
            answers.append(torch.from_numpy(interpreter.get_tensor(given["index"]).copy()))
        return torch.cat(answers)
    return answer
""",
}
_MAIN = """
import torch
from pathlib import Path
from safetensors.torch import load_file, save_file
torch.set_grad_enabled(False)
folder, *paths = map(Path, sys.argv[1:])
inputs = load_file(folder / "in.safetensors")
inputs = inputs["inputs"] if set(inputs) == {"inputs"} else inputs
"""
_CHECK = """
answer = load(paths[0])
answers, more = answer(inputs), {}
if JUDGED:
    network = answer.network
    found = network.judge(network.load(), inputs)
    if isinstance(found, tuple):
        member = torch.tensor([[name in own for name in network.CLASSES] for own in found[0]])
        more = {"member": member, "none": torch.tensor(found[1])}
    else:
        more = {"intervals": found}
save_file({"answers": answers.float().contiguous(), **more}, folder / "out.safetensors")
"""
_RACE = """
import time
def part(start, stop):
    if isinstance(inputs, dict):
        return {name: rows[start:stop] for name, rows in inputs.items()}
    return inputs[start:stop]
count = len(next(iter(inputs.values()))) if isinstance(inputs, dict) else len(inputs)
runners, found, took = [load(path) for path in paths], {}, {}
for number, answer in enumerate(runners):
    answers = [answer(part(at, at + BATCH)).float() for at in range(0, count, BATCH)]
    found[f"answers.{number}"] = torch.cat(answers).contiguous()
    answer(part(0, 1))
for turn in range(ROUNDS):  # in turn, so that what else the machine does meets all alike
    one = part(turn % count, turn % count + 1)
    for number, answer in enumerate(runners):
        began = time.perf_counter()
        answer(one)
        took.setdefault(number, []).append(time.perf_counter() - began)
seconds = torch.tensor([sorted(took[number])[ROUNDS // 2] for number in range(len(runners))])
save_file({**found, "seconds": seconds}, folder / "out.safetensors")
"""


def check(path: Path, inputs: Batch, answers: Tensor, judged: Judged | None = None) -> float:
    """Load the file in a fresh Python that cannot import tlnb, and compare what it answers.

    Args:
        path: of one of the forms of :mod:`tlnb.engine.export.export`.
        inputs: what the network takes.
        answers: what the session's network answers, (N, outputs).
        judged: how the session judges them, where the file has a loader that can; None to leave that out.

    Returns:
        The largest difference.

    Raises:
        ExportError: it cannot be loaded there, or answers something else.
    """
    written = _fresh(f"JUDGED = {judged is not None}\n{_CHECK}", [path], inputs)
    found = written["answers"]
    difference = float((found - answers).abs().max())
    scale = max(1.0, float(answers.abs().max()))
    if not difference <= close_for(path) * scale:
        raise ExportError(
            f"{path.name} was written but answers otherwise: a difference of {difference:.1e} "
            f"on {len(inputs)} samples"
        )
    if judged is not None and _judges_otherwise(written, judged):
        raise ExportError(f"{path.name} was written but judges otherwise how sure its answers are")
    return difference


def close_for(path: Path) -> float:
    """How far the answers of this form may be from the session's, relative to the largest where that is above 1."""
    return CLOSE if path.suffix in (".safetensors", ".pt2", ".onnx") else CLOSE_ELSEWHERE


def race(paths: Sequence[Path], inputs: Batch, *, rounds: int = 50, batch: int = 16) -> list[Ran]:
    """Load files of one form in a fresh Python that cannot import tlnb: what each answers, and how long it takes.

    Args:
        paths: of one ending.
        inputs: what the networks take, (N, ...).
        rounds: how often each is timed, in turn, a sample at a time; the median counts.
        batch: samples that are answered at once.

    Raises:
        ExportError: one cannot be loaded there.
    """
    written = _fresh(f"ROUNDS, BATCH = {rounds}, {batch}\n{_RACE}", paths, inputs)
    return [Ran(written[f"answers.{i}"], float(written["seconds"][i])) for i in range(len(paths))]


@dataclass(frozen=True)
class Ran:
    """What a file answered in a fresh process.

    Attributes:
        answers: (N, outputs).
        seconds: for one sample, the median.
    """

    answers: Tensor
    seconds: float


def _fresh(code: str, paths: Sequence[Path], inputs: Batch) -> dict[str, Tensor]:
    """What code writes that runs in a fresh Python without tlnb, beside a loader of the files' form.

    Raises:
        ExportError: it fails there.
    """
    code = _BLOCK + _MAIN + _LOAD[paths[0].suffix] + code
    with tempfile.TemporaryDirectory() as folder:
        named = dict(inputs.items()) if isinstance(inputs, Tree) else {"inputs": inputs}
        save_file({n: t.contiguous() for n, t in named.items()}, Path(folder) / "in.safetensors")
        # Isolated, and with the modules of this process: a torch.py of the user's in the folder is no part of it.
        places = [
            os.path.abspath(place) for place in sys.path if place and Path(place).resolve() != Path.cwd()
        ]
        code = f"import sys\nsys.path[:] = {places!r}\n{code}"
        done = subprocess.run(
            [sys.executable, "-I", "-c", code, folder, *(str(path.resolve()) for path in paths)],
            capture_output=True, text=True, cwd=folder,
        )  # fmt: skip
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ExportError(f"{paths[-1].name} was written but cannot be loaded again: {reason[:200]}")
        return load_file(Path(folder) / "out.safetensors")


def _judges_otherwise(written: dict[str, Tensor], judged: Judged) -> bool:
    if judged.intervals is not None:
        own = torch.from_numpy(judged.intervals)
        return not torch.allclose(written["intervals"], own, rtol=CLOSE, atol=CLOSE * float(own.abs().max()))
    none = np.zeros(len(written["none"]), bool) if judged.none is None else judged.none
    return (
        written["member"].numpy().tolist() != np.asarray(judged.member).tolist()
        or written["none"].tolist() != none.tolist()
    )
