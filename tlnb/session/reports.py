"""Where a session stands, and what its network learned."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch

from tlnb.display.tables import printable
from tlnb.engine.core.arguments import number_between, whole_number
from tlnb.engine.data.grid import PictureGrid, picture_grid, text_table
from tlnb.engine.data.samples import DatasetSamples
from tlnb.engine.data.sound.front_end import RawFrames
from tlnb.engine.data.text_samples import TextSamples
from tlnb.engine.data.texts import TextTable
from tlnb.engine.data.tokens import AnyPreprocess
from tlnb.engine.features.samples import show_bytes
from tlnb.engine.results.novelty import FALSE_ALARMS
from tlnb.engine.results.predict import predict as predict_with
from tlnb.engine.results.predictions import Predictions
from tlnb.engine.results.predictor import Known, OwnInput, Predictor
from tlnb.engine.results.results import Results, gather
from tlnb.engine.results.scores import scores_over
from tlnb.engine.results.sure import Sure
from tlnb.engine.results.sureness import SURE
from tlnb.engine.training.history import final_of
from tlnb.engine.training.records import show_metric, spans
from tlnb.errors import DataError
from tlnb.session.answers import Lines, PanelCard
from tlnb.session.checkpoints import left_of
from tlnb.session.judging import out_of_fold
from tlnb.session.recorder import head_learned_nothing
from tlnb.session.tools import OnProgress
from tlnb.session.view import SessionView

UNTRAINED = "the head is new and has learned nothing yet: %tl_train comes first"
FROZEN_MEANS = "frozen layers take no gradient, are not in the optimizer, and run in test mode"


def status(view: SessionView) -> Lines:
    """Where the session stands."""
    return Lines(*_status(view))


def _status(view: SessionView) -> Iterable[str]:
    state = view.state
    yield from _indented("model", state.loaded or "none; %tl_load convnet5 loads one")
    yield from _indented("data", state.data or "none; %tl_data digits names some")
    if state.layers is not None:
        frozen = spans(state.frozen_indexes) if state.frozen_indexes else "none"
        yield f"layers   {len(state.layers)}; frozen {frozen}; {state.layer_table.summary}"
        yield f"         {FROZEN_MEANS}"
    stages = state.all_stages
    last = final_of(stages)
    if last is not None:
        epochs = sum(len(stage.records) for stage in stages)
        counts = ", ".join(_counted(n, what) for n, what in ((len(stages), "stage"), (epochs, "epoch")))
        yield f"trained  {counts}; {last.metric_name} {show_metric(last)}{_on_other_data(view)}"
    yield from _cached(view)
    yield f"device   {view.device}, {torch.get_num_threads()} threads"
    if view.cluster:
        yield f"cluster  {view.cluster}; %tl_cluster off comes back"
    if state.plan is not None:
        yield f"plan     {left_of(state.plan)}; %tl_train --continue goes on"
    if view.saved:
        yield f"saved    {view.saved}"


def _on_other_data(view: SessionView) -> str:
    """Where the last score was measured on, where that is not the data of now."""
    recipe = view.state.all_stages[-1].recipe
    if recipe is None or recipe.data[-1].fingerprint == view.state.data_fingerprint:
        return ""
    return f" on other data ({printable(recipe.data[-1].name)})"


def _indented(name: str, what: object) -> Iterable[str]:
    """What is said, line for line, the first behind its name and the others below it."""
    for number, line in enumerate(str(what).splitlines()):
        yield f"{'' if number else name:<9}{line}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _cached(view: SessionView) -> Iterable[str]:
    """What is kept of frozen first parts, and what that saved."""
    cache = view.planner.cache
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


def results(
    view: SessionView, worst: int, sure: float = SURE, on_progress: OnProgress = lambda done, total: None
) -> Results:
    """How good the network is on the validation samples; see ``Session.results``."""
    whole_number(worst, "--worst", 0)
    number_between(sure, "sure", 0, 1)
    layers, model = view.need_ready(), view.need_model().model
    valid, frozen = view.need_samples()[1], view.state.frozen_indexes
    # What training has kept of frozen layers serves here too; only the maps of the mistakes need pixels.
    forward_plan = view.planner.measuring(model, layers, frozen, valid, view.device, on_progress=on_progress)
    scores = scores_over(forward_plan.forward, forward_plan.valid, view.device, on_progress)
    found = gather(
        model, view.need_data(), valid, view.device, worst=worst, scores=scores, sure=sure,
        temperature=out_of_fold(view.state),
    )  # fmt: skip
    untrained = head_learned_nothing(view.state) and view.need_model().head
    return replace(found, note=UNTRAINED) if untrained else found


def predict(
    view: SessionView,
    source: object,
    views: int,
    judged_by: Sure | None = None,
    *,
    sure: float = SURE,
    false_alarms: float = FALSE_ALARMS,
    on_progress: OnProgress = lambda done, total: None,
) -> Predictions:
    """What the network says of files, a folder or arrays; see ``Session.predict``.

    Args:
        view: of the session.
        source: what is predicted on.
        views: how many views are averaged.
        judged_by: what the answers are judged by; None where they are not.
        sure, false_alarms: how, where they are.
        on_progress: told how far it has come.
    """
    loaded = view.need_model()
    if view.data is None and loaded.categories and loaded.trained:
        known = Predictor(loaded.model, Known(loaded.categories), loaded.preprocess, view.device)
        return predict_with(known, source, views=views, on_progress=on_progress)
    view.need_ready()
    data, valid = view.need_data(), view.need_samples()[1]
    preprocess: AnyPreprocess | RawFrames = getattr(valid, "preprocess", loaded.preprocess)
    own = _own_input(valid) if isinstance(valid, DatasetSamples) else None
    predictor = Predictor(loaded.model, data, preprocess, view.device, own, judged_by)
    return predict_with(
        predictor, source, views=views, on_progress=on_progress, sure=sure, false_alarms=false_alarms
    )


def _own_input(samples: DatasetSamples) -> OwnInput:
    """How the user's data set makes input: by its items, and by its transform where it has one."""
    like = samples.batch(torch.tensor([0]))
    source = getattr(samples.pipeline.item, "__self__", None)
    while source is not None and not callable(getattr(source, "transform", None)):
        source = getattr(source, "dataset", None)
    return OwnInput(like, getattr(source, "transform", None))
