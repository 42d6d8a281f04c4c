"""What this installation is made of, and what it can do here: the first thing to look at in trouble."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from tlnb.display.tables import Table, printable
from tlnb.engine.core.machine import free_bytes, home
from tlnb.engine.features import precision
from tlnb.engine.features.samples import show_bytes

NEEDED = ("torch", "torchvision", "ipython", "numpy", "pillow", "scikit-learn", "safetensors", "matplotlib")
EXTRAS = {
    "ipywidgets": ("widgets", "pip install ipywidgets"),
    "jupyterlab": ("JupyterLab", 'pip install "tlnb[lab]"'),
    "timm": ("timm/NAME", 'pip install "tlnb[timm]"'),
    "soundfile": ("sounds", 'pip install "tlnb[sound]"'),
    "onnx": ("%tl_export to .onnx", 'pip install "tlnb[onnx]"'),
    "openvino": ("%tl_export to OpenVINO", 'pip install "tlnb[openvino]"'),
    "litert-torch": ("%tl_export to LiteRT", 'pip install "tlnb[litert]"'),
    "gradio": ("the page of %tl_export app", 'pip install "tlnb[app]"'),
    "pandas": (".frame() as a DataFrame", "pip install pandas"),
}


def examine() -> Table:
    """Versions, device, threads, memory, folders, widgets; what is missing, with what to do."""
    return Table(("what", "found", "to do"), list(_rows()), align="<<<")


def _rows() -> Iterator[tuple[str, str, str]]:
    yield "tlnb", _version("tlnb"), ""
    yield "Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}", ""
    for name in NEEDED:
        found = _version(name)
        yield name, found, "" if found != "-" else f"pip install {name}"
    yield from _computing()
    yield from _folders()
    for name, (what, how) in EXTRAS.items():
        found = _version(name)
        yield name, found if found != "-" else "not installed", "" if found != "-" else f"for {what}: {how}"
    yield _widgets()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "-"


def _computing() -> Iterator[tuple[str, str, str]]:
    if torch.cuda.is_available():
        yield "device", printable(torch.cuda.get_device_name()), ""
    else:
        yield "device", "CPU", ""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    few = threads < processors // 2
    advice = (
        f"torch uses few of {processors} processors: OMP_NUM_THREADS or torch.set_num_threads" if few else ""
    )
    yield "threads", f"{threads} of {processors} processors", advice
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    form = precision.training_format("auto", device)
    short = {torch.bfloat16: "bf16", torch.float16: "fp16 with a scaled loss", None: "fp32"}[form]
    yield (
        "bfloat16",
        "native" if precision.native_bfloat16(device) else f"not native; precision auto is {short}",
        "",
    )
    free = free_bytes()
    yield (
        "free memory",
        show_bytes(free),
        "" if free > 1 << 30 else "close other notebooks; take smaller pictures",
    )


def _folders() -> Iterator[tuple[str, str, str]]:
    place = home()
    advice = "" if _can_write(place) else "cannot be written: set TLNB_HOME to a folder that can"
    yield "tlnb's folder", printable(str(place)), advice
    weights = Path(torch.hub.get_dir()) / "checkpoints"
    count = len(list(weights.glob("*"))) if weights.is_dir() else 0
    advice = "" if _can_write(weights) else "cannot be written: set TORCH_HOME to a folder that can"
    yield "weights", f"{printable(str(weights))}, {count} file{'s' * (count != 1)}", advice


def _can_write(place: Path) -> bool:
    """Whether a file can be made there, or in what stands above it while it is not there yet."""
    try:
        above = next(parent for parent in (place, *place.parents) if parent.exists())
        with tempfile.TemporaryFile(dir=above):
            return True
    except OSError:
        return False


def _widgets() -> tuple[str, str, str]:
    if importlib.util.find_spec("ipywidgets") is None:
        return "widgets here", "no", "pip install ipywidgets, then restart the kernel"
    if "ipykernel" in sys.modules:
        return "widgets here", "yes, where the page has them", "a page that shows only text: reload it"
    return "widgets here", "no, this is no notebook", "open one: jupyter lab; all commands work here too"
