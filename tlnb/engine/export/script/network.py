"""The part of a script that builds the network and gives it its starting weights and its head."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace
from pathlib import Path
from textwrap import indent
from typing import Any

from torch import nn

from tlnb.engine.export.script.chain import expression
from tlnb.engine.export.script.job import Job
from tlnb.engine.export.script.text import literal
from tlnb.engine.models import convnet5
from tlnb.engine.models.loaded import RANDOM, LoadedModel
from tlnb.engine.models.published import CONVNET5, torchvision_names
from tlnb.engine.models.timm_models import PREFIX
from tlnb.errors import ExportError

_PLAIN = re.compile(r"torch\.nn\.modules\.\w+")


def network_code(job: Job, *, with_weights: bool) -> tuple[str, set[str]]:
    """``load_network`` and what it needs, and the names of the imports that it asks for.

    Raises:
        ExportError: a network of the user's that cannot be written down.
    """
    imports: set[str] = set()
    build = _build(job.loaded, job.setup["network"], imports, job.network)
    body = [
        *build.before,
        "def load_network():",
        '    """The network as it was before the first stage, on the CPU."""',
    ]
    lines = [build.line]
    whole = job.loaded.own or bool(job.setup["network"].get("layers_from"))
    file = whole or build.needs_file or with_weights
    if file:
        name = f"{job.stem}.start.safetensors"
        job.files[name] = job.start()
        imports.add("from safetensors.torch import load_file")
        lines.append(f"weights = load_file(HERE / {literal(name)})")
    head = _head(job, drawn=not whole)
    lines += ([*head, "model.load_state_dict(weights)"] if whole else
              [*(["model.load_state_dict(weights)"] if file else []), *head])  # fmt: skip
    lines.append("return model")
    return "\n".join([*body, *(indent(line, "    ") for line in lines)]), imports


class _Built:
    """How a network is made.

    Args:
        line: sets ``model``.
        before: definitions that it needs.
        needs_file: whether its weights have to lie beside the script.
    """

    def __init__(self, line: str, before: list[str] | None = None, needs_file: bool = True):
        self.line, self.before, self.needs_file = line, before or [], needs_file


def build_code(loaded: LoadedModel, imports: set[str]) -> tuple[list[str], list[str]]:
    """Definitions, and the lines that set ``model`` to the network as it is now, its head included.

    Raises:
        ExportError: a module of the user's that cannot be written down.
    """
    plain = replace(loaded, weights=RANDOM) if not loaded.own else loaded
    build = _build(plain, {"outputs": None}, imports)
    heads = [] if loaded.own else [place for place in (loaded.head, *loaded.side_heads) if place]
    lines = [build.line]
    for place in heads:
        code = _layer(loaded.model.get_submodule(place))
        if code is None:
            raise ExportError(f"the head {place} is of a kind that code cannot hold")
        lines.append(f"{expression(place, loaded.model)} = {code}")
    return build.before, lines


def _build(loaded: LoadedModel, asked: dict[str, Any], imports: set[str], network: str = "") -> _Built:
    if network:
        return _Built(network)
    if loaded.own:
        return _Built(f"model = {_own(loaded.model, imports)}")
    outputs = asked.get("outputs")
    if loaded.name == CONVNET5:
        source = inspect.getsource(convnet5._convolution) + "\n\n" + inspect.getsource(convnet5.ConvNet5)
        imports.add("from torch import Tensor, nn")
        before = [f"WIDTHS, HIDDEN = {convnet5.WIDTHS}, {convnet5.HIDDEN}\n\n", source.rstrip() + "\n\n"]
        return _Built(f"model = ConvNet5({outputs or 1})", before)
    if loaded.name not in torchvision_names():
        imports.add("import timm")
        name = literal(loaded.name.removeprefix(PREFIX))
        options = f", num_classes={outputs}" if outputs is not None else ""
        return _Built(f"model = timm.create_model({name}{options})")
    imports.add("import torchvision")
    if loaded.weights == RANDOM or Path(loaded.weights).suffix:
        return _Built(
            f"model = torchvision.models.get_model({literal(loaded.name)}{_options(loaded, outputs)})"
        )
    words = f"{literal(loaded.name)}, weights={literal(loaded.weights)}"
    return _Built(f"model = torchvision.models.get_model({words})", needs_file=False)


def _options(loaded: LoadedModel, outputs: int | None) -> str:
    options = f", num_classes={outputs}" if outputs is not None else ""
    if loaded.name in ("googlenet", "inception_v3"):
        options += ", init_weights=False, transform_input=True"
    size = getattr(loaded.model, "image_size", None)
    return f"{options}, image_size={size}" if loaded.name.startswith("vit_") and size else options


def _own(model: nn.Module, imports: set[str]) -> str:
    """A module of the user's as code: layers of torch in sequence."""
    code = _layer(model)
    if code is not None:
        return code
    kind = type(model)
    if kind.__module__ == "__main__" or inspect.signature(kind).parameters:
        raise ExportError(
            f"how a {kind.__name__} is made is not known here; for a script, say it: "
            f'--network "from my_file import {kind.__name__}; model = {kind.__name__}()"'
        )
    imports.add(f"from {kind.__module__} import {kind.__name__}")
    return f"{kind.__name__}()"


def _layer(module: nn.Module) -> str | None:
    if type(module) is nn.Sequential:
        parts = [_layer(child) for child in module]
        names = [name for name, _ in module.named_children()]
        if None in parts or names != [str(i) for i in range(len(names))]:
            return None
        return "nn.Sequential(\n" + "".join(indent(f"{part},\n", "    ") for part in parts) + ")"
    if not _PLAIN.match(type(module).__module__) or list(module.children()):
        return None
    return f"nn.{type(module).__name__}({module.extra_repr()})"


def _head(job: Job, *, drawn: bool) -> list[str]:
    """Lines that put the new head on, as it was before it learned."""
    head = job.setup["head"]
    if head is None:
        return []
    lines = [f"# A new head for {head['outputs']} outputs: He normal weights, zero biases."]
    if drawn:
        lines.append(f"generator = torch.Generator().manual_seed(seed_for({head['seed']}, 0))")
    for place in (job.loaded.head, *job.loaded.side_heads):
        module = job.loaded.model.get_submodule(place)
        code = _layer(module)
        if code is None:
            raise ExportError(f"the head {place} is of a kind that a script cannot hold")
        lines.append(f"head = {code}")
        if drawn:
            lines.append(_DRAW)
        lines.append(f"{expression(place, job.loaded.model)} = head")
    return lines


_DRAW = """for layer in head.modules():
    if isinstance(layer, (nn.Linear, nn.Conv2d)):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(layer.bias)"""


def layers_code(job: Job) -> str:
    """The table of layers: the parts that are frozen or trained as one."""
    rows = []
    for layer in job.layers:
        names = [*_with_state(job, layer.module_names), *_loose(layer.module_names, layer.parameter_names)]
        rows.append(f"    {literal(tuple(names))},  # {layer.index}")
    return "LAYERS = (\n" + "\n".join(rows) + "\n)"


def _with_state(job: Job, names: tuple[str, ...]) -> list[str]:
    """The outermost of these modules that learn, keep something, or act otherwise in training."""
    outermost = [n for n in names if not any(n != other and n.startswith(other + ".") for other in names)]
    return [name for name in outermost if not _idle(job.loaded.model.get_submodule(name))]


def _idle(module: nn.Module) -> bool:
    plain = _PLAIN.match(type(module).__module__) and "Drop" not in type(module).__name__
    return (
        bool(plain)
        and not list(module.parameters())
        and not list(module.buffers())
        and not list(module.children())
    )


def _loose(modules: tuple[str, ...], parameters: tuple[str, ...]) -> list[str]:
    return [n for n in parameters if not any(n.startswith(module + ".") for module in modules)]
