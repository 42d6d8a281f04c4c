"""Puts the parts of a script together."""

from __future__ import annotations

from textwrap import fill, indent

import torch

from tlnb.engine.export.script import data, loop, network
from tlnb.engine.export.script.chain import Chain, find_chain
from tlnb.engine.export.script.job import Job
from tlnb.engine.export.script.text import wrapped
from tlnb.engine.training.history import show_metric

_RULE = "# {}\n\n\n"


def write(job: Job, *, with_weights: bool = False) -> str:
    """The session as one script; ``job.files`` holds afterwards what has to lie beside it.

    Args:
        job: what was done.
        with_weights: put the starting weights beside it also where torchvision would download them.

    Raises:
        ExportError: something was done that a script cannot hold; says what.
    """
    job.check()
    chain = find_chain(job.layers.graph, job.loaded.model)
    chain = chain if chain and not job.setup["step"] else None
    fields = loop.Fields(job, chain)
    built, imports = network.network_code(job, with_weights=with_weights)
    read, more = data.data_code(job)
    imports |= more
    features = loop.features_code(job, chain, fields, imports)
    parts = [
        _RULE.format("The network") + loop.SEEDS,
        built,
        network.layers_code(job) + "\n\n\n" + loop.IN_LAYERS,
        _RULE.format("The data") + wrapped("CLASSES", job.data.classes),
        read,
        _RULE.format("The stages") + fields.code(),
        loop.BATCHES,
        loop.schedules_code(fields),
        features,
        loop.layout_code(fields, bool(features)),
        _own_step(job),
        loop.loss_code(job, fields),
        loop.training_code(job, chain, fields),
    ]
    imports |= _needed(job, fields)
    code = "\n\n\n".join(part for part in parts if part)
    about = _about(job, chain, fields)
    top = f"{about}\n\n{sorted_imports(imports)}\n\nHERE = Path(__file__).resolve().parent\n"
    seed = f"SEED = {job.setup['seed']}\ntorch.set_num_threads({job.setup['threads']})"
    return f"{top}{seed}\n\n{code}\n"


def _own_step(job: Job) -> str:
    source = job.setup["step"]
    if not source:
        return ""
    if source.startswith("def "):
        return f"{source.rstrip()}\n\n\ntraining_step = {source.split('(')[0].removeprefix('def ').strip()}"
    return "def training_step(model, x, y):\n" + indent(source, "    ") + "\n    return loss"


def _needed(job: Job, fields: loop.Fields) -> set[str]:
    needed = {
        "import hashlib",
        "from dataclasses import dataclass",
        "from pathlib import Path",
        "import torch",
        "from safetensors.torch import save_file",
        "from torch import nn",
        "from torch.nn import functional as F",
    }
    if any(row["schedule"] != "constant" for row in fields.rows):
        needed.add("import math")
    if job.kind == "labels":
        needed.add("from sklearn.metrics import average_precision_score")
    return needed


_STANDARD = {"copy", "csv", "functools", "hashlib", "math", "dataclasses", "pathlib", "sys"}


def sorted_imports(imports: set[str]) -> str:
    """Imports as isort would order them, names from one module joined."""
    plain: set[str] = set()
    names: dict[str, set[str]] = {}
    for line in imports:
        if line.startswith("import "):
            plain.add(line.removeprefix("import "))
        else:
            module, _, what = line.removeprefix("from ").partition(" import ")
            names.setdefault(module, set()).update(what.split(", "))
    blocks = []
    for standard in (True, False):
        lines = [f"import {m}" for m in sorted(plain) if (m.split(".")[0] in _STANDARD) is standard]
        lines += [
            f"from {m} import {', '.join(sorted(names[m], key=lambda name: (name.islower(), name)))}"
            for m in sorted(names)
            if (m.split(".")[0] in _STANDARD) is standard
        ]
        blocks.append("\n".join(lines))
    return "\n\n".join(filter(None, blocks))


def _about(job: Job, chain: Chain | None, fields: loop.Fields) -> str:
    last = job.results[-1].records[-1] if job.results[-1].records else None
    figures = (
        f"{last.metric_name} {show_metric(last)}, validation loss {last.valid_loss:.4f}"
        if last
        else "nothing"
    )
    lines = [
        f"{job.loaded.name} on {job.data.name}: what a tlnb session did, in plain PyTorch, without tlnb.",
        "",
        f"The session ended with {figures}. It ran with torch {torch.__version__.split('+')[0]} on "
        f"{job.setup['device']}, {job.setup['threads']} thread{'s' * (job.setup['threads'] != 1)}.",
        *_exact(job, chain),
    ]
    if job.files:
        lines.append(f"Beside the script must lie: {', '.join(sorted(job.files))}.")
    text = "\n".join(fill(line, 108) if line else "" for line in lines)
    return '"""' + text.replace("\\", "\\\\").replace('"""', "'''") + '\n"""'


def _exact(job: Job, chain: Chain | None) -> list[str]:
    cached = [result for result in job.results if result.setup["cut"]]
    if any(result.setup["dtype"] != "float32" for result in cached):
        return [
            "The session computed the frozen first part in bfloat16; here it is float32, so weights agree to "
            "rounding."
        ]
    if cached and chain is None:
        return [
            "The session ran the frozen first part once. Here the whole network runs in each step, so "
            "weights agree to rounding, or bit for bit with a session that trained with --no-cache."
        ]
    if job.setup["device"] != "cpu":
        return ["It runs on the CPU here, so weights agree to rounding."]
    return [
        "With the same torch, processor and number of threads the final weights are the same, bit for bit."
    ]
