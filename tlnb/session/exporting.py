"""Taking it along: the session as a script, the network as files."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tlnb.engine import models
from tlnb.engine.checkpoint_network import tensors_of
from tlnb.engine.loaded import RANDOM
from tlnb.engine.script.job import Job
from tlnb.engine.script.shown import Script
from tlnb.engine.script.writer import write
from tlnb.errors import ExportError
from tlnb.session.recipe import Recipes


class Exporting(Recipes):
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
            self._start_weights, stem=target.stem if target else "train", network=network,
        )  # fmt: skip
        script = Script(write(job, with_weights=with_weights), job.files)
        if target is not None:
            script.write(target)
        return script

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


def _python_file(path: str) -> Path:
    target = Path(path).expanduser()
    if target.suffix not in ("", ".py"):
        raise ExportError(f"a script is written to a .py file, not {target.suffix}")
    return target if target.suffix else target.with_suffix(".py")
