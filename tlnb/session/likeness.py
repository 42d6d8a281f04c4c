"""What the session's network makes of samples before they are its data, so that near duplicates can be told."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tlnb.engine.core.tree import call
from tlnb.engine.data.raw import RawDataset
from tlnb.engine.data.samples import Samples
from tlnb.engine.data.wholes import mean_of_wholes
from tlnb.engine.features.layer_features import pooled
from tlnb.engine.forgetting.old_network import HeadInput
from tlnb.engine.network.trace import quiet
from tlnb.errors import DataError, first_line
from tlnb.session.heads import preprocess_at
from tlnb.session.state import SessionState
from tlnb.session.tools import OnProgress, Tools

BATCH = 64


def features_of(state: SessionState, tools: Tools, size: int | None) -> Callable[[RawDataset], Tensor] | None:
    """What enters the head of the network as it was before training, for each sample: (N, D).

    A network that was trained on these classes makes all samples of a class alike, so that of before is asked.

    Args:
        state: with the network.
        tools: of the session.
        size: side of the pictures in pixels; None for the network's own.

    Returns:
        None where there is no such network: none is loaded, its weights are random, or those of before training are
        not known.
    """
    loaded = state.loaded
    if loaded is None or not loaded.trained or not loaded.head:
        return None
    model, head = loaded.model, loaded.head
    if any(stage.records for stage in state.all_stages):
        if state.old.network is None:
            return None
        model, head = state.old.network.model.to(tools.device), state.old.network.head

    def features(samples: RawDataset) -> Tensor:
        prepared = samples.prepare(preprocess_at(loaded, size, samples))
        try:
            return entering_head(model, head, prepared, tools, lambda done, total: tools.interrupts.check())
        except (RuntimeError, TypeError, ValueError) as trouble:
            line = first_line(trouble)
            raise DataError(f"--groups near: the network does not take these samples ({line})") from None

    return features


def entering_head(
    model: nn.Module, head: str, samples: Samples, tools: Tools, on_progress: OnProgress
) -> Tensor:
    """What enters the head of a network for each sample, or on the mean for the pieces of a whole: (N, D).

    Args:
        model: in which nothing changes.
        head: qualified name of its head.
        samples: fitted to it.
        tools: of the session.
        on_progress: called with how many samples are done of how many; what it raises ends the pass.
    """
    entrance, parts, done = HeadInput(model, head), [], 0
    with quiet(model), entrance.watching():
        for x in samples.stream(torch.arange(len(samples)).split(BATCH)):
            on_progress(done, len(samples))
            call(model, x.to(tools.device))
            assert entrance.seen is not None
            parts.append(pooled(entrance.seen))
            done += len(parts[-1])
    found = torch.cat(parts)
    return found if samples.wholes is None else mean_of_wholes(found, samples.wholes)
