"""Whether what is kept is still what the network computes: a look at a few samples, before each use.

The key of features holds weights, code and settings, but not all that a network can depend on: hooks, globals, a
list of tensors, a forward of its own. A few samples on the whole way tell, whatever it was that changed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tlnb.engine.data.samples import Samples
from tlnb.engine.network.observe import quiet
from tlnb.engine.training.tasks import scores_of

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
