"""Taking it along: the session as a script, the network as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import tlnb
from tlnb.answers import Lines
from tlnb.engine.advice.forgetting import Forgetting
from tlnb.engine.arguments import path_of
from tlnb.engine.data.data_print import data_print
from tlnb.engine.data.dataset import Data
from tlnb.engine.data.load import load_data
from tlnb.engine.data.samples import PictureSamples, Samples
from tlnb.engine.export import export, own_files
from tlnb.engine.export.card import card
from tlnb.engine.export.check import SAMPLES, check
from tlnb.engine.export.deployed import Deployed, about, raw_inputs
from tlnb.engine.export.script.job import Job
from tlnb.engine.export.script.loader import loader_code
from tlnb.engine.export.script.shown import Script
from tlnb.engine.export.script.writer import write
from tlnb.engine.features.samples import show_bytes
from tlnb.engine.models import catalogue as models
from tlnb.engine.models.loaded import RANDOM, LoadedModel
from tlnb.engine.network.duplicate import duplicate
from tlnb.engine.printable import printable
from tlnb.engine.saving.checkpoint_network import tensors_of
from tlnb.errors import ExportError, TlnbError
from tlnb.session.findings import Findings
from tlnb.session.recipe import Recipes, source_of


class Exporting(Recipes, Findings):
    """Write down what was done, and the network that came out."""

    def script(self, path: str | None = None, *, with_weights: bool = False, network: str = "") -> Script:
        """The session as one plain PyTorch script that runs without tlnb and gives the same figures.

        Args:
            path: where to write it, with the files that it reads beside it; None shows it.
            with_weights: put the starting weights beside it also where torchvision would download them.
            network: code that makes ``model``, for a module of yours that a script cannot build.

        Raises:
            NotReady: no model or no data.
            ExportError: nothing was trained, or something that a script cannot hold; says what.
        """
        target = None if path is None else _python_file(path)
        layers = self._need_ready()
        self._check_steps()
        job = Job(
            self._need_model(), layers, self._history.stages, self._data_told, self._start_weights,
            stem=target.stem if target else "train", network=network, blend=self._blend_at_the_end(),
            importance=self._importance_then,
        )  # fmt: skip
        script = Script(write(job, with_weights=with_weights), job.files)
        if target is not None:
            script.write(target)
        return script

    def _check_steps(self) -> None:
        """Refuse a step that came with a file: a script holds no code but the user's and tlnb's own."""
        mine = source_of(self._step)
        for result in self._history.stages:
            if result.setup.get("from_file") and result.setup.get("step") not in (None, mine):
                raise ExportError(
                    f"the step of stage {result.number} came with the saved session; run its cell again "
                    "(%%tl_step), so that the script holds code of your own"
                )

    def export(self, path: str) -> Lines:
        """The network as a file that others can use, checked by loading it anew where there is no tlnb.

        Args:
            path: ends in ``.safetensors`` (weights, with a loader in plain PyTorch), ``.pt2`` (torch.export)
                or ``.onnx``; a model card is written beside it.

        Raises:
            NotReady: no model or no data.
            ExportError: another ending, a network that cannot be written so, or a check that failed.
        """
        target = export.target(path)
        self._need_ready()
        assert self._samples is not None
        loaded, data, samples = self._need_model(), self._need_data(), self._samples[1]
        inputs = raw_inputs(samples, torch.linspace(0, len(samples) - 1, min(SAMPLES, len(samples))).long())
        preprocess = samples.preprocess if isinstance(samples, PictureSamples) else None
        # On copies: what is exported is on the CPU, and torch.export may leave traces in what it looked at.
        network = Deployed(
            duplicate(loaded.model), preprocess, data.task, inputs.is_floating_point()
        ).at_rest()
        with torch.no_grad():
            answers = network(inputs)
        facts = about(loaded, data, samples, tlnb.__version__)
        files = [target.name]
        beside = (".md", ".json", ".py") if target.suffix == ".safetensors" else (".md",)
        card_at = target.with_suffix(".md")
        own_files.check([target, *map(target.with_suffix, beside)], card_at, own_files.CARD)
        if target.suffix == ".safetensors":
            code = loader_code(loaded, data.classes, samples, data.task, target.name)
            files += [target.with_suffix(".json").name, target.with_suffix(".py").name]
        results = self.results(worst=0)
        with own_files.together(target, beside) as draft:
            export.write(draft, network, inputs, facts)
            if target.suffix == ".safetensors":
                draft.with_suffix(".py").write_text(code, encoding="utf-8")
            difference = check(draft, inputs, answers)
            verdict = self._verdict(difference, len(inputs))
            text = card(
                loaded, results, self._history.stages, files, verdict, self._forgotten(),
                takes=_takes(facts, loaded),
            )  # fmt: skip
            draft.with_suffix(".md").write_text(text, encoding="utf-8")
        size = show_bytes(target.stat().st_size)
        names = ", ".join([*files[1:], card_at.name])
        return Lines(f"{printable(str(target))}, {size}; beside it {names}", verdict)

    @staticmethod
    def _verdict(difference: float, count: int) -> str:
        apart = f"the largest difference is {difference:.0e}" if difference else "no difference"
        return f"loaded in a fresh process without tlnb: {apart} on {count} samples"

    def _forgotten(self) -> Forgetting | None:
        """What is left of the old task, where its data was named; None where nobody measured it."""
        named = self._old_data is not None or self._old_source is not None
        return self.forgetting() if named and self._old is not None else None

    def _blend_at_the_end(self) -> float | None:
        """How much of the new the body holds, where it was blended after the last stage.

        Raises:
            ExportError: something else has changed its weights.
        """
        last = self._history.stages[-1] if self._history.stages else None
        if last is None or last.stopped or "marks" not in last.setup:
            return None
        after, now = last.setup["marks"]["body"][1], self._marks_now()[0]
        share = self._blended_since(now)
        if share is None and now != after:
            raise ExportError(
                "the weights were changed after the last stage by something other than training, "
                "which a script cannot tell"
            )
        return share

    def _importance_then(self) -> dict[str, Tensor]:
        """What a guard by EWC weighs by, as the stage had it."""
        if self._importance is None:
            raise ExportError("what keep ewc weighed by is not known any more, since the session was resumed")
        return dict(self._importance.weights)

    def _data_told(self, told: dict[str, Any]) -> tuple[Data, tuple[Samples, Samples]]:
        """The data that a stage learned from: that of now or of a task, an object, or read again.

        Raises:
            ExportError: it is not there any more, or is other data now.
        """
        held = self._objects[1] if self._objects is not None and self._objects[0] is self._history else {}
        known = [(self._data, self._samples), *((task.data, task.samples) for task in self._tasks.values())]
        for data, samples in [*known, held.get(told["print"], (None, None))]:
            if data and samples and _is(data, told) and data_print(*samples) == told["print"]:
                return data, samples
        if told["asked"]["source"] is None:
            raise ExportError(
                f"the data {told['asked']['name']} was an object, and is not held any more; name it again"
            )
        try:
            data = load_data(**{name: value for name, value in told["asked"].items() if value is not None})
            samples = data.samples(self._preprocess_for(self._need_model(), data))
        except TlnbError as error:
            raise ExportError(f"the data of then is not there any more: {error}") from None
        if data_print(*samples) != told["print"]:
            raise ExportError(f"the data {data.name} has changed since the stages were trained; train anew")
        return data, samples

    def _start_weights(self) -> dict[str, Tensor]:
        """The weights before the first stage, as they are saved."""
        loaded = self._need_model()
        if self._start is not None and self._start[0] is self._history:
            return self._start[1]
        if self._history.stages[0].setup["whole"]:
            raise ExportError(
                "the weights from before the first stage are not known, since the session was resumed"
            )
        with torch.random.fork_rng():
            fresh = models.load_model(loaded.name, weights=self._weights_word())
        return {name: tensor.contiguous() for name, tensor in tensors_of(fresh.model).items()}

    def _weights_word(self) -> str | None:
        """What has to be said to get the weights of the start again."""
        loaded = self._need_model()
        if loaded.weights == RANDOM:
            return models.NO_WEIGHTS
        if loaded.name == models.CONVNET5 and not Path(loaded.weights).is_file():
            return None
        return loaded.weights.removesuffix(" (timm)")


def _is(data: Data, told: dict[str, Any]) -> bool:
    """Whether data was named in these words."""
    asked = told["asked"]
    if data.asked is not None or asked["source"] is not None:
        return data.asked == asked
    return bool(data.balance == asked["balance"])


def _takes(facts: dict[str, Any], loaded: LoadedModel) -> str:
    how = f": {loaded.describe_input()}" if facts["preprocess"] else ""
    return f"{facts['input']['what']}{how}"


def _python_file(path: str) -> Path:
    target = path_of(path, ExportError)
    if target.suffix not in ("", ".py"):
        raise ExportError(f"a script is written to a .py file, not {target.suffix}")
    return target if target.suffix else target.with_suffix(".py")
