"""The heads of a script: which stage has which, and the code that exchanges them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from textwrap import indent

from torch import nn

from tlnb.engine.export.script.chain import expression
from tlnb.engine.export.script.job import Job
from tlnb.engine.export.script.refusals import recipe_of
from tlnb.engine.export.script.text import literal
from tlnb.engine.network import all_layers
from tlnb.engine.network.all_layers import AllLayers
from tlnb.engine.network.neighbours import Neighbours
from tlnb.engine.training.recipe import HeadRecipe
from tlnb.engine.training.records import StageResult
from tlnb.errors import ExportError

PLAIN = re.compile(r"torch\.nn\.modules\.\w+")

DRAW = """layers = [m for m in head.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
for layer in layers:
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
    nn.init.zeros_(layer.bias)"""
ZERO = """for layer in layers[-1:]:
    nn.init.zeros_(layer.weight)  # the last one starts at zero"""

IDENTITY = "nn.Identity()"
LISTEN = "listen(model)"
_EXCHANGE = '''HEADS = (
{makers}
)  # how each head is made, the seed of its weights, and how the last layer starts, in the order of first use


def put_head(model, number, heads):
    """Put a head on: one that was there before, or a new one."""
    if number not in heads:
        make, seed, start = HEADS[number]
        heads[number] = make()
        generator = torch.Generator().manual_seed(seed_for(seed, 0))
        for head in heads[number]:
{draw}
            if start == "zero":
{zero}
    {places} = heads[number]'''


def layer_code(module: nn.Module) -> str | None:
    """A module of torch's own, or several in sequence, as code; None for any other."""
    if type(module) is nn.Sequential:
        parts = [layer_code(child) for child in module]
        names = [name for name, _ in module.named_children()]
        if None in parts or names != [str(i) for i in range(len(names))]:
            return None
        return "nn.Sequential(\n" + "".join(indent(f"{part},\n", "    ") for part in parts) + ")"
    if type(module) is nn.Identity:
        return IDENTITY
    if type(module) is Neighbours:
        return f"Neighbours({', '.join(map(str, (*module.weight.shape, module.classes, module.k)))})"
    if type(module) is AllLayers:
        made = (module.taps, module.features, module.linear.out_features, module.places)
        return f"AllLayers({', '.join(map(literal, made))})"
    if not PLAIN.match(type(module).__module__) or list(module.children()):
        return None
    arguments = _arguments(module)
    return None if arguments is None else f"nn.{type(module).__name__}({', '.join(arguments)})"


def _arguments(module: nn.Module) -> list[str] | None:
    """What a module of torch's own was made with, as far as it is not the default; None where that is not known.

    Not its ``repr``: that leaves options out, and words without quotes.
    """
    told = []
    for name, parameter in inspect.signature(type(module)).parameters.items():
        if name.startswith("_") or name in ("device", "dtype"):
            continue
        value = getattr(module, name, parameter.empty)
        if name == "bias" and not isinstance(value, bool):
            value = value is not None
        if (
            parameter.kind is not parameter.POSITIONAL_OR_KEYWORD
            and parameter.kind is not parameter.KEYWORD_ONLY
        ):
            return None
        if value is parameter.empty and parameter.default in (parameter.empty, None):
            if parameter.default is None:
                continue
            return None
        if not _is_plain(value):
            return None
        same = (parameter.default,) * len(value) if isinstance(value, tuple) else parameter.default
        if value not in (parameter.default, same):
            told.append(f"{name}={value!r}")
    return told


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(part) for part in value)
    return value is None or isinstance(value, bool | int | float | str)


def classes_code(codes: Iterable[str | None], imports: set[str]) -> list[str]:
    """The classes of heads of neighbours and of all layers, where such are made in this code."""
    made, found = [code for code in codes if code], []
    if any("Neighbours(" in code for code in made):
        imports |= {"import torch", "from torch import Tensor, nn"}
        found.append(inspect.getsource(Neighbours).rstrip() + "\n\n")
    if any(map(hears, made)):
        imports |= {"import torch", "from torch import Tensor, nn", "from torch.nn import functional as F"}
        source = inspect.getsource(all_layers)
        found.append(source[source.index("class Tap:") :].rstrip() + "\n\n")
    return found


def hears(code: str | None) -> bool:
    """Whether code makes a head of all layers, which has to listen once it stands in the network."""
    return bool(code and code.startswith("AllLayers("))


def numbers_of(results: Sequence[StageResult]) -> list[int]:
    """For each stage, which head it has: 0 is the first one, and each new one counts on.

    A head is known again by its task, and by its weights, which are those that an earlier stage left.

    Raises:
        ExportError: the weights of a head were changed by something other than training.
    """
    numbers: list[int] = []
    for result in results:
        earlier = results[: len(numbers)]
        same = [i for i, one in enumerate(earlier) if _same(recipe_of(one).head, recipe_of(result).head)]
        before = recipe_of(result).checksums.head[0]
        kept = [i for i in same if before in (None, recipe_of(earlier[i]).checksums.head[1])]
        if kept:
            numbers.append(numbers[kept[-1]])
            continue
        if numbers:
            _check_new(result, bool(same))
        numbers.append(max(numbers, default=-1) + 1)
    return numbers


def _check_new(result: StageResult, known: bool) -> None:
    told = recipe_of(result).head
    if told is None and not known:
        raise ExportError(
            f"stage {result.number} trained the head that the weights came with, after another one, "
            "which a script cannot tell"
        )
    if told is None or not told.drawn:
        raise ExportError(
            f"the weights of the head were changed before stage {result.number} by something other than "
            "training, which a script cannot tell"
        )


def _same(one: HeadRecipe | None, other: HeadRecipe | None) -> bool:
    if one is None or other is None:
        return one is other
    return bool(one.task == other.task and one.code == other.code)


def places_of(job: Job) -> list[str]:
    """Where heads stand, as code."""
    return [expression(place, job.loaded.model) for place in job.loaded.places]


def exchange_code(job: Job, numbers: Sequence[int]) -> str:
    """``put_head``; empty where one head serves all stages."""
    if len(set(numbers)) < 2:
        return ""
    makers = []
    for number in sorted(set(numbers)):
        head = job.recipes[numbers.index(number)].head
        if number == 0 or head is None:
            makers.append("    None,  # the one of load_network")
        else:
            makers.append(
                f"    (lambda: [{', '.join(_written(head))}], {literal(head.seed)}, {head.init!r}),"
            )
    places = ", ".join(places_of(job))
    places = places if len(places_of(job)) > 1 else f"[{places}]"
    code = _EXCHANGE.format(makers="\n".join(makers), draw=indent(DRAW, " " * 12), zero=indent(ZERO, " " * 16),
                            places=places)  # fmt: skip
    told = [recipe.head for recipe in job.recipes]
    listens = any(hears(code) for head in told if head for code in head.code)
    return f"{code}\n    {LISTEN}" if listens else code


def _written(head: HeadRecipe) -> list[str]:
    codes = [code for code in head.code if code is not None]
    if len(codes) < len(head.code):
        raise ExportError(f"the head for {head.task} is of a kind that a script cannot hold")
    return codes


def first_head(job: Job, *, drawn: bool) -> list[str]:
    """Lines that put the first new head on, as it was before it learned."""
    head = job.recipe.head
    if head is None:
        return []
    lines = [f"# A new head for {head.outputs} outputs."]
    if drawn:
        lines.append(f"generator = torch.Generator().manual_seed(seed_for({head.seed}, 0))")
    for place, code in zip(places_of(job), _written(head), strict=True):
        lines.append(f"head = {code}")
        if drawn and code != IDENTITY:
            lines.append(DRAW)
            if head.init == "zero":
                lines.append(ZERO)
        lines.append(f"{place} = head")
    return [*lines, *([LISTEN] if any(map(hears, _written(head))) else [])]
