"""Puts the parts of a script together."""

from __future__ import annotations

from textwrap import fill, indent

import torch

from tlnb.engine.core import seeds
from tlnb.engine.core.objectives import scored
from tlnb.engine.export.own_files import SCRIPT
from tlnb.engine.export.script import adapting, averaging, data, guard, heads, loop, network
from tlnb.engine.export.script.chain import Chain, find_chain
from tlnb.engine.export.script.job import Job
from tlnb.engine.export.script.sounds import is_cut
from tlnb.engine.export.script.source import Source
from tlnb.engine.export.script.text import literal, numbered, of_data, source_of, wrapped
from tlnb.engine.network.neighbours import Neighbours
from tlnb.engine.training.records import show_metric
from tlnb.errors import ExportError

_RULE = "# {}\n\n\n"


def write(job: Job, *, with_weights: bool = False) -> str:
    """The session as one script; ``job.files`` holds afterwards what has to lie beside it.

    Args:
        job: what was done.
        with_weights: put the starting weights beside it also where torchvision would download them.

    Raises:
        ExportError: something was done that a script cannot hold; says what.
    """
    job.read()
    chain = _chain(job)
    fields = loop.Fields(job, chain)
    built, imports = network.network_code(job, with_weights=with_weights)
    read = _data(job, fields, imports)
    features = loop.features_code(job, chain, fields, imports)
    training = [
        source_of(seeds.batches),
        source_of(seeds.batches_by_length).replace("POOL * size", f"{seeds.POOL} * size")
        if job.texts
        else "",
        loop.schedules_code(fields),
        features,
        loop.layout_code(fields, bool(features)),
        "" if job.several else loop.loss_code(job.last, fields),
        guard.guard_code(job, imports),
        averaging.averages_code(job, imports),
        loop.fitting.contrast_code(job),
        loop.training_code(job, chain, fields),
    ]
    parts = [
        _RULE.format("The network") + source_of(seeds.seed_for),
        built,
        heads.exchange_code(job, fields.heads),
        adapting.adapters_code(job, imports),
        network.layers_code(job) + "\n\n\n" + loop.IN_LAYERS,
        _RULE.format("The data") + read,
        _RULE.format("The stages") + fields.code(),
        _own_step(job),
        of_data(loop.called(job, "\n\n\n".join(filter(None, training))), job.several),
    ]
    imports |= _needed(job, fields)
    code = "\n\n\n".join(part for part in parts if part)
    about = _about(job, chain, fields)
    top = f"{about}\n\n{sorted_imports(imports)}\n\nHERE = Path(__file__).resolve().parent\n"
    seed = f"SEED = {job.last.data.seed}\ntorch.set_num_threads({job.recipe.threads})"
    return f"{top}{seed}\n\n{code}\n"


def _chain(job: Job) -> Chain | None:
    """The network as a straight line, where all stages can be cut in it."""
    chain = find_chain(job.layers.graph, job.loaded.model)
    told = [recipe.head for recipe in job.recipes]
    kinds = {str(code).partition("(")[0] for head in told if head for code in head.code[:1]}
    place = job.loaded.head
    kind = type(job.loaded.model.get_submodule(place)) if place else None
    now = "" if kind is None else kind.__name__ if kind is Neighbours else f"nn.{kind.__name__}"
    return chain if kinds <= {now} and not job.recipe.step else None


def _data(job: Job, fields: loop.Fields, imports: set[str]) -> str:
    """What reads the data sets; where there are several, what is theirs alone carries their number.

    Raises:
        ExportError: data that cannot be written down.
    """
    if len({source.data.seed for source in job.sources}) > 1:
        raise ExportError("data sets that were named with different seeds are not one script")
    if job.several and any(map(is_cut, job.sources)):
        raise ExportError("clips that are cut into pieces, and several data sets, are not one script")
    texts = []
    for source in job.sources:
        read, more = data.data_code(source)
        imports |= more
        text = wrapped("CLASSES", source.data.classes) + "\n\n\n" + read
        if job.several:
            text = numbered(text + "\n\n\n" + loop.loss_code(source, fields), source.place)
        texts.append(text)
    if job.several:
        imports.add("from types import SimpleNamespace")
        texts.append("DATA = (\n" + "".join(map(_row, job.sources)) + ")")
    return "\n\n\n".join(texts)


def _row(source: Source) -> str:
    names = ["inputs", *(["changed_inputs"] if source.changed else []), "loss_of", "figure_of"]
    fields = {"load": "load_data", "changed_inputs": "None", **{name: name for name in names}}
    shown = ", ".join(f"{field}={numbered(name, source.place)}" for field, name in fields.items())
    title = f"{source.data.name}, {source.preset} changes" if source.changed else source.data.name
    return (
        f"    SimpleNamespace(  # {' '.join(title.split())}\n        {shown},\n"
        f"        metric={literal(scored(source.data.task, None).metric)},\n    ),\n"
    )


def _own_step(job: Job) -> str:
    source = job.recipe.step
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
        "from torch import Tensor",
        "from safetensors.torch import save_file",
        "from torch import nn",
        "from torch.nn import functional as F",
    }
    if loop.fitting.needs_fit(job):
        needed.add("import math")
    if any(row["schedule"] != "constant" for row in fields.rows):
        needed.add("import math")
    if any(source.kind == "labels" for source in job.sources):
        needed.add("from sklearn.metrics import average_precision_score")
    return needed


_STANDARD = {
    "collections",
    "copy",
    "csv",
    "functools",
    "hashlib",
    "math",
    "dataclasses",
    "pathlib",
    "sys",
    "types",
    "typing",
}


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
    last = job.results[-1].final
    figures = (
        f"{last.metric_name} {show_metric(last)}, validation loss {last.valid_loss:.4f}"
        if last
        else "nothing"
    )
    names = ", then ".join(source.data.name for source in job.sources)
    lines = [
        f"{job.loaded.name} on {names}: {SCRIPT}, in plain PyTorch, without tlnb.",
        "",
        f"The session ended with {figures}. It ran with torch {torch.__version__.split('+')[0]} on "
        f"{job.recipe.device}, {job.recipe.threads} thread{'s' * (job.recipe.threads != 1)}.",
        *_exact(job, chain),
    ]
    if job.files:
        lines.append(f"Beside the script must lie: {', '.join(sorted(job.files))}.")
    text = "\n".join(fill(line, 108) if line else "" for line in lines)
    return '"""' + text.replace("\\", "\\\\").replace('"""', "'''") + '\n"""'


def _exact(job: Job, chain: Chain | None) -> list[str]:
    cached = [recipe for recipe in job.recipes if recipe.cut]
    if any(recipe.dtype != "float32" for recipe in cached):
        return [
            "The session computed the frozen first part in bfloat16; here it is float32, so weights agree to "
            "rounding."
        ]
    if cached and chain is None:
        return [
            "The session ran the frozen first part once. Here the whole network runs in each step, so "
            "weights agree to rounding, or bit for bit with a session that trained with --no-cache."
        ]
    if job.recipe.device != "cpu":
        return ["It runs on the CPU here, so weights agree to rounding."]
    return [
        "With the same torch, processor and number of threads the final weights are the same, bit for bit."
    ]
