"""Taking it along: the session as a script, the network as files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tlnb.display.tables import printable
from tlnb.engine.checkpoint.file import whole_files
from tlnb.engine.checkpoint.network import tensors_of
from tlnb.engine.core.arguments import file_to_write
from tlnb.engine.core.metrics import SCORES, VALUES
from tlnb.engine.core.tree import Batch, call
from tlnb.engine.data.dataset import Data
from tlnb.engine.data.fingerprint import data_fingerprint
from tlnb.engine.data.load import SOURCES, load_data
from tlnb.engine.data.samples import PictureSamples, Samples
from tlnb.engine.data.sealed import seen
from tlnb.engine.data.text_samples import TextSamples
from tlnb.engine.export import app, int8, own_files
from tlnb.engine.export import export as exports
from tlnb.engine.export.card import card
from tlnb.engine.export.check import SAMPLES, check
from tlnb.engine.export.deployed import TOKENIZER, Deployed, about, deployed, judgement, raw_inputs
from tlnb.engine.export.script import loader
from tlnb.engine.export.script.job import Job
from tlnb.engine.export.script.loader import loader_code
from tlnb.engine.export.script.shown import Script
from tlnb.engine.export.script.writer import write
from tlnb.engine.features.samples import show_bytes
from tlnb.engine.forgetting.measure import Forgetting
from tlnb.engine.models import catalogue as models
from tlnb.engine.models.loaded import RANDOM, LoadedModel
from tlnb.engine.network.adapters import merged_copy
from tlnb.engine.results.sure import Sure
from tlnb.engine.training.recipe import DataUsed
from tlnb.errors import DataError, ExportError, TlnbError
from tlnb.session.answers import Lines
from tlnb.session.heads import preprocess_for
from tlnb.session.recorder import blended_since, checksums, source_of
from tlnb.session.reports import results
from tlnb.session.state import SessionState, Split
from tlnb.session.testing import looks_at
from tlnb.session.tools import Tools
from tlnb.session.view import SessionView
from tlnb.version import __version__

# ---------------------------------------------------------------- the script


def script(
    view: SessionView, path: str | None, *, with_weights: bool, network: str,
    settle: Callable[[], None] = lambda: None,
) -> Script:  # fmt: skip
    """The session as one plain PyTorch script; see ``Session.script``. ``settle`` is called before it is written."""
    target = None if path is None else _python_file(path)
    state = view.state
    layers = view.need_ready()
    _check_steps(state)
    job = Job(
        view.need_model(), layers, state.all_stages, lambda told: _data_told(state, told),
        lambda: _start_weights(state), stem=target.stem if target else "train", network=network,
        blend=_blend_at_the_end(state), importance=lambda: _importance_then(state),
    )  # fmt: skip
    looks = seen(looks_at(view.need_data()))
    found = Script(
        "".join(f"# {line}\n" for line in looks) + write(job, with_weights=with_weights), job.files
    )
    if target is not None:
        settle()
        found.write(target)
    return found


def _check_steps(state: SessionState) -> None:
    """Refuse a step that came with a file: a script holds no code but the user's and tlnb's own."""
    mine = source_of(state.step)
    for result in state.all_stages:
        recipe = result.recipe
        if recipe is not None and recipe.from_file and recipe.step not in (None, mine):
            raise ExportError(
                f"the step of stage {result.number} came with the saved session; run its cell again "
                "(%%tl_step), so that the script holds code of your own"
            )


def _blend_at_the_end(state: SessionState) -> float | None:
    """How much of the new the body holds, where it was blended after the last stage.

    Raises:
        ExportError: something else has changed its weights.
    """
    last = state.all_stages[-1] if state.all_stages else None
    if last is None or last.stopped or last.recipe is None:
        return None
    after, now = last.recipe.checksums.body[1], checksums(state)[0]
    share = blended_since(state, now)
    if share is None and now != after:
        raise ExportError(
            "the weights were changed after the last stage by something other than training, "
            "which a script cannot tell"
        )
    return share


def _importance_then(state: SessionState) -> dict[str, Tensor]:
    """What a guard by EWC weighs by, as the stage had it."""
    if state.old.importance is None:
        raise ExportError("what keep ewc weighed by is not known any more, since the session was resumed")
    return dict(state.old.importance.weights)


def _data_told(state: SessionState, told: DataUsed) -> tuple[Data, Split]:
    """The data that a stage learned from: that of now or of a task, an object, or read again.

    Raises:
        ExportError: it is not there any more, or is other data now.
    """
    known = [(state.data, state.samples), *((task.data, task.samples) for task in state.tasks.values())]
    for data, samples in [*known, state.recorder.objects.get(told.fingerprint, (None, None))]:
        if data and samples and _is(data, told) and data_fingerprint(*samples) == told.fingerprint:
            return data, samples
    if told.asked["source"] is None:
        raise ExportError(f"the data {told.name} was an object, and is not held any more; name it again")
    if state.foreign and told.asked["source"] not in SOURCES:
        raise ExportError(
            f"the session was saved elsewhere, so the data {told.name} is not read unasked; name it "
            "again (%tl_data)"
        )
    try:
        data = load_data(**{name: value for name, value in told.asked.items() if value is not None})
        samples = data.samples(preprocess_for(state.need_model(), data))
    except TlnbError as error:
        raise ExportError(f"the data of then is not there any more: {error}") from None
    if data_fingerprint(*samples) != told.fingerprint:
        raise ExportError(f"the data {data.name} has changed since the stages were trained; train anew")
    return data, samples


def _start_weights(state: SessionState) -> dict[str, Tensor]:
    """The weights before the first stage, as they are saved."""
    loaded = state.need_model()
    if state.recorder.start is not None:
        return dict(state.recorder.start)
    first = state.all_stages[0].recipe
    if first is None or first.whole or (state.foreign and loaded.name != models.CONVNET5):
        raise ExportError(
            "the weights from before the first stage are not known, since the session was resumed"
        )
    with torch.random.fork_rng():
        fresh = models.load_model(loaded.name, weights=_weights_word(loaded), revision=_revision(loaded))
    return {name: tensor.contiguous() for name, tensor in tensors_of(fresh.model).items()}


def _revision(loaded: LoadedModel) -> str | None:
    """The commit of a network of the Hub."""
    known = loaded.recipe is not None and loaded.weights.startswith("commit ")
    return loaded.weights.removeprefix("commit ") if known else None


def _weights_word(loaded: LoadedModel) -> str | None:
    """What has to be said to get the weights of the start again."""
    if loaded.weights == RANDOM:
        return models.NO_WEIGHTS
    if loaded.recipe is not None:
        return None
    if loaded.name == models.CONVNET5 and not Path(loaded.weights).is_file():
        return None
    return loaded.weights.removesuffix(" (timm)")


# ---------------------------------------------------------------- the network as files


STEPS = (
    "preparing the network", "writing the file", "checking it in a fresh process", "writing the card",
)  # fmt: skip


def export(
    view: SessionView,
    tools: Tools,
    path: str,
    forgotten: Callable[[], Forgetting | None],
    learned: Callable[[], Sure],
    *,
    to: str | None = None,
    small: bool = False,
    page: bool = False,
) -> Lines:
    """The network as a file that others can use; see ``Session.export``.

    Everything is written and checked apart, and takes its place at the end: a file of before stands until then.

    Args:
        view: of the session.
        tools: of the session.
        path: of the file.
        forgotten: measures what is left of the old task, for the card.
        learned: gives what answers are judged by.
        to: name of the form; None for what the ending says.
        small: in int8.
        page: with a page of Gradio beside it.
    """
    target = exports.target(path, to)
    if small:
        int8.check_form(target)
    view.need_ready()
    step = tools.steps(STEPS)
    step()
    loaded, data, samples = view.need_model(), view.need_data(), view.need_samples()[1]
    inputs = raw_inputs(samples, int8.spread(len(samples), SAMPLES))
    tokenizer = samples.preprocess.tokenizer if isinstance(samples, TextSamples) else None
    # On copies: what is exported is on the CPU, and torch.export may leave traces in what it looked at.
    network = deployed(merged_copy(loaded.model), samples, data.task, inputs).at_rest()
    with torch.no_grad():
        answers = call(network, inputs)
    sure, missing = _sure(learned) if samples.wholes is None else (None, IN_PIECES)
    facts = about(loaded, data, samples, __version__) | {"sure": None if sure is None else sure.told()}
    plain = target.suffix == ".safetensors"
    beside = [target.with_suffix(".md"), *exports.beside(target)]
    judged = None
    if plain and sure is not None and sure.conformal is not None:
        beside.append(target.with_name(loader.beside(target.name)))
        judged = judgement(sure, network, inputs, data.task)
    texts = app.files(samples, network.task_kind, loaded.name, data.name, sure) if page else {}
    beside += [target.with_name(name) for name in texts]
    own_files.check([target, *beside], beside[0], own_files.CARD)
    if tokenizer is not None:
        _check_tokenizer(target.with_name(TOKENIZER), tokenizer)
        beside.append(target.with_name(TOKENIZER))
        texts[TOKENIZER] = tokenizer
    files = [target.name, *(file.name for file in beside[1:])]
    if plain:
        texts[target.with_suffix(".py").name] = loader_code(
            loaded, data.classes, samples, data.task, target.name, sure
        )
    try:
        with whole_files(target.parent, first=beside[0].name) as place:
            written = place / target.name
            step()
            for name, text in texts.items():
                (place / name).write_text(text, encoding="utf-8")
            if judged is not None and sure is not None:
                held = {name: tensor.contiguous() for name, tensor in sure.tensors().items()}
                save_file(held, place / loader.beside(target.name))
            if small:
                verdict = _quantised(written, network, samples, data, inputs, answers, facts, step)
            else:
                exports.write(written, network, inputs, facts)
                step()
                verdict = _told(check(written, inputs, answers, judged), len(inputs))
            step()
            text = card(
                loaded, results(view, worst=0), view.state.all_stages, files, verdict, forgotten(),
                takes=_takes(facts, samples), looks=looks_at(data),
            )  # fmt: skip
            written.with_suffix(".md").write_text(text, encoding="utf-8")
            size = show_bytes(written.stat().st_size)
            tools.interrupts.settle()
    except OSError as error:
        raise ExportError(f"cannot write {printable(target.name)}: {error.strerror or error}") from None
    names = ", ".join([*files[1:], beside[0].name])
    start = f"cd {printable(str(target.parent))} && pip install -r {app.NEEDS} && python {app.PAGE}"
    return Lines(
        f"{printable(str(target))}, {size}; beside it {names}",
        verdict,
        missing,
        f"the page: {start}" if page else "",
    )


def _told(difference: float, count: int) -> str:
    apart = f"the largest difference is {difference:.0e}" if difference else "no difference"
    return f"loaded in a fresh process without tlnb: {apart} on {count} samples"


def _quantised(
    written: Path, network: Deployed, samples: Samples, data: Data, inputs: Batch, answers: Tensor,
    facts: dict[str, Any], step: Callable[[], None],
) -> str:  # fmt: skip
    """Write the network in int8, and hold it to the same form in float32, which is checked first.

    Raises:
        ExportError: it cannot be quantised, or loses more than a point.
    """
    if written.suffix == ".tflite" and network.task_kind == VALUES:
        raise ExportError("eight bits of LiteRT are too few for measured values; --to onnx --int8 takes them")
    with tempfile.TemporaryDirectory() as apart:
        graph = Path(apart) / f"network{int8.source_of(written)}"
        exports.write(graph, network, inputs, facts)
        before = graph.with_suffix(written.suffix)
        if before != graph:
            exports.write(before, network, inputs, facts)
        with exports.silent():
            int8.quantise(graph, written, inputs[: int8.CALIBRATION], facts | {"int8": int8.CALIBRATION})
        step()
        check(before, inputs, answers)
        measured = int8.spread(len(samples), int8.MEASURED)
        targets = samples.targets[measured]
        found = int8.compare(
            before, written, raw_inputs(samples, measured),
            data.task.answers(targets) if network.task_kind == VALUES else targets,
            next(iter(SCORES[network.task_kind].values())), min(int8.CALIBRATION, len(inputs)),
        )  # fmt: skip
    return str(found)


IN_PIECES = "without what sure answers need: those are of whole clips, and the file answers for pieces"


def _sure(learned: Callable[[], Sure]) -> tuple[Sure | None, str]:
    """What answers are judged by; None, and why, where the network's scores do not serve."""
    try:
        return learned(), ""
    except DataError as trouble:
        return None, f"without what sure answers need: {trouble}"


def _check_tokenizer(path: Path, content: str) -> None:
    """See that no other tokenizer would be written over.

    Raises:
        ExportError: one is there.
    """
    try:
        same = not path.exists() or path.read_text(encoding="utf-8") == content
    except (OSError, UnicodeDecodeError):
        same = False
    if not same:
        raise ExportError(f"{printable(str(path))} is there and is of another network; take another folder")


def _is(data: Data, told: DataUsed) -> bool:
    """Whether data was named in these words."""
    asked = told.asked
    if data.asked is not None or asked["source"] is not None:
        return data.asked == asked
    return bool(data.balance == asked.get("balance"))


def _takes(facts: dict[str, Any], samples: Samples) -> str:
    how = f": {samples.preprocess.describe()}" if isinstance(samples, PictureSamples) else ""
    return f"{facts['input']['what']}{how}"


def _python_file(path: str) -> Path:
    target = file_to_write(path, "%tl_script train.py", ExportError)
    if target.suffix not in ("", ".py"):
        raise ExportError(f"a script is written to a .py file, not {target.suffix}")
    return target if target.suffix else target.with_suffix(".py")
