"""The key of cached features: a digest of all that they follow from, so that none is ever stale."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import pairwise
from types import CodeType

import torch
from torch import nn

from tlnb.engine.hashing import tensors_digest
from tlnb.engine.network.graph import Graph
from tlnb.engine.network.parts import Prefix

FORMAT = "tlnb features 1"  # counts up when the way in which features are computed or stored changes


def part_digest(part: Prefix) -> str:
    """SHA-256 over what a frozen part computes: its graph, its modules, their code, weights and buffers."""
    module = part.graph_module()  # constants that tracing found are among its buffers
    tensors = [
        *module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False),
    ]  # fmt: skip
    return tensors_digest(tensors, note="\n".join(_description(part)))


def digests(graph: Graph, cuts: Iterable[int]) -> dict[int, str]:
    """For each cut the digest of all before it.

    It is put together from the parts between all clean cuts, so that each weight is read once, and the digest
    of a cut does not depend on which others are asked for.
    """
    wanted, found, so_far = set(cuts), {}, ""
    places = [k for k in graph.cuts if k <= max(wanted, default=0)]
    for first, last in pairwise(places):
        so_far = hashlib.sha256((so_far + part_digest(graph.segment(first, last))).encode()).hexdigest()
        if last in wanted:
            found[last] = so_far
    return found


def features_key(part: str, samples: str, form: str, cut: int) -> str:
    """The key.

    Args:
        part: digest of the frozen part, see :func:`part_digest`.
        samples: fingerprint of the samples, preprocessing included.
        form: asked number format and what decides about it.
        cut: number of the layer behind the part.
    """
    parts = (FORMAT, str(torch.__version__), part, samples, form, str(cut))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _description(part: Prefix) -> Iterator[str]:
    yield str(part.graph.python_code("self").src)
    for name, module in part.shared_modules().items():
        yield f"{name}: {module!r}"  # with kernel sizes, strides and so on
        for path, inner in module.named_modules():
            yield f"{name}.{path}: {_settings(inner)}"
        for cls in sorted({type(m) for m in module.modules()}, key=_class_name):
            yield _class_name(cls) + _code(cls)


def _settings(module: nn.Module) -> list[tuple[str, str]]:
    """Plain attributes of a module; not every one is in its ``repr``."""
    plain = (bool, int, float, str, tuple, type(None))
    return [
        (name, repr(value))
        for name, value in sorted(vars(module).items())
        if isinstance(value, plain) and name != "training" and not name.startswith("_")
    ]


def _class_name(cls: type[nn.Module]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _code(cls: type[nn.Module]) -> str:
    """What a class of the user's own computes; a notebook may define it again under the same name."""
    if cls.__module__.startswith("torch.nn."):
        return ""
    codes = [v.__code__ for v in vars(cls).values() if hasattr(v, "__code__")]
    return hashlib.sha256("".join(_code_parts(codes)).encode()).hexdigest()


def _code_parts(codes: Iterable[CodeType]) -> Iterator[str]:
    for code in codes:
        constants = sorted(repr(c) for c in code.co_consts if isinstance(c, bool | int | float | str | tuple))
        yield f"{code.co_code.hex()}{code.co_names}{constants}"
        yield from _code_parts(c for c in code.co_consts if isinstance(c, CodeType))
