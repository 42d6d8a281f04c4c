"""When kept features may be used: a key of all that they follow from, and a look at a few before each use.

The key of features holds weights, code and settings, but not all that a network can depend on: hooks, globals, a
list of tensors, a forward of its own. A few samples on the whole way tell, whatever it was that changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import pairwise
from uuid import uuid4

import torch
from torch import Tensor, nn

from tlnb.engine.core.fingerprint import tensors_digest
from tlnb.engine.core.objectives import scores_of
from tlnb.engine.data.samples import Samples
from tlnb.engine.network.described import described, names_read
from tlnb.engine.network.graph import Graph
from tlnb.engine.network.parts import Prefix
from tlnb.engine.network.trace import quiet

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


LOOKED_AT = 8
FAR = {torch.float32: 1e-3}  # relative error of the scores, from which on they are others
FAR_IN_SHORT = 0.1  # likewise where features are kept in a shorter format


def agrees(
    model: nn.Module,
    tail: nn.Module,
    source: Samples,
    kept: Samples,
    dtype: torch.dtype,
    device: torch.device,
) -> bool:
    """Whether the tail makes of what is kept what the whole network makes of the samples.

    Args:
        model: the whole; its modes are put back.
        tail: the part behind the cut.
        source: samples that enter the model.
        kept: the same samples as they enter the tail.
        dtype: in which they are kept.
        device: where the model is.
    """
    some = torch.linspace(0, len(source) - 1, min(LOOKED_AT, len(source))).long()
    training = tail.training
    try:
        with quiet(model):
            whole = scores_of(model(source.batch(some).to(device)))
            short = scores_of(tail.eval()(kept.batch(some).to(device)))
    finally:
        tail.train(training)
    return whole.shape == short.shape and _near(whole, short, FAR.get(dtype, FAR_IN_SHORT))


def _near(exact: Tensor, other: Tensor, far: float) -> bool:
    exact, other = exact.flatten(1).double(), other.flatten(1).double()
    if not exact.isfinite().all():
        return True  # says nothing
    return bool(((other - exact).norm(dim=1) <= far * exact.norm(dim=1)).all())
