"""When kept features may be used: a key of all that they follow from, and a look at a few before each use.

The key of features holds weights, code and settings, but not all that a network can depend on: hooks, globals, a
list of tensors, a forward of its own. A few samples on the whole way tell, whatever it was that changed.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator
from itertools import pairwise
from uuid import uuid4

import torch
from torch import Tensor, nn

from tlnb.engine.core.fingerprint import tensors_digest
from tlnb.engine.core.modules import exact
from tlnb.engine.core.objectives import scores_of
from tlnb.engine.core.tree import call
from tlnb.engine.data.samples import Samples
from tlnb.engine.network.described import described, names_read
from tlnb.engine.network.graph import Graph
from tlnb.engine.network.parts import Prefix
from tlnb.engine.network.replay import Replay, ReplayPrefix
from tlnb.engine.network.trace import quiet

FORMAT = "tlnb features 2"  # counts up when the way in which features are computed or stored changes


def part_digest(part: Prefix | ReplayPrefix) -> str:
    """SHA-256 over what a frozen part computes: its graph, its modules, their code, weights and buffers."""
    if isinstance(part, ReplayPrefix):
        return _replayed_digest(part)
    module = part.graph_module()  # constants that tracing found are among its buffers
    tensors = [
        *module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False),
    ]  # fmt: skip
    return tensors_digest(tensors, note="\n".join(_description(part)))


def _replayed_digest(part: ReplayPrefix) -> str:
    """Of a part that is replayed: its modules, and the settings and version of what calls them."""
    modules = part.shared_modules()
    named = [
        (f"{name}.{inner}", tensor)
        for name, module in modules.items()
        for inner, tensor in (*module.named_parameters(), *module.named_buffers())
    ]
    # Weights that the forward reads without calling their module (a table of relative positions).
    called = {id(tensor) for _, tensor in named}
    named += [
        (n, t) for n, t in part.model.named_parameters() if id(t) not in called and _is_loose(part.model, n)
    ]
    told = [f"{name}: {module!r}" for name, module in modules.items()]
    for name, module in part.model.named_modules():
        author, config = type(module).__module__.partition(".")[0], getattr(module, "config", None)
        if author == "transformers":
            told.append(f"{name}: {type(module).__qualname__} {sys.modules[author].__version__}")
            if config is not None and hasattr(config, "to_json_string"):
                told.append(config.to_json_string(use_diff=False))
        else:
            found = described(module)
            told.append(f"{name}: {found.text}")
            if found.unknown:
                told.append(uuid4().hex)  # nobody can tell whether it is still the same
    return tensors_digest(named, note="\n".join(told))


def _is_loose(model: nn.Module, name: str) -> bool:
    """Whether a weight stands in a module that has others inside."""
    return any(model.get_submodule(name.rpartition(".")[0]).children())


def digests(graph: Graph | Replay, cuts: Iterable[int]) -> dict[int, str]:
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


def features_key(part: str, samples: str, dtype_policy: str, cut: int) -> str:
    """The key.

    Args:
        part: digest of the frozen part, see :func:`part_digest`.
        samples: fingerprint of the samples, preprocessing included.
        dtype_policy: asked number format and what decides about it.
        cut: number of the layer behind the part.
    """
    parts = (FORMAT, str(torch.__version__), part, samples, dtype_policy, str(cut))
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


def outputs_match(
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
            whole = scores_of(call(model, source.batch(some).to(device)))
            short = scores_of(call(tail.eval(), kept.batch(some).to(device)))
    finally:
        tail.train(training)
    return whole.shape == short.shape and _near(whole, short, FAR.get(dtype, FAR_IN_SHORT))


def _near(whole: Tensor, short: Tensor, far: float) -> bool:
    true, other = exact(whole.flatten(1)), exact(short.flatten(1))
    if not true.isfinite().all():
        return True  # says nothing
    return bool(((other - true).norm(dim=1) <= far * true.norm(dim=1)).all())
