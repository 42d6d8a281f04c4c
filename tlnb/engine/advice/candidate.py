"""What a network is worth for some data before it learns any of it: folds of a head and neighbours, LogME, cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from tlnb.engine.advice.pace import step_cost
from tlnb.engine.advice.transferability import logme
from tlnb.engine.core.objectives import Classification, MultiLabel, Objective, scores_of
from tlnb.engine.core.tree import call
from tlnb.engine.data.folds import Folds
from tlnb.engine.data.samples import Samples
from tlnb.engine.data.wholes import mean_of_wholes, pieces_of
from tlnb.engine.network.neighbours import Neighbours
from tlnb.engine.network.trace import quiet
from tlnb.engine.training.fit_head import as_vectors, last_layer
from tlnb.engine.training.linear_fit import fit_linear
from tlnb.errors import ModelError

BATCH = 32
NEIGHBOURS = 5

OnProgress = Callable[[], None]


@dataclass(frozen=True)
class Candidate:
    """A network as it came, measured on some samples.

    Attributes:
        answers: of a logistic head (ridge for values) for samples that it did not learn from, (n, outputs); NaN for
            those that no fold validates.
        neighbours: the same of the five nearest samples that vote by their distance; None for labels and values.
        logme: logarithm of maximum evidence of what enters the head; larger is better.
        width: how many numbers enter the head.
        parameters: weights of the network.
        seconds: of the pass of all samples through it, reading included.
        step: seconds of forward and backward through all layers, for one sample.
        memory: bytes that training all layers takes for one batch: weights, gradients, AdamW's moments, and what is
            kept for the way back; None where a step does not run.
    """

    answers: np.ndarray = field(repr=False)
    neighbours: np.ndarray | None = field(repr=False)
    logme: float
    width: int
    parameters: int
    seconds: float
    step: float | None
    memory: int | None


def measure_candidate(
    model: nn.Module,
    head: str,
    samples: Samples,
    rows: Tensor,
    targets: Tensor,
    task: Objective,
    outputs: int,
    folds: Folds,
    device: torch.device,
    batch: int,
    on_progress: OnProgress = lambda: None,
) -> Candidate:
    """One pass of the samples through a network, and all that follows from it; nothing of the network changes.

    Args:
        model: on the device.
        head: qualified name of its head; empty for none: what it answers is looked at then.
        samples: of the data, fitted to the network.
        rows: which of them take part, or which wholes where samples are pieces: int64 of shape (n,).
        targets: of these, (n,) or (n, outputs), as the task learns them.
        task: what is learned.
        outputs: classes, labels or values.
        folds: of the rows.
        device: where the model is.
        batch: samples of a training step.
        on_progress: called at each edge at which this may be stopped.

    Raises:
        ModelError: the network does not run on the samples, or what it makes of them is not finite.
    """
    began = time.perf_counter()
    features = features_of(model, head, samples, rows, device, on_progress)
    seconds = time.perf_counter() - began
    if not torch.isfinite(features).all():
        raise ModelError("what enters its head is not finite for some samples")
    step, memory = step_cost(model, samples.batch(torch.arange(min(batch, len(samples)))).to(device))
    classes = isinstance(task, Classification)
    return Candidate(
        answers=_by_head(features, targets, task, outputs, folds, on_progress),
        neighbours=_by_neighbours(features, targets, outputs, folds, on_progress) if classes else None,
        logme=logme(features, targets),
        width=features.shape[1],
        parameters=sum(p.numel() for p in model.parameters()),
        seconds=seconds,
        step=step,
        memory=memory,
    )


def features_of(
    model: nn.Module, head: str, samples: Samples, rows: Tensor, device: torch.device, on_progress: OnProgress
) -> Tensor:
    """What enters the head, as vectors (n, d) on the CPU; of pieces, the mean over each whole.

    Args:
        model, head, samples, rows, device, on_progress: see :func:`measure_candidate`.

    Raises:
        ModelError: the head does not run once for each sample.
    """
    pieces, wholes = pieces_of(samples.wholes, rows)
    parts = list(_vectors(model, head, samples, pieces, device, on_progress))
    vectors = torch.cat(parts)
    return vectors if wholes is None else mean_of_wholes(vectors, wholes)


def _vectors(
    model: nn.Module, head: str, samples: Samples, rows: Tensor, device: torch.device, on_progress: OnProgress
) -> Iterator[Tensor]:
    seen: list[Tensor] = []
    handle = None
    if head:
        place = model.get_submodule(head)
        handle = place.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        with quiet(model):
            for x in samples.stream(rows.split(BATCH)):
                on_progress()
                seen.clear()
                answer = call(model, x.to(device))
                entering = seen if head else [scores_of(answer)]
                if len(entering) != 1 or len(entering[0]) != len(x):
                    raise ModelError("its head does not run once for each sample")
                found = as_vectors(entering[0], last_layer(place)) if head else entering[0].flatten(1)
                yield found.detach().float().cpu()
    finally:
        if handle is not None:
            handle.remove()


def _by_head(
    features: Tensor, targets: Tensor, task: Objective, outputs: int, folds: Folds, on_progress: OnProgress
) -> np.ndarray:
    weights = task.weights if isinstance(task, Classification | MultiLabel) else None
    goal = targets.to(torch.uint8) if isinstance(task, MultiLabel) else targets
    each = None if weights is None else torch.tensor(weights)

    def answer(train: Tensor, valid: Tensor) -> Tensor:
        found = fit_linear(features[train], goal[train], outputs, each)
        return task.answers(features[valid].double() @ found["weight"].T + found["bias"])

    return _left_out(answer, folds, on_progress)


def _by_neighbours(
    features: Tensor, targets: Tensor, outputs: int, folds: Folds, on_progress: OnProgress
) -> np.ndarray:
    def answer(train: Tensor, valid: Tensor) -> Tensor:
        with torch.no_grad():
            head = Neighbours(len(train), features.shape[1], outputs, min(NEIGHBOURS, len(train)))
            head.remember(features[train], targets[train])
            return torch.cat([head(part) for part in features[valid].split(BATCH)]).exp()

    return _left_out(answer, folds, on_progress)


def _left_out(
    answer: Callable[[Tensor, Tensor], Tensor], folds: Folds, on_progress: OnProgress
) -> np.ndarray:
    found: np.ndarray | None = None
    for fold in folds:
        on_progress()
        part = answer(fold.train, fold.valid).double().numpy()
        if found is None:
            found = np.full((folds.count, part.shape[1]), np.nan)
        found[fold.valid.numpy()] = part
    assert found is not None
    return found
