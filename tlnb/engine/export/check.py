"""The check after an export: a fresh process loads the file, without tlnb, and predicts the same."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
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

SAMPLES = 100

_BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tlnb":
            raise ImportError("tlnb is not there")
sys.meta_path.insert(0, Blocked())
"""
_PREDICT = {
    ".safetensors": """
import importlib.util
spec = importlib.util.spec_from_file_location("network", path.with_suffix(".py"))
network = importlib.util.module_from_spec(spec)
spec.loader.exec_module(network)
with torch.inference_mode():
    answers = network.predict(network.load(), inputs)
if judged:
    found = network.judge(network.load(), inputs)
    if isinstance(found, tuple):
        member = torch.tensor([[name in own for name in network.CLASSES] for own in found[0]])
        more = {"member": member, "none": torch.tensor(found[1])}
    else:
        more = {"intervals": found}
""",
    ".pt2": """
program = torch.export.load(str(path)).module()
with torch.inference_mode():
    answers = program(**inputs) if isinstance(inputs, dict) else program(inputs)
""",
    ".onnx": """
import onnxruntime
onnxruntime.set_default_logger_severity(3)
session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
named = inputs if isinstance(inputs, dict) else {session.get_inputs()[0].name: inputs}
answers = torch.from_numpy(session.run(None, {name: part.numpy() for name, part in named.items()})[0])
""",
}
_MAIN = """
import torch
from pathlib import Path
from safetensors.torch import load_file, save_file
path, folder = Path(sys.argv[1]), Path(sys.argv[2])
inputs = load_file(folder / "in.safetensors")
inputs = inputs["inputs"] if set(inputs) == {{"inputs"}} else inputs
judged, more = {judged}, {{}}
{predict}
save_file({{"answers": answers.float().contiguous(), **more}}, folder / "out.safetensors")
"""


def check(path: Path, inputs: Batch, answers: Tensor, judged: Judged | None = None) -> float:
    """Load the file in a fresh Python that cannot import tlnb, and compare what it answers.

    Args:
        path: ``.safetensors``, ``.pt2`` or ``.onnx``.
        inputs: what the network takes.
        answers: what the session's network answers, (N, outputs).
        judged: how the session judges them, where the file has a loader that can; None to leave that out.

    Returns:
        The largest difference.

    Raises:
        ExportError: it cannot be loaded there, or answers something else.
    """
    code = _BLOCK + _MAIN.format(predict=_PREDICT[path.suffix], judged=judged is not None)
    with tempfile.TemporaryDirectory() as folder:
        named = dict(inputs.items()) if isinstance(inputs, Tree) else {"inputs": inputs}
        save_file({n: t.contiguous() for n, t in named.items()}, Path(folder) / "in.safetensors")
        # Isolated, and with the modules of this process: a torch.py of the user's in the folder is no part of it.
        places = [
            os.path.abspath(place) for place in sys.path if place and Path(place).resolve() != Path.cwd()
        ]
        code = f"import sys\nsys.path[:] = {places!r}\n{code}"
        done = subprocess.run(
            [sys.executable, "-I", "-c", code, str(path.resolve()), folder], capture_output=True, text=True,
            cwd=folder,
        )  # fmt: skip
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ExportError(f"{path.name} was written but cannot be loaded again: {reason[:200]}")
        written = load_file(Path(folder) / "out.safetensors")
    found = written["answers"]
    difference = float((found - answers).abs().max())
    scale = max(1.0, float(answers.abs().max()))
    if not difference <= CLOSE * scale:
        raise ExportError(
            f"{path.name} was written but answers otherwise: a difference of {difference:.1e} "
            f"on {len(inputs)} samples"
        )
    if judged is not None and _judges_otherwise(written, judged):
        raise ExportError(f"{path.name} was written but judges otherwise how sure its answers are")
    return difference


def _judges_otherwise(written: dict[str, Tensor], judged: Judged) -> bool:
    if judged.intervals is not None:
        own = torch.from_numpy(judged.intervals)
        return not torch.allclose(written["intervals"], own, rtol=CLOSE, atol=CLOSE * float(own.abs().max()))
    none = np.zeros(len(written["none"]), bool) if judged.none is None else judged.none
    return (
        written["member"].numpy().tolist() != np.asarray(judged.member).tolist()
        or written["none"].tolist() != none.tolist()
    )
