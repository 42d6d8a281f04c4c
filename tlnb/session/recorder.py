"""How each stage was set up, in plain values: enough to do it again in a script."""

from __future__ import annotations

import copy
import inspect
import textwrap
from collections.abc import Iterable
from dataclasses import replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from tlnb.engine.checkpoint.network import tensors_of
from tlnb.engine.core.fingerprint import tensors_digest
from tlnb.engine.core.modules import exact
from tlnb.engine.core.objectives import Regression, kind_of
from tlnb.engine.core.seeds import seed_for
from tlnb.engine.data.augment import NONE, describe
from tlnb.engine.data.dataset import Data
from tlnb.engine.data.samples import Samples
from tlnb.engine.export.script.heads import layer_code
from tlnb.engine.export.script.network import rows_of
from tlnb.engine.features import precision, prefix
from tlnb.engine.features.fold import FastPart
from tlnb.engine.features.planner import ChannelsLast
from tlnb.engine.models.loaded import LoadedModel
from tlnb.engine.network import adapters
from tlnb.engine.network import head as heads
from tlnb.engine.network.head import outputs_of
from tlnb.engine.training.recipe import Checksums, DataUsed, HeadRecipe, NetworkRecipe, StageRecipe
from tlnb.engine.training.records import EpochRecord, Measured, StageResult
from tlnb.engine.training.stage import FIT
from tlnb.engine.training.trainer import StageTrainer, Step
from tlnb.session.change import Change
from tlnb.session.hooks import Hook, StageUnderWay
from tlnb.session.state import SessionState, StageStart
from tlnb.session.tools import Tools

LASTING = ("asked", "batch", "step", "augment")
"""What must not change between the beginning of a stage and its end, for a script to tell it."""


class Recorder(Hook):
    """Notes at each stage what a script needs to know of it.

    Args:
        tools: of the session.
    """

    def __init__(self, tools: Tools):
        self._tools = tools

    def before_stage(self, change: Change, stage: StageUnderWay) -> None:
        """Note how the stage begins, and keep the weights of the first one where nothing brings them back."""
        if stage.goes_on:
            return
        state = change.state
        stage.result.before = _score_before(state)
        sums, drawn, first = checksums(state), init_of_head(state), not state.stages
        whole = weights_are_own(state.need_model()) or (first and not drawn)
        change.set_recorder(begun=StageStart(sums, blended_since(state, sums[0]), drawn, whole))
        if first and whole and state.recorder.start is None:
            tensors = tensors_of(stage.trainer.model)
            change.set_recorder(
                start={n: t.detach().to("cpu", copy=True).contiguous() for n, t in tensors.items()}
            )

    def after_stage(self, change: Change, stage: StageUnderWay) -> None:
        """Note how the stage was set up."""
        state, result = change.state, stage.result
        earlier = result.recipe  # of the same stage, where it was left and gone on with
        recipe = self._recipe(state, stage, () if earlier is None else earlier.data)
        untold = result.untold or _untold(stage, recipe)
        if earlier is not None:
            if any(getattr(earlier, name) != getattr(recipe, name) for name in LASTING):
                untold = "what was changed while the stage was under way"
            recipe = _begun_as(recipe, earlier)
        measured = measured_on(state)
        # by one call: it may be broken off, and begin once more
        vars(result).update(recipe=recipe, untold=untold, measured=measured)
        change.set_recorder(begun=None)
        if state.need_data().asked is None and state.samples is not None:
            held = state.need_data(), state.samples
            change.set_recorder(objects={**state.recorder.objects, state.data_fingerprint: held})

    def _recipe(
        self, state: SessionState, under_way: StageUnderWay, earlier: tuple[DataUsed, ...]
    ) -> StageRecipe:
        loaded, source, trainer = state.need_model(), state.need_data(), under_way.trainer
        plan, result, stage = under_way.plan, under_way.result, trainer.stage
        came, device = state.came_with, self._tools.device
        form = precision.training_format(stage.precision, device)
        short = trainer.forward_plan.forward is not trainer.model
        begun = state.recorder.begun
        before = begun.checksums if begun is not None else (None, None)
        drawn = begun.drawn if begun is not None else "zero"
        after = checksums(state)
        epochs = _epochs(plan.keep_best, result)
        return StageRecipe(
            checksums=Checksums((before[0], after[0]), (before[1], after[1])),
            blend=begun.blend if begun is not None else None,
            whole=begun.whole if begun is not None else weights_are_own(loaded),
            asked=(stage.epochs, stage.lr, stage.patience),
            network=NetworkRecipe(
                loaded.name,
                loaded.weights,
                outputs_of(came) if came is not None else None,
                _kept_some(loaded.notes),
            ),
            layers=tuple(tuple(row) for row in rows_of(loaded.model, state.need_layers())),
            head=_head_told(state, drawn),
            batch=trainer.batch,
            bn=trainer.bn,
            micro=trainer.micro,
            step=source_of(state.step),
            moments=plan.with_moments,
            bfloat16=form == torch.bfloat16,
            augment=stage.augment or (NONE if stage.kind == FIT else describe(source.augment)),
            epochs=epochs,
            cut=prefix.cut_for(trainer.layers, stage.frozen) if short else 0,
            dtype=_dtype(trainer.forward_plan.train),
            channels_last=_channels_last(trainer),
            device=str(device),
            threads=torch.get_num_threads(),
            data=_data_used(state, under_way, epochs, earlier),
            kind=stage.kind,
            adapters=adapters.attached(loaded.model),
            cache=plan.cache,
            keep_best=plan.keep_best,
        )


# ---------------------------------------------------------------- the head


def head_learned_nothing(state: SessionState) -> bool:
    """Whether the head is a new one that no stage has trained yet."""
    return state.head is not state.came_with and bool(init_of_head(state))


def _head_told(state: SessionState, drawn: str) -> HeadRecipe | None:
    """The head as code; None for the one that came with the weights."""
    task, source = state.tasks[state.task], state.need_data()
    if task.head is state.came_with:
        return None
    modules = (task.head, *task.side_heads.values())
    code = tuple(layer_code(module) for module in modules)
    return HeadRecipe(task.name, source.seed, bool(drawn), len(source.classes), code, drawn or "zero")


def init_of_head(state: SessionState) -> str:
    """How a new head starts that has these very weights, or came with the network; empty where none does."""
    task = state.tasks[state.task]
    if task.head is state.came_with:
        return "zero"
    modules = [m for m in (task.head, *task.side_heads.values()) if list(m.parameters())]
    seed = seed_for(state.need_data().seed, 0)
    return next((init for init in ("zero", "he") if _starts_so(modules, init, seed)), "")


def _starts_so(modules: Iterable[nn.Module], init: str, seed: int) -> bool:
    generator = torch.Generator().manual_seed(seed)
    for module in modules:
        fresh = copy.deepcopy(module).cpu()
        heads.start(fresh, generator, init)
        pairs = zip(fresh.parameters(), module.parameters(), strict=True)
        if not all(torch.equal(a, b.cpu()) for a, b in pairs):
            return False
    return True


# ---------------------------------------------------------------- what has changed


def checksums(state: SessionState) -> tuple[float, float]:
    """Of the weights of the body and of the head: numbers that change when a weight does, quicker than a digest."""
    loaded = state.need_model()
    body: list[Tensor] = []
    head: list[Tensor] = []
    drawn = adapters.tensor_names(adapters.attached(loaded.model))
    for name, parameter in loaded.model.named_parameters():
        if name in drawn and name.endswith("_a"):
            continue  # the factor that is drawn; without the other one, which is zero at first, it adds nothing
        (head if any(name.startswith(f"{p}.") for p in loaded.places) else body).append(parameter)
    return _checksum(body), _checksum(head)


def blended_since(state: SessionState, body: float) -> float | None:
    """How much of the new the body holds, where a blend alone has changed it since the last stage.

    Args:
        state: of the session.
        body: checksum of the body as it is.
    """
    last, ends = _last(state), state.old.ends
    if ends is None or last is None or last.recipe is None:
        return None
    places = {name for name, _ in state.need_model().model.named_parameters()}
    new, held = (_checksum([t for name, t in end.items() if name in places]) for end in ends)
    after = last.recipe.checksums.body[1]
    told = state.old.share >= 0 and new == after and held == body and body != after
    return state.old.share if told else None


def _score_before(state: SessionState) -> EpochRecord | None:
    """The score of the network as it is, where the last stage measured it on the same samples."""
    last = _last(state)
    recipe = last.recipe if last is not None else None
    if last is None or recipe is None or recipe.data[-1].fingerprint != state.data_fingerprint:
        return None
    same = (recipe.checksums.body[1], recipe.checksums.head[1]) == checksums(state)
    return last.final if same else None


def _last(state: SessionState) -> StageResult | None:
    return state.stages[-1] if state.stages else None


def weights_are_own(loaded: LoadedModel) -> bool:
    """Whether the weights of the start cannot be had again by loading the network once more."""
    return loaded.own or _kept_some(loaded.notes)


# ---------------------------------------------------------------- the data

_which: WeakKeyDictionary[Samples, str] = WeakKeyDictionary()  # taken once for each data


def measured_on(state: SessionState) -> Measured:
    """The validation samples as they are now."""
    data, valid = state.need_data(), state.need_samples()[1]
    targets = data.task.answers(valid.targets) if isinstance(data.task, Regression) else valid.targets
    units = None
    if data.units is not None and data.split is not None:
        units = torch.from_numpy(data.units[data.split.valid.numpy()])
    if valid not in _which:
        _which[valid] = _samples_print(data, targets)
    return Measured(_which[valid], kind_of(data.task), targets, units)


def _samples_print(data: Data, targets: Tensor) -> str:
    """Which samples these are: by content where that is known, else by their names and places in the data."""
    known = data.valid.digests()
    if known is None or None in known:
        # A file whose size no other has was not read; its name and those of the others stand for it.
        names = "|".join(data.valid.name(index) for index in range(len(data.valid)))
        known_places = [] if data.split is None else [("places", data.split.valid)]
        return tensors_digest([("targets", targets), *known_places], note=f"{'|'.join(data.classes)} {names}")
    content = b"".join(digest for digest in known if digest is not None)
    return tensors_digest([("targets", targets)], note=f"{'|'.join(data.classes)} {content.hex()}")


def _data_used(
    state: SessionState, stage: StageUnderWay, epochs: int, earlier: tuple[DataUsed, ...]
) -> tuple[DataUsed, ...]:
    """Which epochs the stage learned from which data."""
    source, result = state.need_data(), stage.result
    asked = source.asked or {"source": None, "name": source.name, "balance": source.balance}
    left = None if stage.ended or result.diverged else result.left
    stands = (epochs, 0) if left is None else (left.epoch, left.done)
    now = DataUsed(dict(asked), state.data_fingerprint, source.seed, stands)
    same = bool(earlier) and replace(earlier[-1], until=stands) == now
    return (*(earlier[:-1] if same else earlier), now)


def _begun_as(recipe: StageRecipe, earlier: StageRecipe) -> StageRecipe:
    """A stage that was left and gone on with began where it did."""
    now, then = recipe.checksums, earlier.checksums
    sums = Checksums((then.body[0], now.body[1]), (then.head[0], now.head[1]))
    kept = {name: getattr(earlier, name) for name in ("blend", "whole", "head", "moments")}
    return replace(recipe, checksums=sums, **kept)


def _untold(stage: StageUnderWay, recipe: StageRecipe) -> str:
    """What a script could not tell of this stage, in words; empty where it can tell all."""
    trainer = stage.trainer
    if len(recipe.data) > 1 and recipe.epochs != len(stage.result.records):
        return "an epoch that was put back, after other data was named,"
    if not recipe.step and trainer._step != trainer._usual_step:
        return "a step whose source is not known"
    if trainer.scaler is not None:
        return "layers that compute in fp16 with a scaled loss"
    return ""


@torch.no_grad()
def _checksum(tensors: Iterable[Tensor]) -> float:
    return float(sum(exact(tensor).abs().sum() for tensor in tensors))


def _kept_some(notes: tuple[str, ...]) -> bool:
    return any(note.startswith(("kept: ", "adapter: ")) for note in notes)


def source_of(step: Step | None) -> str | None:
    """The source of a step of the user's, from a cell or a function; None where it is not known."""
    if step is None:
        return None
    told = getattr(step, "source", None)
    if told:
        return str(told)
    try:
        source = textwrap.dedent(inspect.getsource(step))
    except (OSError, TypeError):
        return None
    return source if source.startswith("def ") else None


def _epochs(keep_best: bool, result: StageResult) -> int:
    """After how many epochs the weights are those of now."""
    if keep_best and result.records:
        return min(result.records, key=lambda record: record.valid_loss).epoch
    return len(result.records)


def _channels_last(trainer: StageTrainer) -> bool:
    """Whether images, or features that are images, come with channels last in memory."""
    train = trainer.forward_plan.train
    return isinstance(train, ChannelsLast) or bool(getattr(train, "channels_last", False))


def _dtype(samples: object) -> str:
    part, features = getattr(samples, "part", None), getattr(samples, "features", None)
    if isinstance(part, FastPart):
        return str(part.dtype).removeprefix("torch.")
    return str(features.rows.dtype).removeprefix("torch.") if features is not None else "float32"
