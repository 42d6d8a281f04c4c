"""How each stage was set up, in plain values: enough to do it again in a script."""

from __future__ import annotations

import copy
import inspect
import textwrap
from collections.abc import Iterable
from typing import Any
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
from tlnb.engine.training.records import EpochRecord, Measured, StageResult
from tlnb.engine.training.stage import FIT
from tlnb.engine.training.trainer import StageTrainer, Step
from tlnb.session.change import Change
from tlnb.session.hooks import Hook, StageUnderWay
from tlnb.session.state import SessionState, StageStart
from tlnb.session.tools import Tools

LASTING = ("asked", "batch", "step", "augment")
"""What must not change between the beginning of a stage and its end, for a script to tell it."""

Checksums = tuple[float, float]
"""Of the weights of the body and of the head: numbers that change when a weight does."""


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
        earlier = result.setup  # of the same stage, where it was left and gone on with
        setup = self._setup(state, stage)
        _tell_data(setup, state, stage, earlier.get("data", []))
        if earlier:
            _join(setup, earlier)
        measured = measured_on(state)
        vars(result).update(
            setup=setup, measured=measured
        )  # by one call: it may be broken off, and begin once more
        change.set_recorder(begun=None)
        if state.need_data().asked is None and state.samples is not None:
            held = state.need_data(), state.samples
            change.set_recorder(objects={**state.recorder.objects, state.data_fingerprint: held})

    def _setup(self, state: SessionState, under_way: StageUnderWay) -> dict[str, Any]:
        loaded, source, trainer = state.need_model(), state.need_data(), under_way.trainer
        plan, result, stage = under_way.plan, under_way.result, trainer.stage
        came, device = state.came_with, self._tools.device
        form = precision.training_format(stage.precision, device)
        step = source_of(state.step)
        short = trainer.route.forward is not trainer.model
        begun = state.recorder.begun
        before = begun.checksums if begun is not None else (None, None)
        drawn = begun.drawn if begun is not None else "zero"
        after = checksums(state)
        return {
            "marks": {"body": [before[0], after[0]], "head": [before[1], after[1]]},
            "blend": begun.blend if begun is not None else None,
            "whole": begun.whole if begun is not None else weights_are_own(loaded),
            "asked": [stage.epochs, stage.lr, stage.patience],
            "network": {
                "name": loaded.name,
                "weights": loaded.weights,
                "outputs": outputs_of(came) if came is not None else None,
                "layers_from": _kept_some(loaded.notes),
            },
            "layers": rows_of(loaded.model, state.need_layers()),
            "head": _head_told(state, drawn),
            "batch": trainer.batch,
            "bn": trainer.bn,
            "kind": stage.kind,
            "adapters": adapters.attached(loaded.model),
            "merged": False,
            "cache": plan.cache,
            "keep_best": plan.keep_best,
            "micro": trainer.micro,
            "step": step,
            "moments": plan.with_moments,
            "unknown": _unknown(trainer, step),
            "bfloat16": form == torch.bfloat16,
            "augment": stage.augment or (NONE if stage.kind == FIT else describe(source.augment)),
            "epochs": _epochs(plan.keep_best, result),
            "cut": prefix.cut_for(trainer.layers, stage.frozen) if short else 0,
            "dtype": _dtype(trainer.route.train),
            "channels_last": _channels_last(trainer),
            "device": str(device),
            "threads": torch.get_num_threads(),
        }


# ---------------------------------------------------------------- the head


def head_learned_nothing(state: SessionState) -> bool:
    """Whether the head is a new one that no stage has trained yet."""
    return state.head is not state.came_with and bool(init_of_head(state))


def _head_told(state: SessionState, drawn: str) -> dict[str, Any] | None:
    """The head as code; None for the one that came with the weights."""
    task, source = state.tasks[state.task], state.need_data()
    if task.head is state.came_with:
        return None
    modules = (task.head, *task.side_heads.values())
    return {
        "task": task.name, "seed": source.seed, "drawn": bool(drawn), "init": drawn or "zero",
        "outputs": len(source.classes),
        "code": [layer_code(module) for module in modules],
    }  # fmt: skip


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


def checksums(state: SessionState) -> Checksums:
    """Quicker than a digest, and enough to see a change by hand."""
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
    if ends is None or last is None or "marks" not in last.setup:
        return None
    places = {name for name, _ in state.need_model().model.named_parameters()}
    new, held = (_checksum([t for name, t in end.items() if name in places]) for end in ends)
    after = last.setup["marks"]["body"][1]
    told = state.old.share >= 0 and new == after and held == body and body != after
    return state.old.share if told else None


def _score_before(state: SessionState) -> EpochRecord | None:
    """The score of the network as it is, where the last stage measured it on the same samples."""
    last = _last(state)
    if last is None or "marks" not in last.setup or last.setup["data"][-1]["print"] != state.data_fingerprint:
        return None
    same = [last.setup["marks"][part][1] for part in ("body", "head")] == list(checksums(state))
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


def _tell_data(
    setup: dict[str, Any], state: SessionState, stage: StageUnderWay, earlier: list[dict[str, Any]]
) -> None:
    """Note which epochs the stage learned from which data."""
    source, result = state.need_data(), stage.result
    asked = source.asked or {"source": None, "name": source.name, "balance": source.balance}
    left = None if stage.ended or result.diverged else result.left
    stands = [setup["epochs"], 0] if left is None else [left.epoch, left.done]
    now = {"asked": asked, "print": state.data_fingerprint, "seed": source.seed}
    same = bool(earlier) and {key: earlier[-1][key] for key in now} == now
    setup["data"] = [*(earlier[:-1] if same else earlier), {**now, "until": stands}]
    if len(setup["data"]) > 1 and setup["epochs"] != len(result.records):
        setup["unknown"] = "an epoch that was put back, after other data was named,"


def _join(setup: dict[str, Any], earlier: dict[str, Any]) -> None:
    """A stage that was left and gone on with began where it did, and must have stayed the same."""
    setup["unknown"] = earlier["unknown"] or setup["unknown"]
    if "marks" not in earlier:
        return
    for kind, (before, _) in earlier["marks"].items():
        setup["marks"][kind][0] = before
    for key in ("blend", "whole", "head", "moments"):
        setup[key] = earlier[key]
    if any(earlier[key] != setup[key] for key in LASTING):
        setup["unknown"] = "what was changed while the stage was under way"


def _unknown(trainer: StageTrainer, step: str | None) -> str:
    """What a script could not tell of this stage, in words; empty where it can tell all."""
    if not step and trainer._step != trainer._usual_step:
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
    train = trainer.route.train
    return isinstance(train, ChannelsLast) or bool(getattr(train, "channels_last", False))


def _dtype(samples: object) -> str:
    part, features = getattr(samples, "part", None), getattr(samples, "features", None)
    if isinstance(part, FastPart):
        return str(part.dtype).removeprefix("torch.")
    return str(features.rows.dtype).removeprefix("torch.") if features is not None else "float32"
