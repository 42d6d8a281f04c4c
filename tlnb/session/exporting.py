"""Taking it along: the session as a script, the network as files."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import tlnb
from tlnb.answers import Lines
from tlnb.engine.data.samples import PictureSamples
from tlnb.engine.export import export
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
from tlnb.engine.printable import printable
from tlnb.engine.saving.checkpoint_network import tensors_of
from tlnb.errors import ExportError
from tlnb.session.findings import Findings
from tlnb.session.recipe import Recipes


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
        assert self._samples is not None
        job = Job(
            self._need_model(), layers, self._need_data(), self._samples, self._history.stages,
            self._start_weights, fingerprint=self._data_print(),
            stem=target.stem if target else "train", network=network,
        )  # fmt: skip
        script = Script(write(job, with_weights=with_weights), job.files)
        if target is not None:
            script.write(target)
        return script

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
            copy.deepcopy(loaded.model).cpu(), preprocess, data.task, inputs.is_floating_point()
        )
        network.eval().requires_grad_(False)
        with torch.no_grad():
            answers = network(inputs)
        facts = about(loaded, data, samples, tlnb.__version__)
        files = [target.name]
        if target.suffix == ".safetensors":
            code = loader_code(loaded, data.classes, samples, data.task, target.name)
            files += [target.with_suffix(".json").name, target.with_suffix(".py").name]
        export.write(target, network, inputs, facts)
        if target.suffix == ".safetensors":
            target.with_suffix(".py").write_text(code, encoding="utf-8")
        difference = check(target, inputs, answers)
        apart = f"the largest difference is {difference:.0e}" if difference else "no difference"
        verdict = f"loaded in a fresh process without tlnb: {apart} on {len(inputs)} samples"
        results = self.results(worst=0)
        text = card(loaded, results, self._history.stages, files, verdict, takes=_takes(facts, loaded))
        target.with_suffix(".md").write_text(text, encoding="utf-8")
        size = show_bytes(target.stat().st_size)
        names = ", ".join([*files[1:], target.with_suffix(".md").name])
        return Lines(f"{printable(str(target))}, {size}; beside it {names}", verdict)

    def _start_weights(self) -> dict[str, Tensor]:
        """The weights before the first stage, as they are saved."""
        loaded = self._need_model()
        if self._start is not None and self._start[0] is self._history:
            return self._start[1]
        if self._needs_start():
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


def _takes(facts: dict[str, Any], loaded: LoadedModel) -> str:
    how = f": {loaded.describe_input()}" if facts["preprocess"] else ""
    return f"{facts['input']['what']}{how}"


def _python_file(path: str) -> Path:
    target = Path(path).expanduser()
    if target.suffix not in ("", ".py"):
        raise ExportError(f"a script is written to a .py file, not {target.suffix}")
    return target if target.suffix else target.with_suffix(".py")
