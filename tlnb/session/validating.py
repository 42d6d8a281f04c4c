"""Folds of a session's data: what each of them starts from, the plan, and the samples that take part."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from tlnb.display.tables import printable
from tlnb.engine.advice.fold_run import FoldData, FoldRunner, FoldStage, working_copy
from tlnb.engine.core.fingerprint import tensors_digest
from tlnb.engine.core.metrics import score_named
from tlnb.engine.core.objectives import Regression, kind_of
from tlnb.engine.core.seeds import seed_for
from tlnb.engine.data.augmented import AugmentedSamples
from tlnb.engine.data.dataset import Data
from tlnb.engine.data.folds import Folds, make_folds
from tlnb.engine.data.joined import joined
from tlnb.engine.data.load import usual_batch
from tlnb.engine.data.samples import Samples, with_targets
from tlnb.engine.data.wholes import pieces_of
from tlnb.engine.network import freeze
from tlnb.engine.network import head as heads
from tlnb.engine.results.cross_validation import CrossValidation, selected
from tlnb.engine.training.plan import parse_plan
from tlnb.engine.training.records import StageResult
from tlnb.engine.training.trainer import Guard, StageTrainer
from tlnb.errors import BadArguments, NotReady, PlanError, TrainingError
from tlnb.session.advising import The, advice_key
from tlnb.session.change import Change, Store
from tlnb.session.heads import preprocess_for
from tlnb.session.old_task import OldTask
from tlnb.session.plans import check_best, traits_of
from tlnb.session.recorder import init_of_head
from tlnb.session.state import SessionState
from tlnb.session.testing import USUAL
from tlnb.session.tools import Tools
from tlnb.session.training import Training


@dataclass(frozen=True)
class FoldGround:
    """What is needed to go on with folds; nothing of it is the session's own.

    Attributes:
        runner: trains a fold.
        data: the samples of all folds.
    """

    runner: FoldRunner
    data: FoldData


class Validating:
    """Cross-validates a session's plan.

    Args:
        store, tools, training, old_task: of the session.
    """

    def __init__(self, store: Store, tools: Tools, training: Training, old_task: OldTask):
        self._store, self._tools, self._training, self._old_task = store, tools, training, old_task
        self._ground: tuple[CrossValidation, FoldGround] | None = None

    def cross_validate(
        self, folds: int, plan: str | None, repeats: int, cache: bool, keep_best: bool, keys: dict[str, Any]
    ) -> CrossValidation:
        """See ``Session.cross_validate``."""
        with self._store.change() as change:
            found, ground = self._begin(change, folds, plan, repeats, cache, keep_best, keys)
            change.set(folds=found)
        self._ground = None if ground is None else (found, ground)
        return self._carry_out(found)

    def go_on(self) -> CrossValidation:
        """See ``Session.go_on_with_folds``."""
        found = self._store.now.folds
        if found is None:
            raise NotReady("no folds to go on with; %tl_cv 5 begins")
        return self._carry_out(found)

    def _carry_out(self, found: CrossValidation) -> CrossValidation:
        if found.complete:
            return found
        if self._ground is None or self._ground[0] is not found:
            raise NotReady("what the folds need is not there any more; %tl_cv 5 begins anew")
        # What was measured stays, however it ends: the same call goes on with it.
        ground = self._ground[1]
        with self._tools.working("a cross-validation"):
            found.go_on(ground.runner, ground.data, self._tools.stop, self._tools.log, self._tools.workers)
        if found.complete:
            self._ground = None  # a network and its start need not stay in memory
        return found

    def _begin(
        self, change: Change, folds: int, plan: str | None, repeats: int, cache: bool, keep_best: bool,
        keys: dict[str, Any],
    ) -> tuple[CrossValidation, FoldGround | None]:  # fmt: skip
        state = change.state
        state.need_ready()
        data, loaded = state.need_data(), state.need_model()
        pool, raw, positions = _pool(state)
        dealt = _dealt(data, pool, raw, positions, folds, repeats)
        first = next(iter(dealt))
        stages, how = self._plan(state, plan, keep_best, keys, len(first.train))
        fitted = self._training.check([each.stage for each in stages])
        for each in stages:
            check_best(each.stage, each.keep_best)
        stages = tuple(replace(each, stage=stage) for each, stage in zip(stages, fitted, strict=True))
        guard = self._guard(change) if any(each.stage.keep for each in stages) else None
        model = _start(change.state)
        score = data.task.score or score_named(USUAL[kind_of(data.task)], kind_of(data.task))
        text = "\n".join(each.stage.text for each in stages)
        weights = [(str(i), t) for i, t in enumerate(chain(model.parameters(), model.buffers()))]
        settings = stages, folds, repeats, cache, score.name, self._tools.device
        key = The(data), The(state.step), tensors_digest(weights), settings
        known = state.folds
        held = self._ground[1] if self._ground is not None and self._ground[0] is known else None
        if known is not None and known.key == key and (known.complete or held is not None):
            return known, held
        chosen = selected([(each.stage, each.keep_best) for each in stages])
        notes = [how, *dealt.notes]
        if _learned(state):
            notes.insert(1, f"each starts from the network as {_STARTS[_has_seen(state)]}")
        if chosen:
            notes.append(
                f"{' and '.join(chosen)} looked at each fold's validation samples, so its score is a little too good"
            )
        units = data.units[positions.numpy()] if data.units is not None and data.split is not None else None
        found = CrossValidation(
            printable(data.name), tuple(map(printable, data.classes)), score.kind, score, text, dealt,
            positions.numpy(), raw.numpy(), units, tuple(notes), key,
        )  # fmt: skip
        runner = FoldRunner(
            model, loaded, stages, self._tools.device, self._tools.planner if cache else None,
            bn=traits_of(state).bn, step=state.step, guard=guard,
        )  # fmt: skip
        self._tools.log(f"cross-validation of {len(dealt)} folds; {how}")
        return found, FoldGround(runner, _fold_data(data, pool, raw))

    # ---------------------------------------------------------------- the plan

    def _plan(
        self, state: SessionState, text: str | None, keep_best: bool, keys: Mapping[str, Any], images: int
    ) -> tuple[tuple[FoldStage, ...], str]:
        """The stages, and in words where they are from."""
        layers = state.need_layers()
        if text is not None and not isinstance(text, str):
            raise PlanError(f"a plan is text with a stage a line, not {type(text).__name__}")
        if text is None and keys:
            raise BadArguments(f"{next(iter(keys))} is a setting of a plan; give the plan too")
        if text is not None:
            stages = parse_plan(text, layers, state.frozen_indexes, keys)
            return tuple(FoldStage(stage, keep_best) for stage in stages), "each fold trains the plan given"
        trained = trained_on_it(state)
        if trained:
            again = tuple(
                FoldStage(
                    _as_far(result), keep_best or (result.recipe is not None and result.recipe.keep_best),
                    result.recipe is not None and result.recipe.moments,
                )
                for result in trained
            )  # fmt: skip
            return again, f"each fold trains what the session trained: {_few_stages(trained)}"
        known = state.advice
        if known is not None and known[0] == advice_key(state):
            stages, how = parse_plan(known[1].plan, layers, ()), "each fold trains the advised plan"
        else:
            stages, how = self._training.default_stages(state, images), "each fold trains the default plan"
        return tuple(FoldStage(stage, keep_best) for stage in stages), how

    def _guard(self, change: Change) -> Callable[[StageTrainer, str], Guard]:
        """What a stage's ``keep`` asks for; the network of before training is remembered now."""
        self._old_task.network(change)
        state = change.state

        def guard(trainer: StageTrainer, keep: str) -> Guard:
            if keep.startswith("ewc") and self._store.now.old.data is None:
                raise TrainingError(
                    "keep ewc would weigh by samples of other folds; name the old data (%tl_forget --source)"
                )
            with self._store.change() as inner:
                if inner.state.old.network is None:
                    inner.set_old(network=state.old.network)
                return self._old_task.guard(inner, trainer, keep)

        return guard


_STARTS = {
    True: "it was before training",
    False: "it is: what it was trained on is other data",
}


def _learned(state: SessionState) -> bool:
    return any(stage.records for stage in state.all_stages)


def _has_seen(state: SessionState) -> bool:
    """Whether the network may have learned from some of these samples: from this data, or from data of its name.

    Under another split the same data has another print.
    """
    data, now = state.need_data(), state.data_fingerprint
    name = str(data.asked["source"]) if data.asked is not None else data.name
    for stage in state.all_stages:
        if not stage.records:
            continue
        if stage.recipe is None:
            return True  # nobody knows
        for used in stage.recipe.data:
            called = used.asked.get("source") or used.asked.get("name")
            if used.fingerprint == now or called in (None, name):
                return True
    return False


def trained_on_it(state: SessionState) -> list[StageResult]:
    """The last stages that learned from the data as it is now, with as many layers as there are now."""
    now, count, found = state.data_fingerprint, len(state.need_layers()), []
    for result in reversed(state.stages):
        recipe = result.recipe
        if recipe is None or len(recipe.layers) != count:
            break
        if any(used.fingerprint != now for used in recipe.data):
            break
        if result.records and not result.diverged:
            found.append(result)
    return found[::-1]


def _as_far(result: StageResult) -> Any:
    """The stage's settings, with as many epochs as it was trained where it was stopped for good."""
    return replace(result.stage, epochs=len(result.records)) if result.stopped else result.stage


def _few_stages(stages: Sequence[StageResult]) -> str:
    lines = [result.stage.text for result in stages]
    return "; ".join(lines if len(lines) <= 3 else [*lines[:2], "…", lines[-1]])


# -------------------------------------------------------------------- the samples


def _pool(state: SessionState) -> tuple[Samples, Tensor, Tensor]:
    """All samples but those under seal, their targets in the user's unit, and their places in the source."""
    data, (train, valid) = state.need_data(), state.need_samples()
    plain = train.plain if isinstance(train, AugmentedSamples) else train
    if data.balance == "samples":  # each once; the folds repeat their own
        plain = data.train.prepare(preprocess_for(state.need_model(), data))
    every = joined([plain, valid])
    raw = torch.cat([data.train.targets, data.valid.targets])
    if isinstance(data.task, Regression):
        raw = data.task.answers(raw)
    if data.split is None:
        return every, raw, torch.arange(len(raw))
    places = torch.cat([data.split.train, data.split.valid])
    order = places.argsort()
    pieces, wholes = pieces_of(every.wholes, order)
    found = every.portion(pieces)
    found.wholes = wholes
    return found, raw[order], places[order]


def _dealt(data: Data, pool: Samples, raw: Tensor, positions: Tensor, folds: int, repeats: int) -> Folds:
    rows = positions.numpy()
    digests = _digests(data)
    if digests is not None and data.split is not None:
        places = torch.cat([data.split.train, data.split.valid])
        digests = [digests[place] for place in places.argsort().tolist()]
    return make_folds(
        raw, folds, repeats=repeats, seed=data.seed, digests=digests, classes=data.classes,
        groups=None if data.groups is None else data.groups.among(rows),
        times=None if data.times is None else data.times.among(rows),
    )  # fmt: skip


def _digests(data: Data) -> list[bytes | None] | None:
    both = [part.digests() for part in (data.train, data.valid)]
    known = [digests for digests in both if digests is not None]
    return [digest for digests in known for digest in digests] if len(known) == 2 else None


def _fold_data(data: Data, pool: Samples, raw: Tensor) -> FoldData:
    told = data.batch if data.batch != usual_batch(len(data.train)) else None
    task = data.task
    targets = raw if pool.wholes is None else raw[pool.wholes]
    return FoldData(
        with_targets(pool, targets), raw, task, len(data.classes), data.augment, data.balance,
        lambda count: told or usual_batch(count), data.seed,
    )  # fmt: skip


# -------------------------------------------------------------------- the network


def _start(state: SessionState) -> nn.Module:
    """A copy of the network as it was before it learned from any of these samples, with a new head.

    Raises:
        NotReady: that is not known any more.
        ModelError: the network cannot be copied.
    """
    loaded, task = state.need_model(), state.tasks[state.task]
    untrained = not _has_seen(state)
    old = state.old.network
    model = working_copy(old.model if old is not None and not untrained else loaded.model)
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(name not in loaded.fixed)
    if old is None and not untrained:
        _as_before(state, model)
    places = {loaded.head: task.head, **task.side_heads} if loaded.head else {}
    if task.head is state.came_with:
        return model
    generator = torch.Generator().manual_seed(seed_for(state.need_data().seed, 0))
    init = _init_of(state)
    for place, module in places.items():
        fresh = copy.deepcopy(module)
        if list(fresh.parameters()):
            device = next(fresh.parameters()).device
            heads.start(fresh.cpu(), generator, init)
            fresh.to(device)
        heads.replace(model, place, fresh)
    return model


def _as_before(state: SessionState, model: nn.Module) -> None:
    """Write the weights of before the first stage into a copy of the network as it is."""
    now = dict(freeze.state_of(model, state.need_layers(), range(len(state.need_layers()))))
    undo, start = state.undo, state.recorder.start
    with torch.no_grad():
        if undo and undo[0].stages == 0 and all(point.head is state.head for point in undo):
            for point in reversed(undo):
                for name, tensor in point.weights.items():
                    now[name].copy_(tensor)
        elif start is not None and all(
            name in start and start[name].shape == t.shape for name, t in now.items()
        ):
            for name, tensor in now.items():
                tensor.copy_(start[name])
        else:
            raise NotReady(
                "the network as it was before training is not known any more, and this one has seen the samples of "
                "every fold; load it again, then %tl_cv"
            )


def _init_of(state: SessionState) -> str:
    """How the last layer of the session's head began: ``zero`` or ``he``."""
    for result in state.stages:
        head = result.recipe.head if result.recipe is not None else None
        if head is not None and head.task == state.task and head.drawn:
            return head.init
    return init_of_head(state) or "zero"
