"""Where a session stands, and what its network learned."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from tlnb.engine.core.arguments import number_between, whole_number
from tlnb.engine.data.grid import PictureGrid, picture_grid, text_table
from tlnb.engine.data.samples import CollatedSamples
from tlnb.engine.data.sound.front_end import RawFrames
from tlnb.engine.data.text_samples import TextSamples
from tlnb.engine.data.texts import TextTable
from tlnb.engine.data.tokens import AnyPreprocess
from tlnb.engine.features.samples import show_bytes
from tlnb.engine.results.novelty import FALSE_ALARMS
from tlnb.engine.results.predict import OwnInput, Predictions, Predictor
from tlnb.engine.results.predict import predict as predict_with
from tlnb.engine.results.results import Results, gather
from tlnb.engine.results.sure import Sure
from tlnb.engine.results.sureness import SURE
from tlnb.engine.training.history import final_of
from tlnb.engine.training.records import show_metric, spans
from tlnb.errors import DataError
from tlnb.session.answers import Lines, PanelCard
from tlnb.session.checkpoints import left_of
from tlnb.session.judging import out_of_fold
from tlnb.session.view import SessionView

FROZEN_MEANS = "frozen layers take no gradient, are not in the optimizer, and run in test mode"


def status(view: SessionView) -> Lines:
    """Where the session stands."""
    return Lines(*_status(view))


def _status(view: SessionView) -> Iterable[str]:
    state = view.state
    yield f"model    {state.loaded}" if state.loaded else "model    none; %tl_load convnet5 loads one"
    yield f"data     {state.data}" if state.data else "data     none; %tl_data digits names some"
    if state.layers is not None:
        frozen = spans(state.frozen_indexes)
        yield f"layers   {len(state.layers)}; frozen {frozen}; {state.layer_table.summary}"
        yield f"         {FROZEN_MEANS}"
    stages = state.all_stages
    last = final_of(stages)
    if last is not None:
        epochs = sum(len(stage.records) for stage in stages)
        yield f"trained  {len(stages)} stages, {epochs} epochs; {last.metric_name} {show_metric(last)}"
    yield from _cached(view)
    yield f"device   {view.device}, {torch.get_num_threads()} threads"
    if state.plan is not None:
        yield f"plan     {left_of(state.plan)}; %tl_train --continue goes on"
    if view.saved:
        yield f"saved    {view.saved}"


def _cached(view: SessionView) -> Iterable[str]:
    """What is kept of frozen first parts, and what that saved."""
    cache = view.routes.cache
    held = {place: cache.bytes(place) for place in ("device", "memory", "file")}
    if any(held.values()):
        places = ", ".join(f"{show_bytes(size)} in {place}" for place, size in held.items() if size)
        saved = max(cache.saved - cache.spent, 0.0)
        yield f"features {places} of frozen first parts; saved {saved:.1f} s"


def panel(view: SessionView) -> PanelCard:
    """Network, data and layers in words."""
    return PanelCard(str(view.loaded or ""), str(view.data or ""), view.state.frozen_indexes)


def show_batch(view: SessionView, count: int, epoch: int) -> PictureGrid | TextTable:
    """Training pictures or texts as the network sees them; see ``Session.show_batch``."""
    view.need_model()
    source = view.need_data()
    if view.samples is None:
        raise DataError("the data is not fitted to the network yet")
    if isinstance(view.samples[0], TextSamples):
        return text_table(source, view.samples[0], count, epoch)
    return picture_grid(source, view.samples[0], count, epoch)


def results(view: SessionView, worst: int, sure: float = SURE) -> Results:
    """How good the network is on the validation samples; see ``Session.results``."""
    whole_number(worst, "--worst", 0)
    number_between(sure, "sure", 0, 1)
    view.need_ready()
    valid = view.need_samples()[1]
    return gather(
        view.need_model().model, view.need_data(), valid, view.device, worst=worst, sure=sure,
        temperature=out_of_fold(view.state),
    )  # fmt: skip


def predict(
    view: SessionView,
    source: object,
    views: int,
    judged_by: Sure | None = None,
    *,
    sure: float = SURE,
    false_alarms: float = FALSE_ALARMS,
) -> Predictions:
    """What the network says of files, a folder or arrays; see ``Session.predict``.

    Args:
        view: of the session.
        source: what is predicted on.
        views: how many views are averaged.
        judged_by: what the answers are judged by; None where they are not.
        sure, false_alarms: how, where they are.
    """
    view.need_ready()
    loaded, data = view.need_model(), view.need_data()
    valid = view.need_samples()[1]
    preprocess: AnyPreprocess | RawFrames = getattr(valid, "preprocess", loaded.preprocess)
    own = _own_input(valid) if isinstance(valid, CollatedSamples) else None
    predictor = Predictor(loaded.model, data, preprocess, view.device, own, judged_by)
    return predict_with(predictor, source, views=views, sure=sure, false_alarms=false_alarms)


def _own_input(samples: CollatedSamples) -> OwnInput:
    """How the user's data set makes input: by its items, and by its transform where it has one."""
    like = samples.batch(torch.tensor([0]))
    source = getattr(samples.pipeline.item, "__self__", None)
    while source is not None and not callable(getattr(source, "transform", None)):
        source = getattr(source, "dataset", None)
    return OwnInput(like, getattr(source, "transform", None))
