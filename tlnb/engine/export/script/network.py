"""The part of a script that builds the network and gives it its starting weights and its head."""

from __future__ import annotations

import inspect
import pprint
from dataclasses import replace
from pathlib import Path
from textwrap import indent
from typing import Any

from torch import Tensor, nn

from tlnb.engine.export.script.chain import expression
from tlnb.engine.export.script.heads import LISTEN, PLAIN, classes_code, first_head, hears, layer_code
from tlnb.engine.export.script.job import Job
from tlnb.engine.export.script.text import literal
from tlnb.engine.models import convnet5, encoder, hub
from tlnb.engine.models.loaded import RANDOM, LoadedModel
from tlnb.engine.models.published import CONVNET5, torchvision_names
from tlnb.engine.models.timm_models import PREFIX
from tlnb.engine.network.layers import LayerMap
from tlnb.errors import ExportError


def network_code(job: Job, *, with_weights: bool) -> tuple[str, set[str]]:
    """``load_network`` and what it needs, and the names of the imports that it asks for.

    Raises:
        ExportError: a network of the user's that cannot be written down.
    """
    imports: set[str] = set()
    build = _build(job.loaded, job.recipe.network.outputs, imports, job.network)
    heads = [code for recipe in job.recipes if recipe.head is not None for code in recipe.head.code]
    body = [
        *build.before,
        *classes_code(heads, imports),
        "def load_network():",
        '    """The network as it was before the first stage, on the CPU."""',
    ]
    lines = [build.line]
    whole = job.recipe.whole
    file = whole or build.needs_file or with_weights
    if file:
        name = f"{job.stem}.start.safetensors"
        job.files[name] = _kept(job)
        imports.add("from safetensors.torch import load_file")
        lines.append(f"weights = load_file(HERE / {literal(name)})")
    head, fill = first_head(job, drawn=not whole), ["model.load_state_dict(weights)"] if file else []
    old = _old(job, imports, head_of_weights=not (whole and head))
    added = job.recipe.adapters
    if whole and added:
        head = [*head, f"attach(model, {literal(dict(added))})"]
    lines += [*head, *fill, *old] if whole else [*fill, *old, *head]
    lines.append("return model, old" if old else "return model")
    return "\n".join([*body, *(indent(line, "    ") for line in lines)]), imports


def _kept(job: Job) -> dict[str, Tensor]:
    """The weights of the start, without buffers that a state dict leaves out."""
    model = job.loaded.model
    left = {name for name, _ in model.named_buffers()} - set(model.state_dict())
    return {name: tensor for name, tensor in job.start().items() if name not in left}


def _old(job: Job, imports: set[str], *, head_of_weights: bool) -> list[str]:
    """The line that keeps the network as it was."""
    if not job.old:
        return []
    if job.any("keep") and not head_of_weights:
        raise ExportError("the head that these weights came with is not known, so a guard cannot be written")
    imports.add("import copy")
    return ["old = copy.deepcopy(model).eval().requires_grad_(False)"]


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
    build = _build(plain, None, imports)
    heads = [] if loaded.own else list(loaded.places)
    lines, before = [build.line], list(build.before)
    for place in heads:
        code = layer_code(loaded.model.get_submodule(place))
        before += classes_code([code], imports)
        if code is None:
            raise ExportError(f"the head {place} is of a kind that code cannot hold")
        lines.append(f"{expression(place, loaded.model)} = {code}")
        lines += [LISTEN] if hears(code) else []
    return before, lines


def _build(loaded: LoadedModel, outputs: int | None, imports: set[str], network: str = "") -> _Built:
    if network:
        return _Built(network)
    if loaded.own:
        return _Built(f"model = {_own(loaded.model, imports)}")
    if loaded.recipe is not None:
        return _by_recipe(loaded.recipe, imports)
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


def _by_recipe(recipe: dict[str, Any], imports: set[str]) -> _Built:
    """A network of transformers by its configuration."""
    imports.add("import transformers")
    values = {name: value for name, value in recipe["config"].items() if name != "num_labels"}
    config = [
        "CONFIG = " + pprint.pformat(values, width=100, sort_dicts=False) + "\n\n",
    ]
    labels = recipe["config"].get("num_labels")
    made = "transformers.AutoConfig.for_model(**CONFIG)"
    makers = {hub.IMAGE: "AutoModelForImageClassification", hub.TEXT: "AutoModelForSequenceClassification"}
    lines = [f"config = {made}", *([f"config.num_labels = {labels}"] if labels is not None else [])]
    if recipe["kind"] in makers:
        lines.append(f"model = transformers.{makers[recipe['kind']]}.from_config(config)")
        return _Built("\n".join(lines), config)
    source = inspect.getsource(encoder.Pooling) + "\n\n" + inspect.getsource(encoder.TextEncoder)
    imports.update(("from torch import Tensor, nn", "from torch.nn import functional as F"))
    pooling = f"{literal(recipe['how'])}, {recipe['normalise']}"
    lines += ["body = transformers.AutoModel.from_config(config)", *_WITHOUT_POOLER,
              f"model = TextEncoder(body, {recipe_width(recipe)}, 1, {pooling})"]  # fmt: skip
    return _Built("\n".join(lines), [*config, source.rstrip() + "\n\n"])


_WITHOUT_POOLER = [
    'if isinstance(getattr(body, "pooler", None), nn.Module):',
    "    body.pooler = None  # the mean over the tokens stands in its place",
]


def recipe_width(recipe: dict[str, Any]) -> int:
    """How wide the vectors of a text network are."""
    names = ("hidden_size", "dim", "d_model", "n_embd")
    return next(int(recipe["config"][name]) for name in names if name in recipe["config"])


def _options(loaded: LoadedModel, outputs: int | None) -> str:
    options = f", num_classes={outputs}" if outputs is not None else ""
    if loaded.name in ("googlenet", "inception_v3"):
        options += ", init_weights=False, transform_input=True"
    size = getattr(loaded.model, "image_size", None)
    return f"{options}, image_size={size}" if loaded.name.startswith("vit_") and size else options


def _own(model: nn.Module, imports: set[str]) -> str:
    """A module of the user's as code: layers of torch in sequence."""
    code = layer_code(model)
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


def layers_code(job: Job) -> str:
    """The table of layers: the parts that are frozen or trained as one."""
    rows = [f"    {literal(tuple(names))},  # {i}" for i, names in enumerate(job.recipe.layers)]
    return "LAYERS = (\n" + "\n".join(rows) + "\n)"


def rows_of(model: nn.Module, layers: LayerMap) -> list[list[str]]:
    """For each layer the names of its modules that have state, and of its loose weights."""
    return [
        [*_with_state(model, layer.module_names), *_loose(layer.module_names, layer.parameter_names)]
        for layer in layers
    ]


def _with_state(model: nn.Module, names: tuple[str, ...]) -> list[str]:
    """The outermost of these modules that learn, keep something, or act otherwise in training."""
    outermost = [n for n in names if not any(n != other and n.startswith(other + ".") for other in names)]
    modules = dict(model.named_modules())  # a scripted module has no get_submodule
    return [name for name in outermost if not _idle(modules[name])]


def _idle(module: nn.Module) -> bool:
    plain = PLAIN.match(type(module).__module__) and "Drop" not in type(module).__name__
    return (
        bool(plain)
        and not list(module.parameters())
        and not list(module.buffers())
        and not list(module.children())
    )


def _loose(modules: tuple[str, ...], parameters: tuple[str, ...]) -> list[str]:
    return [n for n in parameters if not any(n.startswith(module + ".") for module in modules)]
