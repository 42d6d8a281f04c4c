"""Which network to start from: the data passes once through each candidate, and the session stays as it is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tlnb.display.tables import printable
from tlnb.engine.advice.candidate import Candidate, OnProgress, measure_candidate
from tlnb.engine.core.arguments import one_line, whole_number
from tlnb.engine.core.interrupts import Stopped
from tlnb.engine.core.metrics import score_named
from tlnb.engine.core.modules import duplicate
from tlnb.engine.core.objectives import Regression, kind_of
from tlnb.engine.data.dataset import Data
from tlnb.engine.data.folds import Folds, make_folds
from tlnb.engine.data.samples import Samples, TensorSamples
from tlnb.engine.data.samples import choose as some_of
from tlnb.engine.models.catalogue import check_name
from tlnb.engine.models.loaded import Input, LoadedModel
from tlnb.engine.models.own_model import find_own_head
from tlnb.engine.results.choice import Choice, ChoiceRow, rank
from tlnb.errors import BadArguments, ModelError, TlnbError
from tlnb.session.heads import preprocess_for
from tlnb.session.network import Network
from tlnb.session.state import SessionState
from tlnb.session.testing import USUAL
from tlnb.session.tools import Tools


def choose(
    state: SessionState,
    tools: Tools,
    network: Network,
    models: Sequence[object],
    weights: str | None,
    images: int,
    folds: int,
) -> Choice:
    """Measure each candidate on the training samples; see ``Session.choose``."""
    data = state.need_data()
    whole_number(images, "--images", 10)
    whole_number(folds, "--folds", 2)
    asked = named(models)
    rows = _rows(data, images)
    targets, dealt = data.train.targets[rows], _folds(data, rows, folds)
    kind = kind_of(data.task)
    score = data.task.score or score_named(USUAL[kind], kind)
    tools.say_here("the choice", "each network is loaded once and sees few samples")
    measured: dict[str, tuple[Candidate, str]] = {}
    troubles: dict[str, str] = {}
    with tools.walk(f"trying {len(asked)} network{'s' * (len(asked) > 1)} on the data") as on_progress:
        for number, (name, model) in enumerate(asked.items()):
            # A batch is an edge; how many there are is known, what follows from them is a tenth more.
            edge = _edges(on_progress, number, len(asked))
            try:
                edge()
                loaded = network.read(model, weights if isinstance(model, str) else None, None, None)
                measured[name] = _measure(loaded, data, rows, targets, dealt, tools, edge), loaded.weights
            except TlnbError as error:
                troubles[name] = str(error)
            except Stopped:
                raise
            except Exception as error:  # another's code may raise anything
                troubles[name] = one_line(error)
    if not measured:
        name, trouble = next(iter(troubles.items()))
        raise ModelError(f"none of them can be measured; {printable(name)}: {trouble}")
    told = data.task.answers(targets) if isinstance(data.task, Regression) else targets
    units = (
        data.units[_places(data, rows).numpy()] if data.units is not None and data.split is not None else None
    )
    ranked = rank(measured, score, told.numpy(), len(data.train), units)
    failed = [ChoiceRow(name, trouble=trouble) for name, trouble in troubles.items()]
    return Choice(data.name, score, (*ranked, *failed), len(rows), folds, dealt.notes, asked, weights)


def named(models: Sequence[object]) -> dict[str, object]:
    """The candidates by the names under which they are shown.

    Raises:
        BadArguments: none, or one that is there twice.
        ModelError, WeightsError: one that nothing could be, before anything has run.
    """
    if not models:
        raise BadArguments("name the networks to choose from, such as: %tl_choose resnet18 mobilenet_v2")
    found: dict[str, object] = {}
    for model in models:
        if isinstance(model, os.PathLike):
            model = os.fspath(model)
        if isinstance(model, str):
            check_name(model)
            name = model
        elif isinstance(model, nn.Module):
            name = _free(type(model).__name__, found)
        else:
            raise ModelError(f"a model is a name, a file or an nn.Module, not {type(model).__name__}")
        if name in found:
            raise BadArguments(f"{printable(name)} is named twice")
        found[name] = model
    return found


def _free(name: str, taken: dict[str, object]) -> str:
    return next(n for n in (name, *(f"{name} {k}" for k in range(2, len(taken) + 3))) if n not in taken)


def _edges(on_progress: Any, number: int, count: int) -> OnProgress:
    """Tells how far it has come in a thousandths of a candidate, and stops where that was asked for."""
    done = 0

    def edge() -> None:
        nonlocal done
        done += 1
        share = done / (done + 20)  # how long one takes is not known before it has been looked at
        on_progress(round(1000 * (number + share)), 1000 * count)

    return edge


def _rows(data: Data, images: int) -> Tensor:
    """The training samples that take part, the same for every network."""
    every = torch.arange(len(data.train))
    return some_of(TensorSamples(every, data.train.targets), images, seed=0).batch(every[:images])


def _places(data: Data, rows: Tensor) -> Tensor:
    assert data.split is not None
    return data.split.train[rows]


def _folds(data: Data, rows: Tensor, folds: int) -> Folds:
    known = data.train.digests()
    places = None if data.split is None else _places(data, rows).numpy()
    return make_folds(
        data.train.targets[rows], folds, seed=data.seed, classes=data.classes,
        digests=None if known is None else [known[row] for row in rows.tolist()],
        groups=None if data.groups is None or places is None else data.groups.among(places),
        times=None if data.times is None or places is None else data.times.among(places),
    )  # fmt: skip


def _measure(
    loaded: LoadedModel,
    data: Data,
    rows: Tensor,
    targets: Tensor,
    folds: Folds,
    tools: Tools,
    edge: OnProgress,
) -> Candidate:
    samples = data.train.prepare(preprocess_for(loaded, data))
    loaded = _seen(loaded, samples)
    model = loaded.model
    if next(model.parameters()).device != tools.device:
        # A module of the user's stays where it is.
        model = (duplicate(model) if loaded.own else model).to(tools.device)
    return measure_candidate(
        model, loaded.head, samples, rows, targets, data.task, len(data.classes), folds, tools.device, data.batch,
        edge,
    )  # fmt: skip


def _seen(loaded: LoadedModel, samples: Samples) -> LoadedModel:
    """The network with what the samples tell of its input.

    Raises:
        ModelError: it runs on samples of another kind.
    """
    seen = Input.of(samples.batch(torch.arange(min(2, len(samples)))))
    if loaded.input is not None and not seen.alike(loaded.input):
        raise ModelError(f"it takes {loaded.describe_input()}, and the data has {seen.describe()}")
    if loaded.own:
        loaded = replace(loaded, input=seen)
        find_own_head(loaded)
    return loaded
