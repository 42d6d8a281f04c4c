"""The key of cached features: a digest of all that they follow from, so that none is ever stale."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import pairwise
from uuid import uuid4

import torch

from tlnb.engine.hashing import tensors_digest
from tlnb.engine.network.described import described, names_read
from tlnb.engine.network.graph import Graph
from tlnb.engine.network.parts import Prefix

FORMAT = "tlnb features 2"  # counts up when the way in which features are computed or stored changes


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
    whole, read = True, names_read(part.model)
    for name, module in part.shared_modules().items():
        yield f"{name}: {module!r}"  # with kernel sizes, strides and so on
        for path, inner in module.named_modules():
            found = described(inner, read)
            whole &= not found.unknown
            yield f"{name}.{path}: {found.text}"
    if not whole:
        # Nobody can tell whether what could not be written down is still the same: such features are never found again.
        yield uuid4().hex
